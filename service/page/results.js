// The right side: the grid of stored pictures, and what is said when there is none.

import { apiKey } from "./api.js";
import { hashOf } from "./address.js";
import { byId, element } from "./dom.js";
import { milliseconds, score, things } from "./numbers.js";

const STAGES = ["queue", "decode", "encode", "search"];

const tiles = byId("tiles");
const empty = byId("empty");
const timings = byId("timings");
const alertBox = byId("alert");
const waitingBox = byId("waiting");

/** Grey tiles when nothing is there yet; else the old ones stay, dimmed, so that nothing jumps. */
export function showPending(k) {
  clearNotices();
  if (!tiles.childElementCount || tiles.querySelector(".pending")) {
    empty.hidden = true;
    const blanks = Array.from({ length: k }, () =>
      element("li", { className: "tile pending", aria: { hidden: "true" } },
        element("span", { className: "frame" }), element("span", { className: "caption" })));
    tiles.replaceChildren(...blanks);
  }
  tiles.setAttribute("aria-busy", "true");
}

/** Show hits or items; `picture(id, alt)` makes the <img>, `options` are the k, kind and labels in force. */
export function showItems(items, { picture, options, unlabelled, queryId = null }) {
  settle(...items.map((item) => tile(item, { picture, options, unlabelled, queryId })));
}

export function showTimings(spent, seenCount) {
  const stages = STAGES.filter((stage) => Number.isFinite(spent[stage]))
    .map((stage) => `${stage} ${milliseconds(spent[stage])}`);
  const among = seenCount === null ? "" : ` among ${things(seenCount, "item")}`;
  timings.textContent = `Found${among} in ${milliseconds(spent.total)}: ${stages.join(", ")}.`;
}

export function showNothing({ labels }) {
  settle();
  const which = labels.map((label) => `\u201c${label}\u201d`).join(" or ");
  empty.replaceChildren(
    element("p", { textContent: `No stored item has the label ${which}.` }),
  );
  empty.hidden = false;
}

/** An empty gallery: say how to put the first picture in, with a line that works as it stands. */
export function showEmptyGallery() {
  settle();
  const url = new URL("v1/items/my-first?label=coat", document.baseURI);
  const key = apiKey() ? " -H 'Authorization: Bearer YOUR_KEY'" : "";
  const line = `curl -T coat.jpg -H 'Content-Type: image/jpeg'${key} '${url}'`;
  const code = element("code", { textContent: line });
  const parts = [
    element("h3", { textContent: "The gallery is empty" }),
    element("p", { textContent: "Add a picture, then look for its likes:" }),
    element("pre", { tabIndex: 0 }, code),
  ];
  if (navigator.clipboard) {
    const copy = element("button", { type: "button", className: "button", textContent: "Copy the line" });
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(line);
      copy.textContent = "Copied";
    });
    parts.push(copy);
  }
  empty.replaceChildren(...parts);
  empty.hidden = false;
}

/** Say what went wrong; `action` is {text, run} for the one thing that can be done about it. */
export function showProblem(sentence, action = null, { keepTiles = false } = {}) {
  if (!keepTiles) settle();
  waitingBox.hidden = true;
  alertBox.replaceChildren(element("p", { textContent: sentence }));
  if (action) {
    const button = element("button", { type: "button", className: "button", textContent: action.text });
    button.addEventListener("click", action.run);
    alertBox.append(button);
  }
  alertBox.hidden = false;
}

export function showWaiting(sentence) {
  // The same words again would make a screen reader say them again.
  const text = `${sentence} Trying again in a moment.`;
  if (!waitingBox.hidden && waitingBox.textContent === text) return;
  waitingBox.replaceChildren(element("p", { textContent: text }));
  waitingBox.hidden = false;
}

export function clearNotices() {
  alertBox.hidden = true;
  waitingBox.hidden = true;
}

function settle(...children) {
  waitingBox.hidden = true;
  empty.hidden = true;
  timings.textContent = "";
  tiles.removeAttribute("aria-busy");
  tiles.replaceChildren(...children);
}

function tile({ id, label, score: cosine }, { picture, options, unlabelled, queryId }) {
  const image = picture(id, `Item ${id}`);
  image.addEventListener("picture-missing", () => image.replaceWith(
    element("span", { className: "no-picture", textContent: "no picture" })));
  const caption = element("span", { className: "caption" },
    element("span", { className: "label", textContent: label ?? unlabelled }));
  if (cosine !== undefined) {
    const title = `cosine ${cosine}`;
    caption.append(element("span", { className: "score", textContent: score(cosine), title }));
  }
  const link = element("a", { href: hashOf({ id, ...options }), title: id },
    element("span", { className: "frame" }, image), caption);
  if (id === queryId) link.setAttribute("aria-current", "true");
  return element("li", { className: "tile" }, link);
}
