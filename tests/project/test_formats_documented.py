"""Whatever says which formats are taken says the same: settings, page, commands, prose."""

import re
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cli.commands import app
from cli.support.image_argument import ImageArgument
from dataset.folders.file_content import IMAGE_ENDINGS
from service.config import ServiceSettings
from service.errors import ServiceConfigError
from tests.support.server.servers import ROOT, Server
from vision.formats.detect import AVIF, FORMATS, HEIC, TIFF, formats_called, in_words

NAMES = ", ".join(one.name for one in FORMATS[:-1])
MEDIA_TYPES = [kind for one in FORMATS for kind in one.media_types]
PAGE = (ROOT / "service" / "page" / "index.html").read_text()


def prose(path: Path) -> str:
    return " ".join(path.read_text().split())


@pytest.mark.parametrize("document", ["README.md", "docs/api.md", "docs/data.md"])
def test_documents_name_every_format(document: str) -> None:
    assert f"{NAMES} and {FORMATS[-1].name}" in prose(ROOT / document)


def test_the_page_names_them_and_offers_their_files() -> None:
    (accepted,) = re.findall(r'id="file"\s+accept="([^"]*)"', PAGE)
    offered = [one.strip() for one in accepted.split(",")]

    assert offered[: len(MEDIA_TYPES)] == MEDIA_TYPES
    # Browsers know no media type of these files on every system.
    assert offered[len(MEDIA_TYPES) :] == [
        ending for one in (TIFF, AVIF, HEIC) for ending in one.endings
    ]
    assert f'id="hint">{in_words(FORMATS)}. ' in " ".join(PAGE.split())


def test_the_document_lists_their_media_types(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json", timeout=30).json()

    for path in ("/v1/classify", "/v1/search", "/v1/embed"):
        kinds = document["paths"][path]["post"]["requestBody"]["content"]
        assert [kind for kind in kinds if kind.startswith("image/")] == MEDIA_TYPES


def test_commands_name_them() -> None:
    assert in_words(FORMATS) in ImageArgument.__metadata__[0].help
    environment = {"COLUMNS": "200", "TERM": "dumb"}
    said = CliRunner().invoke(app, ["serve", "--help"], env=environment).stdout
    words = " ".join(said.replace("│", " ").split())
    assert ", ".join(one.key for one in FORMATS) in words


def test_files_with_their_endings_are_pictures_of_a_folder() -> None:
    assert {ending for one in FORMATS for ending in one.endings} <= IMAGE_ENDINGS


def test_the_default_that_is_documented_is_all_of_them() -> None:
    (row,) = re.findall(r"`LOOKALIKE_FORMATS` \| ([^|]*) \|", (ROOT / "docs/api.md").read_text())

    assert row == ",".join(one.key for one in FORMATS)


def test_settings_take_all_of_them_or_those_that_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert formats_called(ServiceSettings.from_environment().formats) == FORMATS

    monkeypatch.setenv("LOOKALIKE_FORMATS", "HEIC, jpeg")
    assert ServiceSettings.from_environment().formats == ("jpeg", "heic")

    monkeypatch.setenv("LOOKALIKE_FORMATS", "jpeg,jxl")
    with pytest.raises(
        ServiceConfigError, match=r"^LOOKALIKE_FORMATS cannot be used: .*'jxl' is not a format"
    ):
        ServiceSettings.from_environment()
