"""A model that has learnt no classes: it searches as ever, and says so where classes are asked."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from cli.commands import app
from tests.service.api.test_page import browser, visit_of  # noqa: F401 (a fixture)
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.models import write_model
from tests.support.server.servers import Server, answered, running_server

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("no-classes")
    write_model(folder / "model", labels=())
    write_gallery(folder / "gallery", folder / "model")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with running_server(folder / "model", folder / "gallery", folder / "log") as running:
        yield running


@pytest.mark.parametrize(
    "request_of",
    [
        {"content": png(5), "headers": PNG},
        {"files": {"image": png(5)}},
        {"files": [("image", png(5)), ("image", png(6))]},
        {"json": {"image": base64.b64encode(png(5)).decode()}},
    ],
    ids=["raw", "form", "several", "json"],
)
def test_classify_says_what_to_do_instead(client: httpx.Client, request_of: dict[str, Any]) -> None:
    answer = client.post("/v1/classify", **request_of)

    assert answer.status_code == 409
    assert answer.json()["code"] == "no_classes"
    assert "/v1/search/vote" in answer.json()["detail"]


def test_search_embed_and_a_vote_of_labels_work_as_ever(client: httpx.Client) -> None:
    found = answered(client.post("/v1/search", content=png(5), headers=PNG))
    assert found["hits"][0]["id"] == "item-05"
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    embedded = answered(client.post("/v1/embed", content=png(5), headers=PNG))
    assert len(embedded["results"][0]["vector"]) == 256
    vote = answered(client.post("/v1/search/vote", json={"id": "item-05", "k": 8}))
    assert vote["label"] in {hit["label"] for hit in vote["hits"]}
    assert sum(one["share"] for one in vote["votes"]) == pytest.approx(1)


def test_the_model_lists_no_labels_and_everything_is_ready(client: httpx.Client) -> None:
    model = answered(client.get("/v1/model"))
    assert model["labels"] == []
    assert model["architecture"]["num_labels"] == 0
    assert answered(client.get("/readyz"))["status"] == "ok"
    metrics = client.get("/metrics")
    assert metrics.status_code == 200
    assert "lookalike_" in metrics.text


def test_the_command_line_says_it_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(5))
    photo = str(tmp_path / "photo.png")

    refused = CliRunner().invoke(app, ["classify", str(folder / "model"), photo])
    found = CliRunner().invoke(app, ["search", str(folder / "gallery"), photo, "--vote"])

    assert refused.exit_code == 2
    assert "learnt no classes" in " ".join(refused.stderr.split())
    assert found.exit_code == 0, found.output
    assert "share of the votes" in found.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--kind 0.5", "--kind: the vectors of this model have one part"),
        ("--kind nan", "--kind"),
        ("--group-size 3", "--group-size: it goes with --group-by"),
        ("--group-by id", "no two items share their id"),
        ("--exclude a/b", "an id has no '/'"),
        ("--offset 9001", "--offset"),
        ("--all --min-score 0 --offset 2", "it goes without groups, exclusions and an offset"),
    ],
)
def test_options_that_cannot_be_meant_are_wrong_use(
    folder: Path, tmp_path: Path, options: str, said: str
) -> None:
    (tmp_path / "photo.png").write_bytes(png(5))
    command = ["search", str(folder / "gallery"), str(tmp_path / "photo.png"), *options.split()]

    refused = CliRunner().invoke(app, command)

    assert refused.exit_code == 2
    assert said in " ".join(refused.stderr.replace("\u2502", " ").split())


def test_the_page_leaves_classes_out(
    server: Server,
    client: httpx.Client,
    browser: Browser,  # noqa: F811
) -> None:
    client.put("/v1/items/bare", content=png(90), headers=PNG).raise_for_status()
    with visit_of(server.url, browser) as visit:
        page = visit.open()
        expect(page.locator(".tile a").first).to_be_visible()
        expect(page.locator(".chip")).to_have_count(0)
        visit.choose(png(5))
        expect(page.locator(".tile a").first).to_have_attribute("title", "item-05")
        expect(page.locator("#answer")).to_be_hidden()
        expect(page.locator("#announcer")).to_have_text("12 nearest items.")
        expect(page.locator("#alert")).to_be_hidden()
        expect(page.locator("#knob")).to_be_hidden()

        page = visit.open("/#id=bare")
        expect(page.locator("#answer")).to_contain_text("bare")
        expect(page.locator(".verdict")).to_have_count(0)
        expect(page.locator(".tile a").first).to_have_attribute("title", "bare")
        expect(page.locator("#tiles")).not_to_contain_text("no label")
    client.delete("/v1/items/bare").raise_for_status()
    assert visit.errors == []
