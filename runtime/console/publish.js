// A form that publishes an event to the classroom, or to one of its lessons.

import { post } from "./api.js";
import { field, h, keyed, say } from "./dom.js";

export function part(classroom) {
  const room = h("option", { value: `classroom.${classroom}` }, "the classroom");
  const lessons = h("optgroup", { label: "a lesson" });
  const to = h("select", {}, room, lessons);
  const entity = h("input", { value: "note", pattern: "[a-z0-9_\\-]{1,64}", required: true, spellcheck: "false", autocomplete: "off" });
  const body = h("textarea", { rows: "3", spellcheck: "false", required: true });
  body.value = '{"text": "hello"}';
  const outcome = h("p", { class: "note", role: "status" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      const { offset } = await post("/api/v1/publish", { subject: `${to.value}.${entity.value}`, body: object(body.value) });
      outcome.className = "note";
      const unseen = to.value === room.value ? "" : " Agents in the lesson get it; Events, here, are the classroom's.";
      say(outcome, `Stored at offset ${offset}.${unseen}`);
    } catch (error) {
      outcome.className = "note bad";
      say(outcome, `Not published: ${error.message}`);
    }
  };
  return {
    view: h(
      "section",
      { "aria-labelledby": "publish" },
      h("h2", { id: "publish" }, "Publish"),
      h(
        "form",
        { class: "form", onsubmit: submit },
        h("div", { class: "line-up" }, field("To", to), field("Name", entity)),
        field("Body, a JSON object", body),
        h("div", { class: "buttons" }, h("button", { type: "submit", class: "main" }, "Publish")),
        outcome,
      ),
    ),
    offer: (agents) => {
      const ids = [...new Set(agents.map((one) => one.lesson_id).filter(Boolean))].sort();
      keyed(lessons, ids, (id) => id, (id) => h("option", { value: `lesson.${id}` }, id));
      lessons.hidden = ids.length === 0;
    },
  };
}

function object(text) {
  const value = JSON.parse(text);
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error("the body must be a JSON object");
  return value;
}
