// The unmodified socket.io-client of npm against a gateway that this script starts, over each transport.
// usage: CLIENT=FOLDER_WITH_NODE_MODULES ROLLCALL=BINARY node clients.mjs     run it in a folder of its own
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { Gateway, SOON, SUCCESS, room, token } from "./gateway.mjs";

const load = createRequire(`${process.env.CLIENT}/`);
const { io } = load("socket.io-client");
const { version } = load("socket.io-client/package.json");
const TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]];
const gateway = await Gateway.start({ ROLLCALL_GUESTS: "true", ROLLCALL_SOCKETIO_NAMESPACES: "/,/teachers" });
const { url } = gateway;
const publish = (subject, body) => gateway.publish(subject, body);

const open = [];
function connect(options = {}, namespace = "") {
  const socket = io(url + namespace, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
  open.push(socket);
  // Events are kept from the beginning, so that a test can look for an event after it came.
  socket.came = [];
  socket.onAny((name, ...args) => socket.came.push([name, ...args]));
  return socket;
}
async function until(what, holds) {
  const deadline = Date.now() + SOON;
  for (;;) {
    const found = await holds();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not in time`);
    await new Promise((done) => setTimeout(done, 10));
  }
}
/** Returns the first argument of an event that has come, or waits for it. */
async function event(socket, name, fits = () => true) {
  const found = await until(`${name} for ${socket.id}`, () => socket.came.find(([known, arg]) => known === name && fits(arg)));
  return found[1];
}
const connected = (socket) => until("connect", () => socket.connected);
const closed = (socket) => new Promise((done) => socket.once("disconnect", done));
const join = (socket, ...data) => socket.timeout(SOON).emitWithAck("join_lesson", ...data);

const cases = {
  async "joins, events and acks"(transports) {
    const alice = connect({ transports, auth: { token: token("alice") } });
    // The request is emitted before the client has connected, so the client's library keeps it.
    assert.deepEqual(await join(alice, { lesson_id: "algebra" }), SUCCESS);
    const success = await event(alice, "connect_success");
    assert.equal(success.sid, alice.id);
    const bob = connect({ transports, auth: (give) => give({ access_token: token("bob"), lesson_id: "algebra" }) });
    bob.emit("join_lesson");
    const { session_id, agent_id } = await event(bob, "connect_success");
    assert.equal(agent_id, "web.bob.example.org");
    const entered = await event(alice, "agent.entered", (push) => push.id.sequence_id === session_id);
    assert.equal(entered.payload.agent_id, agent_id);
    await publish("lesson.algebra.board", { drawn: [1, "é\u2028"] });
    assert.deepEqual(await event(alice, "board"), { drawn: [1, "é\u2028"] });
    assert.deepEqual(await event(bob, "board"), { drawn: [1, "é\u2028"] });
    assert.deepEqual(await join(bob, null), SUCCESS);
    assert.deepEqual(await join(bob, { lesson_id: "none" }), { status: "ERROR", message: "lesson not found" });
    bob.emit("nonsense", 1, 2, 3);
    assert.equal((await event(bob, "request_error")).message, "unknown event");
    assert.equal((await join(bob, { file: Buffer.from([1, 2, 3]) })).message, "invalid payload");
    bob.disconnect();
    await event(alice, "agent.left", (push) => push.id.sequence_id === session_id);
    // The client's socket connects again after its namespace was left.
    bob.connect();
    assert.deepEqual(await join(bob, {}), SUCCESS);
  },
  async "a token wherever it may stand"(transports) {
    const places = [
      { query: { token: token("a") } },
      { query: { access_token: token("b") } },
      { query: { auth: token("b2") } },
      { extraHeaders: { authorization: `Bearer ${token("c")}` } },
      { auth: { token: token("d") }, query: { token: "x" } },
    ];
    for (const place of places) assert.deepEqual(await join(connect({ transports, ...place }), { lesson_id: "algebra" }), SUCCESS);
  },
  async "a refusal is final, and an unknown namespace, too"(transports) {
    for (const [options, namespace, message] of [
      [{ auth: { token: "x" } }, "", "unauthenticated"],
      [{ auth: { token: token("a", { classroom_ids: [] }), classroom_id: room } }, "", "access_denied"],
      [{}, "/nowhere", "Invalid namespace"],
    ]) {
      const socket = connect({ transports, ...options }, namespace);
      const [error] = await new Promise((done) => socket.once("connect_error", (...args) => done(args)));
      assert.equal(error.message, message);
      assert.equal(socket.active, false);
    }
  },
  async "the library's options"(transports) {
    for (const options of [
      { retries: 2, ackTimeout: SOON },
      { protocols: ["class-v1", "class-v2"] },
      { addTrailingSlash: false, timestampRequests: true },
      { upgrade: false },
      { transports: [...transports].reverse(), tryAllTransports: true },
    ]) {
      const socket = connect({ transports, auth: { token: token("options"), lesson_id: "algebra" }, ...options });
      // Each event waits for the event before, and the library sends an event again if its answer does not come.
      socket.volatile.emit("nonsense");
      socket.compress(false).emit("join_lesson");
      assert.deepEqual(await socket.timeout(SOON).emitWithAck("ping"), SUCCESS);
      assert.deepEqual(await socket.timeout(SOON).emitWithAck("leave_lesson"), SUCCESS);
      assert.equal(socket.came.filter(([name]) => name === "connect_success").length, 1);
      socket.disconnect();
    }
  },
  async "namespaces and guests"(transports) {
    const teacher = connect({ transports }, `/teachers?token=${token("tess", { role: "teacher" })}`);
    assert.deepEqual(await join(teacher, { lesson_id: "algebra" }), SUCCESS);
    assert.equal((await event(teacher, "connect_success")).agent_id, "teachers.tess.example.org");
    const guest = connect({ transports });
    assert.deepEqual(await join(guest, { lesson_id: "algebra" }), SUCCESS);
    await publish("lesson.algebra.bell", { rings: true });
    assert.deepEqual(await event(guest, "bell"), { rings: true });
    assert.deepEqual(await event(teacher, "bell"), { rings: true });
  },
  async "namespaces share a transport"(transports) {
    const main = connect({ transports, auth: { token: token("main"), classroom_id: room } });
    const teachers = main.io.socket("/teachers", { auth: { token: token("tess", { role: "teacher" }) } });
    open.push(teachers);
    teachers.came = [];
    teachers.onAny((name, ...args) => teachers.came.push([name, ...args]));
    assert.deepEqual(await join(teachers, { lesson_id: "algebra" }), SUCCESS);
    assert.deepEqual(await join(main, { lesson_id: "algebra" }), SUCCESS);
    assert.notEqual(main.id, teachers.id);
    await publish("lesson.algebra.bell", { rings: "in each" });
    for (const socket of [main, teachers]) await event(socket, "bell", (body) => body.rings === "in each");
    const { session_id } = await event(teachers, "connect_success");
    teachers.disconnect();
    await event(main, "agent.left", (push) => push.id.sequence_id === session_id);
    assert.equal(main.connected, true);
    teachers.connect();
    assert.deepEqual(await join(teachers, { lesson_id: "algebra" }), SUCCESS);
    // A break of the transport ends both namespaces, and both come back.
    main.io.engine.close();
    await until("both are back", () => main.connected && teachers.connected && main.recovered && teachers.recovered);
  },
  async "what was missed in a break comes in order, none twice"(transports) {
    const socket = connect({ transports, auth: { token: token("breaks"), lesson_id: "algebra" } });
    assert.deepEqual(await join(socket), SUCCESS);
    const numbers = () => socket.came.filter(([name]) => name === "counted").map(([, body]) => body.n);
    let sent = 0;
    const count = async (times) => {
      for (let n = 0; n < times; n += 1) await publish(sent % 2 ? "lesson.algebra.counted" : `classroom.${room}.counted`, { n: sent++ });
    };
    for (let round = 0; round < 3; round += 1) {
      await count(3);
      await until("events", () => numbers().length === sent);
      const [before, back] = [socket.id, new Promise((done) => socket.once("connect", done))];
      // The connection is closed below Socket.IO, as in the library's own tests.
      socket.io.engine.close();
      await count(4);
      await back;
      assert.equal(socket.recovered, true);
      assert.notEqual(socket.id, before);
      await count(2);
      await until("what was missed", () => numbers().length === sent);
      assert.deepEqual(numbers(), Array.from({ length: sent }, (_, n) => n));
    }
    socket.disconnect().connect();
    await connected(socket);
    assert.equal(socket.recovered, false);
  },
  async "the same agent again replaces the first"(transports) {
    const [first, second] = [0, 1].map(() => connect({ transports, autoConnect: false, auth: { token: token("twice"), classroom_id: room } }));
    first.connect();
    await event(first, "connect_success");
    const end = closed(first);
    second.connect();
    assert.equal((await event(first, "session_error")).type, "replaced");
    assert.equal(await end, "io server disconnect");
    await connected(second);
  },
  async "an expired token is renewed by reconnecting"(transports) {
    let asked = 0;
    const exp = () => Math.floor(Date.now() / 1000) + (asked++ === 0 ? 2 : 3600);
    const socket = connect({ transports, auth: (give) => give({ token: token("late", { exp: exp() }), classroom_id: room }) });
    assert.equal((await event(socket, "session_error")).type, "token_expired");
    await until("a second connect", () => asked === 2 && socket.connected);
  },
  async "many come back after the node was killed, and after a drain"(transports) {
    const sockets = Array.from({ length: 20 }, (_, n) => connect({ transports, auth: { token: token(`storm-${n}`), lesson_id: "algebra" } }));
    for (const socket of sockets) socket.on("connect", () => socket.emit("join_lesson"));
    const joined = (times) => sockets.every((socket) => socket.came.filter(([name]) => name === "connect_success").length === times);
    await until("all have joined", () => joined(1));
    await gateway.end("SIGKILL");
    await gateway.restart();
    await until("all are back", () => joined(2));
    const drained = sockets.map((socket) => event(socket, "session_error", (error) => error.type === "terminated"));
    const over = gateway.end("SIGTERM");
    await Promise.all(drained);
    await over;
    await gateway.restart();
    await until("all are back again", () => joined(3));
  },
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  for (const transports of TRANSPORTS) {
    try {
      await run(transports);
      console.log(`ok      ${version} ${transports}: ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${version} ${transports}: ${name}\n${error.stack}`);
    }
    open.splice(0).forEach((socket) => socket.disconnect());
  }
}
await gateway.end("SIGKILL");
process.exit(failed ? 1 : 0);
