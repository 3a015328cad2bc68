"""What one request may hold, and what many may take from others: lists, depth, queues, turns."""

import asyncio
import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from service.schemas.parameters import MAX_IMAGES, MAX_JSON_VALUES, MAX_WIDTH
from tests.support.images.pngs import encoded, png
from tests.support.processes import usage
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import Server

PNG = {"Content-Type": "image/png"}
MORE_MB = 150  # of memory, that no request of these may take
LARGE = 200_000  # elements


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with gallery_server(model, tmp_path_factory.mktemp("bounds")) as running:
        yield running


def nested(depth: int) -> list[Any]:
    """Return lists in one another."""
    return [nested(depth - 1)] if depth else []


LONG: dict[str, tuple[str, Any, int, str]] = {
    "items": ("/v1/items", {"items": [0] * MAX_JSON_VALUES}, 422, "list_too_long"),
    "items, far too many": ("/v1/items", {"items": [0] * LARGE}, 422, "list_too_long"),
    "a vector of words": ("/v1/search", {"vector": [""] * 60_000}, 422, "invalid_vector"),
    "a long vector": ("/v1/search", {"vector": [0.5] * (MAX_WIDTH + 1)}, 422, "list_too_long"),
    "exclude": ("/v1/search", {"id": "item-01", "exclude": ["a"] * 1001}, 422, "list_too_long"),
    "exclude, no ids": ("/v1/search", {"id": "item-01", "exclude": [0] * 999}, 422, "invalid_id"),
    "images": ("/v1/classify", {"images": [""] * (MAX_IMAGES + 1)}, 422, "list_too_long"),
    "conditions": (
        "/v1/search",
        {"id": "item-01", "filter": {"must": [0] * 90_000}},
        422,
        "invalid_filter",
    ),
    "values of a condition": (
        "/v1/search",
        {"id": "item-01", "filter": {"must": [{"key": "a", "match": [[]] * 40_000}]}},
        422,
        "invalid_filter",
    ),
    "lists in lists": ("/v1/search", {"a": [nested(190)] * 1_000}, 422, "list_too_long"),
    "vectors of words": (
        "/v1/search",
        {"queries": [{"vector": [""] * 1_500}] * 64},
        207,
        "invalid_vector",
    ),
    "a crop of many sides": (
        "/v1/search",
        {"id": "item-01", "crop": {f"s{number}": 0 for number in range(90_000)}},
        422,
        "invalid_parameter",
    ),
    "fields": (
        "/v1/search",
        {f"f{number}": 0 for number in range(90_000)},
        400,
        "invalid_json",
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_a_list_that_is_too_long_is_refused_by_its_length_or_its_first_fault(
    server: Server, client: httpx.Client, name: str
) -> None:
    path, body, status, code = LONG[name]
    before = usage(server.process.pid).resident_mb

    answer = client.post(path, json=body)

    told = answer.json()
    if status == 207:
        assert {one["code"] for one in told["results"]} == {code}
    else:
        assert (answer.status_code, told["code"]) == (status, code)
        assert len(answer.content) < 1_000
    assert answer.status_code == status
    assert usage(server.process.pid).resident_mb < before + MORE_MB


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": [0] * 90_000},
        {f"key {number}": number for number in range(40_000)},
        {"a": "x" * 1_000_000},
        {"a": [{}] * 40_000},
    ],
    ids=["numbers", "names", "a text", "objects"],
)
def test_metadata_that_is_too_large_is_refused_before_it_is_looked_through(
    client: httpx.Client, metadata: dict[str, Any]
) -> None:
    fields = {"metadata": json.dumps(metadata)}

    answer = client.put("/v1/items/large", data=fields, files={"image": png(1)})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert "16384" in answer.json()["detail"]


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_that_is_nested_without_end_is_refused(client: httpx.Client, opening: str) -> None:
    answer = client.post(
        "/v1/search",
        content=opening * 90_000,
        headers={"Content-Type": "application/json"},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "text",
    [
        base64.urlsafe_b64encode(png(1)).decode().rstrip("="),
        base64.encodebytes(png(1)).decode(),
        "data:image/png;base64," + quote(base64.b64encode(png(1)).decode()),
        " ".join(base64.b64encode(png(1)).decode()),
    ],
    ids=["of addresses", "in lines", "in percent signs", "in letters"],
)
def test_every_form_of_base64_is_read(client: httpx.Client, text: str) -> None:
    plain = client.post("/v1/classify", content=png(1)).json()

    answer = client.post("/v1/classify", json={"image": text})

    assert answer.status_code == 200
    assert answer.json()["predictions"] == plain["predictions"]


@pytest.mark.parametrize("text", ["AA " * 2_000_000, "data:;base64," + "%41" * 2_000_000])
def test_base64_that_is_mostly_something_else_takes_little_memory(
    server: Server, client: httpx.Client, text: str
) -> None:
    before = usage(server.process.pid).resident_mb

    answer = client.post("/v1/classify", json={"image": text})

    assert answer.status_code in (400, 415)
    assert usage(server.process.pid).resident_mb < before + MORE_MB


def test_a_query_has_a_bounded_number_of_fields_in_utf_8(client: httpx.Client) -> None:
    many = client.post("/v1/classify?" + "&".join(f"a{n}=1" for n in range(101)), content=png(1))
    latin = client.get("/v1/items?filter=Gr%F6%DFe")

    assert (many.status_code, many.json()["code"]) == (422, "invalid_parameter")
    assert "at most 100" in many.json()["detail"]
    assert (latin.status_code, latin.json()["code"]) == (400, "malformed_request")
    assert "UTF-8" in latin.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data; boundary=x", "image/png"]
)
def test_a_type_without_a_body_is_passed_over_where_no_body_is_expected(
    client: httpx.Client, method: str, kind: str
) -> None:
    client.put("/v1/items/gone", content=png(3), headers=PNG)

    answer = client.request(method, "/v1/items/gone", headers={"Content-Type": kind})

    assert answer.status_code == 200


def test_a_body_that_is_encoded_is_refused(client: httpx.Client) -> None:
    headers = {**PNG, "Content-Encoding": "gzip"}

    answer = client.post("/v1/classify", content=png(1), headers=headers)

    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["detail"]
    assert answer.headers["accept-encoding"] == "identity"
    plain = client.post("/v1/classify", content=png(1), headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200


def test_waiting_for_a_write_takes_no_place_from_others(server: Server) -> None:
    async def ask() -> tuple[Counter[int], Counter[int]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            wait = {"id": "item-01", "min_seq": 999_999_999}
            waiting = [
                asyncio.create_task(client.post("/v1/search", json=wait)) for _ in range(300)
            ]
            await asyncio.sleep(0.3)
            others = [await client.post("/v1/search", json={"id": "item-02"}) for _ in range(20)]
            waited = await asyncio.gather(*waiting)
        return (
            Counter(one.status_code for one in waited),
            Counter(one.status_code for one in others),
        )

    waited, others = asyncio.run(ask())

    assert waited == {503: 300}
    assert others == {200: 20}


def test_readers_take_their_places_and_are_told_when_there_are_none(server: Server) -> None:
    """Beside them a picture is classified, and probes answer."""

    async def ask() -> tuple[list[httpx.Response], list[httpx.Response]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            path = "/v1/items?limit=1000"
            reading = [asyncio.create_task(client.get(path)) for _ in range(400)]
            beside = [await client.post("/v1/classify", content=png(2)) for _ in range(5)]
            beside += [await client.get("/livez") for _ in range(5)]
            return await asyncio.gather(*reading), beside

    read, beside = asyncio.run(ask())

    assert {one.status_code for one in beside} == {200}
    assert {one.status_code for one in read} <= {200, 503}
    assert Counter(one.status_code for one in read)[200] > 0
    for one in read:
        assert one.status_code == 200 or int(one.headers["retry-after"]) >= 1


def test_one_picture_does_not_wait_for_a_form_of_many_large_ones(server: Server) -> None:
    """Each of the large ones is cheap to send and takes a tenth of a second to decode."""
    large = encoded(Image.new("P", (4_900, 4_900)))
    form = [("image", ("a.png", large, "image/png")) for _ in range(40)]
    answers: list[httpx.Response] = []

    def send() -> None:
        with server.client() as one:
            answers.append(one.post("/v1/classify", files=form))

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.5)
    with server.client() as other:
        beside = [other.post("/v1/classify", content=large) for _ in range(3)]
        is_still_at_work = sender.is_alive()
    sender.join(120)

    assert {one.status_code for one in beside} == {200}
    assert is_still_at_work, "the other client waited for all of the form"
    assert answers[0].status_code in (200, 207, 503)
