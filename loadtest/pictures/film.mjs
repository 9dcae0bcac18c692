// Records a first run, and makes an animated SVG of it: the gateway starts, and a client enters and joins.
// usage: node film.mjs GATEWAY_BINARY >film.svg     it runs in the current folder, which must be empty
//
// Invariant: what is shown as output was printed by the run, at that time; only tokens are shortened. What is typed is typed by
// this script.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const SECONDS = 20;
const COLUMNS = 104;
const ROWS = 24;
const CELL = { width: 7.8, height: 19 };
const TYPED_A_SECOND = 45;

const begun = Date.now();
const lines = [];
let typing = 0;

const seconds = () => (Date.now() - begun) / 1000;
const pause = (time) => new Promise((resolve) => setTimeout(resolve, time * 1000));

function print(whole, kind) {
  const text = whole.replace(/eyJ[\w.-]{40,}/g, (token) => `${token.slice(0, 8)}…`);
  // As a terminal wraps it.
  for (let from = 0; from === 0 || from < text.length; from += COLUMNS) lines.push({ at: seconds(), text: text.slice(from, from + COLUMNS), kind });
}

async function type(command) {
  const from = seconds();
  // Of a long line that is pasted, the time to type its beginning.
  typing = Math.min(command.length / TYPED_A_SECOND, 1.2);
  await pause(typing);
  const first = lines.length;
  print(`$ ${command}`, "typed");
  lines[first].from = from;
  await pause(0.5);
}

/** Runs a command, and resolves when a line of its output matches, or it ends. */
function run(command, args, until) {
  // A client ends when its input does.
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"], detached: true, env: { ...process.env, NO_COLOR: "1" } });
  const waited = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", () => resolve(null));
    createInterface({ input: child.stdout }).on("line", (line) => {
      print(line, "said");
      if (until?.test(line)) resolve(line);
    });
  });
  return { child, waited };
}

const [binary] = process.argv.slice(2);
await pause(0.4);
await type("cargo run --release");
const gateway = run(binary, ["serve", "--listen", "127.0.0.1:8080", "--admin-listen", "127.0.0.1:9090"], /paste: /);
const pasted = (await gateway.waited).trim().replace(/^paste: /, "").replace(" -w 5 ", " -w 60 ");
await pause(2.5);
await type(pasted);
const client = run("bash", ["-c", pasted], /"type":"ack"/);
await client.waited;
await pause(1.2);
await type("rollcall agents de300000-0000-4000-8000-000000000001");
await run(binary, ["agents", "de300000-0000-4000-8000-000000000001"]).waited;
await pause(1.2);
await type('rollcall publish lesson.demo.note \'{"text":"hello"}\'');
await run(binary, ["publish", "lesson.demo.note", '{"text":"hello"}']).waited;
await pause(1.5);
for (const { child } of [client, gateway]) process.kill(-child.pid, "SIGTERM");

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(" ", "\u00a0");
// A run may be shorter or longer than the film.
const scale = (SECONDS - 2) / Math.max(lines.at(-1).at, 1);
const percent = (time) => Math.min(99, (100 * time * scale) / SECONDS).toFixed(2);
const styles = [];
const texts = lines.map((line, row) => {
  styles.push(`@keyframes l${row}{0%{visibility:hidden}${percent(line.from ?? line.at)}%{visibility:visible}100%{visibility:visible}}`);
  styles.push(`.l${row}{animation:l${row} ${SECONDS}s step-end infinite}`);
  return `<text class="l${row} ${line.kind}" x="16" y="${(56 + row * CELL.height).toFixed(0)}">${escape(line.text)}</text>`;
});
const scrolled = lines.map((line, row) => [percent(line.at), Math.max(0, row + 1 - ROWS)]).filter(([, rows]) => rows > 0);
const up = (rows) => `transform:translateY(${-rows * CELL.height}px)`;
const moves = scrolled.map(([time, rows]) => `${time}%{${up(rows)}}`).join("");
const last = scrolled.at(-1)?.[1] ?? 0;
const [width, height] = [Math.ceil(COLUMNS * CELL.width + 32), 40 + ROWS * CELL.height + 18];
console.log(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="A terminal: the gateway starts, and a client enters a classroom and joins a lesson">
<style>
text { font: 13px ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #cfd8d7; white-space: pre; }
.typed { fill: #7fe0d0; font-weight: 600; }
.all { ${up(last)}; animation: up ${SECONDS}s step-end infinite; }
@keyframes up { 0% { ${up(0)} } ${moves} 100% { ${up(last)} } }
${styles.join("\n")}
@media (prefers-reduced-motion: reduce) { .all, text { animation: none !important; visibility: visible } }
</style>
<rect width="${width}" height="${height}" rx="10" fill="#12181a"/>
<g fill="#3a4648"><circle cx="20" cy="19" r="5.5"/><circle cx="38" cy="19" r="5.5"/><circle cx="56" cy="19" r="5.5"/></g>
<svg y="38" width="${width}" height="${height - 46}" viewBox="0 38 ${width} ${height - 46}"><g class="all">
${texts.join("\n")}
</g></svg>
</svg>`);
process.exit(0);
