// Small plots of the last minutes. Each plot is also described by a text, for people who cannot see it.

import { h, say, svg } from "./dom.js";
import { span } from "./format.js";

const WIDTH = 120;
const HEIGHT = 30;

/** Creates a tile: a name, the current value, and its past. */
export function tile(name, format) {
  const value = h("strong", {});
  const scale = h("small", {});
  const area = svg("polygon", { class: "area" });
  const line = svg("polyline", { class: "curve" });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}, no past yet` },
    area,
    line,
  );
  const view = h("div", { class: "tile" }, h("span", { class: "name" }, name), value, picture, scale);
  // The values that this page has received after the latest point of the past.
  let seen = [];
  const show = (now, past, every) => {
    say(value, format(now));
    const time = Date.now() / 1000;
    seen = [...seen.filter((point) => point.time > time - every), { time, value: now }];
    const before = past.map((point, place) => ({ time: time - every * (past.length - place), value: point }));
    const points = [...before, ...seen].filter((point) => point.value !== null && point.value !== undefined);
    if (points.length < 2) return;
    const values = points.map((point) => point.value);
    const [from, top] = [points[0].time, Math.max(...values, 0)];
    const length = time - from < 60 ? span(time - from) : `${Math.round((time - from) / 60)} min`;
    say(scale, `most ${format(top)} in ${length}`);
    picture.setAttribute("aria-label", `${name} in the last ${length}: from ${format(Math.min(...values))} to ${format(top)}`);
    const drawn = points.map((point) => {
      const x = (WIDTH * (point.time - from)) / (time - from);
      const y = HEIGHT - 1 - (top > 0 ? ((HEIGHT - 3) * point.value) / top : 0);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
    line.setAttribute("points", drawn.join(" "));
    // The area ends where the line ends, because the latest values may be missing.
    const [left, right] = [drawn[0], drawn.at(-1)].map((point) => point.split(",")[0]);
    area.setAttribute("points", `${left},${HEIGHT} ${drawn.join(" ")} ${right},${HEIGHT}`);
  };
  return { view, show };
}

/** Returns the sums of several series, which are aligned at their ends. */
export function sum(series) {
  const length = Math.max(0, ...series.map((points) => points.length));
  return Array.from({ length }, (_, place) =>
    series.reduce((total, points) => total + (points[points.length - length + place] ?? 0), 0),
  );
}

/** Returns the largest values of several series, aligned at their ends. A value is null if no series has one. */
export function largest(series) {
  const length = Math.max(0, ...series.map((points) => points.length));
  return Array.from({ length }, (_, place) => {
    const points = series.map((points) => points[points.length - length + place]).filter((point) => point !== null && point !== undefined);
    return points.length > 0 ? Math.max(...points) : null;
  });
}
