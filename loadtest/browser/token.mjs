// The console of a gateway with tokens: a wrong token, one that only allows reading, and the right one.

import assert from "node:assert/strict";

import { open, setting, shows, violations, withBrowser } from "./browser.mjs";

const origin = setting("CONSOLE");
const classroom = setting("CLASSROOM");

async function enter(page, token) {
  await page.getByRole("dialog").waitFor();
  await page.locator("dialog input").fill(token);
  await page.getByRole("button", { name: "Continue" }).click();
}

await withBrowser(async (browser) => {
  const reader = await open(browser, origin);
  await reader.page.goto(`${origin}/#/classrooms/${classroom}`);
  await reader.page.getByRole("dialog").waitFor();
  assert.deepEqual(await violations(reader.page), []);
  await enter(reader.page, "wrong");
  await shows(reader.page, "dialog", "That token is not right.");
  await enter(reader.page, setting("READ_TOKEN"));
  await shows(reader.page, "section", "1 agent");
  assert.equal(await reader.page.getByRole("button", { name: /Disconnect|Publish/ }).count(), 0, "it changes nothing");
  await reader.page.reload();
  await shows(reader.page, "section", "1 agent");
  assert.equal(await reader.page.evaluate(() => Object.keys(localStorage).length + document.cookie.length), 0);

  const guesser = await open(browser, origin);
  await guesser.page.goto(`${origin}/`);
  // The test sends as many tokens as it takes, because an address may try again every few seconds.
  const limited = guesser.page.locator("dialog").filter({ hasText: "Many wrong ones came from this address" });
  let tries = 0;
  do {
    assert.ok(tries < 200, "no number of wrong tokens is too many");
    await enter(guesser.page, `guess-${tries++}`);
    await guesser.page.locator("dialog [role=alert]").filter({ hasText: "That token is not right." }).waitFor();
  } while (!(await limited.isVisible()));

  // The right token is accepted even now.
  const operator = guesser.page;
  await enter(operator, setting("TOKEN"));
  await shows(operator, "h1", "Now");
  await operator.goto(`${origin}/#/classrooms/${classroom}`);
  await operator.getByRole("button", { name: /^Disconnect / }).waitFor();
  assert.deepEqual([...reader.faults, ...guesser.faults], []);
});
