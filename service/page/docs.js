// The API browser: Swagger UI over this service's own document, with nothing fetched from elsewhere.

import { apiKey, getDocument, Problem, setApiKey } from "./api.js";
import { byId } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

const form = byId("key-form");
const notice = byId("notice");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(byId("key-input").value.trim());
  start();
});
start();

/** Show the document, or ask for the key that it needs; the key stays in this tab. */
async function start() {
  notice.hidden = true;
  try {
    show(await getDocument({ onWait: (problem) => say(problem.message) }));
    notice.hidden = form.hidden = true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(error.message);
    form.hidden = error.status !== 401 && error.status !== 403;
    byId("key-input").value = "";
    byId("key-input").focus();
  }
}

function say(sentence) {
  notice.textContent = sentence;
  notice.hidden = false;
}

function show(openapi) {
  // A link cannot carry a key; a copy of what was fetched with it can be followed by anybody.
  const copy = new Blob([JSON.stringify(openapi, null, 2)], { type: "application/json" });
  byId("document").href = URL.createObjectURL(copy);
  const ui = globalThis.SwaggerUIBundle({
    // Requests go to where this page is, also where a proxy has it under a path of its own.
    spec: { ...openapi, servers: [{ url: new URL(".", document.baseURI).href.replace(/\/$/, "") }] },
    domNode: byId("operations"),
    deepLinking: true,
    defaultModelsExpandDepth: -1, // the schemas are shown where they are used
    displayRequestDuration: true,
    tryItOutEnabled: true,
    validatorUrl: null, // its default sends the document's address to another host
    onComplete: () => {
      // Sends the key with what is tried, and shows it as the one in use under "Authorize".
      if (apiKey()) ui.preauthorizeApiKey("key", apiKey());
    },
  });
}
