"""The page and the API browser, used by a real browser on a real service."""

import gzip
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Route, expect, sync_playwright

from tests.support.images.pngs import png
from tests.support.server.servers import Server, StrictServer

# Nothing of Chromium's own may reach for the network; the last line cuts it off altogether.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
]
# The browser's own echo of an answer of 400 or more; the page deals with those.
STATUS_ECHO = "Failed to load resource: the server responded with a status of"

MAKE_FILE = """([bytes, type]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "picture", { type }));
  return transfer;
}"""


@dataclass
class Visit:
    """One tab, and what went wrong in it."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        return self.page

    def choose(self, data: bytes, *, kind: str = "image/png") -> None:
        self.page.set_input_files("#file", {"name": "picture", "mimeType": kind, "buffer": data})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: install the system's chromium package to test the page")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(server: Any, browser: Browser) -> Iterator[Visit]:
    with visit_of(server.url, browser) as visit:
        yield visit


@pytest.fixture
def locked_visit(strict_server: StrictServer, browser: Browser) -> Iterator[Visit]:
    """A visit of a service that asks for keys."""
    with visit_of(strict_server.url, browser) as visit:
        yield visit


@contextmanager
def visit_of(url: str, browser: Browser) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15_000)  # ms
    context.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => console.error("
        "`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`))"
    )
    visit = Visit(context.new_page(), url.rstrip("/"))
    own_host = urlsplit(visit.url).netloc

    def guard(route: Route) -> None:
        if urlsplit(route.request.url).netloc == own_host:
            route.continue_()
        else:
            visit.foreign.append(route.request.url)
            route.abort()

    def listen(said: ConsoleMessage) -> None:
        if said.type == "error":
            visit.errors.append(said.text)

    context.route("**/*", guard)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("console", listen)
    yield visit
    context.close()
    assert visit.foreign == []
    assert [error for error in visit.errors if not error.startswith(STATUS_ECHO)] == []


@pytest.fixture
def item(visit: Visit) -> dict[str, Any]:
    first: dict[str, Any] = get_json(f"{visit.url}/v1/items?limit=1")["items"][0]
    return first


@pytest.fixture
def picture(visit: Visit, item: dict[str, Any]) -> bytes:
    return httpx.get(f"{visit.url}/v1/items/{item['id']}/image").raise_for_status().content


def test_the_page_opens_without_an_error_and_asks_no_other_host(visit: Visit) -> None:
    page = visit.open()
    count = get_json(f"{visit.url}/v1/gallery")["count"]

    expect(page.locator(".tile a").first).to_be_visible()
    expect(page.locator("#facts")).to_contain_text(f"{count:,} item")
    page.wait_for_load_state("networkidle")

    assert visit.errors == []
    assert visit.foreign == []


def test_a_chosen_picture_gets_its_class_and_its_nearest_items(
    visit: Visit, picture: bytes
) -> None:
    page = visit.open()
    visit.choose(picture)

    expect_answer(page)
    shares = [share(text) for text in page.locator(".class-share").all_text_contents()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100.5
    expect(page.locator("#timings")).to_contain_text("ms")
    expect(page.locator("#announcer")).to_contain_text("nearest item")


def test_a_pasted_picture_is_searched_for(visit: Visit, picture: bytes) -> None:
    page = visit.open()
    transfer = page.evaluate_handle(MAKE_FILE, [list(picture), "image/png"])
    page.evaluate(
        "(clipboardData) => document.body.dispatchEvent("
        "new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))",
        transfer,
    )
    expect_answer(page)


def test_a_dropped_picture_is_searched_for(visit: Visit, picture: bytes) -> None:
    page = visit.open()
    transfer = page.evaluate_handle(MAKE_FILE, [list(picture), "image/png"])
    page.dispatch_event("#well", "dragenter", {"dataTransfer": transfer})
    expect(page.locator(".drop-here")).to_be_visible()
    page.dispatch_event("#well", "drop", {"dataTransfer": transfer})

    expect_answer(page)
    expect(page.locator(".drop-here")).to_be_hidden()


def test_a_dropped_link_is_refused_with_a_sentence(visit: Visit) -> None:
    page = visit.open()
    transfer = page.evaluate_handle(
        "() => { const held = new DataTransfer(); held.setData('text/plain', 'x'); return held; }"
    )
    page.dispatch_event("#well", "drop", {"dataTransfer": transfer})
    expect(page.locator("#alert")).to_contain_text("not a file")


@pytest.mark.parametrize("way", ["click", "Enter"])
def test_a_result_is_searched_by_and_back_returns_to_the_picture(
    visit: Visit, picture: bytes, way: str
) -> None:
    page = visit.open()
    visit.choose(picture)
    expect_answer(page)
    verdict = page.locator(".verdict").text_content()
    link = page.locator(".tile a").nth(2)
    wanted = link.get_attribute("title") or ""
    if way == "click":
        link.click()
    else:
        link.press("Enter")

    expect(page.locator(".stored")).to_contain_text(wanted)
    expect(page.locator(".tile a[aria-current]")).to_have_attribute("title", wanted)
    assert urlsplit(page.url).fragment == f"id={wanted}".replace(":", "%3A")

    page.go_back()
    expect_answer(page)
    expect(page.locator(".verdict")).to_have_text(verdict or "")

    page.go_forward()
    expect(page.locator(".stored")).to_contain_text(wanted)


def test_an_address_with_an_id_opens_that_item(visit: Visit, item: dict[str, Any]) -> None:
    page = visit.open(f"/#id={item['id']}&k=24")
    expect(page.locator(".stored")).to_contain_text(item["id"])
    expect(page.locator(".verdict")).to_have_text(item["label"])
    expect(page.locator("#how-many input:checked")).to_have_value("24")


def test_starting_over_shows_the_gallery_again(visit: Visit, picture: bytes) -> None:
    page = visit.open()
    visit.choose(picture)
    expect_answer(page)
    page.get_by_role("button", name="Start over").click()

    expect(page.locator("#invite")).to_be_visible()
    expect(page.locator(".tile a").first).to_be_visible()
    expect(page.locator(".score")).to_have_count(0)
    expect(page.locator("#answer")).to_be_hidden()


def test_a_label_chip_leaves_only_items_with_that_label(visit: Visit, picture: bytes) -> None:
    page = visit.open()
    visit.choose(picture)
    expect_answer(page)
    label = page.locator(".tile .label").first.text_content() or ""
    page.locator(".chip").get_by_text(label, exact=True).click()

    expect(page.locator(".chip[aria-pressed=true]")).to_have_text(label)
    expect(page.locator(".tiles")).not_to_have_attribute("aria-busy", "true")
    assert set(page.locator(".tile .label").all_text_contents()) == {label}
    expect(page.locator(".class-share")).to_have_count(
        min(5, len(get_json(f"{visit.url}/v1/model")["labels"]))
    )


def test_a_broken_file_is_refused_with_the_sentence_of_the_service(visit: Visit) -> None:
    page = visit.open()
    body = b"this is no picture at all"
    visit.choose(body)
    expect(page.locator("#alert")).to_be_visible()

    detail = refusal(f"{visit.url}/v1/classify", body)["detail"]
    said = page.locator("#alert").text_content() or ""
    assert detail.casefold().rstrip(".") == said.casefold().rstrip(".")
    expect(page.locator(".tile")).to_have_count(0)
    expect(page.locator("#answer")).to_be_hidden()


def test_a_missing_key_is_asked_for_and_then_sent_with_everything(visit: Visit) -> None:
    keys: set[str | None] = set()

    def lock(route: Route) -> None:
        keys.add(route.request.headers.get("authorization"))
        if route.request.headers.get("authorization") == "Bearer sesame":
            route.fallback()
        else:
            fulfil_problem(route, 401, "unauthorized", "an API key is needed")

    visit.page.route("**/v1/**", lock)
    page = visit.open()
    page.get_by_label("API key", exact=True).fill("sesame")
    expect(page.locator("#key-reason")).to_have_text("An API key is needed.")
    keys.clear()
    page.keyboard.press("Enter")

    expect(page.locator(".frame img.shown").first).to_be_visible()
    assert keys == {"Bearer sesame"}
    assert page.evaluate("sessionStorage.length + localStorage.length") == 1
    page.get_by_role("button", name="Forget key").click()
    expect(page.locator("#key-dialog")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_service_that_is_still_loading_is_waited_for(visit: Visit) -> None:
    is_loading = True

    def load(route: Route) -> None:
        if is_loading:
            fulfil_problem(route, 503, "not_ready", "the model is loading", retry_after="1")
        else:
            route.fallback()

    visit.page.route("**/v1/**", load)
    page = visit.open()
    expect(page.locator("#waiting")).to_contain_text("The model is loading.")
    is_loading = False
    expect(page.locator(".tile a").first).to_be_visible()
    expect(page.locator("#waiting")).to_be_hidden()
    expect(page.locator("#alert")).to_be_hidden()


def test_a_late_answer_to_an_older_question_draws_nothing(visit: Visit, picture: bytes) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/v1/search?*", hold)
    page = visit.open()
    expect(page.locator(".tile a").first).to_be_visible()
    visit.choose(picture)
    expect(page.locator(".class-label").first).to_be_visible()
    page.get_by_role("button", name="Start over").click()
    expect(page.locator(".tiles")).not_to_have_attribute("aria-busy", "true")
    for route in held:
        route.fallback()

    page.wait_for_timeout(300)  # ms; longer than the answer takes
    expect(page.locator(".score")).to_have_count(0)
    expect(page.locator("#alert")).to_be_hidden()


def test_hostile_labels_and_ids_are_shown_as_text(visit: Visit) -> None:
    hostile = '"><img src=x onerror="document.title=1"><script>document.title=2</script>'
    items = [{"id": "a&k=48#'\"<b>", "label": hostile, "metadata": {hostile: hostile}}]
    visit.page.route("**/v1/items?*", lambda route: route.fulfill(json={"items": items}))
    page = visit.open()

    expect(page.locator(".tile .label")).to_have_text(hostile)
    assert page.locator("img[src=x], .tile script, .tile b").count() == 0
    assert page.title() == "Lookalike"


def test_an_empty_gallery_says_how_to_fill_it(visit: Visit) -> None:
    visit.page.route("**/v1/items?*", lambda route: route.fulfill(json={"items": []}))
    page = visit.open()
    expect(page.locator("#empty code")).to_contain_text(f"'{visit.url}/v1/items/")


def test_an_unreachable_service_is_told_and_tried_again(visit: Visit) -> None:
    def cut(route: Route) -> None:
        route.abort("connectionrefused")

    visit.page.route("**/v1/items?*", cut)
    page = visit.open()
    expect(page.locator("#alert")).to_contain_text("cannot be reached")
    visit.page.unroute("**/v1/items?*", cut)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".tile a").first).to_be_visible()
    visit.errors.clear()  # the browser reports the cut connection too


def test_every_object_url_is_let_go(visit: Visit, picture: bytes) -> None:
    visit.page.add_init_script(
        "globalThis.live = new Set();"
        "const make = URL.createObjectURL, drop = URL.revokeObjectURL;"
        "URL.createObjectURL = (blob) => { const url = make(blob); live.add(url); return url; };"
        "URL.revokeObjectURL = (url) => { live.delete(url); drop(url); };"
        "sessionStorage.setItem('lookalike-api-key', 'any');"  # with a key, tiles are blobs too
    )
    page = visit.open()
    visit.choose(picture)
    expect_answer(page)
    expect(page.locator(".well img.shown")).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.wait_for_function("live.size === 0")


def test_small_pictures_are_enlarged_by_whole_numbers(visit: Visit) -> None:
    page = visit.open()
    image = page.locator(".tile img.shown").first
    expect(image).to_be_visible()
    natural = image.evaluate("(node) => Math.max(node.naturalWidth, node.naturalHeight)")
    if natural > 64:
        pytest.skip(f"the gallery's pictures are {natural} pixels wide, not small")
    factor = image.evaluate("(node) => node.getBoundingClientRect().width") / natural
    assert factor >= 1
    assert factor == pytest.approx(round(factor), abs=1e-3)


def test_nothing_is_wider_than_a_small_phone(visit: Visit, picture: bytes) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = visit.open()
    visit.choose(picture)
    expect_answer(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_policy_lets_no_markup_and_no_foreign_style_in(visit: Visit) -> None:
    page = visit.open()
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>bold</b>'")
    page.evaluate("document.body.setAttribute('style', 'display: none')")
    assert page.evaluate("getComputedStyle(document.body).display") != "none"
    visit.errors.clear()  # provoked here


def test_the_api_browser_shows_every_operation_with_no_network(visit: Visit) -> None:
    page = visit.open("/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    document = get_json(f"{visit.url}/openapi.json")
    methods = {"get", "put", "post", "delete", "patch", "head", "options"}
    operations = sum(len(methods & set(path)) for path in document["paths"].values())
    expect(page.locator(".opblock")).to_have_count(operations)

    page.locator(".opblock-summary-control").first.click()
    expect(page.locator(".opblock-body").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert visit.errors == []
    assert visit.foreign == []


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/search"])
def test_an_operation_can_be_tried_from_the_api_browser_as_it_stands(
    visit: Visit, picture: bytes, path: str
) -> None:
    page = visit.open("/docs")
    operation = page.locator(".opblock", has=page.locator(f'[data-path="{path}"]'))
    operation.locator(".opblock-summary-control").click()
    operation.locator("input[type=file]").set_input_files(
        {"name": "picture", "mimeType": "image/png", "buffer": picture}
    )
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_have_text("200")


def test_the_page_works_with_a_key_where_keys_are_asked_for(
    locked_visit: Visit, strict_server: StrictServer
) -> None:
    page = locked_visit.open()
    page.get_by_label("API key", exact=True).fill("lk_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-reason")).to_have_text("The API key is not known.")
    page.get_by_label("API key", exact=True).fill(strict_server.tokens["reader"])
    page.keyboard.press("Enter")

    expect(page.locator(".tile a").first).to_be_visible()
    expect(page.locator(".tile img.shown").first).to_be_visible()


def test_the_api_browser_asks_for_a_key_and_sends_it_with_everything(
    locked_visit: Visit, strict_server: StrictServer
) -> None:
    page = locked_visit.open("/docs")
    expect(page.locator("#notice")).to_contain_text("An API key is needed")
    expect(page.locator(".opblock")).to_have_count(0)
    for key, said in (("lk_wrong", "not known"), (strict_server.tokens["admin"], "no right")):
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#notice")).to_contain_text(said)
    page.get_by_label("API key").fill(strict_server.tokens["reader"])
    page.keyboard.press("Enter")

    operation = page.locator(".opblock", has=page.locator('[data-path="/v1/model"]'))
    operation.locator(".opblock-summary-control").click()
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#notice")).to_be_hidden()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_have_text("200")
    with page.expect_download() as download:
        page.locator("#document").click()
    assert "/v1/search" in json.loads(download.value.path().read_text())["paths"]

    locked_visit.open("/")  # the key is known there too
    expect(page.locator(".tile a").first).to_be_visible()


def test_page_files_are_revalidated_and_carry_each_header_once(pages: httpx.Client) -> None:
    headers = pages.get("/").headers
    assert headers.get_list("Cache-Control") == ["no-cache"]
    assert headers.get_list("X-Content-Type-Options") == ["nosniff"]
    (policy,) = headers.get_list("Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


@pytest.fixture
def pages(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_an_unchanged_file_is_not_sent_again(pages: httpx.Client) -> None:
    first = pages.get("/page/page.js")
    again = pages.get("/page/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-security-policy"]


def test_the_compressed_file_is_the_same_file_under_another_tag(pages: httpx.Client) -> None:
    url = "/docs/swagger-ui.css"
    plain = pages.get(url, headers={"Accept-Encoding": "identity"})
    with pages.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as packed:
        assert gzip.decompress(b"".join(packed.iter_raw())) == plain.content
        assert packed.headers["etag"] != plain.headers["etag"]


def test_a_head_request_gets_the_headers_alone(pages: httpx.Client) -> None:
    answer = pages.head("/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/page/", "/page/index.html", "/page/..%2fpages.py", "/docs/x"])
def test_only_the_known_files_are_served(pages: httpx.Client, path: str) -> None:
    assert pages.get(path).status_code == 404


def test_pages_stay_out_of_the_schema(pages: httpx.Client) -> None:
    paths = pages.get("/openapi.json").json()["paths"]
    assert [path for path in paths if path == "/" or path.startswith(("/page", "/docs"))] == []


def test_every_module_and_style_the_pages_name_is_served(pages: httpx.Client) -> None:
    for document in ("/", "/docs"):
        named = re.findall(r'(?:href|src)="((?:page|docs)/[^"]+)"', pages.get(document).text)
        assert named
        assert [pages.get(f"/{path}").status_code for path in named] == [200] * len(named)


def expect_answer(page: Page) -> None:
    """Wait until the classes and the nearest items of a picture are shown."""
    expect(page.locator(".class-share").first).to_be_visible()
    expect(page.locator(".tile .score").first).to_be_visible()
    expect(page.locator(".frame img.shown").first).to_be_visible()
    expect(page.locator("#alert")).to_be_hidden()


def share(text: str) -> float:
    return float(text.strip("<>%"))


def get_json(url: str) -> Any:
    return httpx.get(url).raise_for_status().json()


def refusal(url: str, body: bytes) -> Any:
    """Return the problem that the service answers ``body`` with."""
    answer = httpx.post(url, content=body, headers={"Content-Type": "image/png"})
    assert answer.is_client_error
    return answer.json()


def fulfil_problem(
    route: Route, status: int, code: str, detail: str, *, retry_after: str = ""
) -> None:
    headers = {"Retry-After": retry_after} if retry_after else {}
    route.fulfill(
        status=status,
        headers=headers | {"Content-Type": "application/problem+json"},
        body=json.dumps({"status": status, "code": code, "detail": detail}),
    )


STORE = """async ([url, id, bytes]) => {
  const form = new FormData();
  form.append("image", new Blob([new Uint8Array(bytes)], { type: "image/png" }), "picture.png");
  form.append("items", JSON.stringify([{ id }]));
  // The browser keeps the answer from a page of another site, but has sent the form.
  await fetch(url + "/v1/items", { method: "POST", mode: "no-cors", body: form }).catch(() => {});
}"""


@pytest.mark.parametrize(("host", "stored"), [(None, 200), ("127.0.0.1", 404), ("localhost", 404)])
def test_a_page_of_another_site_cannot_store_anything(
    server: Server, browser: Browser, host: str | None, stored: int
) -> None:
    other = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    page = browser.new_page()
    try:
        page.goto(f"http://{host}:{other.server_port}/" if host else server.url)
        page.evaluate(STORE, [server.url, "by-a-page", list(png(3))])
        found = httpx.get(f"{server.url}/v1/items/by-a-page")
    finally:
        page.close()
        other.shutdown()
        other.server_close()
        httpx.delete(f"{server.url}/v1/items/by-a-page")

    assert found.status_code == stored
