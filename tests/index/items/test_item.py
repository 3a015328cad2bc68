"""What an item may be: its id, label, metadata, vector and picture."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.errors import (
    BadVectorsError,
    InvalidIdError,
    InvalidMetadataError,
    NoThumbnailError,
)
from index.gallery import Gallery
from index.items.item import NewItem
from tests.support.fakes import new_item


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=8
    ) as gallery:
        yield gallery


@pytest.mark.parametrize(
    "item_id",
    ["", ".", "..", "a" * 257, "\u5c71" * 86, "a/b", "e\u0301", "a\n", "a\u2028", "a\0", "\ufffd"],
)
def test_an_id_outside_the_pattern_is_refused_everywhere(gallery: Gallery, item_id: str) -> None:
    for act in (
        lambda: gallery.put([new_item("good"), new_item(item_id)]),
        lambda: gallery.delete(["good", item_id]),
        lambda: gallery.get(item_id),
        lambda: gallery.vector(item_id),
        lambda: gallery.thumbnail(item_id),
    ):
        with pytest.raises(InvalidIdError, match=r"\ban id\b|are no ids"):
            act()
    assert gallery.count == 0


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": 2**63},
        {"a": "\ud800"},
        {"a": "x\0y"},
        {"\0": 1},
        {1: "a"},
        {"a": (1, 2)},
        {"a": b"bytes"},
        {"a": nested(17)},
        {"a": nested(5000)},
        {"a": "x" * 16 * 1024},
        [1],
        None,
    ],
)
def test_metadata_that_is_not_small_plain_json_is_refused(gallery: Gallery, metadata: Any) -> None:
    item = new_item("a")
    bad = NewItem(
        id="b",
        vector_D=item.vector_D,
        label=None,
        metadata=metadata,
        thumbnail=item.thumbnail,
        content_sha256=item.content_sha256,
    )
    with pytest.raises(InvalidMetadataError, match="metadata"):
        gallery.put([item, bad])
    assert gallery.count == 0


@pytest.mark.parametrize("label", ["", "x" * 257, "a\nb", "a\x7fb", "\ud800"])
def test_a_label_that_is_too_long_or_not_printable_is_refused(gallery: Gallery, label: str) -> None:
    with pytest.raises(InvalidMetadataError, match="label"):
        gallery.put([new_item("a", label=label)])


@pytest.mark.parametrize(
    "vector", [np.ones(8), np.full(8, np.nan), np.eye(8)[0][:7], np.eye(8), np.zeros(8)]
)
def test_a_vector_that_is_not_a_unit_vector_of_the_width_is_refused(
    gallery: Gallery, vector: np.ndarray
) -> None:
    item = new_item("a")
    bad = NewItem(
        id="b",
        vector_D=vector.astype(np.float32),
        label=None,
        metadata={},
        thumbnail=item.thumbnail,
        content_sha256="",
    )
    with pytest.raises(BadVectorsError):
        gallery.put([item, bad])
    assert gallery.count == 0


def test_an_item_may_have_no_picture_and_a_lost_picture_is_told_from_none(
    gallery: Gallery, tmp_path: Path
) -> None:
    gallery.put([replace(new_item("bare"), thumbnail=None), new_item("pictured", seed=1)])

    with pytest.raises(NoThumbnailError, match="'bare' was stored as a vector, without a picture"):
        gallery.thumbnail("bare")
    assert gallery.thumbnail("pictured").media_type == "image/png"
    assert gallery.verify() == []
    for change, fault in (
        ("UPDATE thumbnails SET media_type = 'image/png' WHERE key = 1", "type and its bytes"),
        ("UPDATE thumbnails SET media_type = '' WHERE key = 2", "type and its bytes"),
        ("DELETE FROM thumbnails WHERE key = 1", "'bare': has no thumbnail"),
    ):
        folder = shutil.copytree(tmp_path / "g", tmp_path / fault[:4], dirs_exist_ok=True)
        with closing(sqlite3.connect(folder / "gallery.sqlite")) as connection, connection:
            connection.execute(change)
        with Gallery.open(folder, fingerprint=None) as damaged:
            (problem,) = damaged.verify()
        assert fault in problem
        shutil.rmtree(folder)
