// Sends requests to the gateway that serves this page, with the operator's token if the gateway requires one.

import { field, h } from "./dom.js";

const KEY = "rollcall-token";
// How long an answer may take, in milliseconds. A suspended node accepts connections but does not answer.
const ANSWER_IN = 10_000;
const SILENT_AFTER = 6000;
const PAUSES = [500, 1000, 2000, 4000];

/** The gateway answered, and refused the request. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The gateway did not answer. */
export class Away extends Error {}

let listener = () => {};

/** Calls `heard(true)` after each answer, and `heard(false)` if there was none. */
export function onAnswer(heard) {
  listener = heard;
}

let asking = null;

/** Opens one dialog, however many requests need a token. Resolves when there is a token. */
function askForToken(why) {
  asking ??= new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false" });
    const heading = h("h2", { id: "token-heading" }, "Token");
    const form = h(
      "form",
      { method: "dialog" },
      heading,
      h("p", {}, "This gateway asks for ROLLCALL_ADMIN_TOKEN or ROLLCALL_ADMIN_READ_TOKEN. It is kept until this tab is closed."),
      h("p", { class: "bad", role: "alert" }, why),
      field("Token", input),
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "main" }, "Continue")),
    );
    const dialog = h("dialog", { "aria-labelledby": heading.id, oncancel: (event) => event.preventDefault() }, form);
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, input.value.trim());
      dialog.remove();
      asking = null;
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

async function send(path, options) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers };
  // A header can contain only these characters.
  if (token && /^[\x21-\x7e]+$/.test(token)) headers.authorization = `Bearer ${token}`;
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), ANSWER_IN);
  const signal = options.signal ? AbortSignal.any([options.signal, late.signal]) : late.signal;
  try {
    return { answer: await fetch(path, { ...options, headers, signal, cache: "no-store" }), token };
  } catch (error) {
    if (options.signal?.aborted) throw error;
    listener(false);
    throw new Away("This node does not answer.");
  } finally {
    clearTimeout(timer);
  }
}

/** Requests a path. If the gateway requires a token, asks for one until the token is right. */
export async function open(path, options = {}) {
  for (;;) {
    const { answer, token } = await send(path, options);
    listener(true);
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({ detail: answer.statusText }));
    if (answer.status === 401) await askForToken(token ? "That token is not right." : "");
    else if (answer.status === 429) await askForToken("That token is not right. Many wrong ones came from this address.");
    else throw new Refused(answer.status, detail);
  }
}

export async function get(path, signal) {
  return (await open(path, { signal })).json();
}

export async function post(path, body) {
  const answer = await open(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  return answer.json();
}

/** Yields the events of a stream, each parsed as JSON. */
async function* events(path, signal, opened) {
  const answer = await open(path, { signal });
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
    }
  }
}

/**
 * Follows a stream while the page is visible, and reconnects if the stream breaks. `heard` gets each event. Returns a
 * function that stops the stream.
 */
export function follow(path, heard) {
  let current = null;
  let stopped = false;
  const once = async () => {
    const mine = new AbortController();
    current = mine;
    let timer;
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => mine.abort(), SILENT_AFTER);
    };
    try {
      for await (const event of events(path, mine.signal, wait)) {
        wait();
        listener(true);
        heard(event);
      }
    } finally {
      clearTimeout(timer);
      mine.abort();
    }
  };
  const run = async () => {
    for (let failures = 0; !stopped; ) {
      if (document.hidden) {
        await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
        continue;
      }
      const began = Date.now();
      await once().catch((error) => console.debug(error));
      if (stopped || document.hidden) continue;
      listener(false);
      failures = Date.now() - began > 10_000 ? 0 : Math.min(failures + 1, PAUSES.length - 1);
      await new Promise((resolve) => setTimeout(resolve, PAUSES[failures]));
    }
  };
  const hide = () => document.hidden && current?.abort();
  document.addEventListener("visibilitychange", hide);
  run();
  return () => {
    stopped = true;
    document.removeEventListener("visibilitychange", hide);
    current?.abort();
  };
}

/**
 * Calls `look` at once and again `every` milliseconds after each call is done, while the page is visible. A failed call
 * is reported to `failed`, and the next calls follow. Returns a function that stops the calls, and `now`, which calls
 * `look` without waiting.
 */
export function repeat(every, look, failed = () => {}) {
  const stop = new AbortController();
  let wake = () => {};
  let again = false;
  const now = () => {
    again = true;
    wake();
  };
  const run = async () => {
    while (!stop.signal.aborted) {
      again = false;
      if (!document.hidden) {
        try {
          await look(stop.signal);
        } catch (error) {
          if (stop.signal.aborted) return;
          failed(error);
        }
      }
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, again ? 0 : every);
      });
    }
  };
  document.addEventListener("visibilitychange", now, { signal: stop.signal });
  run();
  return { stop: () => (stop.abort(), wake()), now };
}
