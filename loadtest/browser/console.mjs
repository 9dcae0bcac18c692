// The console of two nodes, page by page, as an operator uses it in the first minutes.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { canBeRead, open, picture, setting, shows, step, tabTo, withBrowser } from "./browser.mjs";

const origin = setting("CONSOLE");
const classroom = setting("CLASSROOM");
const lesson = setting("LESSON");
const student = setting("STUDENT");
const expired = setting("EXPIRED");
const twice = setting("TWICE");
const other = setting("OTHER");
const hostile = JSON.parse(setting("HOSTILE"));

async function now(page) {
  await page.goto(`${origin}/`);
  await shows(page, "h1", "Now");
  await shows(page, "tr[data-state=serving]", "(this one)");
  await page.locator("section", { hasText: "Nodes" }).locator("tbody tr").nth(1).waitFor();
  await shows(page, ".tile", "Connections");
  await shows(page, "section", "redis");
  await shows(page, "section", "join_lesson");
  await canBeRead(page, "now");
  await hidden(page);
}

/** Checks that a page that is not visible sends no requests. */
async function hidden(page) {
  const stream = (request) => request.url() === `${origin}/api/console/now`;
  const see = (seen) =>
    page.evaluate((seen) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => !seen });
      document.dispatchEvent(new Event("visibilitychange"));
    }, seen);
  await Promise.all([page.waitForEvent("requestfailed", stream), see(false)]);
  await Promise.all([page.waitForRequest(stream), see(true)]);
  await shows(page, "tr[data-state=serving]", "(this one)");
}

async function classrooms(page) {
  await page.getByRole("link", { name: "Classrooms" }).click();
  await shows(page, "h1", "Classrooms");
  await shows(page, "tbody", classroom);
  await page.getByLabel("Id, or its beginning").fill("zz");
  await shows(page, "[role=status]", "prefix must be");
  await page.getByLabel("Id, or its beginning").fill("00000000-0000");
  await shows(page, "[role=status]", "Nobody is in a classroom whose id begins with 00000000-0000.");
  await page.getByLabel("Id, or its beginning").fill(classroom.slice(0, 11));
  await page.getByRole("link", { name: classroom }).waitFor();
  await canBeRead(page, "classrooms");
  await page.getByRole("link", { name: classroom }).click();
}

async function isText(page) {
  for (const text of hostile) await shows(page, "tbody", text);
  assert.equal(await page.locator("main img").count(), 0);
  assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
}

async function room(page) {
  await shows(page, "h1", "Classroom");
  await isText(page);
  await shows(page, ".seats", student);
  await shows(page, ".events", "agent.entered");
  await canBeRead(page, "classroom");
  await publish(page);
  await follow(page);
  await throwOut(page);
  await attendance(page);
}

async function publish(page) {
  const form = page.locator("section", { hasText: "Publish" }).last();
  await form.getByLabel("Body, a JSON object").fill('["no object"]');
  await form.getByRole("button", { name: "Publish" }).click();
  await shows(page, "[role=status]", "the body must be a JSON object");
  await form.getByLabel("Body, a JSON object").fill('{"text": "<b>bold</b>"}');
  await form.getByRole("button", { name: "Publish" }).click();
  await shows(page, "[role=status]", "Stored at offset");
  await shows(page, ".events", "<b>bold</b>");
}

async function follow(page) {
  const filter = page.getByLabel("Only with");
  await filter.fill("bold");
  assert.equal(await page.locator(".events li:visible").count(), 1);
  await page.getByRole("button", { name: "Pause" }).click();
  await filter.fill("");
  await step("publish");
  await shows(page, "[role=status]", "Paused, 1 wait.");
  assert.equal(await page.locator(".events").filter({ hasText: "from another service" }).count(), 0);
  await page.getByRole("button", { name: "Pause" }).click();
  await shows(page, ".events", "from another service");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy as JSON" }).click();
  await shows(page, "#toast", "Copied");
  const copied = (await page.evaluate(() => navigator.clipboard.readText())).split("\n").map((line) => JSON.parse(line));
  assert.ok(copied.some(({ event }) => event.from === "from another service"), "the copy has the events");
}

/** Ends a session with the keyboard alone, with a first answer of no. */
async function throwOut(page) {
  const button = page.getByRole("button", { name: `Disconnect ${student}` });
  await (await tabTo(page, button)).press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await button.waitFor();
  await (await tabTo(page, button)).press("Enter");
  await shows(page, "dialog", "Its token is not revoked");
  await picture(page, "question");
  await (await tabTo(page, page.getByRole("dialog").getByRole("button", { name: "Disconnect" }))).press("Enter");
  await shows(page, "#toast", "is disconnected");
  await button.waitFor({ state: "detached" });
  await shows(page, ".events", "agent.left");
  await step("was told kicked");
}

async function attendance(page) {
  await page.getByRole("button", { name: "Read again" }).click();
  const row = page.locator("section[aria-labelledby=attendance] tr", { hasText: student });
  await row.filter({ hasText: "ended by the gateway" }).waitFor();
  assert.ok((await row.locator("svg rect").count()) >= 1, "a bar for each visit");
  const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save as CSV" }).click()]);
  const csv = readFileSync(await saved.path(), "utf8");
  assert.match(csv, /^session_id,agent_id,/);
  assert.match(csv, /kicked/);
}

async function explain(page) {
  await page.getByRole("link", { name: "Explain", exact: true }).click();
  await page.getByLabel("Agent or user").fill(student);
  await page.getByRole("button", { name: "Explain" }).click();
  await shows(page, "article", "ended by an operator (kicked)");
  await shows(page, "article", "An operator disconnected the agent, through this node.");
  await canBeRead(page, "explain");
  await page.getByLabel("Agent or user").fill(expired);
  await page.getByRole("button", { name: "Explain" }).click();
  await shows(page, "article", "its token expired (kicked)");
  await page.getByLabel("Agent or user").fill(twice);
  await page.getByRole("button", { name: "Explain" }).click();
  await shows(page, "article", "the connection before, if it was still open, was told replaced");
  await page.getByLabel("Agent or user").fill("nobody.at.all");
  await page.getByRole("button", { name: "Explain" }).click();
  await shows(page, "[role=status]", "Nothing is known of nobody.at.all");
}

/** Checks that the history names the operator even if the call was made on another node. */
async function explainElsewhere(browser) {
  const { page, faults } = await open(browser, other);
  await page.goto(`${other}/#/explain?agent=${encodeURIComponent(student)}`);
  await shows(page, "article", "ended by an operator (kicked)");
  await shows(page, "article", "The call did not come through this node");
  assert.deepEqual(faults, []);
}

/** Checks that a node that writes nothing is shown as silent, even while its lease holds. */
async function silence(browser) {
  const { page, faults } = await open(browser, origin);
  const reader = (await fetch(`${origin}/api/console/now`)).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n\n")) text += (await reader.read()).value;
  await reader.cancel();
  const event = JSON.parse(text.split("\n\n")[0].slice("data: ".length));
  Object.assign(event.nodes.find((node) => node.node_id !== event.node_id), { alive: true, age_ms: 9000 });
  const answer = { body: `data: ${JSON.stringify(event)}\n\n` };
  await page.route("**/api/console/now", (route) => route.fulfill(answer));
  await page.goto(`${origin}/`);
  await shows(page, "tr.silent", "silent for 9 s");
  await shows(page, "tr[data-state=serving]", "(this one)");
  // The page asks again and again, and an answer to a closed page would be an error.
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await page.context().close();
  assert.deepEqual(faults, []);
}

/** Lets the other node die, and then the node whose console is open. */
async function dyingNodes(page) {
  await page.getByRole("link", { name: "Now" }).click();
  const rows = page.locator("section", { hasText: "Nodes" }).locator("tbody tr");
  await rows.nth(1).waitFor();
  await step("kill the other node");
  await page.locator("tr.silent").waitFor();
  await page.locator("tr[data-state=gone]").waitFor();
  await picture(page, "gone");
  await step("kill this node");
  await shows(page, "#line", "This node does not answer.");
  await step("start this node");
  await shows(page, "#line", "This node answers again");
  await shows(page, "tr[data-state=serving]", "(this one)");
}

await withBrowser(async (browser) => {
  const { page, faults } = await open(browser, origin);
  await now(page);
  await classrooms(page);
  await room(page);
  await explain(page);
  await explainElsewhere(browser);
  await silence(browser);
  await dyingNodes(page);
  assert.deepEqual(faults, []);
});
