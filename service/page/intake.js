// Every way a picture comes in: chosen, photographed, dropped, pasted. What comes out is one File.

import { byId } from "./dom.js";

/** Call `onImage(file)` for a picture, `onRefused(sentence)` for something that is not a file. */
export function listenForImages({ onImage, onRefused }) {
  for (const input of [byId("file"), byId("camera")]) {
    input.addEventListener("change", () => {
      const [file] = input.files;
      if (file) onImage(file);
      input.value = ""; // choosing the same file again is a change too
    });
  }

  document.addEventListener("paste", (event) => {
    const file = firstImage(event.clipboardData);
    if (file) {
      event.preventDefault();
      onImage(file);
    } else if (!event.target.closest?.("input, dialog")) {
      onRefused("The clipboard holds no image. Copy a picture, not a link to one, and paste again.");
    }
  });

  // dragenter and dragleave come for every element passed; the depth says when the window is left.
  let depth = 0;
  const highlight = (change) => {
    depth = Math.max(0, change === 0 ? 0 : depth + change);
    document.documentElement.toggleAttribute("data-dragging", depth > 0);
  };
  document.addEventListener("dragenter", (event) => holdsFiles(event) && highlight(+1));
  document.addEventListener("dragleave", (event) => holdsFiles(event) && highlight(-1));
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // without this the browser opens the file in place of the page
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    highlight(0);
    const file = firstImage(event.dataTransfer);
    if (file) onImage(file);
    else onRefused("That was not a file. Save the picture first, then drop the file here.");
  });
}

function holdsFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

/** The first image among the files; if none says it is one, the first file: the service will judge. */
function firstImage(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0] ?? null;
}
