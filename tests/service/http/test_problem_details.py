"""Problems that need more than one request, and that none is missing in the tables."""

import inspect
import json
import re
import socket
import threading
import time
from dataclasses import replace
from types import ModuleType
from urllib.parse import urlsplit

import httpx
import pytest

from index import errors as index_errors
from index.gallery import Gallery
from service import errors as service_errors
from service.http.problem_details import MEDIA_TYPE, PROBLEMS, find_problem, problem_response
from tests.service.test_cases import TABLE
from tests.support.fakes import new_item
from tests.support.images.pngs import png
from tests.support.paths import ROOT
from tests.support.server.servers import Server, StrictServer
from vision import errors as vision_errors

PNG = {"Content-Type": "image/png"}

# Ours, not the caller's: they are answered with 500 and a fixed sentence.
OUR_FAULT: set[type[Exception]] = {
    vision_errors.VisionError,
    vision_errors.ImageError,
    vision_errors.ModelFolderError,
    vision_errors.ExportError,
    vision_errors.DeviceError,
    index_errors.VectorIndexError,
    index_errors.GalleryFolderError,
    index_errors.ModelMismatchError,
    index_errors.LogCutError,
    index_errors.GenerationError,
    service_errors.RequestError,
    service_errors.SettingError,
    service_errors.RetryableError,
    service_errors.ServiceConfigError,
}


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """Check the one shape that every error has."""
    assert response.headers["content-type"] == MEDIA_TYPE, response.text
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert 10 < len(body["detail"]) < 400
    assert not re.search(r"Traceback|Error\b|0x[0-9a-f]{6}|\.py\b|PIL|pydantic", body["detail"])


def test_an_id_that_holds_other_content_is_a_conflict_unless_it_may_be_replaced(
    client: httpx.Client,
) -> None:
    client.put("/v1/items/taken", content=png(100), headers=PNG)

    refused = client.put("/v1/items/taken?upsert=false", content=png(101), headers=PNG)

    assert_problem(refused, 409, "id_conflict")
    assert client.delete("/v1/items/taken").status_code == 200


def test_no_key_and_a_wrong_key_are_unauthorized(strict_server: StrictServer) -> None:
    for headers in ({}, {"Authorization": "Bearer lk_wrong"}, {"Authorization": "Basic abc"}):
        response = httpx.get(f"{strict_server.url}/v1/model", headers=headers)

        assert_problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


def test_a_key_without_the_right_is_forbidden(strict_server: StrictServer) -> None:
    reader, writer = strict_server.headers("reader"), strict_server.headers("writer")
    address = f"{strict_server.url}/v1/items/by-key"

    for method in ("PUT", "DELETE"):
        assert_problem(httpx.request(method, address, headers=reader), 403, "forbidden")
    bulk = httpx.post(f"{strict_server.url}/v1/items", headers=reader, json={"items": []})
    assert_problem(bulk, 403, "forbidden")
    assert httpx.put(address, headers={**writer, **PNG}, content=png(1)).status_code == 201
    assert httpx.delete(address, headers=writer).status_code == 200


def test_jobs_need_the_right_to_administer_which_gives_no_other(
    strict_server: StrictServer,
) -> None:
    jobs = f"{strict_server.url}/v1/jobs"
    admin, rebuild = strict_server.headers("admin"), {"kind": "rebuild"}

    for key in ("reader", "writer"):
        headers = strict_server.headers(key)
        assert_problem(httpx.get(jobs, headers=headers), 403, "forbidden")
        assert_problem(httpx.get(f"{jobs}/x", headers=headers), 403, "forbidden")
        assert_problem(httpx.post(jobs, headers=headers, json=rebuild), 403, "forbidden")
        assert_problem(httpx.post(f"{jobs}/", headers=headers, json=rebuild), 403, "forbidden")
        assert_problem(httpx.delete(f"{jobs}/x", headers=headers), 403, "forbidden")
    assert httpx.get(jobs, headers=admin).status_code == 200
    assert_problem(httpx.delete(f"{jobs}/x", headers=admin), 404, "unknown_job")
    assert_problem(httpx.get(f"{strict_server.url}/v1/model", headers=admin), 403, "forbidden")


def test_without_a_folder_for_backups_there_are_none(strict_server: StrictServer) -> None:
    asked = httpx.post(
        f"{strict_server.url}/v1/jobs",
        headers=strict_server.headers("admin"),
        json={"kind": "backup", "name": "monday"},
    )

    assert_problem(asked, 409, "no_backups_folder")


def test_a_key_reads_what_it_may_and_probes_need_none(strict_server: StrictServer) -> None:
    allowed = httpx.get(f"{strict_server.url}/v1/model", headers=strict_server.headers("reader"))

    assert allowed.status_code == 200
    for open_path in ("/livez", "/readyz", "/", "/docs"):
        assert httpx.get(f"{strict_server.url}{open_path}").status_code == 200, open_path
    assert httpx.get(f"{strict_server.url}/metrics").status_code == 401


def test_a_key_over_its_quota_is_told_to_wait(strict_server: StrictServer) -> None:
    answers = [
        httpx.get(f"{strict_server.url}/v1/model", headers=strict_server.headers("slow"))
        for _ in range(3)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert_problem(answers[-1], 429, "too_many_requests")
    assert int(answers[-1].headers["retry-after"]) >= 1


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "streamed"])
def test_a_body_that_is_too_large_is_refused(strict_server: StrictServer, chunked: bool) -> None:
    body = b"\x89PNG" + b"\0" * 70_000
    content = iter([body[:40_000], body[40_000:]]) if chunked else body

    response = httpx.post(
        f"{strict_server.url}/v1/classify",
        headers={**strict_server.headers("reader"), **PNG},
        content=content,
    )

    assert_problem(response, 413, "payload_too_large")


def test_an_image_with_too_many_pixels_is_refused(strict_server: StrictServer) -> None:
    response = httpx.post(
        f"{strict_server.url}/v1/classify",
        headers={**strict_server.headers("reader"), **PNG},
        content=png(1, (101, 100)),
    )

    assert_problem(response, 422, "too_many_pixels")


def test_a_body_that_comes_too_slowly_is_given_up(strict_server: StrictServer) -> None:
    where = urlsplit(strict_server.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as slow:
        slow.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Authorization: Bearer " + strict_server.tokens["reader"].encode() + b"\r\n"
            b"Content-Length: 1000\r\n\r\n\x89PNG"
        )
        started = time.monotonic()
        answer = b""
        while chunk := slow.recv(4096):  # until the server closes the connection
            answer += chunk

    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code": "request_timeout"' in answer
    assert 0.9 < time.monotonic() - started < 10


def test_more_requests_than_allowed_are_refused_at_once(strict_server: StrictServer) -> None:
    """With room for one request, of many sent at the same time some are told to come back."""
    headers = {**strict_server.headers("reader"), **PNG}
    barrier = threading.Barrier(12)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=strict_server.url, headers=headers, timeout=30) as client:
            client.get("/livez")  # the connection stands before the start
            barrier.wait()
            answers.extend(client.post("/v1/classify", content=png(1)) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) < len(answers), "not one request was served"
    assert refused, "not one request was refused"
    for answer in refused:
        assert_problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_write_that_has_not_happened_cannot_be_waited_for(client: httpx.Client) -> None:
    response = client.post("/v1/search", json={"id": "item-00", "min_seq": 10**9})

    assert_problem(response, 503, "not_ready")
    assert int(response.headers["retry-after"]) >= 1


def errors_of(module: ModuleType) -> set[type[Exception]]:
    return {
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Exception)
    }


def test_an_item_that_was_stored_as_a_vector_has_no_image(server: Server) -> None:
    item = replace(new_item("bare", width=256), thumbnail=None)
    with Gallery.open(server.log.parent / "gallery", fingerprint=None) as gallery:
        gallery.put([item])

    with server.client() as client:
        answer = client.get("/v1/items/bare/image")
        client.delete("/v1/items/bare")

    assert (answer.status_code, answer.json()["code"]) == (404, "no_image")


def test_every_error_is_either_answered_or_declared_our_fault() -> None:
    ours = set().union(*map(errors_of, (vision_errors, index_errors, service_errors)))

    assert ours == set(PROBLEMS) | OUR_FAULT
    assert not set(PROBLEMS) & OUR_FAULT


def test_every_code_of_the_table_was_driven_over_http() -> None:
    """Those that need a broken disk are driven in test_storage.py and by the index."""
    source = json.dumps([case.code for case in TABLE])
    for path in (ROOT / "tests" / "service").rglob("test_*.py"):
        source += path.read_text()

    for _, code in PROBLEMS.values():
        if code not in ("disk_full", "read_only", "storage_failed"):
            assert f'"{code}"' in source, code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (vision_errors.DeviceMemoryError("no memory"), "out_of_memory"),
        (vision_errors.DeviceLostError("no answer"), "device_lost"),
    ],
)
def test_a_gpu_that_fails_is_a_matter_of_trying_again(error: Exception, code: str) -> None:
    answer = problem_response(error, request_id="r")

    assert (answer.status_code, json.loads(answer.body)["code"]) == (503, code)
    assert int(answer.headers["Retry-After"]) > 0


def test_an_error_nobody_foresaw_tells_nothing() -> None:
    status, code = find_problem(ZeroDivisionError("a secret"))

    assert (status, code) == (500, "internal")
