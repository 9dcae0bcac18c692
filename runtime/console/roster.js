// Shows the agents in a classroom. They are read again when an event says that an agent entered, left or changed.

import { get, post, repeat } from "./api.js";
import { confirm, h, keyed, say, table, toast } from "./dom.js";
import { agent, clock, span, things } from "./format.js";

const EVERY = 10_000;
// The time between two readings, however many events come, in milliseconds.
const PAUSE = 1000;
// The maximum number of agents that are shown. The counts are of all agents.
const MOST = 1000;

const COLUMNS = ["Agent", "Role", "Lesson", { text: "Seat", number: true }, "Info", "State", "Since", { text: "Node", number: true }];

// The classes of the cells after the first.
const CLASSES = [null, null, "number", "json", "json", null, "number", "acts"];

export function part(classroom, me, told) {
  const heading = h("h2", { id: "roster", tabindex: "-1" }, "Who is here");
  const note = h("p", { class: "note", role: "status" });
  const columns = [...COLUMNS, { text: "What to do", hidden: true }];
  const { view: list, body } = table("Agents in this classroom", columns);
  const look = async (signal) => {
    const query = new URLSearchParams({ classroom_id: classroom, limit: MOST });
    const { sessions, next } = await get(`/api/v1/sessions?${query}`, signal);
    keyed(body, sessions, (session) => session.session_id, (session) => row(session, me, now), fill);
    say(note, sessions.length === 0 ? "Nobody is here now. Attendance, below, says who was." : `${things(sessions.length, "agent")}${next === null ? "" : ", and more"}`);
    list.hidden = sessions.length === 0;
    told(sessions);
  };
  const { stop, now } = repeat(EVERY, look, (error) => say(note, error.message));
  let waiting = null;
  const changed = () => {
    waiting ??= setTimeout(() => {
      waiting = null;
      now();
    }, PAUSE);
  };
  return {
    view: h("section", { "aria-labelledby": "roster" }, heading, note, list),
    changed,
    stop: () => (clearTimeout(waiting), stop()),
  };
}

function row(session, me, now) {
  const { label, name } = agent(session.agent_id);
  const cells = Array.from({ length: 8 }, (_, place) => h("td", { class: CLASSES[place] }));
  const end = () => disconnect(session, cells[7].closest("section"), now);
  cells[7].append(
    h("a", { href: `#/explain?agent=${encodeURIComponent(session.agent_id)}`, "aria-label": `Explain ${name}` }, "Explain"),
    me.changes ? h("button", { type: "button", class: "small", "aria-label": `Disconnect ${name}`, onclick: end }, "Disconnect…") : "",
  );
  const who = h("th", { scope: "row" }, h("bdi", { class: "name" }, name), " ", h("small", {}, h("bdi", {}, label)));
  who.title = session.agent_id;
  return h("tr", {}, who, cells);
}

function fill(row, session) {
  const json = (value) => (value ? JSON.stringify(value) : "");
  const { role, lesson_id: lesson, seat, info, state, started_at: since, node_id: node } = session;
  [role, lesson ?? "", seat ?? "", json(info), json(state)].forEach((text, place) => say(row.cells[place + 1], String(text)));
  say(row.cells[6], `${clock(since)} · ${span((Date.now() - Date.parse(since)) / 1000)}`);
  say(row.cells[7], String(node));
}

async function disconnect(session, section, now) {
  const text = `The session of ${session.agent_id} ends, and its client is told that it was kicked. Its token is not revoked: it may enter again.`;
  if (!(await confirm("Disconnect this agent?", text, "Disconnect"))) return;
  try {
    const { ended } = await post("/api/v1/disconnect", { session_id: session.session_id });
    toast(ended.length > 0 ? `${session.agent_id} is disconnected.` : `${session.agent_id} had left already.`);
  } catch (error) {
    toast(`Not disconnected: ${error.message}`);
  }
  now();
  // The focus moves to the heading, because the pressed button was removed with its row.
  section?.querySelector("h2")?.focus();
}
