"""Traces on request: what a collector gets, over real sockets; and nothing when not asked for."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.config import ServiceSettings
from service.errors import ServiceConfigError
from service.telemetry.tracing import check_tracing, start_tracing
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import ROOT, clean_environment, running_server

PNG = {"Content-Type": "image/png"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Takes traces as an OpenTelemetry collector does, and keeps their spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.paths: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def wait_for(self, count: int) -> list[Span]:
        """Return the spans of requests, as soon as there are ``count`` of them."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = [span for span in list(self.spans) if span.kind == Span.SPAN_KIND_SERVER]
            if len(found) >= count:
                break
            time.sleep(0.1)
        assert len(found) == count
        return found


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    self.server.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.server.paths.add(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def attributes(span: Span) -> dict[str, str | int]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_and_its_stages_become_a_trace_that_goes_on_from_the_callers(
    collector: Collector, model: Path, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    options = (model, tmp_path / "gallery", tmp_path / "log", "--otlp-endpoint", collector.url)
    with running_server(*options, "--trace-ratio", "0") as server, server.client() as client:
        picked = {**PNG, "traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "picked"}
        assert client.post("/v1/search", content=png(1), headers=picked).status_code == 200
        for number in range(5):  # a ratio of 0, and callers that decided against it
            client.post("/v1/search", content=png(number), headers=PNG)
            not_picked = {**PNG, "traceparent": f"00-{TRACE}-{PARENT}-00"}
            client.post("/v1/search", content=png(number), headers=not_picked)
        failed = {**picked, "X-Request-ID": "failed"}
        assert client.post("/v1/classify", content=b"x", headers=failed).status_code == 415
        client.put("/v1/items/private-id", content=png(3), headers=picked)
        client.get("/livez", headers=picked)

        search, classify, put = collector.wait_for(3)

    assert collector.paths == {"/v1/traces"}
    assert collector.services == {"lookalike"}
    for span in (search, classify, put):
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert search.name == "POST /v1/search"
    assert attributes(search) == {
        "http.request.method": "POST",
        "http.route": "/v1/search",
        "http.response.status_code": 200,
        "lookalike.request_id": "picked",
        "lookalike.images": 1,
    }
    assert attributes(classify)["error.type"] == "unsupported_image_type"
    assert put.name == "PUT /v1/items/{item_id}"
    assert "private-id" not in str(collector.spans)

    def stages(span: Span) -> dict[str, Span]:
        return {one.name: one for one in collector.spans if one.parent_span_id == span.span_id}

    assert set(stages(search)) == {"body", "queue", "decode", "encode", "search"}
    assert set(stages(put)) == {"body", "queue", "decode", "encode", "write"}
    for stage in stages(search).values():
        assert stage.trace_id.hex() == TRACE
        slack_ns = 1_000_000  # queue and decode are put before encode by their lengths
        assert stage.start_time_unix_nano >= search.start_time_unix_nano - slack_ns
        assert stage.end_time_unix_nano <= search.end_time_unix_nano + slack_ns
    assert abs(search.end_time_unix_nano / 1e9 - time.time()) < 300
    lines = [
        line for line in server.log.read_text().splitlines() if '"request_id":"picked"' in line
    ]
    assert f'"trace_id":"{TRACE}"' in lines[0]


def test_what_was_not_sent_yet_is_sent_when_the_server_stops(
    collector: Collector, model: Path, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    options = (model, tmp_path / "gallery", tmp_path / "log", "--otlp-endpoint", collector.url)
    with running_server(*options) as server, server.client() as client:
        client.get("/v1/gallery")
        assert server.stop() == 0

    assert [span.name for span in collector.wait_for(1)] == ["GET /v1/gallery"]


def test_a_collector_that_is_not_there_costs_no_request(model: Path, tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery", model)
    options = (model, tmp_path / "gallery", tmp_path / "log")
    with (
        running_server(*options, "--otlp-endpoint", "http://127.0.0.1:9") as server,
        server.client() as client,
    ):
        for number in range(20):
            answer = client.post("/v1/search", content=png(number), headers=PNG)
            assert answer.status_code == 200
        assert server.stop() == 0


def test_without_the_extra_serve_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    settings = ServiceSettings(otlp_endpoint="http://localhost:4318")

    with pytest.raises(ServiceConfigError, match=r"pip install 'lookalike\[tracing\]'"):
        check_tracing(settings)
    check_tracing(ServiceSettings())


@pytest.mark.parametrize("address", ["localhost:4318", "ftp://x", "http://", "http://x?y", ""])
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("LOOKALIKE_OTLP_ENDPOINT", address)

    with pytest.raises(ServiceConfigError, match="LOOKALIKE_OTLP_ENDPOINT"):
        ServiceSettings.from_environment()


def test_nothing_is_imported_or_started_when_tracing_is_off() -> None:
    assert start_tracing(ServiceSettings()) is None
    program = (
        "import sys, service.telemetry.tracing\n"
        "from service.config import ServiceSettings\n"
        "assert service.telemetry.tracing.start_tracing(ServiceSettings()) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "import service.request.gateway\n"  # FastAPI loads the interface alone
        "exporting = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "assert not [name for name in sys.modules if name.startswith(exporting)]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=clean_environment())
