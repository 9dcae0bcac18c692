// Records what README's two commands print, and makes an animated SVG of it: the gateway starts, a client enters and
// joins, and the tests run.
// usage: node film.mjs 'cargo run --release' 'make test' >film.svg     in the repository's folder; the second command may be left out
//
// Invariant: each command that is shown was run as it is shown, and printed what is shown. Tokens are shortened, long
// waits are cut, and the middle of a long output is left out: a line says how much.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const SECONDS = 20;
const COLUMNS = 104;
const ROWS = 24;
const CELL = { width: 7.8, height: 19 };
const TYPED_A_SECOND = 45;
// The longest wait in seconds that is shown, and how many lines of an output are shown from its beginning and from its
// end.
const WAIT = 1.2;
const HEAD = 14;
const TAIL = 12;
const ROOM = "de300000-0000-4000-8000-000000000001";

const [gatewayCommand, testCommand] = process.argv.slice(2);
const binary = `target/${gatewayCommand.includes("--release") ? "release" : "debug"}/rollcall`;
const scratch = mkdtempSync(join(tmpdir(), "rollcall-film-"));
// The environment of a terminal without colours.
const plain = { ...process.env, NO_COLOR: "1", CARGO_TERM_COLOR: "never", CARGO_TERM_PROGRESS_WHEN: "never" };
const demo = { ...plain, DATABASE_URL: `sqlite:${scratch}/rollcall.db` };

const lines = [];
let clock = 0.4;

function add(text, kind) {
  const short = text.replace(/eyJ[\w.-]{40,}/g, (token) => `${token.slice(0, 8)}…`).replaceAll("\t", "    ");
  // A long line is wrapped in the same way as in a terminal.
  for (let from = 0; from === 0 || from < short.length; from += COLUMNS) lines.push({ at: clock, text: short.slice(from, from + COLUMNS), kind });
}

function type(command) {
  const from = clock;
  // A long line is pasted, so only its beginning takes time to type.
  clock += Math.min(command.length / TYPED_A_SECOND, 1.2);
  const first = lines.length;
  add(`$ ${command}`, "typed");
  lines[first].from = from;
  clock += 0.4;
}

/** Runs a command in a shell, and resolves with its lines when one of them matches, or the command ends. */
function run(command, until, env) {
  // A client ends when its input ends, so the input stays open.
  const child = spawn("bash", ["-c", `exec 2>&1; ${command}`], { stdio: ["pipe", "pipe", "inherit"], detached: true, env });
  const begun = Date.now();
  const [said, later] = [[], []];
  const done = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", () => resolve(said));
    createInterface({ input: child.stdout }).on("line", (text) => {
      const waitedFor = said.length > 0 && until?.test(said.at(-1).text);
      if (waitedFor) return later.push(text);
      said.push({ at: (Date.now() - begun) / 1000, text });
      if (until?.test(text)) resolve(said);
    });
  });
  return { child, done, later };
}

/** Shows a command and its output. Returns the process, the line that was waited for, and what is printed `later`. */
async function show(command, until, env = demo) {
  type(command);
  const { child, done, later } = run(command, until, env);
  const said = await done;
  let before = 0;
  const cut = said.length > HEAD + TAIL ? said.slice(HEAD, -TAIL) : [];
  said.forEach((line, place) => {
    if (cut.length > 0 && place === HEAD) add(`[${cut.length} lines and ${minutes(cut.at(-1).at - before)} are cut here]`, "cut");
    if (!cut.includes(line)) {
      clock += Math.min(line.at - before, WAIT);
      add(line.text, "said");
    }
    before = line.at;
  });
  clock += 1.2;
  return { child, last: said.at(-1)?.text ?? "", later };
}

function minutes(seconds) {
  return seconds < 60 ? `${Math.round(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

const gateway = await show(gatewayCommand, /paste: /);
const pasted = gateway.last.trim().replace(/^paste: /, "").replace(" -w 5 ", " -w 60 ");
const client = await show(pasted, /"type":"ack"/);
await show(`${binary} agents ${ROOM}`);
await show(`${binary} publish lesson.demo.note '{"text":"hello"}'`);
// The client gets a message about the other one.
for (const end = Date.now() + 5000; client.later.length === 0 && Date.now() < end; ) await new Promise((resolve) => setTimeout(resolve, 100));
client.later.forEach((text) => add(text, "said"));
clock += 1.2;
for (const { child } of [client, gateway]) process.kill(-child.pid, "SIGTERM");
if (testCommand) await show(testCommand, undefined, plain);
rmSync(scratch, { recursive: true, force: true });
if (!/"type":"ack"/.test(client.last)) throw new Error(`the client did not join: ${client.last}`);

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(" ", "\u00a0");
// The times are scaled, because a run may be shorter or longer than the film.
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
const tests = testCommand ? ", and the tests run" : "";
console.log(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="A terminal: the gateway starts, a client enters a classroom and joins a lesson${tests}. A recording; waits are cut.">
<style>
text { font: 13px ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #cfd8d7; white-space: pre; }
.typed { fill: #7fe0d0; font-weight: 600; }
.cut, .note { fill: #eabf6a; }
.note { text-anchor: end; }
.all { ${up(last)}; animation: up ${SECONDS}s step-end infinite; }
@keyframes up { 0% { ${up(0)} } ${moves} 100% { ${up(last)} } }
${styles.join("\n")}
@media (prefers-reduced-motion: reduce) { .all, text { animation: none !important; visibility: visible } }
</style>
<rect width="${width}" height="${height}" rx="10" fill="#12181a"/>
<g fill="#3a4648"><circle cx="20" cy="19" r="5.5"/><circle cx="38" cy="19" r="5.5"/><circle cx="56" cy="19" r="5.5"/></g>
<text class="note" x="${width - 16}" y="24">a recording; waits are cut</text>
<svg y="38" width="${width}" height="${height - 46}" viewBox="0 38 ${width} ${height - 46}"><g class="all">
${texts.join("\n")}
</g></svg>
</svg>`);
process.exit(0);
