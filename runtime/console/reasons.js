// Describes why sessions end.

const REASONS = {
  closed: ["closed by the client", "The client closed the connection itself: the page was left, or the app ended it."],
  lost: [
    "the connection broke",
    "The connection broke without a close frame: the network failed, the device slept, or the app was killed. The gateway did not end it.",
  ],
  timed_out: [
    "no answer to pings",
    "The client did not answer a ping in time, so the gateway closed its connection. Most often the network failed, or the device slept.",
  ],
  kicked: [
    "ended by the gateway",
    "The gateway ended it, and its database lost the cause: an operator, an expired token, a client that read too slowly, or one that broke the protocol.",
  ],
  drained: ["its node was shut down", "Its node was shut down or replaced, and the client did not come back to another one in time."],
  node_lost: [
    "its node died",
    "Its node died or was cut off from the database for longer than its lease. Another node wrote this end, so the agent may have gone earlier.",
  ],
};

// Describes why the gateway ended a session, by the error that its client was told.
const CAUSES = {
  kicked: [
    "ended by an operator",
    "An operator disconnected the agent. Its token still counts: it may enter again. The call did not come through this node, or not recently: the line rollcall::audit in the log of a node says who asked for it, and from where.",
  ],
  token_expired: ["its token expired", "Its token ended while it was connected, and the client had not sent a fresh one (refresh). With a new token it may enter again."],
  slow_consumer: ["it read too slowly", "The client did not read what it was sent, and the queue of its connection was full. Most often its network was slow or the device slept."],
  too_many_requests: ["it sent too much", "The client stayed over the limit of requests for too long. It may come again after a moment."],
  internal_server_error: ["events were lost", "The gateway could not go on with this connection, because the database had lost its row or the stream its events. Clients come again by themselves."],
  violation: ["it broke the protocol", "What the client sent is no WebSocket, JSON or Socket.IO that the gateway takes: the close code that it got says what."],
};

/** Describes why one of the session's connections was closed, although the session went on. */
export const TAKEN_OVER =
  "A new connection of the same agent took the session over, and the one before was closed: the page was reloaded, the network or the node changed, or the page is open twice. A second tab or device needs a label of its own.";

export function shortReason(reason, cause) {
  return CAUSES[cause]?.[0] ?? REASONS[reason]?.[0] ?? reason ?? "no reason is known";
}

export function longReason(reason, cause) {
  if (cause && !CAUSES[cause]) return `The gateway ended it, and told its client: ${cause}.`;
  return CAUSES[cause]?.[1] ?? REASONS[reason]?.[1] ?? `A newer version of Rollcall wrote the reason ${reason}.`;
}
