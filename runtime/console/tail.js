// Shows a classroom's events as they arrive. The list can be paused, filtered and copied.

import { Refused, get, repeat } from "./api.js";
import { copy, field, h, say } from "./dom.js";
import { clock } from "./format.js";

const EVERY = 1000;
// The maximum number of events that are kept.
const MAX = 500;
// How many pages of a thousand past events are read, at most.
const PAGES = 5;

export function part(classroom, changed) {
  const list = h("ol", {});
  const view = h("div", { class: "events", tabindex: "0", role: "region", "aria-label": "Events of the classroom" }, list);
  const note = h("p", { class: "note", role: "status" });
  const filter = h("input", { type: "search", spellcheck: "false", autocomplete: "off", placeholder: "agent.left" });
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => toggle() }, "Pause");
  const all = h("button", { type: "button", onclick: () => copy(shown().map((item) => item.dataset.json).join("\n")) }, "Copy as JSON");
  filter.addEventListener("input", () => [...list.children].forEach(hide));

  const path = `/api/v1/classrooms/${classroom}/events`;
  let place = null;
  let read = 0;
  let paused = false;
  let held = [];
  const look = async (signal) => {
    const query = new URLSearchParams({ limit: 1000 });
    if (place) {
      query.set("after", place.through);
      query.set("epoch", place.epoch);
    } else if (read >= PAGES) query.set("after", "latest");
    let page;
    try {
      page = await get(`${path}?${query}`, signal);
    } catch (error) {
      // Events are lost, or the stream is a different one.
      if (!(error instanceof Refused) || error.status !== 410) throw error;
      place = null;
      read = PAGES;
      add([{ gap: "Events between these are gone." }]);
      return;
    }
    place = page;
    read += 1;
    const skips = page.more && read === PAGES;
    if (page.events.length > 0) {
      if (paused) held = [...held, ...page.events].slice(-MAX);
      else add(page.events);
      if (read > 1 || !page.more) changed();
    }
    if (skips) {
      place = null;
      add([{ gap: "Events between these are not shown." }]);
    }
    tell();
    if (page.more) now();
  };
  const { stop, now } = repeat(EVERY, look, (error) => say(note, error.message));

  const shown = () => [...list.children].filter((item) => !item.hidden);
  const hide = (item) => (item.hidden = !item.textContent.toLowerCase().includes(filter.value.trim().toLowerCase()));
  const tell = () => {
    const none = list.children.length === 0;
    view.hidden = none;
    say(note, paused ? `Paused, ${held.length} wait.` : none ? "None yet. They are shown as they come." : "");
  };
  const add = (events) => {
    const items = events.slice(-MAX).map(entry);
    items.forEach(hide);
    // The newest event is at the top, where it is visible.
    list.prepend(...items.reverse());
    while (list.children.length > MAX) list.lastChild.remove();
  };
  const toggle = () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (!paused) add(held.splice(0));
    tell();
  };
  return {
    view: h(
      "section",
      { "aria-labelledby": "events" },
      h("h2", { id: "events" }, "Events"),
      h("div", { class: "line-up" }, field("Only with", filter), pause, all),
      note,
      view,
    ),
    stop,
  };
}

function entry(item) {
  if (item.gap) return h("li", { class: "gap" }, item.gap);
  const json = JSON.stringify(item);
  const { offset, event, receiver, internal, time } = item;
  const { entity_type: entity, operation } = event.id ?? {};
  const name = entity && operation ? `${entity}.${operation}` : "event";
  const agent = event.payload?.agent_id;
  const state = operation === "updated" ? ` ${JSON.stringify(event.payload?.state ?? null)}` : "";
  const rest = entity === "agent" && agent ? `${agent}${state}` : JSON.stringify(event.payload ?? event);
  const notes = [internal ? "internal" : null, receiver ? `only to ${receiver}` : null].filter(Boolean).join(", ");
  const line = h(
    "li",
    {},
    h("span", { class: "offset" }, String(offset)),
    time ? h("time", {}, clock(time)) : null,
    h("span", { class: `event ${entity === "agent" ? operation : ""}` }, name),
    h("bdi", { class: "json" }, rest),
    notes ? h("small", {}, notes) : null,
    operation === "left" && agent ? h("a", { href: `#/explain?agent=${encodeURIComponent(agent)}`, "aria-label": `Why ${agent} left` }, "Why?") : null,
    h("button", { type: "button", class: "small", "aria-label": `Copy event ${offset}`, onclick: () => copy(json) }, "Copy"),
  );
  line.dataset.json = json;
  return line;
}
