// The API browser: Swagger UI over this service's own document, with nothing fetched from elsewhere.

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

globalThis.SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  domNode: document.getElementById("operations"),
  deepLinking: true,
  defaultModelsExpandDepth: -1, // the schemas are shown where they are used
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null, // its default sends the document's address to another host
});
