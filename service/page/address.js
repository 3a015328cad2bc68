// The page's address is its state: `#id=coat-1&k=24&label=Coat`. Reload, links and history work by it.
// A picture of one's own has no address; it stays in memory and history refers to it by a number.

export const COUNTS = [12, 24, 48];
const KEPT_PICTURES = 8; // pictures that Back can return to; older ones are let go

let lastPicture = 0;
const pictures = new Map();

/** What is asked now: {id, picture, k, labels}; at most one of `id` and `picture` is set. */
export function asked() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const k = Number(hash.get("k"));
  const id = hash.get("id") || null;
  return {
    id,
    picture: id ? null : (pictures.get(history.state?.picture) ?? null),
    k: COUNTS.includes(k) ? k : COUNTS[0],
    labels: hash.getAll("label"),
  };
}

/** The hash that asks for a stored item. */
export function hashOf({ id = null, k, labels }) {
  const hash = new URLSearchParams();
  if (id) hash.set("id", id);
  if (k !== COUNTS[0]) hash.set("k", k);
  for (const label of labels) hash.append("label", label);
  return `#${hash}`;
}

/** Remember a picture and put it on top of the history. */
export function pushPicture(file, { k, labels }) {
  lastPicture += 1;
  pictures.set(lastPicture, file);
  pictures.delete(lastPicture - KEPT_PICTURES);
  history.pushState({ picture: lastPicture }, "", address(hashOf({ k, labels })));
}

export function pushStart() {
  history.pushState(null, "", address(""));
}

/** Change how many and which labels, without a new step in the history. */
export function replaceOptions({ id, k, labels }) {
  history.replaceState(history.state, "", address(hashOf({ id, k, labels })));
}

function address(hash) {
  return location.pathname + location.search + (hash === "#" ? "" : hash);
}
