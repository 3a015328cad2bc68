// Pictures of any size, shown well: small ones as crisp whole-number multiples, large ones fitted.

import { apiKey, getImageBlob, imagePath } from "./api.js";
import { element } from "./dom.js";

const SMALL_SIDE = 64; // pixels; up to here smoothing only blurs
const AT_ONCE = 6; // pictures fetched at the same time when a key must go along

/** An <img> of bytes we hold. Its object URL lives until the picture is decoded, no longer. */
export function pictureOfBlob(blob, alt) {
  const image = blank(alt);
  showBlob(image, blob);
  return image;
}

/**
 * Returns `picture(id, alt)` -> <img> of a stored item. Without a key the browser fetches by itself,
 * lazily and from its cache; an <img> cannot carry a key, so with one the bytes are fetched here.
 */
export function storedPictures(signal) {
  if (!apiKey()) {
    return (id, alt) => {
      const image = blank(alt);
      image.loading = "lazy";
      image.src = imagePath(id);
      return image;
    };
  }
  const waiting = [];
  let running = 0;
  const next = () => {
    while (running < AT_ONCE && waiting.length && !signal.aborted) {
      const { id, image } = waiting.shift();
      running += 1;
      getImageBlob(id, { signal })
        .then((blob) => showBlob(image, blob), () => missing(image))
        .finally(() => {
          running -= 1;
          next();
        });
    }
  };
  return (id, alt) => {
    const image = blank(alt);
    waiting.push({ id, image });
    queueMicrotask(next);
    return image;
  };
}

function showBlob(image, blob) {
  const url = URL.createObjectURL(blob);
  const revoke = () => URL.revokeObjectURL(url);
  image.addEventListener("load", revoke, { once: true });
  image.addEventListener("error", revoke, { once: true });
  image.src = url;
}

function blank(alt) {
  const image = element("img", { alt, decoding: "async", draggable: false });
  image.addEventListener("load", () => {
    const side = Math.max(image.naturalWidth, image.naturalHeight);
    image.classList.toggle("small", side <= SMALL_SIDE);
    image.style.setProperty("--side", side);
    image.classList.add("shown");
  });
  image.addEventListener("error", () => missing(image));
  return image;
}

function missing(image) {
  image.classList.add("missing");
  image.dispatchEvent(new CustomEvent("picture-missing", { bubbles: true }));
}
