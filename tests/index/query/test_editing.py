"""Changes of stored items that look at what is there first: none is lost, and the rest stays."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.errors import ChangedItemError, InvalidMetadataError, UnknownIdError
from index.gallery import Gallery
from index.items.filter import parse_filter
from index.items.item import NewItem
from index.items.preconditions import Precondition
from index.query.editing import Patch, merge
from tests.support.images.pngs import png
from vision.image.thumbnail import Thumbnail

WIDTH = 8
PICTURE = Thumbnail("image/png", png(3, (8, 8)))


def gallery_in(folder: Path) -> Gallery:
    return Gallery.create(folder, model_name="m", fingerprint="f" * 64, width=WIDTH)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with gallery_in(tmp_path / "gallery") as opened:
        opened.put([new_item(f"i{n}", n, metadata={"n": n}) for n in range(6)])
        yield opened


def new_item(item_id: str, axis: int, **members: Any) -> NewItem:
    return NewItem(
        **{
            "id": item_id,
            "vector_D": np.eye(WIDTH, dtype=np.float32)[axis],
            "label": "coat",
            "metadata": {},
            "thumbnail": PICTURE,
            "content_sha256": f"{axis:064x}",
            **members,
        }
    )


def seq_is(*seqs: int) -> Precondition:
    return Precondition(one_of=frozenset(seqs))


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    # RFC 7396, appendix A, but for those whose target is no object
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ],
)
def test_patches_merge_as_the_standard_says(target: Any, patch: Any, merged: Any) -> None:
    assert merge(target, patch) == merged


def test_a_patch_changes_what_it_names_and_keeps_the_rest(gallery: Gallery) -> None:
    before = gallery.get("i2")

    after = gallery.patch(
        "i2", Patch({"label": " hat ", "metadata": {"n": None, "to": "the shop"}})
    )

    assert after == gallery.get("i2")
    assert (after.label, after.metadata) == ("hat", {"to": "the shop"})
    assert (after.content_sha256, after.created) == (before.content_sha256, before.created)
    assert after.seq > before.seq
    assert gallery.thumbnail("i2") == PICTURE
    (hit, *_) = gallery.search(np.eye(WIDTH, dtype=np.float32)[[2]], k=6).hits[0]
    assert (hit.id, hit.label, hit.score) == ("i2", "hat", 1.0)
    found = gallery.page(limit=9, filter=parse_filter({"must": [{"key": "n", "exists": True}]}))
    assert [item.id for item in found.items] == ["i0", "i1", "i3", "i4", "i5"]
    assert gallery.count == 6
    assert gallery.verify() == []


def test_a_patch_outlives_the_process(tmp_path: Path) -> None:
    with gallery_in(tmp_path / "gallery") as gallery:
        gallery.put([new_item("a", 1)])
        patched = gallery.patch("a", Patch({"label": None}))

    with Gallery.open(tmp_path / "gallery", fingerprint=None) as again:
        assert again.get("a") == patched
        assert patched.label is None


@pytest.mark.parametrize("changes", [{}, {"label": "coat"}, {"metadata": {"gone": None}}])
def test_a_patch_of_what_is_so_already_writes_nothing(
    gallery: Gallery, changes: dict[str, Any]
) -> None:
    before, seq = gallery.get("i1"), gallery.seq

    assert gallery.patch("i1", Patch(changes)) == before
    assert gallery.seq == seq


@pytest.mark.parametrize(
    "changes", [{"label": ""}, {"metadata": [1]}, {"metadata": {"a": "x" * 17_000}}]
)
def test_a_patch_that_cannot_be_stored_leaves_the_item_as_it_is(
    gallery: Gallery, changes: dict[str, Any]
) -> None:
    before = gallery.get("i1")

    with pytest.raises(InvalidMetadataError):
        gallery.patch("i1", Patch(changes))

    assert gallery.get("i1") == before


def test_a_change_of_another_item_than_was_expected_is_refused(gallery: Gallery) -> None:
    seq = gallery.get("i1").seq
    gallery.patch("i1", Patch({"label": "hat"}), expected=seq_is(seq))

    for change in (
        lambda: gallery.patch("i1", Patch({"label": "cap"}), expected=seq_is(seq)),
        lambda: gallery.delete_item("i1", expected=seq_is(seq)),
        lambda: gallery.patch("nobody", Patch({}), expected=seq_is(seq)),
    ):
        with pytest.raises(ChangedItemError):
            change()
    with pytest.raises(UnknownIdError):
        gallery.delete_item("nobody")
    (put,) = gallery.put([new_item("i1", 5)], upsert=True, expected=seq_is(seq))
    (made,) = gallery.put([new_item("i1", 5)], upsert=True, expected=Precondition(none_of="any"))

    assert (put.outcome, made.outcome) == ("unexpected", "unexpected")
    assert gallery.get("i1").label == "hat"
    assert put.seq == gallery.get("i1").seq
    gallery.delete_item("i1", expected=seq_is(seq, put.seq))
    (made,) = gallery.put([new_item("i1", 5)], upsert=True, expected=Precondition(none_of="any"))
    assert (made.outcome, made.seq) == ("created", gallery.get("i1").seq)


def test_the_seq_of_a_replaced_item_is_the_one_that_is_told(gallery: Gallery) -> None:
    (replaced,) = gallery.put([new_item("i3", 7)])

    assert (replaced.outcome, replaced.seq) == ("replaced", gallery.get("i3").seq)


def test_no_patch_of_many_threads_and_two_openings_is_lost(tmp_path: Path) -> None:
    with (
        gallery_in(tmp_path / "gallery") as one,
        Gallery.open(tmp_path / "gallery", fingerprint=None) as other,
    ):
        one.put([new_item("a", 1)])

        def patch(number: int) -> None:
            gallery = (one, other)[number % 2]
            for turn in range(8):
                gallery.patch("a", Patch({"metadata": {f"{number}-{turn}": turn}}))

        threads = [threading.Thread(target=patch, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(one.get("a").metadata) == 48
        assert one.verify() == []
        one.catch_up()
        assert one.count == 1


def test_what_a_filter_holds_for_is_deleted_a_part_at_a_time(gallery: Gallery) -> None:
    wanted = parse_filter({"must": [{"key": "n", "range": {"gte": 1}}]})
    before = gallery.seq
    gallery.patch("i4", Patch({"label": "later"}))

    parts = [gallery.delete_where(wanted, up_to=before, at_most=2) for _ in range(3)]

    assert parts == [2, 2, 0]
    assert [item.id for item in gallery.page(limit=9).items] == ["i0", "i4"]
    assert gallery.delete_where(None) == 2
    assert gallery.count == 0
