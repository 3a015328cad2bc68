"""Ranges, votes and exact searches over HTTP, held against scores computed one by one."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from index.gallery import Gallery
from tests.support.fakes import clustered_vectors
from tests.support.galleries.small_galleries import write_vectors
from tests.support.images.pngs import png
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import Server, answered, running_server

PNG = {"Content-Type": "image/png"}
WIDTH = 256
MANY = 2_500


@pytest.fixture(scope="module")
def client(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of its own, whose 40 items nobody changes."""
    folder = tmp_path_factory.mktemp("range")
    with gallery_server(model, folder) as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def scores(client: httpx.Client) -> dict[str, float]:
    """The cosine of every stored item to item-05, computed here."""
    answer = client.post("/v1/search", json={"id": "item-05", "k": 1000, "with_vector": True})
    vectors = {hit["id"]: np.array(hit["vector"]) for hit in answer.json()["hits"]}
    assert len(vectors) == 40
    return {name: float(vectors[name] @ vectors["item-05"]) for name in vectors}


def best_first(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda name: -scores[name])


@pytest.mark.parametrize("kept", [1, 7, 40])
def test_a_range_is_all_that_score_enough_best_first(
    client: httpx.Client, scores: dict[str, float], kept: int
) -> None:
    expected = best_first(scores)[:kept]
    bar = scores[expected[-1]] - 1e-5

    answer = answered(client.post("/v1/search/range", json={"id": "item-05", "min_score": bar}))

    assert [hit["id"] for hit in answer["hits"]] == expected
    assert answer["total"] == kept
    for hit in answer["hits"]:
        assert hit["score"] == pytest.approx(scores[hit["id"]], abs=1e-5)
    assert set(answer) == {"request_id", "model", "seq", "timings_ms", "hits", "total"}


def test_a_limit_cuts_the_hits_and_not_the_total(
    client: httpx.Client, scores: dict[str, float]
) -> None:
    answer = client.post(
        "/v1/search/range", json={"id": "item-05", "min_score": -1, "limit": 3}
    ).json()

    assert [hit["id"] for hit in answer["hits"]] == best_first(scores)[:3]
    assert answer["total"] == 40


def test_a_range_by_image_by_id_and_by_vector_is_the_same(client: httpx.Client) -> None:
    vector = answered(client.post("/v1/embed", content=png(5), headers=PNG))["results"][0]["vector"]
    asked: list[dict[str, Any]] = [
        {"json": {"id": "item-05", "min_score": 0.5}},
        {"json": {"vector": vector, "min_score": 0.5}},
        {"content": png(5), "headers": PNG, "params": {"min_score": "0.5"}},
        {"files": {"image": png(5)}, "data": {"min_score": "0.5"}},
    ]

    answers = [answered(client.post("/v1/search/range", **one)) for one in asked]

    found = [[hit["id"] for hit in answer["hits"]] for answer in answers]
    assert found[0]
    assert found == [found[0]] * 4


def test_a_range_may_be_filtered(client: httpx.Client, scores: dict[str, float]) -> None:
    wanted = {"must": [{"key": "number", "range": {"lt": 10}}]}

    answer = client.post(
        "/v1/search/range", json={"id": "item-05", "min_score": -1, "filter": wanted}
    ).json()

    assert [hit["id"] for hit in answer["hits"]] == [
        name for name in best_first(scores) if name < "item-10"
    ]
    assert answer["total"] == 10


def test_nothing_near_enough_is_an_empty_range(client: httpx.Client) -> None:
    opposite = [-1.0] * WIDTH

    answer = answered(client.post("/v1/search/range", json={"vector": opposite, "min_score": 1}))

    assert (answer["hits"], answer["total"]) == ([], 0)


def test_the_nearest_vote_and_an_item_has_no_vote_about_itself(
    client: httpx.Client, scores: dict[str, float]
) -> None:
    nearest = [name for name in best_first(scores) if name != "item-05"][:6]

    answer = answered(client.post("/v1/search/vote", json={"id": "item-05", "k": 6}))

    assert [hit["id"] for hit in answer["hits"]] == nearest
    shares = [vote["share"] for vote in answer["votes"]]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert answer["label"] == answer["votes"][0]["label"]
    assert {vote["label"] for vote in answer["votes"]} == {hit["label"] for hit in answer["hits"]}


def test_a_vote_by_image_counts_the_item_that_has_the_image(client: httpx.Client) -> None:
    answer = answered(client.post("/v1/search/vote?k=1", content=png(5), headers=PNG))

    assert [hit["id"] for hit in answer["hits"]] == ["item-05"]
    assert answer["votes"] == [{"label": "sneaker", "share": 1.0}]


def test_a_vote_may_be_filtered_and_may_have_no_voter(client: httpx.Client) -> None:
    wanted = json.dumps({"must": [{"key": "label", "match": ["coat", "bag"]}]})
    nobody = json.dumps({"must": [{"key": "label", "match": "moon"}]})

    some = client.post("/v1/search/vote", params={"filter": wanted}, content=png(5), headers=PNG)
    none = client.post("/v1/search/vote", params={"filter": nobody}, content=png(5), headers=PNG)

    assert {hit["label"] for hit in some.json()["hits"]} == {"coat", "bag"}
    assert Counter(hit["label"] for hit in some.json()["hits"]).total() == 10
    assert (none.json()["label"], none.json()["votes"], none.json()["hits"]) == (None, [], [])


@pytest.fixture(scope="module")
def many(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, NDArray[np.float32]]]:
    """A server that searches through a structure, and the vectors of its items."""
    folder = tmp_path_factory.mktemp("many")
    vectors = clustered_vectors(MANY, WIDTH, seed=0)
    write_vectors(folder / "gallery", model, vectors)
    with Gallery.open(folder / "gallery", fingerprint=None) as gallery:
        gallery.rebuild(target=0.9)
    with running_server(model, folder / "gallery", folder / "log") as server:
        yield server, vectors


def test_an_exact_search_misses_nothing_where_others_go_through_a_structure(
    many: tuple[Server, NDArray[np.float32]],
) -> None:
    server, vectors = many
    rows = range(0, MANY, 125)
    exact_found = quick_found = 0
    with server.client() as client:
        gallery = client.get("/v1/gallery").json()
        assert gallery["structure"] != "exact"
        assert gallery["generation"] == 1
        assert 0.85 < gallery["recall"] <= 1
        for row in rows:
            expected = np.argsort(-(vectors @ vectors[row]), kind="stable")[:10]
            names = {f"row-{one}" for one in expected}
            body = {"vector": vectors[row].tolist(), "k": 10}
            exact = answered(client.post("/v1/search", json={**body, "exact": True}))["hits"]
            quick = answered(client.post("/v1/search", json=body))["hits"]
            exact_found += len(names & {hit["id"] for hit in exact})
            quick_found += len(names & {hit["id"] for hit in quick})
            assert len(quick) == 10

    asked = 10 * len(rows)
    assert exact_found == asked
    assert quick_found >= 0.8 * asked


def test_a_range_is_exact_whatever_the_structure(
    many: tuple[Server, NDArray[np.float32]],
) -> None:
    server, vectors = many
    exact = vectors @ vectors[7]
    bar = float(np.sort(exact)[-150]) - 1e-6

    with server.client() as client:
        answer = client.post(
            "/v1/search/range", json={"id": "row-7", "min_score": bar, "limit": 100}
        ).json()

    assert answer["total"] == 150
    assert [hit["id"] for hit in answer["hits"][:1]] == ["row-7"]
    assert {hit["id"] for hit in answer["hits"]} == {
        f"row-{row}" for row in np.argsort(-exact, kind="stable")[:100]
    }
