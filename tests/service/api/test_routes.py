"""What each route answers when all is well, over real sockets."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.galleries.small_galleries import STORED
from tests.support.images.pngs import encoded, picture, png
from tests.support.models import LABELS
from tests.support.server.servers import Server, answered

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def scratch(client: httpx.Client) -> Iterator[str]:
    """An id that is free before and after the test."""
    yield "scratch"
    client.delete("/v1/items/scratch")


def three_ways(data: bytes) -> list[dict[str, object]]:
    """Return the same image as a raw body, as a form and as JSON."""
    return [
        {"content": data, "headers": PNG},
        {"files": {"image": ("whatever.exe", data, "text/plain")}},
        {"json": {"image": base64.b64encode(data).decode()}},
        {"json": {"image": "data:image/png;base64," + base64.b64encode(data).decode()}},
        {"content": data, "headers": {"Content-Type": "application/octet-stream"}},
    ]


def test_classify_gives_the_labels_by_falling_probability(client: httpx.Client) -> None:
    answer = answered(client.post("/v1/classify?k=10", content=png(1), headers=PNG))

    probabilities = [prediction["probability"] for prediction in answer["predictions"]]
    assert len(probabilities) == 10
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert answer["label"] == answer["predictions"][0]["label"]
    assert answer["probability"] == probabilities[0]
    assert set(answer["timings_ms"]) == {"queue", "decode", "encode", "search", "total"}
    assert set(answer["model"]) == {"name", "fingerprint"}
    assert answer["seq"] >= STORED
    assert answer["sure"] is None  # this model keeps no photos to compare with
    assert answer["why_not"]["code"] == "not_known"
    assert "made by an earlier version" in answer["why_not"]["detail"]


def test_an_image_is_the_same_however_it_is_sent(client: httpx.Client) -> None:
    answers = [client.post("/v1/classify", **way) for way in three_ways(png(1))]  # type: ignore[arg-type]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({json.dumps(answer.json()["predictions"]) for answer in answers}) == 1


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_all_five_formats_are_taken(client: httpx.Client, image_format: str) -> None:
    data = encoded(picture(3), image_format)

    assert client.post("/v1/classify", content=data, headers=PNG).status_code == 200


def test_parameters_come_as_form_fields_beside_a_form_image(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", files={"image": png(1)}, data={"k": "3"})

    assert len(answer.json()["predictions"]) == 3


def test_classify_says_of_each_of_several_images_what_it_is(client: httpx.Client) -> None:
    alone = [answered(client.post("/v1/classify", content=png(n), headers=PNG)) for n in (1, 2)]
    files = [("image", png(1)), ("image", b"no image"), ("image", png(2))]

    answer = client.post("/v1/classify?k=3", files=files)

    assert answer.status_code == 207
    first, broken, last = answer.json()["results"]
    assert (broken["status"], broken["code"]) == (415, "unsupported_image_type")
    for result, single in ((first, alone[0]), (last, alone[1])):
        assert result["status"] == 200
        assert result["label"] == single["label"]
        assert len(result["predictions"]) == 3
        assert result["probability"] == pytest.approx(single["probability"], abs=1e-4)


def test_embed_gives_unit_vectors_in_order(client: httpx.Client) -> None:
    images = [("image", png(number)) for number in range(3)]

    answer = client.post("/v1/embed", files=images)

    vectors = np.array([result["vector"] for result in answer.json()["results"]])
    assert answer.status_code == 200
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for number in range(3):
        alone = answered(client.post("/v1/embed", content=png(number), headers=PNG))
        np.testing.assert_allclose(vectors[number], alone["results"][0]["vector"], atol=2e-6)


def test_a_broken_image_among_many_fails_alone(client: httpx.Client) -> None:
    images = [base64.b64encode(data).decode() for data in (png(1), b"no image", png(2))]

    answer = client.post("/v1/embed", json={"images": images})

    results = answer.json()["results"]
    assert answer.status_code == 207
    assert [result["status"] for result in results] == [200, 415, 200]
    assert results[1]["code"] == "unsupported_image_type"
    assert "vector" not in results[1]


def test_search_by_a_stored_image_finds_it_first(client: httpx.Client) -> None:
    for way in three_ways(png(7)):
        answer = answered(client.post("/v1/search", **way))  # type: ignore[arg-type]

        assert answer["hits"][0]["id"] == "item-07"
        assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
        assert answer["hits"][0]["label"] == "dress"
        assert answer["hits"][0]["metadata"] == {"number": 7, "even": False}
        assert len(answer["hits"]) == 10


def test_search_by_id_and_by_vector_agree_with_search_by_image(client: httpx.Client) -> None:
    vector = answered(client.post("/v1/embed", content=png(5), headers=PNG))["results"][0]["vector"]

    answers = [
        client.post("/v1/search?k=5", content=png(5), headers=PNG),
        client.post("/v1/search", json={"id": "item-05", "k": 5}),
        client.post("/v1/search", json={"vector": vector, "k": 5}),
        client.post("/v1/search", json={"vector": [3 * value for value in vector], "k": 5}),
        client.post("/v1/search", data={"vector": json.dumps(vector), "k": "5"}, files={"x": b""}),
    ]

    found = [[hit["id"] for hit in answer.json()["hits"]] for answer in answers[:4]]
    assert found[0][0] == "item-05"
    assert found == [found[0]] * 4
    assert answers[4].status_code == 400  # a file field of another name is an unexpected field


def test_hits_come_best_first_and_k_beyond_the_gallery_gives_all(client: httpx.Client) -> None:
    hits = answered(client.post("/v1/search", json={"id": "item-00", "k": 1000}))["hits"]

    scores = [hit["score"] for hit in hits]
    assert len(hits) >= STORED
    assert scores == sorted(scores, reverse=True)


def test_min_score_cuts_the_tail(client: httpx.Client) -> None:
    everything = answered(client.post("/v1/search", json={"id": "item-00", "k": 40}))["hits"]
    bar = everything[9]["score"]

    hits = answered(client.post("/v1/search", json={"id": "item-00", "k": 40, "min_score": bar}))

    assert len(hits["hits"]) == 10


def test_a_filter_restricts_the_search_and_not_its_result(client: httpx.Client) -> None:
    wanted = {"must": [{"key": "label", "match": ["coat", "bag"]}, {"key": "even", "match": True}]}

    hits = client.post(
        "/v1/search", json={"id": "item-01", "k": 20, "filter": wanted, "exact": True}
    ).json()["hits"]

    assert len(hits) == 20
    assert {hit["label"] for hit in hits} == {"coat", "bag"}


def test_with_vector_gives_each_hits_vector(client: httpx.Client) -> None:
    plain = answered(client.post("/v1/search", json={"id": "item-01", "k": 3}))["hits"]
    hits = answered(client.post("/v1/search", json={"id": "item-01", "k": 3, "with_vector": True}))

    assert "vector" not in plain[0]
    query = np.array(hits["hits"][0]["vector"])
    for hit in hits["hits"]:
        assert float(query @ np.array(hit["vector"])) == pytest.approx(hit["score"], abs=1e-5)


def test_a_crop_searches_by_its_part(client: httpx.Client, scratch: str) -> None:
    whole = picture(500, (80, 60))
    whole.paste(picture(9, (40, 30)), (40, 30))
    crop = json.dumps({"top": 0.5, "left": 0.5, "bottom": 1, "right": 1})

    answer = client.post(
        "/v1/search", params={"crop": crop, "k": 1}, content=encoded(whole), headers=PNG
    )

    assert answer.json()["hits"][0]["id"] == "item-09"
    assert answer.json()["hits"][0]["score"] > 0.999


def test_an_item_lives_from_put_to_delete(client: httpx.Client, scratch: str) -> None:
    address = f"/v1/items/{scratch}"
    details = {"label": "hat", "metadata": json.dumps({"price": 12.5, "tags": ["new", "red"]})}

    created = client.put(address, params=details, content=png(200), headers=PNG)
    again = client.put(address, files={"image": png(200)}, data=details)
    stored = client.get(address).json()
    replaced = client.put(
        address, json={"image": base64.b64encode(png(201)).decode(), "label": "cap"}
    )
    found = client.post(
        f"/v1/search?k=1&min_seq={replaced.json()['seq']}", content=png(201), headers=PNG
    )
    deleted = client.delete(address)

    assert (created.status_code, created.json()["outcome"]) == (201, "created")
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    assert again.json()["seq"] == created.json()["seq"]
    assert stored["label"] == "hat"
    assert stored["metadata"] == {"price": 12.5, "tags": ["new", "red"]}
    assert (replaced.status_code, replaced.json()["outcome"]) == (200, "replaced")
    assert found.json()["hits"][0]["id"] == scratch
    assert found.json()["hits"][0]["label"] == "cap"
    assert found.json()["seq"] >= replaced.json()["seq"]
    assert deleted.status_code == 200
    assert client.get(address).status_code == 404
    gone = answered(client.post("/v1/search?k=40", content=png(201), headers=PNG))["hits"]
    assert scratch not in {hit["id"] for hit in gone}


def test_a_write_is_found_by_the_very_next_search(client: httpx.Client, scratch: str) -> None:
    for number in range(300, 310):
        client.put(f"/v1/items/{scratch}", content=png(number), headers=PNG)
        hits = answered(client.post("/v1/search?k=1", content=png(number), headers=PNG))["hits"]
        assert hits[0]["id"] == scratch
        assert hits[0]["score"] > 0.99999


def test_labels_are_stored_as_the_text_they_are_or_refused(
    client: httpx.Client, scratch: str
) -> None:
    address = f"/v1/items/{scratch}"
    image = base64.b64encode(png(230)).decode()

    def put(label: object) -> httpx.Response:
        return client.put(address, json={"image": image, "label": label})

    for sent, kept in ((" Cafe\u0301 ", "Caf\u00e9"), ("0", "0"), ("false", "false"), ("[]", "[]")):
        assert put(sent).status_code in (200, 201)
        assert client.get(address).json()["label"] == kept
        assert put(f"{sent} ").json()["outcome"] == "unchanged"
        wanted = json.dumps({"must": [{"key": "label", "match": sent}]})
        found = client.get("/v1/items", params={"filter": wanted}).json()["items"]
        assert scratch in {item["id"] for item in found}
    wrongs: list[object] = [0, False, [], {}, "  ", "", "x" * 257]
    for wrong in wrongs:
        refused = put(wrong)
        assert refused.status_code == 422, wrong
        assert "label" in refused.json()["detail"]
    form = client.put(address, files={"image": png(230)}, data={"label": "0"})
    assert form.json()["outcome"] == "replaced"
    assert client.get(address).json()["label"] == "0"

    items = [{"id": f"{scratch}-{n}", "image": image} for n in range(3)]
    items[0] |= {"label": 0}  # type: ignore[dict-item]
    items[1] |= {"metadata": []}  # type: ignore[dict-item]
    items[2] |= {"label": " x "}
    results = answered(client.post("/v1/items", json={"items": items}))["results"]
    assert [result["status"] for result in results] == [422, 422, 201]
    assert "label" in results[0]["detail"]
    assert "metadata" in results[1]["detail"]
    assert client.get(f"/v1/items/{scratch}-2").json()["label"] == "x"
    client.delete(f"/v1/items/{scratch}-2")


def test_metadata_of_too_many_values_is_refused(client: httpx.Client, scratch: str) -> None:
    metadata = {"tags": [f"tag {n}" for n in range(600)]}
    sent = {"image": base64.b64encode(png(231)).decode(), "metadata": metadata}

    refused = client.put(f"/v1/items/{scratch}", json=sent)

    assert refused.status_code == 422
    assert "has 600 values that filters can look for" in refused.json()["detail"]


def test_an_item_that_is_stored_already_may_be_sent_again_without_upsert(
    client: httpx.Client, scratch: str
) -> None:
    client.put(f"/v1/items/{scratch}", content=png(210), headers=PNG)

    again = client.put(f"/v1/items/{scratch}?upsert=false", content=png(210), headers=PNG)

    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")


def test_searches_that_wait_for_a_write_do_not_hold_up_the_others(server: Server) -> None:
    for _ in range(5):  # a busy machine holds up now and then
        ended = ended_beside_those_that_wait(server)
        assert sorted(ended) == ["plain", *["waiting"] * 4]
        if ended[0] == "plain":
            return
    raise AssertionError(ended)


def ended_beside_those_that_wait(server: Server) -> list[str]:
    """Return what ended in which order: a plain search, and four that wait for a second."""
    ended: list[str] = []

    def search(name: str, **more: int) -> None:
        httpx.post(f"{server.url}/v1/search", json={"id": "item-00", **more}, timeout=30)
        ended.append(name)

    waiting = [
        threading.Thread(target=search, args=("waiting",), kwargs={"min_seq": 10**9})
        for _ in range(4)  # more than there are reading threads on two cores
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)  # of the second that they wait
    search("plain")
    for thread in waiting:
        thread.join()
    return ended


def test_the_thumbnail_is_the_picture_and_is_not_sent_twice(client: httpx.Client) -> None:
    first = client.get("/v1/items/item-03/image")
    second = client.get("/v1/items/item-03/image", headers={"If-None-Match": first.headers["etag"]})

    assert first.headers["content-type"] == "image/png"
    assert (
        answered(client.post("/v1/search?k=1", content=first.content, headers=PNG))["hits"][0]["id"]
        == "item-03"
    )
    assert second.status_code == 304
    assert second.content == b""


def test_pages_give_every_item_once(client: httpx.Client) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        parameters = {"limit": 7, **({"cursor": cursor} if cursor else {})}
        page = client.get("/v1/items", params=parameters).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen[:STORED] == [f"item-{number:02d}" for number in range(STORED)]
    assert len(seen) == len(set(seen))


def test_a_page_may_be_filtered(client: httpx.Client) -> None:
    wanted = json.dumps({"must": [{"key": "number", "range": {"gte": 10, "lt": 13}}]})

    page = client.get("/v1/items", params={"filter": wanted}).json()

    assert [item["id"] for item in page["items"]] == ["item-10", "item-11", "item-12"]
    assert page["next_cursor"] is None


def test_many_items_each_have_their_own_status(client: httpx.Client) -> None:
    def item(item_id: str, data: bytes, **more: object) -> dict[str, object]:
        return {"id": item_id, "image": base64.b64encode(data).decode(), **more}

    sent = [
        item("bulk-1", png(401), label="a", metadata={"n": 1}),
        item("bulk-2", b"no image"),
        item("bulk/3", png(403)),
        {"id": "bulk-4"},
        item("bulk-5", png(405), colour="red"),
        "no object",
        item("bulk-6", png(406), metadata={"deep": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}),
        item("item-00", png(407)),
        item("bulk-1", png(401), label="a", metadata={"n": 1}),
    ]

    answer = client.post("/v1/items", json={"items": sent, "upsert": False})

    results = answer.json()["results"]
    assert answer.status_code == 207
    assert [(result["status"], result.get("code")) for result in results] == [
        (201, None),
        (415, "unsupported_image_type"),
        (422, "invalid_id"),
        (400, "missing_image"),
        (400, "unexpected_field"),
        (400, "invalid_json"),
        (422, "invalid_parameter"),
        (409, "id_conflict"),
        (200, None),
    ]
    assert results[0]["outcome"] == "created"
    assert results[-1]["outcome"] == "unchanged"
    assert client.get("/v1/items/bulk-1").json()["metadata"] == {"n": 1}
    assert client.delete("/v1/items/bulk-1").status_code == 200


def test_many_items_may_come_as_a_form(client: httpx.Client) -> None:
    images = [("image", png(number)) for number in range(500, 503)]
    items = json.dumps([{"id": f"form-{number}", "label": "f"} for number in range(3)])

    answer = client.post("/v1/items", files=images, data={"items": items})
    uneven = client.post("/v1/items", files=images[:2], data={"items": items})

    assert [result["status"] for result in answer.json()["results"]] == [201] * 3
    assert uneven.status_code == 400
    for number in range(3):
        assert client.delete(f"/v1/items/form-{number}").status_code == 200


def test_a_request_keeps_its_id_and_a_wild_one_is_replaced(client: httpx.Client) -> None:
    kept = client.get("/v1/model", headers={"X-Request-ID": "order-66"})
    replaced = client.get("/v1/model", headers={"X-Request-ID": "a b<script>"})

    assert kept.json()["request_id"] == kept.headers["x-request-id"] == "order-66"
    assert "script" not in replaced.headers["x-request-id"]
    assert replaced.json()["request_id"] == replaced.headers["x-request-id"]


def test_the_model_and_the_gallery_say_what_they_are(client: httpx.Client) -> None:
    model, gallery = client.get("/v1/model").json(), client.get("/v1/gallery").json()

    assert model["labels"] == list(LABELS)
    assert model["architecture"]["width"] == gallery["width"] == 256
    assert gallery["model_fingerprint"] == model["fingerprint"]
    assert gallery["count"] >= STORED
    assert gallery["structure"] == "exact"
    assert gallery["recall"] == 1
    assert gallery["recent"] <= gallery["count"]
    assert (gallery["state"], gallery["reason"]) == ("writable", None)


def test_metrics_are_labelled_by_route_and_never_by_path(client: httpx.Client) -> None:
    for number in range(20):
        client.get(f"/v1/items/made-up-{number}")
        client.get(f"/made-up-{number}")

    text = client.get("/metrics").text

    assert "made-up" not in text
    assert 'route="/v1/items/{item_id}",status="404"' in text
    assert "lookalike_request_seconds_bucket" in text
    assert "lookalike_batch_images_count" in text
    count = client.get("/v1/gallery").json()["count"]
    assert f"lookalike_gallery_items {float(count)}" in text
    assert "lookalike_gallery_recent_items " in text
    assert "lookalike_gallery_generation " in text
    assert "lookalike_gallery_read_only 0.0" in text


def test_every_request_writes_one_line_with_no_content(server: Server) -> None:
    with server.client() as client:
        client.post(
            "/v1/search?k=3",
            content=png(1),
            headers={**PNG, "X-Request-ID": "log-me", "Authorization": "Bearer secret"},
        )

    lines: list[dict[str, Any]] = []
    deadline = time.monotonic() + 10
    while not lines and time.monotonic() < deadline:  # written by a thread, a moment later
        log = server.log.read_text().splitlines(keepends=True)
        lines = [json.loads(line) for line in log if "log-me" in line and line.endswith("\n")]

    assert len(lines) == 1
    assert lines[0]["route"] == "/v1/search"
    assert lines[0]["status"] == 200
    assert {"queue_ms", "decode_ms", "encode_ms", "search_ms", "total_ms"} <= set(lines[0])
    assert "secret" not in json.dumps(lines)


def test_the_document_describes_every_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()

    methods = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    assert methods == {
        "POST /v1/classify",
        "POST /v1/embed",
        "POST /v1/search",
        "POST /v1/search/range",
        "POST /v1/search/vote",
        "POST /v1/jobs",
        "GET /v1/jobs",
        "GET /v1/jobs/{job_id}",
        "DELETE /v1/jobs/{job_id}",
        "POST /v1/items",
        "GET /v1/items",
        "PUT /v1/items/{item_id}",
        "GET /v1/items/{item_id}",
        "PATCH /v1/items/{item_id}",
        "DELETE /v1/items/{item_id}",
        "POST /v1/items/delete",
        "POST /v1/facets",
        "GET /v1/items/{item_id}/image",
        "GET /v1/model",
        "GET /v1/gallery",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
    }
    _check_references(document, document)
    operations = [one for item in document["paths"].values() for one in item.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    ranged = document["paths"]["/v1/search/range"]["post"]["requestBody"]["content"]
    described = ranged["application/json"]["schema"]
    assert described["required"] == ["min_score"]
    assert [one["required"] for one in described["oneOf"]] == [["image"], ["id"], ["vector"]]
    assert described["properties"]["limit"]["maximum"] == 10_000
    begun = document["paths"]["/v1/jobs"]["post"]
    kinds = begun["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    names = ["rebuild", "tune", "backup", "duplicates", "delete", "import"]
    assert [kind["title"] for kind in kinds] == names
    assert "202" in begun["responses"]
    search = document["paths"]["/v1/search"]["post"]
    assert {parameter["name"] for parameter in search["parameters"]} >= {"k", "filter", "min_seq"}
    assert set(search["requestBody"]["content"]) >= {"multipart/form-data", "application/json"}


def _check_references(part: Any, document: dict[str, Any]) -> None:
    """Check that every $ref leads to a schema of the document."""
    if isinstance(part, dict):
        if "$ref" in part:
            assert part["$ref"].startswith("#/components/schemas/")
            assert part["$ref"].rpartition("/")[2] in document["components"]["schemas"]
        for value in part.values():
            _check_references(value, document)
    elif isinstance(part, list):
        for value in part:
            _check_references(value, document)
