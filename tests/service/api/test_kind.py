"""From this very thing to the same kind: a knob over HTTP, on the page and on the command line."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from cli.commands import app
from tests.service.api.test_page import browser, visit_of  # noqa: F401 (a fixture)
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.models import LABELS, item_and_kind, manifest
from tests.support.server.servers import Server, answered, running_server
from vision.networks.network import build_network
from vision.networks.saved_model import save_model

PNG = {"Content-Type": "image/png"}
ITEM, SHARE = 24, 0.3
KINDS = [None, 0, 0.25, SHARE, 1]


@dataclass
class World:
    """A server of a model with two-part vectors, and the vectors of its items."""

    server: Server
    client: httpx.Client
    folder: Path
    vectors: dict[str, np.ndarray]

    def expected(self, name: str, kind: float | None) -> dict[str, float]:
        """The weighted means of the cosines to one item, computed here."""
        share = SHARE if kind is None else kind

        def mean(vector: np.ndarray) -> float:
            own = self.vectors[name]
            item, sort = (
                float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
                for one, other in ((own[:ITEM], vector[:ITEM]), (own[ITEM:], vector[ITEM:]))
            )
            return (1 - share) * item + share * sort

        return {other: mean(vector) for other, vector in self.vectors.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kind")
    architecture = item_and_kind(
        item_width=ITEM, kind_width=8, kind_share=SHARE, num_labels=len(LABELS)
    )
    unbound = replace(manifest(size=32), architecture=architecture)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build_network(architecture, unbound.preprocessing)
    save_model(folder / "model", unbound, network.state_dict())
    write_gallery(folder / "gallery", folder / "model")
    (folder / "imports").mkdir()
    options = ("--imports-dir", str(folder / "imports"))
    with (
        running_server(folder / "model", folder / "gallery", folder / "log", *options) as server,
        server.client() as client,
    ):
        found = client.post("/v1/search", json={"id": "item-05", "k": 1000, "with_vector": True})
        vectors = {hit["id"]: np.array(hit["vector"]) for hit in answered(found)["hits"]}
        assert len(vectors) == 40
        yield World(server, client, folder, vectors)


def asked(kind: float | None, **members: Any) -> dict[str, Any]:
    return members if kind is None else {**members, "kind": kind}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_weighted_means_and_the_item_itself_comes_first(
    world: World, kind: float | None, exact: bool
) -> None:
    body = asked(kind, id="item-05", k=1000, exact=exact)
    hits = answered(world.client.post("/v1/search", json=body))["hits"]

    expected = world.expected("item-05", kind)
    scores = [hit["score"] for hit in hits]
    assert hits[0]["id"] == "item-05"
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert sorted(scores[1:], reverse=True) == scores[1:]
    assert len(hits) == 40
    for hit in hits:
        assert -1 <= hit["score"] <= 1
        assert hit["score"] == pytest.approx(expected[hit["id"]], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_least_score_is_of_the_same_scale(world: World, kind: float | None) -> None:
    expected = sorted(world.expected("item-05", kind).items(), key=lambda one: -one[1])
    least = expected[11][1] - 1e-5
    enough = {name for name, score in expected if score >= least}

    body = asked(kind, id="item-05", min_score=least)
    found = answered(world.client.post("/v1/search", json={**body, "k": 1000}))["hits"]
    ranged = answered(world.client.post("/v1/search/range", json=body))

    assert {hit["id"] for hit in found} == {hit["id"] for hit in ranged["hits"]} == enough
    assert ranged["total"] == len(enough) >= 12
    for one, other in zip(found, ranged["hits"], strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)


def test_an_image_an_id_and_a_vector_find_the_same(world: World) -> None:
    by_id = answered(world.client.post("/v1/search", json={"id": "item-05", "kind": 0.9}))["hits"]
    by_image = world.client.post("/v1/search?kind=0.9", content=png(5), headers=PNG)
    by_form = world.client.post("/v1/search", data={"kind": "0.9"}, files={"image": png(5)})
    vector = world.vectors["item-05"].tolist()
    by_vector = world.client.post("/v1/search", json={"vector": vector, "kind": 0.9})

    for answer in (by_image, by_form, by_vector):
        hits = answered(answer)["hits"]
        assert [hit["id"] for hit in hits] == [hit["id"] for hit in by_id]
        for one, other in zip(hits, by_id, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_the_knob_changes_what_is_found_and_combines_with_the_rest(world: World) -> None:
    def order(kind: float, **members: Any) -> list[str]:
        body = asked(kind, id="item-05", k=1000, **members)
        return [hit["id"] for hit in answered(world.client.post("/v1/search", json=body))["hits"]]

    assert order(0) != order(1)
    even = {"must": [{"key": "even", "match": True}]}
    numbers = [name for name in order(1) if int(name[-2:]) % 2 == 0]
    assert (
        order(1, filter=even, exclude=["item-06"], offset=2)
        == [name for name in numbers if name != "item-06"][2:]
    )
    labels = order(0, group_by="label", exclude_self=True)
    assert len(labels) == 4
    assert labels[0] == order(0)[1]


def test_a_vote_is_held_among_the_same_kind(world: World) -> None:
    body = {"id": "item-05", "k": 3, "kind": 1}
    answer = answered(world.client.post("/v1/search/vote", json=body))

    found = answered(world.client.post("/v1/search", json={**body, "k": 4}))["hits"]
    assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in found[1:]]


def test_the_model_says_whether_there_is_a_knob(world: World) -> None:
    assert answered(world.client.get("/v1/model"))["kind"] == SHARE


@pytest.mark.parametrize("kind", [-0.01, 1.01, "0.5", True, [0.5]])
def test_a_knob_beyond_its_range_is_refused(world: World, kind: Any) -> None:
    for path in ("/v1/search", "/v1/search/vote"):
        answer = world.client.post(path, json={"id": "item-05", "kind": kind})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_kind")
        assert answer.json()["detail"].startswith("kind cannot be used: ")


def test_a_vector_that_is_zero_where_it_counts_is_refused(world: World) -> None:
    vector = [1.0] * ITEM + [0.0] * 8
    answer = world.client.post("/v1/search", json={"vector": vector, "kind": 1})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_vector")
    assert "zero in all that counts" in answer.json()["detail"]
    halved = answered(world.client.post("/v1/search", json={"vector": vector, "kind": 0.5}))
    assert all(abs(hit["score"]) <= 0.5 for hit in halved["hits"])


def test_the_command_line_has_the_knob_too(world: World, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(5))
    photo, gallery = str(tmp_path / "photo.png"), str(world.folder / "gallery")

    def hits(*options: str) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, ["search", gallery, photo, "--json", *options])
        assert result.exit_code == 0, result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)["hits"]
        return found

    for kind in (0, 1):
        expected = world.expected("item-05", kind)
        for hit in hits("--kind", str(kind), "-k", "40"):
            assert hit["score"] == pytest.approx(expected[hit["id"]], abs=1e-4)
    least = sorted(world.expected("item-05", 1).values())[-9] - 1e-5
    near = hits("--kind", "1", "--all", "--min-score", str(least))
    assert len(near) == 9
    labels = hits("--group-by", "label", "--exclude-copies", "--exclude", "item-09", "-k", "9")
    assert len({hit["label"] for hit in labels}) == len(labels) == 4
    assert not {"item-05", "item-09"} & {hit["id"] for hit in labels}
    assert hits("--offset", "3", "-k", "2") == hits("-k", "5")[3:]


def test_the_page_has_a_slider_that_searches_anew(world: World, browser: Browser) -> None:  # noqa: F811
    with visit_of(world.server.url, browser) as visit:
        page = visit.open("/#id=item-05")
        slider = page.get_by_role("slider", name="Look for")
        expect(slider).to_be_visible()
        expect(slider).to_have_value(str(SHARE))
        expect(page.locator(".tile a").first).to_be_visible()

        with page.expect_response("**/v1/search") as told:
            slider.press("End")
        assert told.value.request.post_data_json["kind"] == 1
        expect(slider).to_have_attribute("aria-valuetext", "the same kind")
        assert "kind=1" in page.url
        first = answered(world.client.post("/v1/search", json={"id": "item-05", "kind": 1}))
        names = [hit["id"] for hit in first["hits"]][:3]
        for place, name in enumerate(names):
            expect(page.locator(".tile a").nth(place)).to_have_attribute("title", name)

        page.reload()
        expect(slider).to_have_value("1")
        page.get_by_role("link", name="Lookalike").click()
        expect(slider).to_be_hidden()


def test_vectors_whose_parts_are_not_as_long_as_the_models_are_not_imported(world: World) -> None:
    sound = world.vectors["item-07"]
    other = np.concatenate([sound[:ITEM], -sound[ITEM:]])
    uneven = np.concatenate([sound[:ITEM] / np.sqrt(1 - SHARE), 0 * sound[ITEM:]])
    rows = [
        {"id": name, "vector": vector.tolist()}
        for name, vector in (("other", other), ("uneven", uneven))
    ]
    table = world.folder / "imports" / "parts.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))

    job = world.client.post("/v1/jobs", json={"kind": "import", "source": table.name}).json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.05)
        job = world.client.get(f"/v1/jobs/{job['id']}").json()
    (refusal,) = job["result"]["refusals"]
    many = world.client.post("/v1/items", json={"items": rows}).json()["results"]
    world.client.delete("/v1/items/other")
    command = ["index", "import", str(world.folder / "gallery"), str(table), "--json"]
    done = CliRunner().invoke(app, command)
    world.client.delete("/v1/items/other")

    assert (job["result"]["added"], refusal["id"]) == (1, "uneven")
    assert [one["status"] for one in many] == [200, 422]
    report = json.loads(done.stdout)
    assert (report["added"], [one["row"] for one in report["refused"]]) == (1, [2])
    sentence = f"the first {ITEM} numbers of a vector of this model have the length"
    assert sentence in refusal["reason"]
    assert sentence in many[1]["detail"]
    assert sentence in report["refused"][0]["reason"]
