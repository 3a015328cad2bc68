// The left panel: the picture asked about, and what the service says it is.

import { byId, element } from "./dom.js";
import { percent } from "./numbers.js";
import { pictureOfBlob } from "./pictures.js";

export const TOP = 5; // classes shown

const well = byId("well");
const preview = byId("preview");
const noPreview = byId("no-preview");
const answer = byId("answer");

well.addEventListener("picture-missing", () => {
  preview.hidden = true;
  noPreview.hidden = false;
});

export function showInvitation() {
  setPicture(null);
  setAnswer();
}

/** Show the file, and where classes will come five grey rows of their height. */
export function showGiven(file, { hasClasses }) {
  setPicture(pictureOfBlob(file, "The picture you gave"));
  if (!hasClasses) {
    setAnswer();
    return;
  }
  const rows = Array.from({ length: TOP }, () => element("li", { className: "class pending" }));
  setAnswer(
    element("p", { className: "eyebrow", textContent: "Looking\u2026" }),
    element("p", { className: "verdict pending" }),
    element("ol", { className: "classes" }, ...rows),
  );
  answer.setAttribute("aria-busy", "true");
}

export function showClasses({ label, probability, predictions, sure, why_not }) {
  const doubt = sure === false ? [element("p", { className: "doubt", textContent: `Not sure: ${why_not.detail}.` })] : [];
  setAnswer(
    element("p", { className: "eyebrow", textContent: leadOf(probability, sure) }),
    element("p", { className: "verdict" }, element("strong", { textContent: label })),
    ...doubt,
    element("ol", { className: "classes" }, ...predictions.map(classRow)),
  );
}

/** Below one half the best guess is more often wrong than right, and must not sound certain. */
function leadOf(probability, sure) {
  if (sure === false) return "Perhaps none of these; the best guess is";
  return probability < 0.5 ? "Unsure, perhaps" : "Looks like";
}

/** Take the answer away: none will come. */
export function showNoAnswer() {
  setAnswer();
}

/** Show a stored item: its picture at once, its label and metadata when `item` is there. */
export function showStored(image, id, { item = null, hasClasses }) {
  if (image) setPicture(image);
  const facts = Object.entries(item?.metadata ?? {}).flatMap(([key, value]) => [
    element("dt", { textContent: key }),
    element("dd", { textContent: typeof value === "string" ? value : JSON.stringify(value) }),
  ]);
  const label = item ? (item.label ?? "No label") : "";
  const verdict = element(
    "p",
    { className: item ? "verdict" : "verdict pending" },
    element("strong", { textContent: label }),
  );
  setAnswer(
    element("p", { className: "eyebrow", textContent: "Stored as" }),
    ...(hasClasses || item?.label ? [verdict] : []),
    element(
      "dl",
      { className: "stored" },
      element("dt", { textContent: "item" }),
      element("dd", { textContent: id }),
      ...facts,
    ),
  );
}

function classRow({ label, probability }) {
  const bar = element("span", { className: "bar-fill", aria: { hidden: "true" } });
  bar.style.setProperty("--share", Math.min(Math.max(probability, 0), 1));
  return element(
    "li",
    { className: "class" },
    element("span", { className: "class-label", textContent: label, title: label }),
    bar,
    element("span", { className: "class-share", textContent: percent(probability) }),
  );
}

function setPicture(image) {
  preview.replaceChildren(...(image ? [image] : []));
  preview.hidden = !image;
  noPreview.hidden = true;
  well.classList.toggle("filled", Boolean(image));
  byId("invite").hidden = Boolean(image);
  byId("choose-another").hidden = !image;
  byId("start-over").hidden = !image;
  byId("hint").hidden = Boolean(image);
}

function setAnswer(...children) {
  answer.removeAttribute("aria-busy");
  answer.replaceChildren(...children);
  answer.hidden = children.length === 0;
}
