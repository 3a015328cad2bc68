"""What a server counts: right over several workers, also when one dies; and as documented."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families as families

from files.processes import started_ticks
from service.telemetry.metrics import METRICS, MetricsSnapshot
from service.telemetry.request_record import RequestRecord
from service.telemetry.shared_metrics import (
    SharedMetrics,
    prometheus_text,
    remove_shared_folder,
    shared_folder,
)
from service.telemetry.worker_metrics import WorkerMetrics
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import ROOT, Server, StrictServer, running_server

PNG = {"Content-Type": "image/png"}
PAGE = (ROOT / "docs" / "metrics.md").read_text()

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values(text: str) -> Values:
    """Return every sample of Prometheus' text by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return values(text).get((name, frozenset(labels.items())), 0.0)


def count(metrics: WorkerMetrics, *, seconds: float = 0.1, method: str = "GET") -> None:
    record = RequestRecord(method=method)
    record.route, record.status, record.seconds = "/v1/gallery", 200, seconds
    metrics.count_request(record)


def snapshot(metrics: WorkerMetrics, **gauges: float) -> MetricsSnapshot:
    return metrics.snapshot() | {f"lookalike_{k}": {(): [v]} for k, v in gauges.items()}


@pytest.fixture
def server_id() -> Iterator[str]:
    name = f"test-{os.getpid()}"
    yield name
    remove_shared_folder(name)


@given(st.lists(st.floats(0, 100), max_size=60))
def test_histograms_are_those_of_the_prometheus_client(seconds: list[float]) -> None:
    name = "lookalike_request_seconds"
    registry = CollectorRegistry()
    theirs = Histogram(name, "x", ["route"], buckets=METRICS[name].bounds, registry=registry)
    ours = WorkerMetrics()
    for one in seconds:
        theirs.labels("/v1/gallery").observe(one)
        count(ours, seconds=one)

    expected = values(generate_latest(registry).decode())
    got = values(prometheus_text([snapshot(ours)]).decode())

    for key, number in expected.items():
        if not key[0].endswith("_created"):
            assert got[key] == pytest.approx(number), key


def test_metrics_survive_being_written_and_read(server_id: str) -> None:
    metrics = WorkerMetrics()
    count(metrics)
    metrics.count_batch(7, 0.25)
    written = snapshot(metrics, gallery_items=3.0)

    SharedMetrics(server_id, 1).write(written)

    assert SharedMetrics(server_id, 1).predecessor() == written
    assert SharedMetrics(server_id, 2).others() == [written]
    assert (shared_folder(server_id).stat().st_mode & 0o777) == 0o700


def test_a_worker_in_the_place_of_another_goes_on_counting(server_id: str) -> None:
    first = WorkerMetrics()
    count(first)
    first.count_batch(4, 0.5)
    SharedMetrics(server_id, 1).write(first.snapshot())

    second = WorkerMetrics(SharedMetrics(server_id, 1).predecessor())
    count(second)
    second.count_batch(4, 0.5)

    text = prometheus_text([snapshot(second)]).decode()
    labels = {"method": "GET", "route": "/v1/gallery", "status": "200"}
    assert value(text, "lookalike_requests_total", **labels) == 2
    assert value(text, "lookalike_batch_images_count") == 2
    assert value(text, "lookalike_batch_images_sum") == 8


def test_gauges_of_a_worker_that_died_are_not_shown_and_its_counters_are(server_id: str) -> None:
    died, lives = WorkerMetrics(), WorkerMetrics()
    count(died)
    count(lives)
    SharedMetrics(server_id, 1).write(snapshot(died, requests_in_progress=5.0))
    file = shared_folder(server_id) / "worker-1.json"
    own = str(started_ticks(os.getpid())).encode()
    file.write_bytes(file.read_bytes().replace(own, own + b"0"))  # of a process before this one

    dead = SharedMetrics(server_id, 2).others()
    text = prometheus_text([*dead, snapshot(lives, requests_in_progress=5.0)]).decode()

    assert value(text, "lookalike_requests_in_progress") == 5
    labels = {"method": "GET", "route": "/v1/gallery", "status": "200"}
    assert value(text, "lookalike_requests_total", **labels) == 2


def test_gauges_of_the_gallery_are_those_of_the_worker_that_has_seen_most() -> None:
    behind = snapshot(WorkerMetrics(), gallery_seq=7.0, gallery_items=9.0)
    ahead = snapshot(WorkerMetrics(), gallery_seq=8.0, gallery_items=2.0)

    text = prometheus_text([behind, ahead]).decode()

    assert value(text, "lookalike_gallery_items") == 2
    assert value(text, "lookalike_gallery_seq") == 8


def test_what_workers_share_may_be_gone_or_damaged(server_id: str) -> None:
    (shared_folder(server_id)).mkdir()
    (shared_folder(server_id) / "worker-1.json").write_bytes(b'{"pid": 1')
    shared = SharedMetrics(server_id, 2)

    assert shared.others() == [{}]
    assert SharedMetrics(server_id, 1).predecessor() == {}
    remove_shared_folder(server_id)
    shared.write({"lookalike_images_total": {(): [1.0]}})  # makes it anew
    assert shared.predecessor() == {"lookalike_images_total": {(): [1.0]}}


def test_methods_that_nobody_uses_share_a_label() -> None:
    metrics = WorkerMetrics()
    for number in range(50):
        count(metrics, method=f"MADE-UP-{number}")

    text = prometheus_text([snapshot(metrics)]).decode()

    assert "MADE-UP" not in text
    labels = {"method": "other", "route": "/v1/gallery", "status": "200"}
    assert value(text, "lookalike_requests_total", **labels) == 50


def test_a_record_is_counted_by_stage_code_and_image() -> None:
    record = RequestRecord(method="POST")
    record.note_stage("write", begun=time.perf_counter() - 0.2)
    record.note_image(queue_ms=1, decode_ms=2, encode_ms=3)
    record.item_problems = ["corrupt_image", "id_conflict"]
    record.refusals = ["corrupt_image"]
    metrics = WorkerMetrics()

    metrics.count_request(record)

    text = prometheus_text([snapshot(metrics)]).decode()
    assert value(text, "lookalike_images_total") == 1
    assert value(text, "lookalike_problems_total", code="id_conflict") == 1
    assert value(text, "lookalike_problems_total", code="corrupt_image") == 1
    assert value(text, "lookalike_image_refusals_total", code="corrupt_image") == 1
    assert value(text, "lookalike_image_refusals_total", code="id_conflict") == 0
    for stage, seconds in {"queue": 0.001, "decode": 0.002, "encode": 0.003, "write": 0.2}.items():
        assert value(text, "lookalike_stage_seconds_count", stage=stage) == 1
        total = value(text, "lookalike_stage_seconds_sum", stage=stage)
        assert total == pytest.approx(seconds, rel=0.5)


def documented() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return type, labels and meaning of every metric on the page, by name."""
    rows = re.findall(r"^\| `(lookalike_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    return {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in rows
    }


def test_the_page_lists_every_metric_as_it_is() -> None:
    assert documented() == {
        spec.name: (spec.kind, spec.labels, spec.help) for spec in METRICS.values()
    }


def test_the_exposition_of_a_server_is_what_the_page_lists(server: Server) -> None:
    with server.client() as client:
        client.post("/v1/search", content=png(1), headers=PNG)
        text = client.get("/metrics").text

    shown = {}
    for family in families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown[name] = family.type
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(documented()[name][1]), sample
    assert shown == {name: kind for name, (kind, _, _) in documented().items()}
    assert ("lookalike_key_file_failing", frozenset()) not in values(text), "there is none"


def test_a_server_counts_stages_images_refusals_and_its_own_state(server: Server) -> None:
    def read(client: httpx.Client) -> str:
        return client.get("/metrics").text

    with server.client() as client:
        before = read(client)
        client.post("/v1/search", content=png(1), headers=PNG)
        client.post("/v1/classify", content=png(2)[:200], headers=PNG)
        client.post("/v1/classify", content=b"no image", headers=PNG)
        many = [("image", ("x", data)) for data in (png(1), b"", png(2)[:200])]
        client.post("/v1/embed", files=many)
        client.put("/v1/items/counted", content=png(3), headers=PNG)
        client.delete("/v1/items/counted")
        after = read(client)
        model = client.get("/v1/model").json()
        gallery = client.get("/v1/gallery").json()

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("lookalike_image_refusals_total", code="corrupt_image") == 2
    assert grown("lookalike_image_refusals_total", code="unsupported_image_type") == 1
    assert grown("lookalike_image_refusals_total", code="empty_image") == 1
    assert grown("lookalike_images_total") == 3
    assert grown("lookalike_batch_images_sum") == 3
    assert grown("lookalike_stage_seconds_count", stage="encode") == 3
    assert grown("lookalike_stage_seconds_count", stage="search") == 1
    assert grown("lookalike_stage_seconds_count", stage="write") == 2
    assert grown("lookalike_received_bytes_total") > len(png(1)) * 3
    assert grown("lookalike_sent_bytes_total") > 1000
    assert value(after, "lookalike_gallery_seq") == gallery["seq"]
    assert value(after, "lookalike_gallery_seq_lag", worker="1") == 0
    assert value(after, "lookalike_worker_ready", worker="1") == 1
    assert value(after, "lookalike_requests_in_progress") == 1, "the scrape itself"
    assert value(after, "lookalike_requests_admitted_limit", queue="quick") == 256
    assert value(after, "lookalike_worker_resident_bytes", worker="1") > 50e6
    assert value(after, "lookalike_worker_load_seconds", worker="1", stage="model") > 0
    (info,) = [key for key in values(after) if key[0] == "lookalike_model_info"]
    assert dict(info[1])["fingerprint"] == model["fingerprint"]
    assert dict(info[1])["device"] == model["device"]


def test_a_server_says_what_an_operator_is_to_be_told(strict_server: StrictServer) -> None:
    """Room on the disk, jobs that ended, workers that there should be, and a key file's faults."""

    def read() -> str:
        headers = strict_server.headers("reader")
        return httpx.get(f"{strict_server.url}/metrics", headers=headers).text

    def wait_for(name: str, number: float, **labels: str) -> None:
        deadline = time.monotonic() + 30
        while value(read(), name, **labels) != number:
            assert time.monotonic() < deadline, read()
            time.sleep(0.1)

    before = read()
    free = value(before, "lookalike_gallery_disk_free_bytes")
    assert 0 < free < value(before, "lookalike_gallery_disk_size_bytes")
    assert value(before, "lookalike_workers_expected") == 1
    assert value(before, "lookalike_gallery_upkeep_failing") == 0
    shown = {frozenset(labels) for name, labels in values(before) if name.endswith("ended_total")}
    assert len(shown) == 6 * 3, "all from the start"

    job = {"kind": "duplicates", "min_score": 0.999}
    headers = strict_server.headers("admin")
    httpx.post(f"{strict_server.url}/v1/jobs", json=job, headers=headers).raise_for_status()
    wait_for("lookalike_jobs_ended_total", 1, kind="duplicates", state="done")

    file = strict_server.running.log.parent / "keys.toml"
    lines = file.read_text()
    file.write_text("no keys")
    wait_for("lookalike_key_file_failing", 1)
    file.write_text(lines)
    wait_for("lookalike_key_file_failing", 0)


def test_metrics_are_given_while_the_worker_loads(model: Path, tmp_path: Path) -> None:
    with running_server(model, tmp_path / "gallery", tmp_path / "log", wait=False) as server:
        deadline = time.monotonic() + 60
        seen: set[float] = set()
        while time.monotonic() < deadline and 1.0 not in seen:
            try:
                text = httpx.get(f"{server.url}/metrics", timeout=10).text
            except httpx.TransportError:
                continue  # not listening yet
            seen.add(value(text, "lookalike_worker_ready", worker="1"))
        assert seen == {0.0, 1.0}


def scrape(url: str) -> str:
    """Read the metrics on a connection of its own, which any worker may take."""
    return httpx.get(f"{url}/metrics", timeout=30).text


def workers_ready(text: str) -> int:
    return sum(number for (name, _), number in values(text).items() if name.endswith("r_ready"))


def test_workers_add_up_and_counters_never_go_backwards_when_one_dies(
    model: Path, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    options = (model, tmp_path / "gallery", tmp_path / "log", "--workers", "2")
    labels = {"method": "POST", "route": "/v1/search", "status": "200"}

    def wait_for(number: float, workers: int) -> str:
        deadline = time.monotonic() + 60
        while True:
            text = scrape(server.url)
            counted = value(text, "lookalike_requests_total", **labels)
            assert counted <= number
            assert counted >= highest[0], "a counter went backwards"
            highest[0] = counted
            if (counted, workers_ready(text)) == (number, workers):
                return text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)

    with running_server(*options) as server:
        highest = [0.0]
        wait_for(0, 2)
        for number in range(60):
            answer = httpx.post(f"{server.url}/v1/search", content=png(number), headers=PNG)
            assert answer.status_code == 200
        for _ in range(10):  # whichever worker answers
            text = wait_for(60, 2)
        assert value(text, "lookalike_stage_seconds_count", stage="search") == 60
        assert value(text, "lookalike_batch_images_sum") == 60
        shared = [one for one, _ in values(text) if one == "lookalike_worker_resident_bytes"]
        assert len(shared) == 2

        first, _ = server.workers()
        os.kill(first, signal.SIGKILL)
        text = wait_for(60, 2)  # after at most 10 s there is another in its place

        for number in range(20):
            httpx.post(f"{server.url}/v1/search", content=png(number), headers=PNG)
        for _ in range(10):
            wait_for(80, 2)
        folder = shared_folder(server_id_of(server))
        assert len(list(folder.glob("worker-*.json"))) == 2, "a file for every worker there was"
        assert server.stop() == 0
    assert not folder.exists()


def server_id_of(server: Server) -> str:
    environment = Path(f"/proc/{server.workers()[0]}/environ").read_text().split("\0")
    (line,) = [line for line in environment if line.startswith("LOOKALIKE_SERVER_ID=")]
    return line.partition("=")[2]


def test_the_lag_is_what_other_processes_wrote_since_the_last_look(
    model: Path, tmp_path: Path
) -> None:
    from index.gallery import Gallery  # noqa: PLC0415
    from tests.support.fakes import new_item  # noqa: PLC0415

    write_gallery(tmp_path / "gallery", model)
    with (
        Gallery.open(tmp_path / "gallery", fingerprint=None) as one,
        Gallery.open(tmp_path / "gallery", fingerprint=None) as other,
    ):
        width = one.binding.width
        other.put([new_item(f"new-{n}", seed=n, width=width) for n in range(5)])

        assert one.lag() == 5
        one.catch_up()
        assert one.lag() == 0
        assert np.isclose(one.seq, other.seq)
