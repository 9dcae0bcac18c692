// A client of the demo, which tells its page each frame on its connection.

/** Connects, enters and joins. Calls `went` for each frame, with `sent`, `got` or `note`, and the frame's text. */
export class Client {
  constructor(demo, user, went) {
    this.demo = demo;
    this.user = user;
    this.went = went;
    this.socket = null;
    this.number = 0;
    this.isIn = false;
  }

  get isOpen() {
    return this.socket !== null;
  }

  connect(changed) {
    const socket = new WebSocket(this.demo.url);
    this.socket = socket;
    const { token } = this.user;
    socket.addEventListener("open", () => {
      this.send("connect_request", { token, classroom_id: this.demo.classroom_id, agent_label: "console", roster: true }, false);
    });
    socket.addEventListener("message", ({ data }) => {
      this.went("got", data);
      const message = JSON.parse(data);
      if (message.type === "connect_success") {
        this.isIn = true;
        this.send("join_lesson", { lesson_id: this.demo.lesson_id });
      }
      changed(message);
    });
    socket.addEventListener("close", ({ code, reason }) => {
      this.socket = null;
      this.isIn = false;
      this.went("note", `closed: ${code}${reason ? ` ${reason}` : ""}`);
      changed(null);
    });
  }

  send(type, payload, answered = true) {
    const request = answered ? { type, ref: ++this.number, payload } : { type, payload };
    // The token is not shown, because it is long, and a secret must not be visible on a shared screen.
    const shown = payload?.token ? { ...request, payload: { ...payload, token: "…" } } : request;
    this.went("sent", JSON.stringify(shown));
    this.socket.send(JSON.stringify(request));
  }

  close() {
    this.socket?.close(1000);
  }
}
