// Shows the seats of the lessons that agents of the classroom have joined, from the seat map in Redis.

import { get, repeat } from "./api.js";
import { h, keyed, say } from "./dom.js";
import { agent } from "./format.js";

const EVERY = 10_000;

export function part() {
  const note = h("p", { class: "note", role: "status" });
  const plans = h("div", {});
  let agents = [];
  const maps = new Map();
  const look = async (signal) => {
    for (const lesson of lessons(agents)) {
      maps.set(lesson, await get(`/api/v1/lessons/${encodeURIComponent(lesson)}/seats`, signal));
    }
    draw();
  };
  const draw = () => {
    const shown = lessons(agents);
    say(note, shown.length > 0 ? "" : "Nobody is in a lesson.");
    keyed(plans, shown, (lesson) => lesson, plan, (view, lesson) => fill(view, maps.get(lesson), agents.filter((one) => one.lesson_id === lesson)));
  };
  const { stop, now } = repeat(EVERY, look, (error) => say(note, error.message));
  return {
    view: h("section", { "aria-labelledby": "seats" }, h("h2", { id: "seats" }, "Seats"), note, plans),
    show: (sessions) => {
      const known = lessons(agents);
      agents = sessions;
      if (lessons(sessions).some((lesson) => !known.includes(lesson))) now();
      draw();
    },
    stop,
  };
}

function lessons(agents) {
  return [...new Set(agents.map((one) => one.lesson_id).filter(Boolean))].sort();
}

function plan(lesson) {
  return h("div", {}, h("h3", {}, "Lesson ", h("bdi", {}, lesson)), h("ol", { class: "seats" }), h("p", { class: "note" }));
}

/**
 * Shows a lesson's seats. Other services write the seat map's values. The agent on a seat is the agent whose session has
 * the seat.
 */
function fill(view, map, agents) {
  const seats = Object.entries(map?.seats ?? {});
  const [, list, note] = view.children;
  const standing = agents.filter((one) => one.seat === null);
  keyed(list, seats, ([number]) => number, seat, (item, [number, value]) => {
    const sitting = agents.filter((one) => String(one.seat) === number).map((one) => agent(one.agent_id).name);
    item.className = sitting.length > 0 ? "taken" : value ? "kept" : "free";
    say(item.lastChild, sitting.length > 0 ? sitting.join(", ") : value ? `kept: ${value}` : "free");
  });
  const names = standing.map((one) => agent(one.agent_id).name).join(", ");
  say(note, standing.length > 0 ? `Without a seat: ${names}` : "");
}

function seat([number]) {
  return h("li", {}, h("span", { class: "seat" }, h("span", { class: "unseen" }, "Seat "), number), h("bdi", {}));
}
