// Shows the nodes, their load, and their backends, from one stream of events for each page.

import { follow } from "./api.js";
import { h, keyed, say, table } from "./dom.js";
import { bytes, count, millis, short, span } from "./format.js";
import { largest, sum, tile } from "./plot.js";

export const title = "Now";

// How long a node that is gone is still shown, in milliseconds.
const REMEMBERED = 5 * 60_000;
// The age of the statistics, in milliseconds, from which their node is silent. A node writes them every few seconds.
const SILENT = 8000;

// The names of the backends in an event, in the event's order.
const PARTS = ["Sessions", "Seats", "Events", "Tokens"];

const COLUMNS = [
  "Node",
  "State",
  ...["Connections", "Sessions", "Connects/s", "Disconnects/s", "Pushes/s", "p50", "p99", "Outbox", "Memory", "Cores", "Lease ends"].map(
    (text) => ({ text, number: true }),
  ),
  "Version",
];

export function show(main, { me }) {
  const tiles = {
    connections: tile("Connections", count),
    entered: tile("Connects a second", short),
    left: tile("Disconnects a second", short),
    pushes: tile("Pushes a second", short),
    p99_ms: tile("Handlers, p99", millis),
  };
  const outbox = h("strong", {});
  const lag = h("small", {});
  const problem = h("p", { class: "note bad", role: "status" });
  const nobody = h("p", { class: "hint", hidden: true }, "Nobody is connected. ", me.demo
    ? [h("a", { href: "#/try" }, "Try it"), ": connect a teacher and a participant with two clicks, and see them here."]
    : "Clients connect to /ws on the clients' address, with a token of yours.");
  const nodes = table("Nodes", COLUMNS);
  const backends = table("Backends of this node", ["Backend", "State", { text: "Failed, 15 min", number: true }]);
  const functions = table("Handlers of all nodes", [
    "Handler",
    ...["Runs/s", "Failed/s", "p50", "p99"].map((text) => ({ text, number: true })),
  ]);
  main.append(
    h(
      "div",
      { class: "tiles" },
      Object.values(tiles).map((tile) => tile.view),
      h("div", { class: "tile" }, h("span", { class: "name" }, "Outbox"), outbox, lag),
    ),
    problem,
    nobody,
    h("section", {}, h("h2", {}, "Nodes"), nodes.view),
    h(
      "div",
      { class: "columns" },
      h("section", {}, h("h2", {}, "Backends"), backends.view),
      h("section", {}, h("h2", {}, "Handlers"), functions.view),
    ),
  );

  const seen = new Map();
  const heard = (event) => {
    const living = remember(seen, event);
    const all = living.filter((node) => node.alive && node.statistics).map((node) => node.statistics);
    for (const [name, { show }] of Object.entries(tiles)) {
      const join = name === "p99_ms" ? largest : sum;
      const [value] = join(all.map((node) => [node[name]]));
      show(value ?? (join === sum ? 0 : null), join(all.map((node) => node.past?.[name] ?? [])), all[0]?.past?.every_s || 30);
    }
    say(outbox, count(Math.max(0, ...all.map((node) => node.outbox.rows))));
    say(lag, `the oldest waits ${short(Math.max(0, ...all.map((node) => node.outbox.lag_s)))} s`);
    say(problem, event.problem ?? "");
    nobody.hidden = all.some((node) => node.connections > 0);
    keyed(nodes.body, living, (node) => node.node_id, nodeRow, (row, node) => fillNode(row, node, event));
    const parts = event.backends.map((backend, place) => ({ ...backend, part: PARTS[place] }));
    keyed(backends.body, parts, (backend) => backend.part, backendRow, (row, backend) => fillBackend(row, backend, all));
    keyed(functions.body, handlers(all), (handler) => handler.name, handlerRow, fillHandler);
  };
  return follow("/api/console/now", heard);
}

/** Returns the nodes of an event, and the nodes that were there before. For each, remembers when it was last there. */
function remember(seen, event) {
  // Only one process uses an SQLite file, so any other node is this node's predecessor, whose lease has not ended yet.
  const alone = event.backends[0]?.name === "sqlite";
  for (const node of event.nodes) {
    const before = alone && node.node_id !== event.node_id;
    seen.set(node.node_id, { ...node, at: event.at, alive: node.alive && !before });
  }
  for (const [id, node] of seen) {
    node.gone = node.at !== event.at ? event.at - node.at : null;
    if (node.gone > REMEMBERED) seen.delete(id);
    else if (node.gone !== null) node.alive = false;
  }
  return [...seen.values()].sort((one, other) => one.node_id - other.node_id);
}

function state({ alive, gone, age_ms: age, statistics }) {
  if (gone !== null) return [statistics?.draining ? "drained" : "gone", `${span(gone / 1000)} ago`];
  if (!alive || age > SILENT) return ["silent", age === null ? "" : `for ${span(age / 1000)}`];
  if (statistics?.draining) return ["draining", ""];
  return [age === null ? "starting" : "serving", ""];
}

function cells(row, texts) {
  texts.forEach((text, place) => say(row.cells[place], text));
}

function nodeRow() {
  const numbers = Array.from({ length: 11 }, () => h("td", { class: "number" }));
  return h("tr", {}, h("th", { scope: "row" }), h("td"), numbers, h("td"));
}

function fillNode(row, node, event) {
  const here = node.node_id === event.node_id;
  const [word, detail] = state(node);
  const of = node.statistics ?? { outbox: {} };
  const number = (value, format) => (value === undefined || value === null ? "–" : format(value));
  cells(row, [
    `${node.label}${here ? " (this one)" : ""}`,
    `${word} ${detail}`.trim(),
    number(of.connections, count),
    number(of.sessions, count),
    number(of.entered, short),
    number(of.left, short),
    number(of.pushes, short),
    millis(of.p50_ms),
    millis(of.p99_ms),
    number(of.outbox.rows, count),
    number(of.memory, bytes),
    number(of.cpu, short),
    node.alive ? `in ${span(node.lease_left_ms / 1000)}` : "–",
    of.version ?? "–",
  ]);
  row.className = node.alive && word !== "silent" ? "" : "silent";
  row.dataset.state = word;
  row.cells[1].className = `state ${word}`;
}

function backendRow() {
  return h("tr", {}, h("th", { scope: "row" }), h("td"), h("td", { class: "number" }));
}

function fillBackend(row, { part, name, up, problem }, all) {
  const errors = all.reduce((total, node) => total + (node.errors?.[name] ?? 0), 0);
  cells(row, [part === "Tokens" ? "Token keys" : `${part}: ${name}`, up ? "up" : `away: ${problem ?? "no reason is known"}`, count(errors)]);
  row.cells[1].className = up ? "state serving" : "state silent";
}

/** Returns the rates of all nodes, and the times of the slowest node. */
function handlers(all) {
  const found = new Map();
  for (const handler of all.flatMap((node) => node.functions ?? [])) {
    const known = found.get(handler.name) ?? { name: handler.name, runs: 0, failed: 0, p50_ms: null, p99_ms: null };
    known.runs += handler.runs;
    known.failed += handler.failed;
    for (const time of ["p50_ms", "p99_ms"]) {
      if (handler[time] !== null) known[time] = Math.max(known[time] ?? 0, handler[time]);
    }
    found.set(handler.name, known);
  }
  return [...found.values()].sort((one, other) => one.name.localeCompare(other.name));
}

function handlerRow() {
  return h("tr", {}, h("th", { scope: "row" }), Array.from({ length: 4 }, () => h("td", { class: "number" })));
}

function fillHandler(row, { name, runs, failed, p50_ms: middle, p99_ms: slow }) {
  cells(row, [name, short(runs), short(failed), millis(middle), millis(slow)]);
}
