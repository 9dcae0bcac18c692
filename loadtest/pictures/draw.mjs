// Draws a diagram: reads text and writes an SVG that is readable on light and on dark pages.
// usage: node draw.mjs FILE.txt >FILE.svg     the language is described in architecture.txt

import { readFileSync } from "node:fs";

const BOX = { width: 168, height: 62 };
const GAP = { x: 92, y: 54 };
const EDGE = 24;

const boxes = new Map();
const arrows = [];
let frame = null;

function fault(line) {
  console.error(`error: not understood: ${line}`);
  process.exit(1);
}

for (const line of readFileSync(process.argv[2], "utf8").split("\n").map((line) => line.trim())) {
  if (line === "" || line.startsWith("#")) continue;
  const box = /^(box|store|outside)\s+(\w+)\s+at\s+(\d+),(\d+):\s*([^|]+?)\s*\|\s*(.+)$/.exec(line);
  const around = /^frame around ([\w ]+):\s*(.+)$/.exec(line);
  const arrow = /^(\w+)\.(\w+)([+-]\d+)?\s*->\s*(\w+)\.(\w+)([+-]\d+)?(?::\s*(.+))?$/.exec(line);
  if (box) {
    const [, kind, name, column, row, title, below] = box;
    const x = EDGE + Number(column) * (BOX.width + GAP.x);
    const y = EDGE + 22 + Number(row) * (BOX.height + GAP.y);
    boxes.set(name, { kind, x, y, title, below });
  } else if (around) frame = { names: around[1].split(" "), title: around[2] };
  else if (arrow) arrows.push(arrow.slice(1));
  else fault(line);
}

function text(x, y, kind, words) {
  const escaped = words.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${x}" y="${y}" class="${kind}">${escaped}</text>`;
}

function drawBox({ kind, x, y, title, below }) {
  const { width, height } = BOX;
  const bend = 7;
  const shape =
    kind === "store"
      ? `<path class="store" d="M${x} ${y + bend}v${height - 2 * bend}a${width / 2} ${bend} 0 0 0 ${width} 0v${2 * bend - height}a${width / 2} ${bend} 0 0 0 ${-width} 0a${width / 2} ${bend} 0 0 0 ${width} 0"/>`
      : `<rect class="${kind}" x="${x}" y="${y}" width="${width}" height="${height}" rx="8"/>`;
  const down = kind === "store" ? 6 : 0;
  return [shape, text(x + width / 2, y + 27 + down, "title", title), text(x + width / 2, y + 45 + down, "below", below)].join("\n");
}

/** The middle of a side, and the direction in which an arrow leaves it. */
function side(name, where, shift = "0") {
  const box = boxes.get(name) ?? fault(`${name}.${where}`);
  const along = Number(shift);
  const middle = { x: box.x + BOX.width / 2 + along, y: box.y + BOX.height / 2 + along };
  return {
    left: { x: box.x, y: middle.y, flat: true },
    right: { x: box.x + BOX.width, y: middle.y, flat: true },
    top: { x: middle.x, y: box.y, flat: false },
    bottom: { x: middle.x, y: box.y + BOX.height, flat: false },
  }[where];
}

/** The edges of the frame. */
function edges() {
  const around = frame.names.map((name) => boxes.get(name) ?? fault(name));
  return {
    left: Math.min(...around.map((box) => box.x)) - 20,
    top: Math.min(...around.map((box) => box.y)) - 30,
    right: Math.max(...around.map((box) => box.x)) + BOX.width + 20,
    bottom: Math.max(...around.map((box) => box.y)) + BOX.height + 20,
  };
}

/** Returns the middle of a horizontal line, or of its part outside the frame if the line crosses the frame. */
function middle(from, to) {
  const [start, end] = [Math.min(from, to), Math.max(from, to)];
  const { left, right } = frame ? edges() : { left: -1, right: -1 };
  if (start < left && left < end) return (start + left) / 2;
  if (start < right && right < end) return (right + end) / 2;
  return (start + end) / 2;
}

function drawArrow([from, fromSide, fromShift, to, toSide, toShift, label]) {
  const [a, b] = [side(from, fromSide, fromShift), side(to, toSide, toShift)];
  let path = `M${a.x} ${a.y}`;
  let words = "";
  const level = (x, y) => text(x, y - 7, "label", label);
  if (a.flat && b.flat && a.y !== b.y) {
    const turn = a.x + (b.x - a.x) / 2;
    path += `H${turn}V${b.y}H${b.x}`;
    words = label ? text(turn - 6, (a.y + b.y) / 2 + 4, "label end", label) : "";
  } else if (!a.flat && b.flat) {
    path += `V${b.y}H${b.x}`;
    words = label ? level(middle(a.x, b.x), b.y) : "";
  } else {
    path += `L${b.x} ${b.y}`;
    words = label ? level(middle(a.x, b.x), a.y) : "";
  }
  return `<path class="arrow" d="${path}" marker-end="url(#head)"/>${words && "\n"}${words}`;
}

function drawFrame({ title }) {
  const { left, top, right, bottom } = edges();
  return `<rect class="frame" x="${left}" y="${top}" width="${right - left}" height="${bottom - top}" rx="12"/>\n${text(left + 14, top + 19, "name", title)}`;
}

const width = Math.max(...[...boxes.values()].map((box) => box.x)) + BOX.width + EDGE;
const height = Math.max(...[...boxes.values()].map((box) => box.y)) + BOX.height + EDGE + 6;
const said = arrows.filter((arrow) => arrow[6]).map((arrow) => `${boxes.get(arrow[0])?.title} to ${boxes.get(arrow[3])?.title}: ${arrow[6]}`);
console.log(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title desc">
<title id="title">${frame?.title ?? "A diagram"}</title>
<desc id="desc">${said.join("; ")}.</desc>
<style>
svg { --text: #1b2324; --soft: #4c5856; --line: #5f6d6b; --sheet: #ffffff; --accent: #0b6e63; --tint: #eef6f5; }
@media (prefers-color-scheme: dark) {
svg { --text: #e4eaea; --soft: #b3c0be; --line: #94a3a1; --sheet: #1a2224; --accent: #67cfbf; --tint: #12201f; }
}
text { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 13px; fill: var(--text); text-anchor: middle; }
.title { font-weight: 600; font-size: 14px; }
.below { fill: var(--soft); font-size: 12px; }
.name { fill: var(--accent); font-weight: 600; text-anchor: start; }
.label { font-size: 12px; fill: var(--soft); }
.end { text-anchor: end; }
.box { fill: var(--sheet); stroke: var(--accent); stroke-width: 1.5; }
.store { fill: var(--sheet); stroke: var(--line); stroke-width: 1.5; }
.outside { fill: var(--sheet); stroke: var(--line); stroke-width: 1.5; stroke-dasharray: 5 4; }
.frame { fill: var(--tint); stroke: var(--accent); stroke-opacity: 0.4; }
.arrow { fill: none; stroke: var(--line); stroke-width: 1.5; }
#head path { fill: var(--line); }
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L10 5L0 10z"/></marker></defs>
${frame ? drawFrame(frame) : ""}
${arrows.map(drawArrow).join("\n")}
${[...boxes.values()].map(drawBox).join("\n")}
</svg>`);
