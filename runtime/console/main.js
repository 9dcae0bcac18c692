// Chooses the page to show. It also has the parts that all pages share: the navigation, and whether the gateway
// answers.

import { Refused, get, onAnswer } from "./api.js";
import { h, replace, say } from "./dom.js";
import * as classroom from "./classroom.js";
import * as classrooms from "./classrooms.js";
import * as explain from "./explain.js";
import * as now from "./now.js";
import * as tryIt from "./try.js";

// Each page has its path, its name in the navigation, and the function that shows it.
const PAGES = [
  { path: "now", name: "Now", page: now },
  { path: "classrooms", name: "Classrooms", page: classrooms },
  { path: "try", name: "Try it", page: tryIt, shown: (me) => me.demo },
  { path: "explain", name: "Explain", page: explain },
];

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const line = document.getElementById("line");
let stop = () => {};
let me = { changes: false, demo: false, version: "" };

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, id] = path.split("/");
  const known = PAGES.find((page) => page.path === first) ?? PAGES[0];
  const page = known.path === "classrooms" && id ? classroom : known.page;
  return { path: known.path, page, id: id ? decodeURIComponent(id) : null, query: new URLSearchParams(query) };
}

function show(focus) {
  const { path, page, id, query } = route();
  stop();
  const links = PAGES.filter((entry) => entry.shown?.(me) ?? true).map((entry) =>
    h("a", { href: `#/${entry.path}`, "aria-current": entry.path === path ? "page" : null }, entry.name),
  );
  replace(nav, links);
  const heading = h("h1", { tabindex: "-1" }, page.title);
  replace(main, heading);
  document.title = `${page.title} · Rollcall`;
  stop = page.show(main, { me, id, query, heading }) ?? (() => {});
  if (focus) heading.focus();
}

let away = null;
onAnswer((answered) => {
  if (answered) {
    if (away) {
      say(line, `This node answers again, after ${Math.round((Date.now() - away) / 1000)} s.`);
      setTimeout(() => away ?? say(line, ""), 10_000);
    }
    away = null;
  } else if (away === null) {
    away = Date.now();
    say(line, "This node does not answer. Trying again.");
  }
  line.classList.toggle("bad", !answered);
  document.body.classList.toggle("away", !answered);
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

async function begin() {
  for (;;) {
    try {
      me = await get("/api/console/me");
      break;
    } catch (error) {
      if (error instanceof Refused) {
        replace(main, h("h1", {}, "The console cannot start"), h("p", {}, error.message));
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  addEventListener("hashchange", () => show(true));
  show(false);
}

begin();
