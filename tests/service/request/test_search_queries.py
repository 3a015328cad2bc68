"""Several queries in one search request are answered in order, each as it would be alone."""

import base64
from typing import Any

import httpx
import pytest

from tests.support.images.pngs import png
from tests.support.server.servers import answered

PNG = {"Content-Type": "image/png"}
SEARCH = "/v1/search"


def ids(result: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in result["hits"]]


def test_queries_of_every_kind_are_answered_in_order(client: httpx.Client) -> None:
    wanted = {"must": [{"key": "even", "match": True}]}
    vector = answered(client.post("/v1/embed", content=png(5), headers=PNG))["results"][0]["vector"]
    sources = [
        {"id": "item-03"},
        {"image": base64.b64encode(png(7)).decode()},
        {"vector": vector},
        {"id": "item-08", "vector": None},
    ]

    answer = client.post(SEARCH, json={"queries": sources, "k": 3, "filter": wanted})

    assert answer.status_code == 200
    results = answer.json()["results"]
    assert set(answer.json()) == {"request_id", "model", "seq", "timings_ms", "results"}
    assert [len(result["hits"]) for result in results] == [3] * 4
    for source, result in zip(sources, results, strict=True):
        alone = answered(client.post(SEARCH, json={**source, "k": 3, "filter": wanted}))
        assert ids(result) == ids(alone)
        for hit, single in zip(result["hits"], alone["hits"], strict=True):
            assert hit["score"] == pytest.approx(single["score"], abs=1e-4)
            assert hit["metadata"] == single["metadata"]


@pytest.mark.parametrize(
    ("queries", "options", "is_fine"),
    [
        (10, {"k": 1000}, True),
        (10, {"k": 1000, "with_vector": True}, False),
        (10, {"k": 100, "with_vector": True}, True),
        (11, {"k": 1000}, False),
    ],
)
def test_all_queries_together_have_so_many_hits(
    client: httpx.Client, queries: int, options: dict[str, Any], is_fine: bool
) -> None:
    answer = client.post(SEARCH, json={"queries": [{"id": "item-03"}] * queries, **options})

    assert answer.status_code == (200 if is_fine else 422)
    if not is_fine:
        assert answer.json()["code"] == "list_too_long"
        assert "at most 10000, or 1000 with their vectors" in answer.json()["detail"]


def test_several_images_of_a_form_are_several_queries(client: httpx.Client) -> None:
    files = [("image", png(number)) for number in (4, 2, 9)]

    answer = answered(client.post(SEARCH, files=files, data={"k": "1", "with_vector": "true"}))

    assert [ids(result) for result in answer["results"]] == [["item-04"], ["item-02"], ["item-09"]]
    assert all(len(result["hits"][0]["vector"]) == 256 for result in answer["results"])


def test_a_query_that_cannot_be_answered_fails_alone(client: httpx.Client) -> None:
    picture = base64.b64encode(png(6)).decode()
    wrong: list[tuple[Any, int, str]] = [
        ({"id": "nobody"}, 404, "unknown_id"),
        ({"id": 7}, 422, "invalid_id"),
        ({"id": ".."}, 422, "invalid_id"),
        ({"vector": [1]}, 422, "invalid_vector"),
        ({"vector": [0] * 256}, 422, "invalid_vector"),
        ({"image": "aGVsbG8="}, 415, "unsupported_image_type"),
        ({"image": "é"}, 400, "invalid_json"),
        ({"image": picture, "id": "item-01"}, 400, "ambiguous_query"),
        ({}, 400, "missing_image"),
        ({"id": "item-01", "k": 3}, 400, "unexpected_field"),
        (None, 400, "invalid_json"),
        ("item-01", 400, "invalid_json"),
    ]
    queries = [one for one, _, _ in wrong] + [{"image": picture}, {"id": "item-01"}]

    answer = client.post(SEARCH, json={"queries": queries, "k": 1})

    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [(one["status"], one["code"]) for one in results[: len(wrong)]] == [
        (status, code) for _, status, code in wrong
    ]
    assert [ids(one) for one in results[len(wrong) :]] == [["item-06"], ["item-01"]]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"queries": []}, 422, "invalid_parameter"),
        ({"queries": {"id": "item-01"}}, 422, "invalid_parameter"),
        ({"queries": [{"id": "item-01"}] * 65}, 422, "list_too_long"),
        ({"queries": [{"id": "item-01"}], "id": "item-02"}, 400, "ambiguous_query"),
        ({"queries": [{"id": "item-01"}], "k": 0}, 422, "invalid_k"),
        ({"queries": [{"id": "item-01"}], "filter": 1}, 422, "invalid_filter"),
        ({"queries": [{"id": "item-01"}], "kind": 0.5}, 422, "invalid_kind"),
        ({"queries": None}, 400, "missing_image"),
        ({"images": [""] * 65}, 422, "list_too_long"),
    ],
)
def test_what_all_queries_share_fails_them_all(
    client: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post(SEARCH, json=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
