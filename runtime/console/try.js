// The demo without a terminal: a teacher and a participant side by side, and their frames to and from the gateway. Both
// stay connected while other pages are shown, so that they can be seen in their classroom.

import { post } from "./api.js";
import { Client } from "./client.js";
import { field, h, say } from "./dom.js";
import { clock } from "./format.js";

export const title = "Try it";

// The maximum number of frames that are kept.
const MOST = 200;

// The demo's parts, once its tokens have come.
let kept = null;

export function show(main, { me }) {
  if (!me.demo) {
    main.append(h("p", {}, "There is no demo here, because this gateway has a key of its own. Start one without a key to try it."));
    return;
  }
  const note = h("p", { class: "note", role: "status" });
  main.append(h("p", {}, "Connect both. Each is told what the other does; the frames are those of any client."), note);
  load(note).catch((error) => say(note, error.message));
}

/** Puts the parts in the place of `note`, unless another page is shown by now. */
async function load(note) {
  kept ??= parts(await post("/api/console/demo"));
  if (!note.isConnected) return;
  note.replaceWith(...kept);
  document.querySelectorAll(".frames").forEach(toEnd);
}

function toEnd(frames) {
  frames.scrollTop = frames.scrollHeight;
}

function parts(demo) {
  const of = (role) => pane(demo, role, demo.users.filter((user) => user.role === role));
  const room = h("a", { href: `#/classrooms/${demo.classroom_id}` }, "the demo's classroom");
  return [
    h("p", { class: "note" }, "Both enter ", room, ", and stay connected while you look at it."),
    h("div", { class: "columns" }, of("teacher"), of("participant")),
    publisher(demo),
  ];
}

function pane(demo, role, users) {
  const log = h("ol", {});
  const frames = h("div", { class: "frames", tabindex: "0", role: "region", "aria-label": `Frames of the ${role}` }, log);
  const state = h("p", { class: "note", role: "status" }, "Not connected.");
  const who = h("select", {}, users.map((user) => h("option", {}, user.name)));
  const went = (direction, text) => {
    log.append(h("li", { class: direction }, h("time", {}, clock(Date.now())), h("span", { class: "way" }, direction), h("bdi", { class: "json" }, text)));
    while (log.children.length > MOST) log.firstChild.remove();
    toEnd(frames);
  };
  let client = null;
  const connect = h("button", { type: "button", class: "main" }, `Connect the ${role}`);
  const act = (name, run) => h("button", { type: "button", disabled: true, onclick: run }, name);
  const acts = [
    act("Raise a hand", () => client.send("set_state", { state: { hand: "raised" } })),
    act("Lower it", () => client.send("set_state", { state: null })),
    act("Who is here?", () => client.send("roster", {})),
    act("Leave the lesson", () => client.send("leave_lesson", {})),
  ];
  const changed = (message) => {
    const open = client?.isOpen ?? false;
    connect.classList.toggle("main", !open);
    connect.textContent = open ? `Disconnect the ${role}` : `Connect the ${role}`;
    acts.forEach((button) => (button.disabled = !client?.isIn));
    who.disabled = open;
    if (message?.type === "connect_success") say(state, `Entered as ${message.payload.agent_id}.`);
    else if (message?.lesson) say(state, `In lesson ${message.lesson.lesson_id}${message.lesson.seat ? `, on seat ${message.lesson.seat} of ${message.lesson.seats}` : ""}.`);
    else if (message?.type?.endsWith("session_error")) say(state, `Ended: ${message.payload.title}.`);
    else if (!open && !state.textContent.startsWith("Ended")) say(state, "Not connected.");
  };
  connect.addEventListener("click", () => {
    if (client?.isOpen) return client.close();
    client = new Client(demo, users.find((user) => user.name === who.value), went);
    say(state, "Connecting…");
    client.connect(changed);
    return changed(null);
  });
  return h(
    "section",
    { "aria-label": role },
    h("h2", {}, role === "teacher" ? "Teacher" : "Participant"),
    h("div", { class: "line-up" }, field("As", who), connect),
    state,
    h("div", { class: "buttons" }, acts),
    frames,
  );
}

/** Publishes an event as another service would. */
function publisher(demo) {
  const text = h("input", { value: "hello", maxlength: "200" });
  const outcome = h("p", { class: "note", role: "status" });
  const publish = async (event) => {
    event.preventDefault();
    try {
      const { offset } = await post("/api/v1/publish", { subject: `lesson.${demo.lesson_id}.note`, body: { text: text.value } });
      say(outcome, `Stored at offset ${offset}: both get it, if they are in the lesson.`);
    } catch (error) {
      say(outcome, error.message);
    }
  };
  return h(
    "section",
    { "aria-labelledby": "service" },
    h("h2", { id: "service" }, "Be another service"),
    h("form", { class: "line-up", onsubmit: publish }, field("A note to the lesson", text), h("button", { type: "submit" }, "Publish")),
    outcome,
  );
}
