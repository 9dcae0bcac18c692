// The tour of README in the browser instead of a terminal, on a first run.

import assert from "node:assert/strict";

import { canBeRead, open, picture, setting, shows, withBrowser } from "./browser.mjs";

const origin = setting("CONSOLE");
const clients = setting("CLIENTS");

await withBrowser(async (browser) => {
  const { page, faults } = await open(browser, origin, { allowed: [clients] });
  await page.goto(`${origin}/#/try`);
  const [teacher, participant] = ["teacher", "participant"].map((role) => page.locator(`section[aria-label=${role}]`));
  await page.getByRole("button", { name: "Connect the teacher" }).click();
  await teacher.getByText("In lesson demo").waitFor();
  await page.getByRole("button", { name: "Connect the participant" }).click();
  await participant.getByText("In lesson demo, on seat 1 of 12").waitFor();
  await teacher.locator(".frames", { hasText: '"operation":"entered"' }).waitFor();
  assert.equal(await page.getByText("eyJ").count(), 0, "no token is on the screen");
  await participant.getByRole("button", { name: "Raise a hand" }).click();
  await teacher.locator(".frames", { hasText: '"hand":"raised"' }).waitFor();
  await page.getByRole("button", { name: "Publish" }).click();
  await shows(page, "[role=status]", "Stored at offset");
  for (const side of [teacher, participant]) await side.locator(".frames", { hasText: '{"text":"hello"}' }).waitFor();
  await canBeRead(page, "try");
  await page.setViewportSize({ width: 1280, height: 860 });
  await picture(page, "try");
  // Both clients stay connected while their classroom is shown, and afterwards.
  await page.getByRole("link", { name: "the demo's classroom" }).click();
  await shows(page, ".seats", "bob");
  await shows(page, "[role=status]", "2 agents");
  await page.getByRole("navigation").getByRole("link", { name: "Try it" }).click();
  await participant.getByText("In lesson demo, on seat 1 of 12").waitFor();
  await page.getByRole("button", { name: "Disconnect the participant" }).click();
  await teacher.locator(".frames", { hasText: '"operation":"left"' }).waitFor();
  await participant.getByText("Not connected.").waitFor();
  assert.deepEqual(faults, []);
});
