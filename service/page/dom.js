// Elements from data. Text goes in as text and never as markup: ids, labels and metadata are hostile.

/** Return a new element; `properties` are DOM properties, except `data` (dataset) and `aria` (aria-*). */
export function element(tag, { data = {}, aria = {}, ...properties } = {}, ...children) {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  Object.assign(node.dataset, data);
  for (const [name, value] of Object.entries(aria)) node.setAttribute(`aria-${name}`, value);
  node.append(...children);
  return node;
}

/** The element with this id; a missing one is a mistake of ours and says so at once. */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`index.html has no #${id}`);
  return node;
}
