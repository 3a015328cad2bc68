"""Ids of any script, with spaces and signs: stored, found, changed and deleted over HTTP."""

import socket
from urllib.parse import quote

import httpx
import pytest

from tests.support.images.pngs import png
from tests.support.server.servers import answered

PNG = {"Content-Type": "image/png"}
IDS = [
    *(
        "山 水.jpg",
        "Ωμέγα",
        "عربي",
        "हिन्दी",
        "naïve café",
        "emoji 👩‍👩‍👧",
        "a b",
        " a ",
        "50% off",
        "%2F",
        "%zz",
    ),
    *("a\\b", "?q=1#x", "a&b=c;d", "{item_id}", "~", "a'b\"c", "<i>", "...", "delete", "x" * 256),
]


@pytest.mark.parametrize("item_id", IDS)
def test_an_item_of_any_name_is_stored_found_changed_and_deleted(
    client: httpx.Client, item_id: str
) -> None:
    path = f"/v1/items/{quote(item_id, safe='')}"
    try:
        made = client.put(path, content=png(950), headers=PNG)
        assert (made.status_code, made.json()["id"]) == (201, item_id)
        assert answered(client.get(path))["id"] == item_id
        assert client.get(f"{path}/image").status_code == 200
        assert answered(client.patch(path, json={"label": "named"}))["label"] == "named"
        wanted = {"must": [{"key": "id", "match": item_id}]}
        body = {"id": item_id, "filter": wanted}
        (hit,) = answered(client.post("/v1/search", json=body))["hits"]
        assert hit["id"] == item_id
        out = {"id": item_id, "exclude": [item_id], "k": 1}
        (other,) = answered(client.post("/v1/search", json=out))["hits"]
        assert other["id"] != item_id
        listed = answered(client.get("/v1/items", params={"limit": 1000}))["items"]
        assert item_id in [item["id"] for item in listed]
        gone = answered(client.post("/v1/items/delete", json={"ids": [item_id]}))
        assert gone["deleted"] == 1
        assert client.delete(path).status_code == 404
    finally:
        client.delete(path)


@pytest.mark.parametrize(
    ("item_id", "reason"),
    [
        ("a\tb", "control characters"),
        ("a\u2028b", "line ends"),
        ("a\u0085b", "control characters"),
        ("a\u202eb", "invisible"),
        ("..", "another place"),
        ("é" * 128 + "é", "at most 256 bytes"),
        ("e\u0301", "composed"),
        ("\u212b", "composed"),  # the sign of the ångström, which is a letter's second spelling
    ],
)
def test_an_id_that_cannot_be_says_why(client: httpx.Client, item_id: str, reason: str) -> None:
    path = f"/v1/items/{quote(item_id, safe='').replace('.', '%2e')}"

    for refused in (
        client.put(path, content=png(950), headers=PNG),
        client.get(path),
        client.patch(path, json={}),
        client.delete(path),
        client.post("/v1/search", json={"id": item_id}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_id")
        assert reason in refused.json()["detail"]


def test_an_address_with_a_broken_percent_is_no_other_id(client: httpx.Client) -> None:
    assert client.put("/v1/items/%25zz", content=png(950), headers=PNG).status_code == 201
    try:
        with socket.create_connection(("127.0.0.1", int(client.base_url.port or 0))) as raw:
            raw.sendall(b"GET /v1/items/%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 422 ")
        assert b"invalid_id" in answer
    finally:
        assert client.delete("/v1/items/%25zz").status_code == 200


def test_a_number_is_no_id_in_json_and_the_sentence_says_so(client: httpx.Client) -> None:
    refused = client.post("/v1/search", json={"id": 7})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_id")
    assert "string" in refused.json()["detail"]
