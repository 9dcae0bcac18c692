// What the browser's tests share: Chromium, the checks of every page, and the steps that a script asks its test to
// take.
//
// Invariant: a script fails if a page sends a request to any server but its gateway, or breaks its content security
// policy.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The folder into which loadtest/setup/packages installs modules.
const modules = execFileSync("npm", ["root", "--global"], { encoding: "utf8" }).trim();
const require = createRequire(`${modules}/from-here.js`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** How long a page may take to show something; the machine may be busy. */
export const SOON = 30_000;
export const SIZES = [360, 1024, 1920];
export const SCHEMES = ["light", "dark"];
const pictures = process.env.PICTURES;

export function setting(name) {
  return process.env[name] ?? assert.fail(`${name} is not set`);
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks the test to do something, such as to kill a node, and waits until it is done. */
export async function step(name) {
  console.log(`step ${name}`);
  const { value } = await lines.next();
  assert.equal(value, "done", `the test did not do: ${name}`);
}

/** Runs a function with a browser, and closes the browser. */
export async function withBrowser(run) {
  // The browser only loads pages of this repository, and root cannot use its sandbox.
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  try {
    await run(browser);
  } finally {
    await browser.close();
  }
  process.exit(0);
}

/** Opens a page of a gateway's console in a session of its own. `faults` collects what goes wrong on it. */
export async function open(browser, origin, { scheme = "light", width = 1280, height = 800, allowed = [] } = {}) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height }, acceptDownloads: true, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(SOON);
  const faults = [];
  page.on("dialog", (dialog) => (faults.push(`a dialog: ${dialog.message()}`), dialog.dismiss()));
  page.on("pageerror", (error) => faults.push(`an error: ${error.message}`));
  page.on("console", (message) => {
    const away = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !away) faults.push(message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (![origin, "data:", "blob:", ...allowed].some((known) => url.startsWith(known))) faults.push(`a request to ${url}`);
  });
  return { page, context, faults };
}

/** The faults that axe-core finds, one line each. */
export async function violations(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 120)} (${node.failureSummary})`));
}

/** Checks that everybody can read a page as it is now: with screen readers, at each size, in dark and light. */
export async function canBeRead(page, name) {
  for (const scheme of SCHEMES) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const width of SIZES) {
      await page.setViewportSize({ width, height: 800 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(wide, 0, `${name} is wider than ${width} px`);
      if (width !== 1024) assert.deepEqual(await violations(page), [], `${name}, ${scheme}, ${width} px`);
      await picture(page, `${name}-${scheme}-${width}`, { fullPage: width !== 1024 });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 800 });
}

/** Takes a screenshot, if pictures are wanted. */
export async function picture(page, name, options = {}) {
  if (!pictures) return;
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: `${pictures}/${name}.png`, ...options });
}

/** Waits until a part of the page contains a text. */
export async function shows(page, part, text) {
  await page.locator(part).filter({ hasText: text }).first().waitFor();
}

/** Presses Tab until the focus is on the wanted element, as a user without a mouse does. */
export async function tabTo(page, wanted) {
  for (let presses = 0; presses < 200; presses += 1) {
    if (await wanted.evaluate((element) => element === document.activeElement)) return wanted;
    await page.keyboard.press("Tab");
  }
  return assert.fail(`no way to ${wanted} with the Tab key`);
}
