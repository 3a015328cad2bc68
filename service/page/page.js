// The page's one loop: the address says what is asked, `show` asks the service, the parts draw it.

import {
  apiKey, classify, getGallery, getItem, getItems, getModel, Problem, searchById, searchByImage, setApiKey,
} from "./api.js";
import { asked, COUNTS, pushPicture, pushStart, replaceOptions } from "./address.js";
import { byId, element } from "./dom.js";
import { listenForImages } from "./intake.js";
import { count, percent, things } from "./numbers.js";
import * as panel from "./panel.js";
import { storedPictures } from "./pictures.js";
import * as results from "./results.js";

const CHIPS = 20; // more labels than this would bury the results
const TITLES = { start: "Try one of these", asked: "Nearest in the gallery" };

let model = null;
let gallery = null;
let current = new AbortController(); // aborted when something else is asked: a late answer draws nothing
let moveFocus = false;

listen();
show();

/** Ask the service for what the address says, and draw it. */
async function show() {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const request = { signal, onWait: (problem) => results.showWaiting(problem.message) };
  const query = asked();
  const isStart = !query.id && !query.picture;

  document.title = "Lookalike";
  byId("results-title").textContent = isStart ? TITLES.start : TITLES.asked;
  drawOptions(query);
  results.showPending(query.k);
  const parts = [about(request, isStart)];
  if (query.id) parts.push(showItem(query, request));
  else if (query.picture) parts.push(showPicture(query, request));
  else parts.push(showStart(query, request));
  if (moveFocus) byId("results-title").focus({ preventScroll: true });
  moveFocus = false;

  // One refusal often comes several times (a broken file fails both questions): told once.
  const failed = (await Promise.allSettled(parts)).find((part) => part.status === "rejected");
  if (failed && !signal.aborted) fail(failed.reason, query);
}

async function showStart(query, request) {
  panel.showInvitation();
  const { items } = await getItems({ limit: query.k, labels: query.labels }, request);
  if (request.signal.aborted) return;
  drawItems(items, query, request);
}

async function showPicture(query, request) {
  const file = query.picture;
  panel.showGiven(file, { hasClasses: hasClasses() });
  const named = name(file, request);
  const near = searchByImage(file, query, request).then((found) => {
    if (!request.signal.aborted) drawHits(found, query, request);
    return found;
  });
  named.catch(() => request.signal.aborted || panel.showNoAnswer());
  const [found, { hits }] = await Promise.all([named, near]);
  const doubt = found?.sure === false ? "Perhaps none of these; the best guess is " : "";
  const said = found ? `${doubt}${found.label}, ${percent(found.probability)}. ` : "";
  announce(request, `${said}${things(hits.length, "nearest item")}.`);
}

/** Show what the picture is, and return it; null where the model has learnt no classes. */
async function name(file, request) {
  model ??= await getModel(request);
  if (!hasClasses()) {
    if (!request.signal.aborted) panel.showNoAnswer();
    return null;
  }
  const found = await classify(file, { k: panel.TOP }, request);
  if (request.signal.aborted) return found;
  panel.showClasses(found);
  document.title = `${found.label} \u00b7 Lookalike`;
  return found;
}

/** Whether to speak of classes: of most models, so also as long as it is not known. */
function hasClasses() {
  return model === null || model.labels.length > 0;
}

async function showItem(query, request) {
  const picture = storedPictures(request.signal);
  panel.showStored(picture(query.id, `Item ${query.id}`), query.id, { hasClasses: hasClasses() });
  const described = getItem(query.id, request).then((item) => {
    if (request.signal.aborted) return;
    panel.showStored(null, query.id, { item, hasClasses: hasClasses() });
    document.title = `${item.label ?? query.id} \u00b7 Lookalike`;
  });
  described.catch(() => request.signal.aborted || panel.showNoAnswer());
  const near = searchById(query.id, query, request).then((found) => {
    if (!request.signal.aborted) drawHits(found, query, request);
    return found;
  });
  const [, { hits }] = await Promise.all([described, near]);
  announce(request, `${things(hits.length, "item")} nearest to item ${query.id}.`);
}

function drawHits({ hits, timings_ms: spent }, query, request) {
  drawItems(hits, query, request);
  if (hits.length && spent) results.showTimings(spent, gallery?.count ?? null);
}

function drawItems(items, query, { signal }) {
  const { id, k, kind, labels } = query;
  if (items.length) {
    results.showItems(items, {
      picture: storedPictures(signal),
      options: { k, kind, labels },
      unlabelled: hasClasses() ? "no label" : "",
      queryId: id,
    });
  } else if (labels.length) {
    results.showNothing({ labels });
  } else {
    results.showEmptyGallery();
  }
}

/** What is served: asked once, and the gallery's size again with every new start. */
async function about(request, isStart) {
  if (model && gallery && !isStart) return;
  [model, gallery] = await Promise.all([model ?? getModel(request), getGallery(request)]);
  if (request.signal.aborted) return;
  const { name, fingerprint, architecture, device } = model;
  byId("facts").replaceChildren(
    element("span", {
      textContent: things(gallery.count, "item"),
      title: `Gallery ${gallery.name}, change ${gallery.seq}`,
    }),
    element("span", { textContent: name, title: `Model ${fingerprint}` }),
  );
  const said = [
    `Model ${name}`, fingerprint?.slice(0, 12), architecture?.network,
    architecture?.width && `vectors of ${count(architecture.width)} numbers`,
    gallery.structure && `${gallery.structure} search`, device && `on ${device}`,
  ];
  byId("about").textContent = said.filter(Boolean).join(" \u00b7 ");
  drawOptions(asked());
}

/** Which of 12, 24, 48, which kind and which labels are in force. */
function drawOptions({ id, picture, k, kind, labels }) {
  for (const input of byId("how-many").querySelectorAll("input")) input.checked = Number(input.value) === k;
  drawKnob(kind ?? model?.kind ?? null, Boolean(id || picture));
  const chips = byId("labels");
  const known = model?.labels ?? [];
  // Before the model is known its place is kept, so that the pictures do not move when it is.
  chips.hidden = model !== null && (known.length < 2 || known.length > CHIPS);
  if (chips.hidden || !known.length) return;
  if (chips.childElementCount !== known.length + 1) {
    chips.replaceChildren(chip("All", null), ...known.map((label) => chip(label, label)));
  }
  for (const button of chips.children) {
    const isOn = button.value === "" ? labels.length === 0 : labels.includes(button.textContent);
    button.setAttribute("aria-pressed", isOn);
  }
}

/** The knob is there where the model has one and something is looked for. */
function drawKnob(kind, isSearch) {
  byId("knob").hidden = !isSearch || (model?.kind ?? null) === null;
  if (kind === null) return;
  const input = byId("kind");
  input.value = kind;
  input.setAttribute("aria-valuetext", spoken(kind));
}

function spoken(kind) {
  if (kind === 0) return "this very thing";
  if (kind === 1) return "the same kind";
  return `${Math.round(100 * kind)} % the same kind, ${Math.round(100 * (1 - kind))} % this very thing`;
}

function chip(text, label) {
  const value = label === null ? "" : "label";
  const button = element("button", { type: "button", className: "chip", textContent: text, value });
  button.addEventListener("click", () => {
    const query = asked();
    if (label === null) query.labels = [];
    else if (query.labels.includes(label)) query.labels = query.labels.filter((other) => other !== label);
    else query.labels = [...query.labels, label];
    replaceOptions(query);
    show();
  });
  return button;
}

function fail(error, query) {
  if (!(error instanceof Problem)) {
    results.showProblem("This page met a fault of its own. Reload it to go on.");
    throw error;
  }
  const again = { text: "Try again", run: show };
  if (error.status === 401) {
    results.showProblem(error.message, { text: "Enter an API key", run: () => askForKey(error.message) });
    askForKey(error.message);
  } else if (error.status === 0 || error.status === 429 || error.status >= 500) {
    results.showProblem(error.message, again);
  } else if (query.id && error.status === 404) {
    results.showProblem(error.message, { text: "Start over", run: startOver });
  } else {
    results.showProblem(error.message);
  }
}

function askForKey(reason) {
  const dialog = byId("key-dialog");
  byId("key-reason").textContent = reason;
  byId("key-input").value = "";
  if (!dialog.open) dialog.showModal();
}

function announce({ signal }, text) {
  if (!signal.aborted) byId("announcer").textContent = text;
}

function startOver() {
  pushStart();
  moveFocus = true;
  show();
}

function listen() {
  let fromTile = false; // a followed link starts at the top; Back returns to where one was
  byId("tiles").addEventListener("click", (event) => {
    fromTile = !(event.ctrlKey || event.metaKey || event.shiftKey);
  });
  addEventListener("popstate", () => {
    moveFocus = byId("tiles").contains(document.activeElement);
    if (fromTile) scrollTo({ top: 0 });
    fromTile = false;
    show();
  });
  listenForImages({
    onImage: (file) => {
      byId("key-dialog").close();
      pushPicture(file, asked());
      scrollTo({ top: 0 });
      show();
    },
    onRefused: (sentence) => results.showProblem(sentence, null, { keepTiles: true }),
  });
  for (const node of document.querySelectorAll("[data-start-over]")) {
    node.addEventListener("click", (event) => {
      event.preventDefault();
      startOver();
    });
  }
  byId("how-many").addEventListener("change", (event) => {
    const k = Number(event.target.value);
    replaceOptions({ ...asked(), k: COUNTS.includes(k) ? k : COUNTS[0] });
    show();
  });
  byId("kind").addEventListener("input", ({ target }) => {
    target.setAttribute("aria-valuetext", spoken(Number(target.value)));
  });
  byId("kind").addEventListener("change", ({ target }) => {
    replaceOptions({ ...asked(), kind: Number(target.value) });
    show();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("key-dialog").close();
    useKey(byId("key-input").value.trim());
  });
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("forget-key").addEventListener("click", () => useKey(null));
  byId("forget-key").hidden = !apiKey();
  if (/Mac|iP/.test(navigator.platform)) byId("paste-key").textContent = "\u2318";
}

/** From now on speak with this key, or with none; what the other key was shown is asked again. */
function useKey(key) {
  setApiKey(key);
  byId("forget-key").hidden = !key;
  model = gallery = null;
  show();
}
