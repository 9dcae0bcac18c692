// Shows one classroom: its agents, its lessons' seats, its events, and its attendance.

import * as attendance from "./attendance.js";
import { copy, h } from "./dom.js";
import * as publish from "./publish.js";
import * as roster from "./roster.js";
import * as seats from "./seats.js";
import * as tail from "./tail.js";

export const title = "Classroom";

export function show(main, { me, id }) {
  const seating = seats.part();
  const people = roster.part(id, me, (agents) => {
    seating.show(agents);
    form?.offer(agents);
  });
  const form = me.changes ? publish.part(id) : null;
  const visits = attendance.part(id);
  const events = tail.part(id, () => {
    people.changed();
    visits.changed();
  });
  main.append(
    h(
      "p",
      { class: "line-up" },
      h("code", {}, id),
      h("button", { type: "button", onclick: () => copy(id) }, "Copy the id"),
      h("a", { href: "#/classrooms" }, "All classrooms"),
    ),
    people.view,
    h(
      "div",
      { class: "columns" },
      h("div", {}, seating.view, form?.view),
      events.view,
    ),
    visits.view,
  );
  return () => [people, seating, events, visits].forEach((part) => part.stop());
}
