"""Groups, exclusions and offsets over HTTP, in all three shapes of a request."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.gallery import Gallery
from index.items.item import NewItem
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import answered, running_server

PNG = {"Content-Type": "image/png"}
STORED = 44  # 40 of write_gallery, and copies of item-05


@pytest.fixture(scope="module")
def client(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server whose items are in groups of four photos, with a few copies."""
    folder = tmp_path_factory.mktemp("groups")
    write_gallery(folder / "gallery", model)
    with Gallery.open(folder / "gallery", fingerprint=None) as gallery:
        changed = []
        for number in [*range(40), 5, 5, 5, 5]:
            stored = gallery.get(f"item-{number:02d}")
            is_copy = len(changed) >= 40
            changed.append(
                NewItem(
                    id=f"copy-{len(changed)}" if is_copy else stored.id,
                    vector_D=gallery.vector(stored.id),
                    label=stored.label,
                    metadata={} if is_copy else {"group": f"thing {number // 4}", "n": {"o": 1}},
                    thumbnail=None,
                    content_sha256=stored.content_sha256,
                )
            )
        gallery.put(changed)
    with (
        running_server(model, folder / "gallery", folder / "log") as server,
        server.client() as client,
    ):
        yield client


def hits_of(client: httpx.Client, **members: Any) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = answered(client.post("/v1/search", json=members))["hits"]
    return hits


def ids_of(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["id"] for hit in hits]


def refusal(client: httpx.Client, **members: Any) -> tuple[int, str, str]:
    answer = client.post("/v1/search", json=members)
    return answer.status_code, answer.json()["code"], answer.json()["detail"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_at_most_as_many_hits_of_a_group_come_back_and_the_best(
    client: httpx.Client, size: int
) -> None:
    everything = hits_of(client, id="item-05", k=1000)
    seen: Counter[str] = Counter()
    expected = []
    for hit in everything:
        group = hit["metadata"].get("group", hit["id"])
        seen[group] += 1
        if seen[group] <= size:
            expected.append(hit)

    found = hits_of(client, id="item-05", k=1000, group_by="group", group_size=size)

    assert len(everything) == STORED
    assert ids_of(found) == ids_of(expected)
    assert len(found) == 10 * size + 4  # copies have no group: each is one of its own
    assert hits_of(client, id="item-05", k=7, group_by="group", group_size=size) == found[:7]


def test_groups_by_label_combine_with_filter_least_score_and_offset(client: httpx.Client) -> None:
    by_label = hits_of(client, id="item-05", k=9, group_by="label")
    assert len({hit["label"] for hit in by_label}) == len(by_label) == 4

    wanted = {"must_not": [{"key": "label", "match": by_label[1]["label"]}]}
    others = [by_label[0], *by_label[2:]]
    filtered = hits_of(client, id="item-05", k=9, group_by="label", filter=wanted)
    assert ids_of(filtered) == ids_of(others)
    least = others[1]["score"]
    above = hits_of(
        client, id="item-05", k=9, group_by="label", filter=wanted, min_score=least, exact=True
    )
    assert ids_of(above) == ids_of(others[:2])
    rest = hits_of(client, id="item-05", k=9, group_by="label", filter=wanted, offset=1)
    assert ids_of(rest) == ids_of(others[1:])


def test_a_key_that_no_item_has_makes_every_item_its_own_group(client: httpx.Client) -> None:
    assert len(hits_of(client, id="item-05", k=1000, group_by="colour")) == STORED
    assert len(hits_of(client, id="item-05", k=1000, group_by="n")) == STORED  # an object
    assert len(hits_of(client, id="item-05", k=1000, group_by="n.o")) == 1 + 4


def test_what_is_excluded_is_no_hit_and_others_come_instead(client: httpx.Client) -> None:
    everything = ids_of(hits_of(client, id="item-05", k=1000))
    out = [*everything[1:4], "never-stored"]

    found = ids_of(hits_of(client, id="item-05", k=20, exclude=out))
    assert found == [name for name in everything if name not in out][:20]
    alone = ids_of(hits_of(client, id="item-05", k=1000, exclude_self=True))
    assert alone == [name for name in everything if name != "item-05"]
    group = [f"item-{number:02d}" for number in range(4, 8)]
    without = ids_of(hits_of(client, id="item-05", k=1000, exclude_group=True))
    assert without == [name for name in everything if name not in group]
    same = {hit["id"] for hit in hits_of(client, id="item-05", k=1000) if hit["label"] == "sneaker"}
    others = hits_of(client, id="item-05", k=1000, exclude_group=True, group_by="label")
    assert not same & set(ids_of(others))
    assert len(others) == 3


def test_copies_of_the_picture_are_left_out_by_id_and_by_image(client: httpx.Client) -> None:
    copies = {"item-05", *(f"copy-{number}" for number in range(40, 44))}
    by_id = ids_of(hits_of(client, id="item-05", k=1000, exclude_copies=True))
    query = "/v1/search?k=1000&exclude_copies=true"
    by_image = answered(client.post(query, content=png(5), headers=PNG))["hits"]

    assert not copies & set(by_id)
    assert len(by_id) == STORED - 5
    assert ids_of(by_image) == by_id
    nothing_out = answered(client.post(query, content=png(77), headers=PNG))["hits"]
    assert len(nothing_out) == STORED


def test_forms_queries_and_json_say_the_same(client: httpx.Client) -> None:
    fields = {
        "k": "5",
        "offset": "1",
        "group_by": "group",
        "group_size": "2",
        "exclude": json.dumps(["item-05", "item-09"]),
    }
    members = {"k": 5, "offset": 1, "group_by": "group", "group_size": 2}
    stored = hits_of(client, id="item-05", exclude=["item-05", "item-09"], **members)
    as_query = client.post("/v1/search", params=fields, content=png(5), headers=PNG)
    as_form = client.post("/v1/search", data=fields, files={"image": png(5)})

    assert len(stored) == 5
    assert ids_of(answered(as_query)["hits"]) == ids_of(stored)
    assert ids_of(answered(as_form)["hits"]) == ids_of(stored)


def test_pages_by_offset_give_every_item_once(client: httpx.Client) -> None:
    pages = [hits_of(client, id="item-05", k=9, offset=start) for start in range(0, 54, 9)]

    assert [len(page) for page in pages] == [9, 9, 9, 9, 8, 0]
    assert ids_of([hit for page in pages for hit in page]) == ids_of(
        hits_of(client, id="item-05", k=1000)
    )


@pytest.mark.parametrize(
    ("members", "code", "said"),
    [
        ({"id": "item-05", "offset": 9_001}, "invalid_parameter", "must be at most 9000"),
        ({"id": "item-05", "offset": -1}, "invalid_parameter", "must be at least 0"),
        ({"id": "item-05", "group_size": 2}, "invalid_parameter", "group_size goes with group_by"),
        ({"id": "item-05", "group_by": "id"}, "invalid_parameter", "no two items share their id"),
        ({"id": "item-05", "group_by": ""}, "invalid_parameter", "group_by cannot be used"),
        ({"id": "item-05", "group_by": "a", "group_size": 101}, "invalid_parameter", "101"),
        ({"id": "item-05", "exclude": ["a/b"]}, "invalid_id", "an id has no '/'"),
        ({"id": "item-05", "exclude": "item-01"}, "invalid_id", "exclude cannot be used"),
        ({"id": "item-05", "exclude": ["a"] * 1_001}, "list_too_long", "at most 1000 elements"),
        ({"vector": [1.0] * 256, "exclude_self": True}, "invalid_parameter", "has no id"),
        ({"vector": [1.0] * 256, "exclude_group": True}, "invalid_parameter", "has no id"),
        ({"vector": [1.0] * 256, "exclude_copies": True}, "invalid_parameter", "image or id"),
        ({"id": "item-05", "kind": 0.5}, "invalid_kind", "this model have one part"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(
    client: httpx.Client, members: dict[str, Any], code: str, said: str
) -> None:
    status, found, detail = refusal(client, **members)

    assert (status, found) == (422, code)
    assert said in detail


def test_the_document_says_what_may_be_asked(client: httpx.Client) -> None:
    path = client.get("/openapi.json").json()["paths"]["/v1/search"]["post"]
    properties = path["requestBody"]["content"]["application/json"]["schema"]["properties"]

    assert properties["offset"]["maximum"] == 9_000
    assert properties["group_size"]["maximum"] == 100
    assert properties["exclude"]["maxItems"] == 1_000
    assert properties["kind"]["anyOf"][0]["maximum"] == 1
    asked = {one["name"] for one in path["parameters"]}
    assert {"kind", "offset", "group_by", "group_size", "exclude", "exclude_copies"} <= asked
    assert client.get("/v1/model").json()["kind"] is None
