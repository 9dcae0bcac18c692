// Shows who was in a classroom, from when to when, and why they left: a bar for each agent, and a download as CSV.

import { get, open } from "./api.js";
import { field, h, replace, say, svg, table } from "./dom.js";
import { agent, clock, count, span, things } from "./format.js";
import { shortReason } from "./reasons.js";

const HOUR = 3_600_000;
const SPANS = [
  ["the last hour", HOUR],
  ["the last 24 hours", 24 * HOUR],
  ["the last 7 days", 7 * 24 * HOUR],
  ["all that is kept", null],
];
// The maximum number of visits that are shown. The CSV file has all visits.
const MOST = 5000;
// How long after an agent entered or left the list is read again, in milliseconds.
const PAUSE = 5000;
const WIDTH = 600;
const HEIGHT = 12;

export function part(classroom) {
  const range = h("select", { onchange: () => look() }, SPANS.map(([name], place) => h("option", { value: String(place) }, name)));
  range.value = "1";
  const note = h("p", { class: "note", role: "status" });
  const { view: list, body } = table("Visits of each agent", ["Agent", "When", "Visits", { text: "Together", number: true }]);
  const path = (format) => {
    const length = SPANS[Number(range.value)][1];
    const query = new URLSearchParams({ format });
    if (length !== null) query.set("from", new Date(Date.now() - length).toISOString());
    return `/api/v1/classrooms/${classroom}/attendance?${query}`;
  };
  let stop = new AbortController();
  let waiting = null;
  const changed = () => {
    waiting ??= setTimeout(() => look(), PAUSE);
  };
  const look = async () => {
    clearTimeout(waiting);
    waiting = null;
    stop.abort();
    stop = new AbortController();
    try {
      const visits = await get(path("json"), stop.signal);
      draw(visits.slice(0, MOST));
      list.hidden = visits.length === 0;
      say(note, visits.length === 0 ? `Nobody was here in ${SPANS[Number(range.value)][0]}.` : `${things(visits.length, "visit")}${visits.length > MOST ? `; the first ${count(MOST)} are shown` : ""}`);
    } catch (error) {
      if (error.name !== "AbortError") say(note, error.message);
    }
  };
  const draw = (visits) => {
    const now = Date.now();
    const times = visits.map((visit) => ({
      ...visit,
      from: Date.parse(visit.entered_at),
      to: visit.left_at ? Date.parse(visit.left_at) : now,
    }));
    const length = SPANS[Number(range.value)][1];
    const start = Math.max(Math.min(...times.map((visit) => visit.from)), length === null ? 0 : now - length);
    replace(body, [...group(times)].sort(([one], [other]) => one.localeCompare(other)).map(([id, visits]) => row(id, visits, start, now)));
  };
  const save = async () => {
    const text = await (await open(path("csv"))).blob();
    const link = h("a", { href: URL.createObjectURL(text), download: `attendance-${classroom}.csv` });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  look();
  return {
    view: h(
      "section",
      { "aria-labelledby": "attendance" },
      h("h2", { id: "attendance" }, "Attendance"),
      h(
        "div",
        { class: "line-up" },
        field("Of", range),
        h("button", { type: "button", onclick: () => look() }, "Read again"),
        h("button", { type: "button", onclick: () => save().catch((error) => say(note, error.message)) }, "Save as CSV"),
      ),
      note,
      list,
    ),
    changed,
    stop: () => (clearTimeout(waiting), stop.abort()),
  };
}

function group(visits) {
  const groups = new Map();
  for (const visit of visits) groups.set(visit.agent_id, [...(groups.get(visit.agent_id) ?? []), visit]);
  return groups;
}

function row(id, visits, start, end) {
  const { label, name } = agent(id);
  visits.sort((one, other) => one.from - other.from);
  const place = (time) => (WIDTH * Math.min(Math.max(time - start, 0), end - start)) / Math.max(end - start, 1);
  const bars = visits.map(({ from, to, left_at: left }) => {
    const x = place(from);
    return svg("rect", { x, y: 2, width: Math.max(place(to) - x, 2), height: HEIGHT - 4, rx: 2, class: left ? "was" : "is" });
  });
  const texts = visits.map(({ entered_at: entered, left_at: left, reason }) =>
    left ? `${clock(entered)} to ${clock(left)}, ${shortReason(reason)}` : `${clock(entered)} until now`,
  );
  const bar = svg(
    "svg",
    { class: "bar", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${things(visits.length, "visit")} of ${name}` },
    svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2, class: "ground" }),
    bars,
  );
  const together = visits.reduce((sum, { from, to }) => sum + to - from, 0) / 1000;
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row", title: id },
      h("a", { href: `#/explain?agent=${encodeURIComponent(id)}`, "aria-label": `Explain ${name}` }, h("bdi", { class: "name" }, name)),
      " ",
      h("small", {}, h("bdi", {}, label)),
    ),
    h("td", { class: "wide" }, bar),
    h("td", {}, texts.slice(-3).map((text) => h("div", {}, text)), texts.length > 3 ? h("small", {}, `and ${texts.length - 3} before`) : null),
    h("td", { class: "number" }, span(together)),
  );
}
