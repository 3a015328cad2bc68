"""Numbers at the edges of what numbers are, for every parameter of every route: never our fault."""

import base64
import json

import pytest
from httpx import Client

from tests.support.images.pngs import encoded, picture, png
from tests.support.server.servers import Server

CLIENT = Client(timeout=30)
JPEG = encoded(picture(1, (640, 480)), "JPEG")
PICTURE = base64.b64encode(JPEG).decode()
# As JSON and as forms write them: the smallest, the largest, none at all, and other types.
NUMBERS = (
    *("5e-324", "-5e-324", "2.2250738585072014e-308", "1e-300", "1e-17", "0.9999999999999999"),
    *("1.0000000000000002", "-0.0", "0", "-0", "1", "1e308", "-1e308", "1e309", "-1e309"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *("1" + "0" * 400, "1" + "0" * 5000, "-1" + "0" * 5000, "0." + "0" * 400 + "1"),
    *("true", "false", "null", "NaN", "Infinity", "-Infinity", "nan", "inf", '"0.5"', "[]", "{}"),
)
WHOLE = {"id": "item-00"}
MEMBERS: dict[str, tuple[str, dict[str, object]]] = {
    "k": ("/v1/search", WHOLE),
    "min_score": ("/v1/search", WHOLE),
    "min_seq": ("/v1/search", WHOLE),
    "limit": ("/v1/search/range", {**WHOLE, "min_score": 0.9}),
    "range: min_score": ("/v1/search/range", WHOLE),
    "vote: k": ("/v1/search/vote", WHOLE),
    "classify: k": ("/v1/classify", {"image": PICTURE}),
    "duplicates: min_score": ("/v1/jobs", {"kind": "duplicates"}),
    "rebuild: recall": ("/v1/jobs", {"kind": "rebuild", "x": 1}),
}


def sent(server: Server, path: str, members: dict[str, object], name: str, number: str) -> int:
    """Return the status of a request with one more member, whose value is written as ``number``."""
    body = json.dumps(members)[:-1] + f', "{name}": {number}}}'
    headers = {"Content-Type": "application/json"}
    return CLIENT.post(f"{server.url}{path}", content=body, headers=headers).status_code


@pytest.mark.parametrize("member", MEMBERS)
def test_no_number_of_a_parameter_is_our_fault(server: Server, member: str) -> None:
    path, others = MEMBERS[member]
    name = member.rpartition(": ")[2]

    statuses = {number[:30]: sent(server, path, others, name, number) for number in NUMBERS}

    too_far = {503} if name == "min_seq" else set()  # a write that has not arrived
    assert set(statuses.values()) <= {200, 202, 400, 409, 422} | too_far, statuses


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right"])
@pytest.mark.parametrize("path", ["/v1/search", "/v1/search/vote"])
def test_no_number_of_a_crop_is_our_fault(server: Server, side: str, path: str) -> None:
    for number in NUMBERS:
        crop = f'{{"{side}": {number}}}'
        body = f'{{"image": "{PICTURE}", "crop": {crop}}}'
        in_json = CLIENT.post(
            f"{server.url}{path}", content=body, headers={"Content-Type": "application/json"}
        )
        in_form = CLIENT.post(
            f"{server.url}{path}", data={"crop": crop}, files={"image": ("a", JPEG)}
        )

        assert in_json.status_code in (200, 400, 422), (number, in_json.text)
        assert in_form.status_code in (200, 400, 422), (number, in_form.text)


def test_a_crop_of_next_to_nothing_is_refused_with_a_sentence(server: Server) -> None:
    answer = CLIENT.post(
        f"{server.url}/v1/search", json={"image": PICTURE, "crop": {"bottom": 5e-324}}
    )

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_parameter"
    assert "bottom=5e-324" in answer.json()["detail"]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:30])
def test_no_number_of_a_form_query_vector_filter_or_metadata_is_our_fault(
    server: Server, number: str
) -> None:
    width = CLIENT.get(f"{server.url}/v1/model").json()["architecture"]["width"]
    bodies = {
        "vector": f'{{"vector": [{", ".join([number] * width)}]}}',
        "one of a vector": f'{{"vector": [{", ".join([number, *["0.5"] * (width - 1)])}]}}',
        "match": f'{{"id": "item-00", "filter": {{"must": [{{"key": "a", "match": {number}}}]}}}}',
        "range": '{"id": "item-00", "filter": {"must": [{"key": "number", "range": '
        f'{{"gte": {number}}}}}]}}}}',
    }
    for name, body in bodies.items():
        headers = {"Content-Type": "application/json"}
        answer = CLIENT.post(f"{server.url}/v1/search", content=body, headers=headers)
        assert answer.status_code in (200, 400, 422), (name, answer.text)
    for name in ("k", "min_score"):
        answer = CLIENT.post(
            f"{server.url}/v1/search", data={name: number}, files={"image": ("a", JPEG)}
        )
        assert answer.status_code in (200, 400, 422), (name, answer.text)
    stored = CLIENT.put(
        f"{server.url}/v1/items/number",
        content=png(300),
        params={"metadata": f'{{"a": {number}}}'},
        headers={"Content-Type": "image/png"},
    )
    listed = CLIENT.get(f"{server.url}/v1/items", params={"limit": number})
    assert stored.status_code in (200, 201, 400, 422), stored.text
    assert listed.status_code in (200, 400, 422), listed.text
    CLIENT.delete(f"{server.url}/v1/items/number")
