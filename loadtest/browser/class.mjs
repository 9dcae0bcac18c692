// A class on a school day: takes the pictures of README, and explains the end of a student who was disconnected.

import assert from "node:assert/strict";

import { SCHEMES, open, picture, setting, shows, withBrowser } from "./browser.mjs";

const origin = setting("CONSOLE");
const classroom = setting("CLASSROOM");

await withBrowser(async (browser) => {
  for (const scheme of SCHEMES) {
    const { page, faults } = await open(browser, origin, { scheme, width: 1360, height: 1000 });
    await page.goto(`${origin}/#/now`);
    await page.locator("section", { hasText: "Nodes" }).locator("tbody tr").nth(1).waitFor();
    await shows(page, ".tile", "most");
    await picture(page, `now-${scheme}`);
    await page.goto(`${origin}/#/classrooms/${classroom}`);
    await shows(page, "tbody", "maria.lopez");
    await shows(page, ".seats", "amara");
    await shows(page, ".events", "agent.left");
    await shows(page, "section", "raised");
    await picture(page, `classroom-${scheme}`);
    await page.goto(`${origin}/#/explain?agent=hugo`);
    await shows(page, "article", "ended by an operator (kicked)");
    await shows(page, "article", "an operator asked for it: /api/v1/disconnect");
    await picture(page, `explain-${scheme}`);
    assert.deepEqual(faults, []);
  }
});
