// The service, over HTTP. Every refusal becomes a Problem that carries the service's own sentence.

const KEY = "lookalike-api-key";
const RETRY_S = { usual: 2, least: 0.5, most: 30 }; // seconds between tries while the model loads

/** What went wrong, as a sentence for people; `status` is 0 when no answer came. */
export class Problem extends Error {
  constructor(detail, { status = 0, code = "", retryAfterS = null } = {}) {
    super(detail);
    this.name = "Problem";
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

export function apiKey() {
  return sessionStorage.getItem(KEY);
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export const itemPath = (id) => `v1/items/${encodeURIComponent(id)}`;
export const imagePath = (id) => `${itemPath(id)}/image`;

export const getModel = (options) => json("v1/model", options);
export const getGallery = (options) => json("v1/gallery", options);
export const getDocument = (options) => json("openapi.json", options);
export const getItem = (id, options) => json(itemPath(id), options);

export function getItems({ limit, labels }, options) {
  return json(`v1/items?${parameters({ limit }, labels)}`, options);
}

/** The picture's bytes go as they are; the service decides what they hold. */
export function classify(file, { k }, options) {
  return json(`v1/classify?${parameters({ k }, [])}`, { ...options, ...imageBody(file) });
}

export function searchByImage(file, { k, kind, labels }, options) {
  return json(`v1/search?${parameters(kind === null ? { k } : { k, kind }, labels)}`, { ...options, ...imageBody(file) });
}

export function searchById(id, { k, kind, labels }, options) {
  const body = kind === null ? { id, k } : { id, k, kind };
  if (labels.length) body.filter = labelFilter(labels);
  return json("v1/search", {
    ...options,
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });
}

export async function getImageBlob(id, options) {
  return (await answer(imagePath(id), options)).blob();
}

function imageBody(file) {
  // A type that is not an image's is often the browser's guess from a file name.
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  return { method: "POST", body: file, headers: { "Content-Type": type } };
}

function parameters(values, labels) {
  const query = new URLSearchParams(values);
  if (labels.length) query.set("filter", JSON.stringify(labelFilter(labels)));
  return query;
}

function labelFilter(labels) {
  return { must: [{ key: "label", match: labels.length === 1 ? labels[0] : labels }] };
}

async function json(path, options) {
  const response = await answer(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service gave an answer that is not JSON.", { status: response.status });
  }
}

/** Fetch; while the service says that it is not ready, tell `onWait` and try again when it asks us to. */
async function answer(path, { onWait, signal, ...options }) {
  for (;;) {
    const response = await attempt(path, { ...options, signal });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (problem.code !== "not_ready" || !onWait) throw problem;
    onWait(problem);
    await pause(problem.retryAfterS ?? RETRY_S.usual, signal);
  }
}

async function attempt(path, { headers, ...options }) {
  const key = apiKey();
  const authorization = key ? { Authorization: `Bearer ${key}` } : {};
  try {
    return await fetch(path, { ...options, headers: { ...headers, ...authorization } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A key with a character that no header may hold is refused by fetch before anything is sent.
    if (key && !/^[\x21-\x7e]+$/.test(key)) {
      throw new Problem("The API key holds a character that keys never have.", { status: 401 });
    }
    throw new Problem("The service cannot be reached. Is it running, and are you connected?");
  }
}

async function problemOf(response) {
  const { status } = response;
  let body = {};
  try {
    body = (await response.json()) ?? {};
  } catch (error) {
    if (error.name === "AbortError") throw error;
    body = {}; // a proxy's own page: only its status is worth telling
  }
  const said = [body.detail, body.title].find((text) => typeof text === "string" && text);
  return new Problem(sentence(said ?? `The service refused with status ${status}`), {
    status,
    code: typeof body.code === "string" ? body.code : "",
    retryAfterS: seconds(response.headers.get("Retry-After")),
  });
}

function sentence(text) {
  const trimmed = text.trim();
  const ended = /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
  return ended[0].toUpperCase() + ended.slice(1);
}

/** Retry-After is seconds or a date (RFC 9110, 10.2.3). */
function seconds(header) {
  if (!header) return null;
  const value = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(value) ? Math.min(Math.max(value, RETRY_S.least), RETRY_S.most) : null;
}

function pause(durationS, signal) {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, durationS * 1000);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
