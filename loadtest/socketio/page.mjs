// A page in Chromium with the unmodified socket.io-client of npm, from another origin than the gateway's, over each
// transport.
// usage: CLIENT=FOLDER_WITH_NODE_MODULES BROWSER=ANOTHER ROLLCALL=BINARY node page.mjs     run it in a folder of its own
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { Gateway, SOON, SUCCESS, token } from "./gateway.mjs";

const { chromium } = createRequire(`${process.env.BROWSER}/`)("playwright-core");
const script = readFileSync(`${process.env.CLIENT}/node_modules/socket.io-client/dist/socket.io.min.js`);
const TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]];

const pages = createServer((request, response) => {
  const isScript = request.url === "/socket.io.min.js";
  response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? script : '<!doctype html><title>class</title><script src="/socket.io.min.js"></script>');
}).listen(0, "127.0.0.1");
await once(pages, "listening");
const origin = `http://127.0.0.1:${pages.address().port}`;
const gateway = await Gateway.start({ ROLLCALL_ORIGINS: origin, ROLLCALL_GUESTS: "true" });
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"] });

/**
 * Connects in the page, which keeps the events that come in `came`. With `tokens`, the page takes the next of them and
 * joins the lesson each time it connects.
 */
async function connect(page, options) {
  const connecting = ([url, { tokens, ...options }]) => {
    window.came = [];
    const auth = tokens ? (give) => give({ token: tokens.shift(), lesson_id: "algebra" }) : options.auth;
    window.socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options, auth });
    if (tokens) window.socket.on("connect", () => window.socket.emit("join_lesson"));
    window.socket.onAny((name, ...args) => window.came.push([name, ...args]));
    window.refused = new Promise((done) => window.socket.once("connect_error", () => done()));
  };
  await page.evaluate(connecting, [gateway.url, options]);
}
const came = (page, name) => page.evaluate((name) => window.came.filter(([known]) => known === name).map(([, body]) => body), name);
async function event(page, name, count = 1) {
  await page.waitForFunction(([name, count]) => window.came.filter(([known]) => known === name).length >= count, [name, count], { timeout: SOON });
  return (await came(page, name))[count - 1];
}
const join = (page, data) => page.evaluate(([data, soon]) => window.socket.timeout(soon).emitWithAck("join_lesson", data), [data, SOON]);

const cases = {
  async "joins, events and acks, and what was missed in a break"(alice, bob, transports) {
    await connect(alice, { transports, withCredentials: true, auth: { token: token("alice") } });
    assert.deepEqual(await join(alice, { lesson_id: "algebra" }), SUCCESS);
    await connect(bob, { transports, query: { token: token("bob"), lesson_id: "algebra" } });
    await bob.evaluate(() => window.socket.emit("join_lesson"));
    assert.equal((await event(alice, "agent.entered")).payload.agent_id, "web.bob.example.org");
    assert.deepEqual(await join(bob, null), SUCCESS);
    await gateway.publish("lesson.algebra.board", { n: 1 });
    for (const page of [alice, bob]) assert.deepEqual(await event(page, "board"), { n: 1 });
    // The transport breaks, and the client gets the events that it missed.
    await alice.evaluate(() => window.socket.io.engine.close());
    await gateway.publish("lesson.algebra.board", { n: 2 });
    assert.deepEqual(await event(alice, "board", 2), { n: 2 });
    assert.equal(await alice.evaluate(() => window.socket.recovered), true);
    // When the page is closed, its agent leaves.
    await bob.close();
    await event(alice, "agent.left");
  },
  async "a token wherever it may stand"(page, _, transports) {
    const places = [
      { auth: { access_token: token("a") } },
      { query: { token: token("b") } },
      { query: { access_token: token("c") } },
      { query: { auth: token("d") } },
      { auth: { token: token("e") }, query: { token: "x" } },
    ];
    // A page cannot set headers of a WebSocket.
    if (transports[0] === "polling") places.push({ extraHeaders: { authorization: `Bearer ${token("f")}` } });
    for (const place of places) {
      await connect(page, { transports, ...place });
      assert.deepEqual(await join(page, { lesson_id: "algebra" }), SUCCESS);
      await event(page, "connect_success");
      await page.evaluate(() => window.socket.disconnect());
    }
  },
  async "a guest"(page, _, transports) {
    await connect(page, { transports });
    assert.deepEqual(await join(page, { lesson_id: "algebra" }), SUCCESS);
    await gateway.publish("lesson.algebra.bell", { rings: true });
    assert.deepEqual(await event(page, "bell"), { rings: true });
  },
  async "an expired token is renewed by reconnecting"(page, _, transports) {
    const now = Math.floor(Date.now() / 1000);
    const tokens = [now + 2, now + 3600].map((exp) => token("late", { exp }));
    await connect(page, { transports, tokens });
    assert.equal((await event(page, "session_error")).type, "token_expired");
    await event(page, "connect_success", 2);
  },
  async "a kill, a drain and the return of the node"(page, _, transports) {
    await connect(page, { transports, tokens: Array(10).fill(token("storm")) });
    await event(page, "connect_success");
    await gateway.end("SIGKILL");
    await gateway.restart();
    await event(page, "connect_success", 2);
    const over = gateway.end("SIGTERM");
    assert.equal((await event(page, "session_error")).type, "terminated");
    await over;
    await gateway.restart();
    await event(page, "connect_success", 3);
  },
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  for (const transports of TRANSPORTS) {
    const pages = [await browser.newPage(), await browser.newPage()];
    try {
      for (const page of pages) await page.goto(origin);
      await run(...pages, transports);
      console.log(`ok      Chromium ${browser.version()} ${transports}: ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  Chromium ${transports}: ${name}\n${error.stack}`);
    }
    for (const page of pages) await page.close();
  }
}
// A page of a foreign origin gets nothing.
const foreign = await browser.newPage();
await foreign.goto(origin.replace("127.0.0.1", "localhost"));
for (const transports of [["websocket"], ["polling"]]) {
  await connect(foreign, { transports, reconnection: false, auth: { token: token("eve") } });
  await foreign.evaluate(() => window.refused);
  console.log(`ok      Chromium ${transports}: a page of another origin is refused`);
}
await browser.close();
await gateway.end("SIGKILL");
pages.close();
process.exit(failed ? 1 : 0);
