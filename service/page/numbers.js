// Numbers as people read them, never rounded into a claim they do not make (99.97% is not 100%).

const grouped = new Intl.NumberFormat("en");

/** A probability in [0, 1] as a percentage with one decimal. */
export function percent(probability) {
  if (probability >= 1) return "100%";
  if (probability > 0.9994) return ">99.9%";
  if (probability < 0.0005) return "<0.1%";
  return `${(probability * 100).toFixed(1)}%`;
}

/** A cosine in [-1, 1] with three decimals. */
export function score(cosine) {
  // Two float32 unit vectors that are the same have a product within 1e-6 of one.
  if (cosine > 0.9995 && cosine < 1 - 1e-6) return ">0.999";
  return cosine.toFixed(3).replace("-", "\u2212");
}

export function count(number) {
  return grouped.format(number);
}

export function things(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Milliseconds with two meaningful digits below ten, whole ones above. */
export function milliseconds(ms) {
  if (ms >= 10) return `${count(Math.round(ms))} ms`;
  return ms >= 0.1 ? `${Number(ms.toFixed(1))} ms` : "<0.1 ms";
}
