"""Changing stored items through two workers at once: patches, expectations, many deletions."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index.gallery import Gallery
from index.items.item import NewItem
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import Server, answered, running_server

PNG = {"Content-Type": "image/png"}
MERGE = {"Content-Type": "application/merge-patch+json"}
MANY = 2_345  # more than one request deletes, beside what every gallery of these tests has


@pytest.fixture(scope="module")
def own_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("changed")
    write_gallery(folder / "gallery", model)
    with Gallery.open(folder / "gallery", fingerprint=None) as gallery:
        rng = np.random.default_rng(1)
        vectors_ND = rng.standard_normal((MANY, gallery.binding.width), np.float32)
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        gallery.put(
            [
                NewItem(
                    id=f"many-{row}",
                    vector_D=vectors_ND[row],
                    label=None,
                    metadata={"many": True, "row": row},
                    thumbnail=None,
                    content_sha256=f"{row:064x}",
                )
                for row in range(MANY)
            ]
        )
    options = (model, folder / "gallery", folder / "log", "--workers", "2")
    with running_server(*options) as running:
        yield running


@pytest.fixture(scope="module")
def client(own_server: Server) -> Iterator[httpx.Client]:
    with own_server.client() as client:
        yield client


@pytest.fixture
def item(client: httpx.Client) -> Iterator[str]:
    """An item of its own: a coat of the year 2020."""
    query = {"label": "coat", "metadata": '{"year": 2020, "size": {"eu": 40, "uk": 7}}'}
    stored = client.put("/v1/items/own", params=query, content=png(900), headers=PNG)
    assert stored.status_code in (200, 201)
    yield "/v1/items/own"
    client.delete("/v1/items/own")


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_patch_changes_what_it_names(client: httpx.Client, item: str) -> None:
    before = answered(client.get(item))
    picture = client.get(f"{item}/image").content

    changed = client.patch(
        item,
        headers=MERGE,
        content='{"label": null, "metadata": {"year": null, "size": {"eu": 41}, "sold": true}}',
    )

    after = answered(changed)
    assert after["label"] is None
    assert after["metadata"] == {"size": {"eu": 41, "uk": 7}, "sold": True}
    for name in ("id", "content_sha256", "created"):
        assert after[name] == before[name]
    assert after["seq"] > before["seq"]
    assert changed.headers["etag"] == f'"{after["seq"]}"'
    assert client.get(f"{item}/image").content == picture
    search = {"id": "own", "k": 1, "min_seq": after["seq"]}
    (hit,) = answered(client.post("/v1/search", json=search))["hits"]
    assert (hit["id"], hit["label"], hit["metadata"]) == ("own", None, after["metadata"])
    for worker in range(6):  # connections of their own, so that both workers are asked
        with httpx.Client(base_url=client.base_url) as fresh:
            assert fresh.get(item).json()["metadata"] == after["metadata"], worker


def test_a_patch_that_says_nothing_new_writes_nothing(client: httpx.Client, item: str) -> None:
    before = answered(client.get(item))

    for body in ({}, {"label": "coat"}, {"metadata": {"year": 2020}}, {"metadata": {"x": None}}):
        after = answered(client.patch(item, json=body))
        assert {**after, "request_id": ""} == {**before, "request_id": ""}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ('{"image": "aGVsbG8="}', 400, "unexpected_field"),
        ('{"vector": [1, 2]}', 400, "unexpected_field"),
        ('{"id": "other"}', 400, "unexpected_field"),
        ('{"upsert": true}', 400, "unexpected_field"),
        ('{"created": null}', 400, "unexpected_field"),
        ("[]", 400, "invalid_json"),
        ("null", 400, "invalid_json"),
        ('{"label": ', 400, "invalid_json"),
        ("", 400, "invalid_json"),
        ('{"label": ""}', 422, "invalid_parameter"),
        ('{"label": 7}', 422, "invalid_parameter"),
        ('{"metadata": [1]}', 422, "invalid_parameter"),
        ('{"metadata": "{}"}', 422, "invalid_parameter"),
        ('{"metadata": {"a": "\\u0000"}}', 422, "invalid_parameter"),
    ],
)
def test_a_patch_that_cannot_be_made_says_why(
    client: httpx.Client, item: str, body: str, status: int, code: str
) -> None:
    before = answered(client.get(item))

    refused = client.patch(item, headers=MERGE, content=body)

    assert problem(refused) == (status, code)
    assert answered(client.get(item))["seq"] == before["seq"]


def test_a_patch_is_json_and_of_an_item_that_is_there(client: httpx.Client, item: str) -> None:
    assert problem(client.patch("/v1/items/nobody", json={"label": "a"})) == (404, "unknown_id")
    assert problem(client.patch(item, content=png(1), headers=PNG))[0] == 415
    assert problem(client.patch(item, data={"label": "a"}))[0] == 415
    asked = client.patch(f"{item}?label=a", json={})
    assert problem(asked) == (400, "unexpected_field")


def test_changes_are_made_only_to_the_item_that_was_read(client: httpx.Client, item: str) -> None:
    seen = client.get(item)
    tag = seen.headers["etag"]
    assert tag == f'"{seen.json()["seq"]}"'
    assert client.get(item, headers={"If-None-Match": tag}).status_code == 304
    changed = client.patch(item, json={"label": "hat"}, headers={"If-Match": f'"1", {tag}'})
    assert changed.status_code == 200
    new_tag = changed.headers["etag"]

    for method, arguments in (
        ("PATCH", {"json": {"label": "cap"}}),
        ("PUT", {"content": png(901), "headers": PNG}),
        ("DELETE", {}),
    ):
        for condition in ({"If-Match": tag}, {"If-Match": f"W/{new_tag}"}, {"If-Match": '"x"'}):
            headers = {**arguments.get("headers", {}), **condition}  # type: ignore[dict-item]
            rest = {name: value for name, value in arguments.items() if name != "headers"}
            refused = client.request(method, item, headers=headers, **rest)  # type: ignore[arg-type]
            assert problem(refused) == (412, "precondition_failed"), (method, condition)
        absent = client.request(
            method,
            "/v1/items/nobody",
            headers={**arguments.get("headers", {}), "If-Match": "*"},  # type: ignore[dict-item]
            **{name: value for name, value in arguments.items() if name != "headers"},  # type: ignore[arg-type]
        )
        assert problem(absent) == (412, "precondition_failed"), method
        wrong = client.request(method, item, headers={**PNG, "If-Match": "12"}, content=png(901))
        assert problem(wrong) == (400, "malformed_request"), method
    after = answered(client.get(item))
    assert (after["label"], f'"{after["seq"]}"') == ("hat", new_tag)

    stored = client.put(item, content=png(901), headers={**PNG, "If-Match": new_tag})
    assert stored.json()["outcome"] == "replaced"
    assert stored.headers["etag"] == client.get(item).headers["etag"]
    assert stored.headers["etag"] == f'"{stored.json()["seq"]}"'
    assert client.delete(item, headers={"If-Match": stored.headers["etag"]}).status_code == 200


def test_an_item_is_made_only_where_none_is(client: httpx.Client, item: str) -> None:
    only_new = {**PNG, "If-None-Match": "*"}
    before = answered(client.get(item))

    refused = client.put(item, content=png(900), headers=only_new)
    made = client.put("/v1/items/own-new", content=png(902), headers=only_new)
    again = client.put("/v1/items/own-new", content=png(902), headers=only_new)

    assert problem(refused) == (412, "precondition_failed")
    assert "there is an item" in refused.json()["detail"]
    assert answered(client.get(item))["seq"] == before["seq"]
    assert made.status_code == 201
    assert problem(again) == (412, "precondition_failed")
    assert client.delete("/v1/items/own-new").status_code == 200


def unit(row: int, width: int = 256) -> list[float]:
    """Return a unit vector of floats that float32 holds exactly."""
    return [1.0 if place == row else 0.0 for place in range(width)]


def test_a_vector_is_stored_without_a_picture(client: httpx.Client, item: str) -> None:
    made = client.put("/v1/items/bare", json={"vector": unit(3), "label": "hat"})
    again = client.put("/v1/items/bare", json={"vector": unit(3), "label": "hat"})
    replaced = client.put(item, json={"vector": unit(4), "metadata": {"a": 1}})

    assert (made.status_code, made.json()["outcome"]) == (201, "created")
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    assert made.headers["etag"] == again.headers["etag"]
    assert replaced.json()["outcome"] == "replaced"
    shown = answered(client.get(item))
    assert (shown["label"], shown["metadata"]) == (None, {"a": 1})
    assert problem(client.get(f"{item}/image")) == (404, "no_image")
    for row, name in ((3, "bare"), (4, "own")):
        query = {"vector": unit(row), "k": 1, "with_vector": True, "exact": True}
        (hit,) = answered(client.post("/v1/search", json=query))["hits"]
        assert (hit["id"], hit["score"], hit["vector"]) == (name, 1, unit(row))
    assert client.delete("/v1/items/bare").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"vector": [1.0]}, 422, "invalid_vector"),
        ({"vector": []}, 422, "invalid_vector"),
        ({"vector": [0.0] * 256}, 422, "invalid_vector"),
        ({"vector": [1.0] * 256}, 422, "invalid_vector"),
        ({"vector": [2.0, *[0.0] * 255]}, 422, "invalid_vector"),
        ({"vector": [1e308] * 256}, 422, "invalid_vector"),
        ({"vector": ["1", *[0.0] * 255]}, 422, "invalid_vector"),
        ({"vector": [[1.0], *[0.0] * 255]}, 422, "invalid_vector"),
        ({"vector": "a"}, 422, "invalid_vector"),
        ({"vector": None}, 400, "missing_image"),
        ({}, 400, "missing_image"),
        ({"vector": unit(1), "image": "aGVsbG8="}, 400, "ambiguous_query"),
        ({"vector": unit(1), "upsert": False}, 409, "id_conflict"),
    ],
)
def test_a_vector_that_cannot_be_stored_is_refused(
    client: httpx.Client, item: str, body: dict[str, Any], status: int, code: str
) -> None:
    before = answered(client.get(item))

    assert problem(client.put(item, json=body)) == (status, code)
    assert answered(client.get(item))["seq"] == before["seq"]


def test_no_update_is_lost_between_two_workers(own_server: Server, item: str) -> None:
    """Some patch what is theirs alone; others count up, each from what it has read."""
    turns, clients = 6, 6

    def patch(number: int) -> None:
        for turn in range(turns):
            with own_server.client() as one:  # a connection each time: now this worker, now that
                answered(one.patch(item, json={"metadata": {f"p{number}-{turn}": turn}}))

    def count() -> None:
        for _ in range(turns):
            while True:
                with own_server.client() as one:
                    seen = one.get(item)
                    number = seen.json()["metadata"].get("count", 0) + 1
                    change = {"metadata": {"count": number}}
                    tag = {"If-Match": seen.headers["etag"]}
                    answer = one.patch(item, json=change, headers=tag)
                if answer.status_code == 200:
                    break
                assert answer.status_code == 412, answer.text

    threads = [threading.Thread(target=patch, args=(number,)) for number in range(clients)]
    threads += [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with own_server.client() as one:
        metadata = answered(one.get(item))["metadata"]
    assert metadata.pop("count") == 2 * turns
    assert {name for name in metadata if name.startswith("p")} == {
        f"p{number}-{turn}" for number in range(clients) for turn in range(turns)
    }


def test_items_are_counted_and_so_is_what_they_say(client: httpx.Client) -> None:
    answer = answered(
        client.post("/v1/facets", json={"keys": ["label", "even", "row"], "limit": 2})
    )

    assert answer["count"] == answered(client.get("/v1/gallery"))["count"] == STORED + MANY
    label, even, row = answer["facets"]
    assert (label["key"], label["distinct"], len(label["values"])) == ("label", 4, 2)
    assert [one["count"] for one in label["values"]] == [10, 10]
    assert {one["value"]: one["count"] for one in even["values"]} == {False: 20, True: 20}
    assert row["distinct"] == MANY
    wanted = {"must": [{"key": "number", "range": {"lt": 10}}]}
    few = answered(client.post("/v1/facets", json={"filter": wanted, "keys": ["even"]}))
    assert (few["count"], [one["count"] for one in few["facets"][0]["values"]]) == (10, [5, 5])
    assert answered(client.post("/v1/facets", json={}))["facets"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"keys": ["id"]}, 422, "invalid_parameter"),
        ({"keys": [""]}, 422, "invalid_parameter"),
        ({"keys": ["a", "a"]}, 422, "invalid_parameter"),
        ({"keys": "label"}, 422, "invalid_parameter"),
        ({"keys": [f"k{n}" for n in range(17)]}, 422, "list_too_long"),
        ({"limit": 0}, 422, "invalid_parameter"),
        ({"limit": 1001}, 422, "invalid_parameter"),
        ({"filter": {"must": 1}}, 422, "invalid_filter"),
        ({"image": "aGVsbG8="}, 400, "unexpected_field"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    client: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    assert problem(client.post("/v1/facets", json=body)) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_json"),
        ({"all": False}, 400, "invalid_json"),
        ({"ids": None, "filter": None}, 400, "invalid_json"),
        ({"filter": {}}, 400, "invalid_json"),
        ({"filter": {"must": [], "must_not": []}}, 400, "invalid_json"),
        ({"ids": ["a"], "all": True}, 400, "ambiguous_query"),
        ({"ids": ["a"], "filter": {"must": [{"key": "x", "match": 1}]}}, 400, "ambiguous_query"),
        ({"ids": []}, 422, "invalid_id"),
        ({"ids": ["a", ".."]}, 422, "invalid_id"),
        ({"ids": "a"}, 422, "invalid_id"),
        ({"ids": [f"a{n}" for n in range(1001)]}, 422, "list_too_long"),
        ({"all": True}, 422, "list_too_long"),
        ({"filter": {"must": [{"key": "many", "match": True}]}}, 422, "list_too_long"),
        ({"image": "aGVsbG8=", "all": True}, 400, "unexpected_field"),
    ],
)
def test_a_deletion_that_names_nothing_or_too_much_deletes_nothing(
    client: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    before = answered(client.post("/v1/facets", json={}))["count"]

    refused = client.post("/v1/items/delete", json=body)
    assert problem(refused) == (status, code)
    if code != "list_too_long":
        assert problem(client.post("/v1/jobs", json={"kind": "delete", **body}))[0] == status
    assert answered(client.post("/v1/facets", json={}))["count"] == before


def test_many_items_are_deleted_at_once(client: httpx.Client) -> None:
    ids = ["many-1", "many-2", "nobody", "many-1"]
    wanted = {"must": [{"key": "row", "range": {"gte": 2000}}]}

    by_ids = answered(client.post("/v1/items/delete", json={"ids": ids}))
    by_filter = answered(client.post("/v1/items/delete", json={"filter": wanted}))
    none_left = answered(client.post("/v1/items/delete", json={"filter": wanted}))

    assert [one["deleted"] for one in (by_ids, by_filter, none_left)] == [2, MANY - 2000, 0]
    rest = {"min_seq": by_filter["seq"], "id": "item-00", "k": 1000, "filter": wanted}
    assert answered(client.post("/v1/search", json=rest))["hits"] == []


def test_a_job_deletes_more_and_an_item_may_be_named_like_a_route(client: httpx.Client) -> None:
    for name in ("delete", "count"):
        assert client.put(f"/v1/items/{name}", content=png(903), headers=PNG).status_code == 201
        assert answered(client.get(f"/v1/items/{name}"))["id"] == name
        assert client.delete(f"/v1/items/{name}").status_code == 200
    wanted = {"must": [{"key": "many", "match": True}]}
    there = answered(client.post("/v1/facets", json={"filter": wanted}))["count"]
    assert there > 1000

    job = client.post("/v1/jobs", json={"kind": "delete", "filter": wanted})

    assert job.status_code == 202
    ended = job.json()
    deadline = time.monotonic() + 60
    while ended["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        ended = answered(client.get(job.request.url.join(job.headers["location"])))
    assert (ended["state"], ended["result"]) == ("done", {"deleted": there})
    assert answered(client.post("/v1/facets", json={"filter": wanted}))["count"] == 0
    assert answered(client.post("/v1/facets", json={}))["count"] == STORED
