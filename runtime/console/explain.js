// Shows when an agent entered and left, and why, from the history and the stream.

import { Refused, get } from "./api.js";
import { field, h, replace, say } from "./dom.js";
import { agent as name, clock, span, things } from "./format.js";
import { TAKEN_OVER, longReason, shortReason } from "./reasons.js";

export const title = "Explain";

// How many past sessions are shown, and how many pages of a thousand events are read of each classroom, at most.
const SESSIONS = 50;
const PAGES = 10;

export function show(main, { query }) {
  const input = h("input", { type: "search", spellcheck: "false", autocomplete: "off", required: true, value: query.get("agent") ?? "" });
  const note = h("p", { class: "note", role: "status" });
  const story = h("div", { class: "story" });
  let stop = new AbortController();
  const explain = async () => {
    stop.abort();
    stop = new AbortController();
    const name = input.value.trim();
    if (!name) return;
    say(note, "Reading history and stream…");
    try {
      const sessions = await sessionsOf(name, stop.signal);
      const { events, missing } = await eventsOf(sessions, stop.signal);
      const acts = await get("/api/console/acts", stop.signal);
      replace(story, sessions.map((session) => chapter(session, events.get(session.session_id) ?? [], acts)));
      const found = sessions.length > 0 ? sessions.length === 1 ? "1 session." : `${things(sessions.length, "session")}, the newest first.` : `Nothing is known of ${name}: it never was here under this name, or its history was removed.`;
      say(note, missing ? `${found} ${missing}` : found);
    } catch (error) {
      if (error.name !== "AbortError") say(note, error.message);
    }
  };
  const submit = (event) => {
    event.preventDefault();
    history.replaceState(null, "", `#/explain?agent=${encodeURIComponent(input.value.trim())}`);
    explain();
  };
  main.append(
    h("p", {}, "When was an agent here, and why did it leave? Agents are listed in each ", h("a", { href: "#/classrooms" }, "classroom"), ", those that left under Attendance."),
    h(
      "form",
      { class: "line-up", onsubmit: submit },
      field("Agent or user", input, "web.alice.example.org, or the token's sub: alice"),
      h("button", { type: "submit", class: "main" }, "Explain"),
    ),
    note,
    story,
  );
  explain();
  return () => stop.abort();
}

/** Returns the agent's live and ended sessions, the newest first. */
async function sessionsOf(name, signal) {
  const of = async (key) => {
    const query = new URLSearchParams({ [key]: name, limit: SESSIONS });
    const [live, past] = await Promise.all([
      get(`/api/v1/sessions?${query}`, signal),
      get(`/api/v1/history?${query}`, signal),
    ]);
    return [...live.sessions.map((session) => ({ ...session, entered_at: session.started_at, live: true })), ...past.sessions];
  };
  let found = await of("user_id").catch((error) => (error instanceof Refused && error.status === 400 ? [] : Promise.reject(error)));
  if (found.length === 0 && name.split(".").length > 2) found = await of("agent_id");
  const seen = new Set();
  const once = found.filter((session) => !seen.has(session.session_id) && seen.add(session.session_id));
  return once.sort((one, other) => other.session_id - one.session_id);
}

/** Returns the events of these sessions that the stream still has, by session, and which events it no longer has. */
async function eventsOf(sessions, signal) {
  const wanted = new Set(sessions.map((session) => session.session_id));
  const found = new Map();
  let missing = "";
  for (const room of new Set(sessions.slice(0, SESSIONS).map((session) => session.classroom_id))) {
    let after = null;
    for (let page = 0; page < PAGES; page += 1) {
      const query = new URLSearchParams({ limit: 1000 });
      if (after) {
        query.set("after", after.through);
        query.set("epoch", after.epoch);
      }
      try {
        after = await get(`/api/v1/classrooms/${room}/events?${query}`, signal);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        missing = "The stream did not answer, so states and offsets are missing.";
        break;
      }
      for (const event of after.events) {
        const { entity_type: entity, sequence_id: session } = event.event.id ?? {};
        if (entity === "agent" && wanted.has(session)) found.set(session, [...(found.get(session) ?? []), event]);
      }
      if (!after.more) break;
    }
  }
  return { events: found, missing };
}

function step(time, text, event) {
  const offset = event ? h("small", {}, ` event ${event.offset}`) : null;
  return h("li", {}, time ? h("time", {}, clock(time)) : h("span", { class: "time" }), h("span", {}, text, offset));
}

/** Returns the operator's call that ended a session, if the call came through this node recently. */
function endedBy(session, acts) {
  const { session_id: id, agent_id: agent, left_at: left, cause } = session;
  if (cause !== "kicked") return undefined;
  const whom = [`session ${id}`, `agent ${agent}`, `user ${name(agent).name}`];
  return acts.findLast(
    (act) => whom.some((who) => act.whom === who || act.whom.startsWith(`${who} in `)) && Math.abs(Date.parse(act.at) - Date.parse(left)) < 5000,
  );
}

function chapter(session, events, acts) {
  const told = (operation) => events.find((event) => event.event.id.operation === operation);
  const { lesson_id: lesson, seat, role, reason, cause, taken_over_at: takenOver } = session;
  const seated = seat ? `, on seat ${seat}` : "";
  const act = endedBy(session, acts);
  const steps = [
    step(session.entered_at, ["entered", role ? ` as a ${role}` : ""], told("entered")),
    takenOver ? step(takenOver, ["connected again: the connection before, if it was still open, was told ", h("code", {}, "replaced")]) : null,
    session.live && lesson ? step(session.joined_at, ["is in lesson ", h("bdi", {}, lesson), seated]) : null,
    !session.live && lesson ? step(null, ["was in lesson ", h("bdi", {}, lesson), " when it ended"]) : null,
    ...events
      .filter((event) => event.event.id.operation === "updated")
      .slice(-5)
      .map((event) => step(event.time, ["set its state to ", h("bdi", { class: "json" }, JSON.stringify(event.event.payload.state ?? null))], event)),
  ];
  if (session.live) {
    steps.push(step(null, [h("strong", {}, "is here"), ` on node ${session.node_id}, for ${span((Date.now() - Date.parse(session.entered_at)) / 1000)}`]));
  } else {
    const after = span((Date.parse(session.left_at) - Date.parse(session.entered_at)) / 1000);
    if (act) steps.push(step(act.at, ["an operator asked for it: ", h("code", {}, act.what), `, with ${act.by === "no token" ? "no" : "the"} ${act.by.replace("no ", "")}, from ${act.from}`]));
    steps.push(step(session.left_at, ["left after ", after, ": ", h("strong", {}, `${shortReason(reason, cause)} (${reason})`)], told("left")));
  }
  const room = session.classroom_id;
  return h(
    "article",
    { class: session.live ? "live" : null },
    h("h2", {}, h("bdi", {}, session.agent_id), ` · session ${session.session_id}`),
    h("p", { class: "note" }, "in ", h("a", { href: `#/classrooms/${room}` }, room)),
    h("ol", {}, steps),
    takenOver ? h("p", { class: "why" }, TAKEN_OVER) : null,
    session.live ? null : h("p", { class: "why" }, act ? "An operator disconnected the agent, through this node. Its token still counts: it may enter again." : longReason(reason, cause)),
  );
}
