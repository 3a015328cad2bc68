"""The log: one line of JSON per event, no content, and never in the way of the service."""

import fcntl
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.telemetry.json_log import LogHandler, LogQueue
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import (
    Server,
    StrictServer,
    clean_environment,
    free_port,
    is_ready,
    running_server,
    serve_command,
)

PNG = {"Content-Type": "image/png"}
LINE = {"time": 1.5e9, "text": "x" * 500}


@contextmanager
def small_pipe() -> Iterator[tuple[int, int]]:
    """Give the block a pipe of one page: its reading end and its writing end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def read_lines(reader: int, count: int) -> list[dict[str, Any]]:
    data = b""
    while data.count(b"\n") < count:
        data += os.read(reader, 65536)
    return [json.loads(line) for line in data.splitlines()]


def lines_of(server: Server | StrictServer, word: str, count: int) -> list[dict[str, Any]]:
    """Return the log's lines with ``word`` in them, as soon as there are ``count``."""
    log = server.running.log if isinstance(server, StrictServer) else server.log
    deadline = time.monotonic() + 20
    while True:
        whole = [line for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n"]
        found = [json.loads(line) for line in whole if word in line]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count
            return found
        time.sleep(0.05)


def test_a_line_has_stages_sizes_and_the_key_but_no_content_ids_or_secrets(
    strict_server: StrictServer,
) -> None:
    headers = {**PNG, "X-Request-ID": "line-1", **strict_server.headers("writer")}
    url = f"{strict_server.url}/v1/items/private-id"
    answer = httpx.put(f"{url}?label=private-label", content=png(1), headers=headers)
    form = {"image": ("private-name.png", png(2)[:100])}
    broken = httpx.post(
        f"{strict_server.url}/v1/classify",
        files=form,
        headers={"X-Request-ID": "line-2", **strict_server.headers("writer")},
    )
    httpx.delete(url, headers=strict_server.headers("writer"))

    assert (answer.status_code, broken.status_code) == (201, 422)
    (line,) = lines_of(strict_server, "line-1", 1)
    (failed,) = lines_of(strict_server, "line-2", 1)
    assert line["route"] == "/v1/items/{item_id}"
    assert (line["method"], line["status"], line["key"]) == ("PUT", 201, "writer")
    assert (line["images"], line["worker"], line["level"]) == (1, 1, "info")
    assert line["bytes_in"] == len(png(1))
    assert line["bytes_out"] == len(answer.content)
    stages = {"body_ms", "queue_ms", "decode_ms", "encode_ms", "write_ms"}
    assert stages <= set(line)
    assert 0 < line["write_ms"] < line["total_ms"]
    assert "trace_id" not in line
    assert (failed["code"], failed["status"]) == ("corrupt_image", 422)
    log = strict_server.running.log.read_text()
    assert "private" not in log
    assert strict_server.tokens["writer"] not in log
    assert "127.0.0.1" not in json.dumps([line, failed])


def test_items_that_failed_in_an_answer_that_went_through_are_told(server: Server) -> None:
    files = [("image", ("x", data)) for data in (png(1), b"no image")]
    with server.client() as client:
        client.post("/v1/embed", files=files, headers={"X-Request-ID": "many-1"})

    (line,) = lines_of(server, "many-1", 1)
    assert (line["status"], line["failed_items"], line["images"]) == (207, 1, 1)
    assert "code" not in line


def test_lines_that_nobody_reads_are_counted_and_nobody_waits() -> None:
    with small_pipe() as (reader, writer):
        lines = LogQueue(writer, limit=10)
        begun = time.monotonic()
        for _ in range(1000):
            lines.put(dict(LINE))
        assert time.monotonic() - begun < 5
        assert not lines.flush(timeout_s=0.2)
        assert lines.dropped > 900

        written = 1000 - lines.dropped
        assert len(read_lines(reader, written)) == written
        assert lines.flush()
        lines.put({"time": 1.5e9, "text": "again"}, urgent=True)
        assert read_lines(reader, 1)[0]["text"] == "again"


def test_lines_of_many_threads_are_all_written_whole_by_the_flush() -> None:
    with small_pipe() as (reader, writer):
        lines = LogQueue(writer)

        def put(lane: int) -> None:
            for number in range(200):
                lines.put({**LINE, "who": f"{lane}-{number}"})

        threads = [threading.Thread(target=put, args=(lane,)) for lane in range(5)]
        for thread in threads:
            thread.start()
        found = read_lines(reader, 1000)
        for thread in threads:
            thread.join()

        assert lines.flush()
        assert lines.dropped == 0
        assert {line["who"] for line in found} == {f"{a}-{b}" for a in range(5) for b in range(200)}
        for lane in range(5):
            own = [line["who"] for line in found if line["who"].startswith(f"{lane}-")]
            assert own == [f"{lane}-{number}" for number in range(200)]


def test_a_reader_that_went_away_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LogQueue(writer)

    lines.put(dict(LINE))

    assert lines.flush()
    assert lines.dropped == 1
    os.close(writer)


def test_an_uncaught_error_keeps_its_trace_and_any_text_is_one_line() -> None:
    with small_pipe() as (reader, writer):
        logger = logging.Logger("test")  # of its own, with no parent
        logger.addHandler(LogHandler(LogQueue(writer)))
        try:
            int("two\nlines, and half a \ud800")
        except ValueError:
            logger.exception("it failed with %s", "\udcff")

        (line,) = read_lines(reader, 1)

    assert line["level"] == "error"
    assert line["message"] == "it failed with \udcff"
    assert "Traceback" in line["trace"]
    assert "half a" in line["trace"]


def test_a_pipe_that_nobody_reads_stops_neither_the_service_nor_its_end(
    model: Path, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    port = free_port()
    with small_pipe() as (_, writer):
        process = subprocess.Popen(
            serve_command(model, tmp_path / "gallery", port),
            stdout=subprocess.DEVNULL,
            stderr=writer,
            env=clean_environment(),
            start_new_session=True,
        )
        server = Server(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        try:
            deadline = time.monotonic() + 60
            while not is_ready(server):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with server.client() as client:
                for _ in range(100):  # lines of some 400 bytes, for a pipe of 4096
                    assert client.get("/v1/gallery").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=40) == 0
        finally:
            if process.poll() is None:
                server.kill()


def test_every_line_of_a_server_is_of_one_format(model: Path, tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery", model)
    log = tmp_path / "log.txt"
    with running_server(model, tmp_path / "gallery", log) as server:
        httpx.get(f"{server.url}/v1/gallery")

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert "ready: " in str(lines)
    assert all({"time", "level", "logger"} <= line.keys() for line in lines)
    assert {line["logger"].split(".")[0] for line in lines} == {"lookalike"}  # no library's chatter
