// Why sessions end, in words.

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
    "The gateway ended it: an operator disconnected the agent, its token expired, it read too slowly, or it broke the protocol. The line rollcall::audit in the log of a node names an operator's call.",
  ],
  drained: ["its node was shut down", "Its node was shut down or replaced, and the client did not come back to another one in time."],
  node_lost: [
    "its node died",
    "Its node died or was cut off from the database for longer than its lease. Another node wrote this end, so the agent may have gone earlier.",
  ],
};

export function shortReason(reason) {
  return REASONS[reason]?.[0] ?? reason ?? "no reason is known";
}

export function longReason(reason) {
  return REASONS[reason]?.[1] ?? `A newer version of Rollcall wrote the reason ${reason}.`;
}
