// Lists the classrooms that have agents. They can be found by the beginning of their id.

import { get, repeat } from "./api.js";
import { field, h, keyed, say, table } from "./dom.js";
import { count, things } from "./format.js";

export const title = "Classrooms";

const PAGE = 100;
const EVERY = 5000;

export function show(main, { me }) {
  const input = h("input", { type: "search", spellcheck: "false", autocomplete: "off", maxlength: "36", placeholder: "6f1c9d3e…" });
  const found = h("p", { class: "note", role: "status" });
  const nobody = h("p", { class: "hint", hidden: true }, "A classroom is here while somebody is in it. ", me.demo
    ? [h("a", { href: "#/try" }, "Try it"), " to enter the demo's."]
    : "To see who was in one, enter its whole id.");
  const { view, body } = table("Classrooms that somebody is in", ["Classroom", { text: "Agents", number: true }]);
  const first = h("button", { type: "button", onclick: () => turn([]) }, "First page");
  const next = h("button", { type: "button", onclick: () => turn([...before, following]) }, "Next page");
  const turns = h("div", { class: "buttons", hidden: true }, first, next);
  main.append(
    h("form", { class: "line-up", onsubmit: submit }, field("Id, or its beginning", input)),
    found,
    nobody,
    view,
    turns,
  );

  // The `after` of each page up to the current page.
  let before = [];
  let following = null;
  const look = async (signal) => {
    const query = new URLSearchParams({ limit: PAGE });
    const prefix = input.value.trim();
    if (prefix) query.set("prefix", prefix);
    if (before.length > 0) query.set("after", before.at(-1));
    const page = await get(`/api/v1/classrooms?${query}`, signal);
    following = page.next;
    first.disabled = before.length === 0;
    next.disabled = following === null;
    keyed(body, page.classrooms, (room) => room.classroom_id, row, (row, room) => say(row.cells[1], count(room.agents)));
    const place = before.length > 0 || following ? `page ${before.length + 1}` : "all";
    const none = page.classrooms.length === 0;
    nobody.hidden = !none || prefix !== "";
    view.hidden = none;
    turns.hidden = before.length === 0 && following === null;
    const empty = prefix ? `Nobody is in a classroom whose id begins with ${prefix}.` : "Nobody is in a classroom now.";
    say(found, none ? empty : `${things(page.classrooms.length, "classroom")}, ${place}`);
  };
  const { stop, now } = repeat(EVERY, look, (error) => say(found, error.message));

  function turn(pages) {
    before = pages;
    now();
    view.scrollTop = 0;
  }
  let typing;
  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => turn([]), 200);
  });
  function submit(event) {
    event.preventDefault();
    // A complete id also opens a classroom that has no agent.
    if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(input.value.trim())) location.hash = `#/classrooms/${input.value.trim()}`;
    else turn([]);
  }
  return stop;
}

function row({ classroom_id: id }) {
  return h("tr", {}, h("th", { scope: "row" }, h("a", { href: `#/classrooms/${id}` }, id)), h("td", { class: "number" }));
}
