"""The gallery's own interface: items, filters, pages, its model, and closing it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from index.errors import (
    GalleryFolderError,
    InvalidCursorError,
    ModelMismatchError,
    UnknownIdError,
    VectorIndexError,
)
from index.gallery import Gallery
from index.items.filter import parse_filter
from index.items.item import NewItem
from index.store.store import read_binding
from tests.support.fakes import new_item, unit_vectors

WIDTH = 8
FINGERPRINT = "a1" * 32
IDS = ["a", "b", "c", "A", "x:y.z-1_"]


def make(folder: Path) -> Gallery:
    return Gallery.create(folder, model_name="fake", fingerprint=FINGERPRINT, width=WIDTH)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with make(tmp_path / "gallery") as gallery:
        yield gallery


def found(gallery: Gallery, item: NewItem, *, k: int = 1, **options: Any) -> list[str]:
    """Return the ids nearest to ``item``'s vector."""
    return [hit.id for hit in gallery.search(item.vector_D[np.newaxis], k=k, **options).hits[0]]


class GalleryAgainstDict(RuleBasedStateMachine):
    """Whatever is done to a gallery, it answers as a dict of the same items would."""

    @initialize()
    def create(self) -> None:
        self.place = TemporaryDirectory()
        self.folder = Path(self.place.name, "gallery")
        self.gallery = make(self.folder)
        self.model: dict[str, NewItem] = {}

    @rule(
        ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=4),
        seed=st.integers(0, 3),
        label=st.sampled_from([None, "l1", "l2"]),
        upsert=st.booleans(),
    )
    def put(self, ids: list[str], seed: int, label: str | None, upsert: bool) -> None:
        items = [
            new_item(item_id, seed=seed + place % 2, label=label, metadata={"n": seed})
            for place, item_id in enumerate(ids)
        ]
        expected = []
        for item in items:
            old = self.model.get(item.id)
            if old is None:
                expected.append("created")
            elif (old.content_sha256, old.label, old.metadata) == (
                item.content_sha256,
                item.label,
                item.metadata,
            ):
                expected.append("unchanged")
            else:
                expected.append("replaced" if upsert else "conflict")
            if expected[-1] in ("created", "replaced"):
                self.model[item.id] = item

        results = self.gallery.put(items, upsert=upsert)

        assert [result.outcome for result in results] == expected
        assert [result.id for result in results] == ids
        assert max(result.seq for result in results) <= self.gallery.seq

    @rule(ids=st.lists(st.sampled_from(IDS), max_size=3, unique=True))
    def delete(self, ids: list[str]) -> None:
        assert self.gallery.delete(ids) == [item_id in self.model for item_id in ids]
        for item_id in ids:
            self.model.pop(item_id, None)

    @rule()
    def reopen(self) -> None:
        seq = self.gallery.seq
        self.gallery.close()
        self.gallery = Gallery.open(self.folder, fingerprint=FINGERPRINT)
        assert self.gallery.seq == seq

    @rule(query=st.integers(0, 5), k=st.integers(1, 6), label=st.sampled_from([None, "l1"]))
    def search(self, query: int, k: int, label: str | None) -> None:
        wanted = parse_filter({"must": [{"key": "label", "match": label}]}) if label else None
        queries = unit_vectors(1, WIDTH, query)

        (hits,) = self.gallery.search(queries, k=k, filter=wanted).hits

        items = [item for item in self.model.values() if label is None or item.label == label]
        scores = sorted((float(item.vector_D @ queries[0]) for item in items), reverse=True)[:k]
        np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-6)
        for hit in hits:
            stored = self.model[hit.id]
            assert hit.score == pytest.approx(float(stored.vector_D @ queries[0]), abs=1e-6)
            assert (hit.label, hit.metadata) == (stored.label, stored.metadata)

    @invariant()
    def it_holds_what_the_dict_holds(self) -> None:
        page = self.gallery.page(limit=100)
        assert {item.id: item.content_sha256 for item in page.items} == {
            item_id: item.content_sha256 for item_id, item in self.model.items()
        }
        assert self.gallery.count == len(self.model)
        for item_id, item in self.model.items():
            np.testing.assert_array_equal(self.gallery.vector(item_id), item.vector_D)
            assert self.gallery.thumbnail(item_id) == item.thumbnail

    def teardown(self) -> None:
        assert self.gallery.verify() == []
        self.gallery.close()
        self.place.cleanup()


TestGalleryAgainstDict = GalleryAgainstDict.TestCase
TestGalleryAgainstDict.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)


def test_an_item_comes_back_as_it_went_in(tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    gallery = Gallery.create(
        tmp_path / "g", model_name="m", fingerprint=FINGERPRINT, width=WIDTH, clock=lambda: at
    )
    metadata = {"price": 9.5, "tags": ["é", '"quoted"'], "deep": {"a": [None, True]}}
    item = new_item("a", label="coat", metadata=metadata)

    (result,) = gallery.put([item])

    stored = gallery.get("a")
    assert (stored.label, stored.metadata, stored.seq) == ("coat", metadata, result.seq)
    assert stored.created == "2026-01-02T03:04:05.000+00:00"
    gallery.close()


def test_a_filter_restricts_during_the_search_so_hits_are_never_missing(gallery: Gallery) -> None:
    gallery.put(
        [new_item(f"i{n}", seed=n, label="rare" if n % 50 == 0 else "x") for n in range(300)]
    )
    wanted = parse_filter({"must": [{"key": "label", "match": "rare"}]})

    hits = found(gallery, new_item("q", seed=1), k=5, filter=wanted)

    assert len(hits) == 5
    assert set(hits) <= {"i0", "i50", "i100", "i150", "i200", "i250"}


def test_min_score_leaves_out_the_hits_below_it(gallery: Gallery) -> None:
    gallery.put([new_item(f"i{n}", seed=n) for n in range(20)])

    assert found(gallery, new_item("q", seed=7), k=20, min_score=0.999) == ["i7"]


def test_pages_join_up_to_everything_once_even_while_items_come_and_go(gallery: Gallery) -> None:
    gallery.put(
        [new_item(f"i{n}", seed=n, label="even" if n % 2 == 0 else None) for n in range(25)]
    )
    wanted = parse_filter({"must": [{"key": "label", "match": "even"}]})
    seen, cursor = [], None

    while True:
        page = gallery.page(limit=5, cursor=cursor, filter=wanted)
        seen += [item.id for item in page.items]
        gallery.delete(["i0", "i1"])
        if page.next_cursor is None:
            break
        cursor = page.next_cursor

    assert seen == [f"i{n}" for n in range(0, 25, 2)]


@pytest.mark.parametrize("cursor", ["", "x", "é", "AAAAAAAAAAAAAAAA", "====", "A" * 1000])
def test_a_cursor_that_no_page_gave_out_is_refused(gallery: Gallery, cursor: str) -> None:
    with pytest.raises(InvalidCursorError, match="no page gave out"):
        gallery.page(limit=1, cursor=cursor)


def test_an_unknown_id_is_refused_with_a_sentence(gallery: Gallery) -> None:
    for read in (gallery.get, gallery.vector, gallery.thumbnail):
        with pytest.raises(UnknownIdError, match="no item has the id 'nobody'"):
            read("nobody")


def test_a_gallery_of_another_model_is_refused_and_both_are_named(tmp_path: Path) -> None:
    make(tmp_path / "g").close()

    with pytest.raises(ModelMismatchError, match=r"'fake' .a1a1a1a1a1a1….*b2b2b2b2b2b2…"):
        Gallery.open(tmp_path / "g", fingerprint="b2" * 32)

    Gallery.open(tmp_path / "g", fingerprint=None).close()


def test_the_binding_is_read_without_opening_the_gallery(tmp_path: Path) -> None:
    with make(tmp_path / "g") as gallery:
        gallery.put([new_item("a"), new_item("b")])

    binding = read_binding(tmp_path / "g")

    assert (binding.model_name, binding.fingerprint, binding.width, binding.count) == (
        "fake",
        FINGERPRINT,
        WIDTH,
        2,
    )


def test_info_tells_what_the_gallery_holds(gallery: Gallery) -> None:
    gallery.put([new_item("a"), new_item("b")])
    gallery.delete(["a"])

    info = gallery.info()

    assert (info.name, info.count, info.seq, info.structure) == ("gallery", 1, 3, "exact")
    assert info.bytes_on_disk > 0
    assert json.dumps(info.fingerprint)


def test_a_gallery_is_not_created_over_anything_and_leaves_no_rubbish(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()

    for name in ("file", "full"):
        with pytest.raises(GalleryFolderError, match="cannot create the gallery"):
            make(tmp_path / name)
    make(tmp_path / "empty").close()
    make(tmp_path / "deep" / "er").close()

    assert {path.name for path in tmp_path.iterdir()} == {"file", "full", "empty", "deep"}
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["gallery.sqlite"]


def test_a_folder_without_a_gallery_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(GalleryFolderError, match="is not a gallery"):
            Gallery.open(folder, fingerprint=None)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_gallery_says_so(gallery: Gallery) -> None:
    gallery.put([new_item("a")])
    gallery.close()

    for act in (
        gallery.catch_up,
        gallery.info,
        lambda: gallery.get("a"),
        lambda: gallery.put([new_item("b")]),
    ):
        with pytest.raises(VectorIndexError, match="was closed"):
            act()
