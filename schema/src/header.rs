//! The names of the headers on NATS (PROTOCOL 3).

/// Deduplicates within the stream's window.
pub const NATS_MSG_ID: &str = "Nats-Msg-Id";
/// This agent does not get the event.
pub const SENDER_AGENT_ID: &str = "Sender-Agent-Id";
/// Only this agent gets the event.
pub const RECEIVER_AGENT_ID: &str = "Receiver-Agent-Id";
/// `true`: not forwarded; `false`: forwarded, as without it.
pub const IS_INTERNAL: &str = "Is-Internal";
/// `id.entity_type` of a body without `id`.
pub const ENTITY_EVENT_TYPE: &str = "Entity-Event-Type";
/// `id.operation` of a body without `id`.
pub const ENTITY_EVENT_OPERATION: &str = "Entity-Event-Operation";
/// `id.sequence_id` of a body without `id`.
pub const ENTITY_EVENT_SEQUENCE_ID: &str = "Entity-Event-Sequence-Id";
/// Why an agent left; on agent.left only.
pub const LEFT_REASON: &str = "Left-Reason";
/// Where the event belongs in a trace of several services, as W3C's Trace Context writes it, also on HTTP.
pub const TRACEPARENT: &str = "traceparent";
