// The page's address is its state: `#id=coat-1&k=24&kind=0.2&label=Coat`. Reload, links and history work by it.
// A picture of one's own has no address; it stays in memory and history refers to it by a number.

export const COUNTS = [12, 24, 48];
const KEPT_PICTURES = 8; // pictures that Back can return to; older ones are let go

let lastPicture = 0;
const pictures = new Map();

/**
 * What is asked now: {id, picture, k, kind, labels}; at most one of `id` and `picture` is set, and
 * `kind` is null where the model's own is meant.
 */
export function asked() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const k = Number(hash.get("k"));
  const id = hash.get("id") || null;
  const kind = hash.get("kind");
  return {
    id,
    picture: id ? null : (pictures.get(history.state?.picture) ?? null),
    k: COUNTS.includes(k) ? k : COUNTS[0],
    kind: kind !== null && Number(kind) >= 0 && Number(kind) <= 1 ? Number(kind) : null,
    labels: hash.getAll("label"),
  };
}

/** The hash that asks for a stored item. */
export function hashOf({ id = null, k, kind, labels }) {
  const hash = new URLSearchParams();
  if (id) hash.set("id", id);
  if (k !== COUNTS[0]) hash.set("k", k);
  if (kind !== null) hash.set("kind", kind);
  for (const label of labels) hash.append("label", label);
  return `#${hash}`;
}

/** Remember a picture and put it on top of the history. */
export function pushPicture(file, { k, kind, labels }) {
  lastPicture += 1;
  pictures.set(lastPicture, file);
  pictures.delete(lastPicture - KEPT_PICTURES);
  history.pushState({ picture: lastPicture }, "", address(hashOf({ k, kind, labels })));
}

export function pushStart() {
  history.pushState(null, "", address(""));
}

/** Change how many, of what kind and which labels, without a new step in the history. */
export function replaceOptions({ id, k, kind, labels }) {
  history.replaceState(history.state, "", address(hashOf({ id, k, kind, labels })));
}

function address(hash) {
  return location.pathname + location.search + (hash === "#" ? "" : hash);
}
