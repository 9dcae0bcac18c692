//! The names of the headers on NATS (PROTOCOL 3).

/// The id by which the stream finds duplicates within its window.
pub const NATS_MSG_ID: &str = "Nats-Msg-Id";
/// The agent that does not get the event, because it caused it.
pub const SENDER_AGENT_ID: &str = "Sender-Agent-Id";
/// The only agent that gets the event.
pub const RECEIVER_AGENT_ID: &str = "Receiver-Agent-Id";
/// `true`: clients do not get the event. `false` means the same as no header.
pub const IS_INTERNAL: &str = "Is-Internal";
/// The `id.entity_type` for a body without `id`.
pub const ENTITY_EVENT_TYPE: &str = "Entity-Event-Type";
/// The `id.operation` for a body without `id`.
pub const ENTITY_EVENT_OPERATION: &str = "Entity-Event-Operation";
/// The `id.sequence_id` for a body without `id`.
pub const ENTITY_EVENT_SEQUENCE_ID: &str = "Entity-Event-Sequence-Id";
/// Why an agent left. Only agent.left has this header.
pub const LEFT_REASON: &str = "Left-Reason";
/// The trace of the event, written as in W3C's Trace Context. HTTP uses the same name.
pub const TRACEPARENT: &str = "traceparent";
