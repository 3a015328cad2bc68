"""Thousands of broken, odd and hostile files over HTTP: every answer is one of the contract."""

import base64
import http.server
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.images.broken_images import bombs, mutants, originals
from tests.support.images.pillow_corpus import CorpusUnavailableError, pillow_images
from tests.support.server.fuzz_client import FuzzRequest, peak_mebibytes, send_all
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import Server

MUTANTS = 3000
MANY_MUTANTS = 100_000
MUTANTS_OF_A_BODY = 200  # of each
BODIES = (
    ("POST", "/v1/search", {"queries": [{"id": "item-01"}, {"id": "item-02"}], "k": 3}),
    ("POST", "/v1/search", {"id": "item-01", "offset": 2, "group_by": "even", "exclude": ["a"]}),
    ("POST", "/v1/search/range", {"id": "item-01", "min_score": 0.5, "limit": 5}),
    ("POST", "/v1/facets", {"keys": ["label", "even"], "filter": {"must": []}, "limit": 5}),
    (
        "POST",
        "/v1/items/delete",
        {"filter": {"must": [{"key": "number", "range": {"gte": 1e3, "lt": 2e3}}]}},
    ),
    ("POST", "/v1/items/delete", {"ids": ["none-0", "none-1", "none-2"]}),
    ("PATCH", "/v1/items/item-03", {"label": "a", "metadata": {"a": {"b": [1, None, "é"]}}}),
    ("PUT", "/v1/items/none-3", {"vector": [0.5, -0.5, 1e-3], "metadata": {"a": [True]}}),
    ("POST", "/v1/jobs", {"kind": "duplicates", "min_score": 2.5}),
)
LARGEST_SEED = 100_000  # bytes; larger files of the corpus are sent, but not mutated
GROWTH_MIB = 1536  # of the worker, whatever is sent: two decoders, and 0.5 GB for the worst image


@pytest.fixture(scope="module")
def target(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, because its worker's memory is measured; it logs no request."""
    options = ("--log-level", "warning")
    with gallery_server(model, tmp_path_factory.mktemp("target"), *options) as running:
        yield running


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    try:
        return pillow_images()
    except CorpusUnavailableError as error:
        pytest.skip(str(error))


def raw(name: str, data: bytes) -> FuzzRequest:
    return FuzzRequest(name, data)


def in_form(name: str, data: bytes) -> FuzzRequest:
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    body = head + data + b"\r\n--edge--\r\n"
    return FuzzRequest(f"{name} in a form", body, "multipart/form-data; boundary=edge", "/v1/embed")


def in_json(name: str, data: bytes) -> FuzzRequest:
    body = b'{"image": "' + base64.b64encode(data) + b'"}'
    return FuzzRequest(f"{name} in JSON", body, "application/json", "/v1/search")


WAYS = (raw, raw, raw, raw, raw, raw, raw, raw, in_form, in_json)


def every_way(files: Iterator[tuple[str, bytes]]) -> Iterator[FuzzRequest]:
    """Return a request for each file: most of them raw, some in a form, some in JSON."""
    for way, (name, data) in zip(itertools.cycle(WAYS), files, strict=False):
        yield way(name, data)


@contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """The same worker answers after the block as before it, and its memory stayed in bounds."""
    workers = server.workers()
    (worker,) = workers
    before = peak_mebibytes(worker)
    yield
    assert server.workers() == workers
    assert peak_mebibytes(worker) - before < GROWTH_MIB
    assert "Traceback" not in server.log.read_text()


def test_every_one_of_pillows_own_test_images_gets_an_answer_of_the_table(
    target: Server, corpus: dict[str, bytes]
) -> None:
    assert len(corpus) > 1000
    with unharmed(target):
        report = send_all(target.url, itertools.starmap(raw, corpus.items()))
        part = dict(itertools.islice(corpus.items(), 0, None, 8))
        for way in (in_form, in_json):
            report.faults += send_all(target.url, itertools.starmap(way, part.items())).faults

    assert report.faults == []
    assert report.answers.total() == len(corpus)
    assert report.answers[200, None] > 300
    assert report.answers[415, "unsupported_image_type"] > 300
    assert report.answers[422, "corrupt_image"] > 20


def test_thousands_of_mutations_get_an_answer_of_the_table(
    target: Server, corpus: dict[str, bytes]
) -> None:
    assert_harmless(target, corpus, count=MUTANTS, seed=1)


def test_mutations_of_bodies_get_an_answer_of_the_table(target: Server) -> None:
    requests = [
        FuzzRequest(
            f"{method} {path}, {mutant.name}", mutant.data, "application/json", path, method
        )
        for method, path, body in BODIES
        for mutant in mutants([json.dumps(body).encode()], MUTANTS_OF_A_BODY, seed=1)
    ]
    with unharmed(target):
        report = send_all(target.url, requests)

    assert report.faults == []
    assert report.answers.total() == len(requests)
    assert report.answers[400, "invalid_json"] > len(requests) // 4
    assert report.answers[200, None] > 20


@pytest.mark.fuzz
def test_a_hundred_thousand_mutations_get_an_answer_of_the_table(
    target: Server, corpus: dict[str, bytes]
) -> None:
    for seed in range(10):
        assert_harmless(target, corpus, count=MANY_MUTANTS // 10, seed=100 + seed)


def assert_harmless(server: Server, corpus: dict[str, bytes], *, count: int, seed: int) -> None:
    """Send mutations, half of our own small files of every mode, half of files of the corpus."""
    small = [data for data in corpus.values() if 0 < len(data) < LARGEST_SEED]
    chosen = random.Random(seed).sample(small, 80)
    ours = mutants(list(originals().values()), count - count // 2, seed=seed)
    theirs = mutants(chosen, count // 2, seed=seed)
    with unharmed(server):
        files = ((mutant.name, mutant.data) for mutant in itertools.chain(ours, theirs))
        report = send_all(server.url, every_way(files))

    assert report.faults == []
    assert report.answers.total() == count
    assert report.answers[422, "corrupt_image"] > count // 10
    assert report.answers[200, None] > count // 10


def test_files_that_inflate_to_very_much_are_answered_within_bounds(target: Server) -> None:
    with unharmed(target):
        report = send_all(target.url, [raw(bomb.name, bomb.data) for bomb in bombs()])

    assert report.faults == []
    assert report.answers[422, "too_many_pixels"] >= 3


class _Faulty(http.server.BaseHTTPRequestHandler):
    """What the checker must notice: the body says what the server shall do wrong."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        if asked == b"dies":
            self.close_connection = True
            return
        if asked == b"hangs":
            time.sleep(0.5)
        status = {b"fails": 500, b"invents": 418}.get(asked, 200)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_checker_sees_failures_hangs_broken_connections_and_answers_of_no_table() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Faulty) as faulty:
        threading.Thread(target=faulty.serve_forever, daemon=True).start()
        requests = [
            raw(what, what.encode()) for what in ("works", "fails", "hangs", "dies", "invents")
        ]
        report = send_all(f"http://127.0.0.1:{faulty.server_port}", requests, limit_s=0.3)
        faulty.shutdown()

    faults = {fault.partition(":")[0] for fault in report.faults}
    assert faults == {"fails", "hangs", "dies", "invents"}
    assert report.answers[200, None] == 2


def test_the_checker_sees_a_worker_that_was_replaced(target: Server) -> None:
    (worker,) = target.workers()

    with pytest.raises(AssertionError), unharmed(target):
        target.kill_worker(worker)


def test_a_mutation_is_the_same_for_the_same_seed() -> None:
    files = list(originals().values())

    once, again, other = (list(mutants(files, 1500, seed=seed)) for seed in (1, 1, 2))

    assert once == again
    assert once != other
    assert len({mutant.data for mutant in once}) > 1300
