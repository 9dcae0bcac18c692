// A gateway that a script starts, with what its clients need: tokens, and events to receive.
import { spawn, execFileSync } from "node:child_process";
import { once } from "node:events";
import { createHmac } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import assert from "node:assert/strict";

const secret = "0123456789abcdef0123456789abcdef";
export const room = "6f1c9d3e-5a40-4a39-9d3b-0d3f7d7c1a01";
export const SOON = 10_000;
export const SUCCESS = { status: "SUCCESS", data: {} };

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export function token(sub, changes = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const message = `${part({ alg: "HS256" })}.${part({ iss: "test", aud: "example.org", sub, exp, ...changes })}`;
  return `${message}.${createHmac("sha256", secret).update(message).digest("base64url")}`;
}

/** A gateway with the lesson `algebra` in `room`, in the current folder. */
export class Gateway {
  static async start(settings) {
    const gateway = new Gateway();
    const [port, admin] = [await freePort(), await freePort()];
    gateway.url = `http://127.0.0.1:${port}`;
    gateway.admin = `http://127.0.0.1:${admin}`;
    gateway.environment = {
      ...process.env,
      ROLLCALL_HS256_SECRET: secret,
      DATABASE_URL: "sqlite:rollcall.db",
      ROLLCALL_LISTEN: `127.0.0.1:${port}`,
      ROLLCALL_ADMIN_LISTEN: `127.0.0.1:${admin}`,
      ROLLCALL_SOCKETIO_RECOVERY: "true",
      ROLLCALL_LOG: "warn",
      ...settings,
    };
    writeFileSync("lessons.csv", `lesson_id,classroom_id,seats\nalgebra,${room},3\n`);
    writeFileSync("attendees.csv", "lesson_id,user_id,seat\n");
    const load = ["load", "--lessons", "lessons.csv", "--attendees", "attendees.csv"];
    execFileSync(process.env.ROLLCALL, load, { env: gateway.environment });
    await gateway.restart();
    return gateway;
  }

  async restart() {
    this.process = spawn(process.env.ROLLCALL, [], { env: this.environment, stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    await new Promise((done, fail) => {
      this.process.stdout.on("data", (chunk) => {
        output += chunk;
        if (output.includes("admin on ")) done();
      });
      this.process.stdout.on("end", () => fail(new Error(`the gateway ended: ${output}`)));
    });
  }

  async end(signal) {
    const exited = once(this.process, "exit");
    this.process.kill(signal);
    await exited;
  }

  async publish(subject, body) {
    const answer = await fetch(`${this.admin}/api/v1/publish`, { method: "POST", body: JSON.stringify({ subject, body }) });
    assert.equal(answer.status, 202);
  }
}
