// Creates elements from data. Texts become text nodes, so text that a stranger wrote is never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Creates an HTML element: `h("a", { href: "#/now" }, "Now")`. Attributes that begin with `on` are listeners. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Creates an element of SVG. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets the text of an element if the text is different, because screen readers and selections notice every change. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Replaces the children of an element. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
}

/**
 * Gives `parent` one child for each of `items`, in their order. If an item's key stays, its child stays, so that focus
 * and selection stay, and `update` updates the child. Otherwise `make` creates the child.
 */
export function keyed(parent, items, key, make, update = () => {}) {
  const kept = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = kept.get(name);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = name;
    }
    kept.delete(name);
    update(child, item);
    if (child === before) before = before.nextElementSibling;
    else parent.insertBefore(child, before);
  }
  for (const child of kept.values()) child.remove();
}

/**
 * Creates a table with a caption. `columns` are texts, or `{ text, number: true }`. Returns the part that scrolls, and
 * the body.
 */
export function table(caption, columns) {
  const heads = columns.map((column) => {
    const { text, number, hidden } = typeof column === "string" ? { text: column } : column;
    return h("th", { scope: "col", class: number ? "number" : null }, hidden ? h("span", { class: "unseen" }, text) : text);
  });
  const body = h("tbody");
  const view = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), body),
  );
  return { view, body };
}

let ids = 0;

/** Creates an input with its label. */
export function field(label, input, hint) {
  input.id ||= `field-${++ids}`;
  const note = hint ? h("small", { id: `${input.id}-hint` }, hint) : null;
  if (note) input.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, note);
}

/**
 * Asks a question in a dialog. Resolves to whether the user pressed the button named `action`.
 */
export function confirm(title, text, action) {
  return new Promise((resolve) => {
    const heading = h("h2", { id: `field-${++ids}` }, title);
    const dialog = h(
      "dialog",
      { "aria-labelledby": heading.id, onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")) },
      heading,
      h("p", {}, text),
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel"),
        h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, action),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

let hiding;

/** Shows a message for some seconds. */
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => (place.textContent = ""), 8000);
}

/** Copies a text. Without TLS the page has no right to use the clipboard, and copies in another way. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const place = h("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    const focused = document.activeElement;
    place.value = text;
    document.body.append(place);
    place.select();
    document.execCommand("copy");
    place.remove();
    focused?.focus();
  }
  toast("Copied.");
}
