"""Many items in one request, with pictures, with vectors, and mixed: each has its own status."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.fakes import unit_vectors
from tests.support.images.pngs import png
from tests.support.server.servers import Server

WIDTH = 256
MOST = 256  # items of one request


def unit(seed: int) -> list[float]:
    vector: list[float] = unit_vectors(1, WIDTH, seed=seed)[0].tolist()
    return vector


def picture(seed: int) -> str:
    return base64.b64encode(png(seed)).decode()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client after which no item of this file's is left."""
    with server.client() as client:
        yield client
        wanted = {"must": [{"key": "of", "match": "many"}]}
        client.post("/v1/items/delete", json={"filter": wanted})


def item(item_id: str, **members: object) -> dict[str, object]:
    return {"id": item_id, "metadata": {"of": "many"}, **members}


def results(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 207, answer.text
    listed: list[dict[str, Any]] = answer.json()["results"]
    return listed


def test_pictures_and_vectors_are_stored_together_in_their_order(client: httpx.Client) -> None:
    vector = unit(1)
    sent = [
        item("many-1", vector=vector, label="v"),
        item("many-2", image=picture(801), label="p"),
        item("many-3", vector=unit(3)),
        item("many-4", image=picture(802)),
        item("many-1", vector=vector, label="v"),
    ]

    listed = results(client.post("/v1/items", json={"items": sent}))

    assert [one["id"] for one in listed] == [one["id"] for one in sent]
    assert [one["outcome"] for one in listed] == [*["created"] * 4, "unchanged"]
    found = client.post("/v1/search", json={"vector": vector, "k": 1, "with_vector": True}).json()
    assert (found["hits"][0]["id"], found["hits"][0]["label"]) == ("many-1", "v")
    assert found["hits"][0]["score"] == pytest.approx(1)
    assert client.get("/v1/items/many-1/image").json()["code"] == "no_image"
    assert client.get("/v1/items/many-2/image").status_code == 200


def test_a_vector_is_the_same_item_whether_it_comes_alone_or_among_many(
    client: httpx.Client,
) -> None:
    sent = item("many-1", vector=unit(5), label="same")
    client.post("/v1/items", json={"items": [sent]})

    alone = {name: value for name, value in sent.items() if name != "id"}
    again = client.put("/v1/items/many-1", json=alone)

    assert again.json()["outcome"] == "unchanged"


def test_each_vector_that_cannot_be_stored_fails_alone(client: httpx.Client) -> None:
    wrong: dict[str, object] = {
        "short": unit(1)[:-1],
        "long": [*unit(1), 0.0],
        "not of unit length": (2 * np.asarray(unit(1))).tolist(),
        "zero": [0.0] * WIDTH,
        "huge": [1e300] * WIDTH,
        "of text": ["1"] * WIDTH,
        "no list": "0.1,0.2",
        "of lists": [unit(1)],
        "wrong from the first on": [None] * WIDTH,
    }
    sent = [item(f"many-{name}", vector=vector) for name, vector in wrong.items()]
    both = item("many-both", vector=unit(2), image=picture(803))
    neither = item("many-neither", vector=None)
    sound = item("many-sound", vector=unit(4))

    listed = results(client.post("/v1/items", json={"items": [*sent, both, neither, sound]}))

    refused = listed[: len(sent)]
    assert [(one["status"], one["code"]) for one in refused] == [(422, "invalid_vector")] * len(
        sent
    )
    assert listed[0]["detail"] == f"vector must have {WIDTH} numbers, got {WIDTH - 1}"
    assert "length 1, got 2" in listed[2]["detail"]
    assert all(len(one["detail"]) < 200 for one in refused), "the first fault alone is told"
    assert [(one["status"], one.get("code")) for one in listed[len(sent) :]] == [
        (400, "ambiguous_query"),
        (400, "missing_image"),
        (201, None),
    ]
    wanted = json.dumps({"must": [{"key": "of", "match": "many"}]})
    stored = client.get("/v1/items", params={"filter": wanted}).json()["items"]
    assert [one["id"] for one in stored] == ["many-sound"]


def test_the_files_of_a_form_are_those_of_items_without_vectors(client: httpx.Client) -> None:
    files = [("image", png(number)) for number in (811, 812)]
    items = [item("many-1"), item("many-2", vector=unit(6)), item("many-3")]

    listed = results(client.post("/v1/items", files=files, data={"items": json.dumps(items)}))
    uneven = client.post("/v1/items", files=files[:1], data={"items": json.dumps(items)})
    bare = [item("many-4", vector=unit(7))]
    without = results(client.post("/v1/items", files={"items": (None, json.dumps(bare))}))

    assert [one["status"] for one in [*listed, *without]] == [201] * 4
    assert client.get("/v1/items/many-3/image").status_code == 200
    assert uneven.status_code == 400
    assert "2 in all, got 1" in uneven.json()["detail"]


def test_as_many_vectors_as_a_request_may_have_are_stored_and_none_is_decoded(
    client: httpx.Client,
) -> None:
    def batches() -> str:
        lines = client.get("/metrics").text.splitlines()
        (count,) = [line for line in lines if line.startswith("lookalike_batch_images_count")]
        return count

    vectors = unit_vectors(MOST + 1, WIDTH, seed=9).tolist()
    sent = [item(f"many-{row}", vector=vector) for row, vector in enumerate(vectors)]
    before = batches()

    listed = results(client.post("/v1/items", json={"items": sent[:MOST]}))
    one_more = client.post("/v1/items", json={"items": sent})

    assert [one["outcome"] for one in listed] == ["created"] * MOST
    assert batches() == before
    assert (one_more.status_code, one_more.json()["code"]) == (422, "list_too_long")


def test_upsert_off_leaves_what_an_id_holds(client: httpx.Client) -> None:
    client.post("/v1/items", json={"items": [item("many-1", vector=unit(1))]})

    other = [item("many-1", vector=unit(2)), item("many-2", vector=unit(3))]
    listed = results(client.post("/v1/items", json={"items": other, "upsert": False}))

    assert [(one["status"], one.get("code")) for one in listed] == [
        (409, "id_conflict"),
        (201, None),
    ]
