"""Builds that are run again: what is stale, what is pruned, and which edits stay."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset.source import list_source
from index.gallery import Gallery
from index.items.item import NewItem
from index.items.source_entries import image_entries
from index.operations.add_images import build
from index.operations.build_preview import preview_build
from index.operations.build_report import BuildReport
from index.operations.purge import purge
from index.store.schema import DATABASE_NAME
from index.store.sqlite.database import Database
from index.transfer.backup import back_up
from tests.support.fakes import FakeEncoder
from tests.support.images.pngs import png
from vision.image.limits import DEFAULT_LIMITS
from vision.image.thumbnail import Thumbnail

SIZE = (8, 8)
PICTURE = Thumbnail("image/png", png(99, SIZE))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    encoder = FakeEncoder()
    with Gallery.create(
        tmp_path / "gallery",
        model_name=encoder.manifest.name,
        fingerprint=encoder.manifest.fingerprint,
        width=encoder.width,
    ) as made:
        yield made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three coats and two hats."""
    folder = tmp_path / "photos"
    for number, key in enumerate(("coat/1", "coat/2", "coat/3", "hat/1", "hat/2")):
        path = folder / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number, SIZE))
    return folder


def run(gallery: Gallery, source: Path, *, prune: bool = False) -> BuildReport:
    listing = list_source(source)
    return build(
        gallery,
        image_entries(listing),
        source=str(source.resolve()),
        encoder=FakeEncoder(),
        limits=DEFAULT_LIMITS,
        on_progress=lambda _: None,
        prune=prune,
    )


def change(gallery: Gallery, item_id: str, **changed: Any) -> None:
    """Store an item anew, as the API does, with something of it changed."""
    old = gallery.get(item_id)
    fields = {"label": old.label, "metadata": old.metadata, "content_sha256": old.content_sha256}
    vector_D = gallery.vector(item_id)
    new = NewItem(id=item_id, vector_D=vector_D, thumbnail=PICTURE, **{**fields, **changed})
    assert gallery.put([new])[0].outcome == "replaced"


def forget_all(gallery: Gallery) -> None:
    """Make it a gallery whose builds were of a program that did not remember them."""
    with (
        closing(Database(gallery.folder / DATABASE_NAME)) as database,
        database.writing() as writer,
    ):
        writer.execute("DROP TABLE built")


def labels(gallery: Gallery) -> dict[str, str | None]:
    return {item.id: item.label for item in gallery.page(limit=100).items}


def test_edits_outlive_a_purge_of_what_they_replaced(gallery: Gallery, photos: Path) -> None:
    run(gallery, photos)
    change(gallery, "coat:1.png", label="jacket", metadata={"note": "mine"})
    change(gallery, "coat:2.png", content_sha256="ab" * 32)
    purge(gallery, on_stage=lambda _: None)

    for _ in range(2):
        assert run(gallery, photos).unchanged == 5
        edited = gallery.get("coat:1.png")
        assert (edited.label, edited.metadata) == ("jacket", {"note": "mine"})
        assert gallery.get("coat:2.png").content_sha256 == "ab" * 32

    (photos / "coat" / "2.png").write_bytes(png(50, SIZE))
    (photos / "coat" / "1.png").unlink()
    report = run(gallery, photos, prune=True)
    assert (report.replaced, report.pruned) == (1, 1)


# What is no longer there


def test_deleted_renamed_and_moved_files_are_counted_and_pruned_when_asked(
    gallery: Gallery, photos: Path
) -> None:
    run(gallery, photos)
    (photos / "coat" / "1.png").unlink()
    (photos / "coat" / "2.png").rename(photos / "coat" / "two.png")
    (photos / "coat" / "3.png").rename(photos / "hat" / "3.png")

    kept = run(gallery, photos)

    assert (kept.added, kept.unchanged, kept.stale, kept.pruned, kept.count) == (2, 2, 3, 0, 7)

    pruned = run(gallery, photos, prune=True)

    assert (pruned.added, pruned.unchanged, pruned.stale, pruned.pruned) == (0, 4, 0, 3)
    assert labels(gallery) == {
        "coat:two.png": "coat",
        "hat:1.png": "hat",
        "hat:2.png": "hat",
        "hat:3.png": "hat",
    }
    assert gallery.verify() == []
    assert run(gallery, photos, prune=True).pruned == 0


def test_pruning_takes_nothing_that_came_from_elsewhere(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "coat").mkdir(parents=True)
    (other / "coat" / "9.png").write_bytes(png(9, SIZE))
    (other / "coat" / "1.png").write_bytes(png(10, SIZE))  # an id that both sources bring
    run(gallery, photos)
    run(gallery, other)
    vector_D = gallery.vector("coat:2.png")
    own = NewItem(
        id="own", vector_D=vector_D, label="x", metadata={}, thumbnail=None, content_sha256="0" * 64
    )
    gallery.put([own])
    for name in ("coat/1.png", "coat/2.png"):
        (photos / name).unlink()

    report = run(gallery, photos, prune=True)

    assert report.pruned == 1
    assert set(labels(gallery)) == {
        "coat:1.png",  # the other source was the last to bring it
        "coat:3.png",
        "coat:9.png",
        "hat:1.png",
        "hat:2.png",
        "own",
    }


def test_an_image_that_became_unreadable_is_not_stale(gallery: Gallery, photos: Path) -> None:
    run(gallery, photos)
    (photos / "hat" / "1.png").write_bytes(b"damaged")
    report = run(gallery, photos, prune=True)
    assert (len(report.refused), report.pruned, report.count) == (1, 0, 5)
    assert [(one.count, one.examples) for one in report.reasons] == [(1, ("hat:1.png",))]


def test_rows_that_left_a_table_are_stale(gallery: Gallery, photos: Path) -> None:
    table = photos / "shop.csv"
    table.write_text("path,label,price\ncoat/1.png,coat,5\ncoat/2.png,coat,6\n")
    run(gallery, table)
    table.write_text("path,label,price\ncoat/1.png,coat,5\n")
    report = run(gallery, table, prune=True)
    assert (report.unchanged, report.pruned) == (1, 1)
    assert labels(gallery) == {"coat:1.png": "coat"}


def test_what_was_deleted_is_not_remembered_and_comes_back_with_the_next_build(
    gallery: Gallery, photos: Path
) -> None:
    run(gallery, photos)
    gallery.delete(["coat:1.png"])
    with (
        closing(Database(gallery.folder / DATABASE_NAME)) as database,
        database.reading() as reader,
    ):
        ids = [item_id for (item_id,) in reader.execute("SELECT id FROM built")]
    assert "coat:1.png" not in ids
    assert len(ids) == 4
    assert run(gallery, photos).added == 1


def test_a_copy_of_the_gallery_remembers_too(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    run(gallery, photos)
    back_up(gallery, tmp_path / "copy", on_progress=lambda _: None)
    (photos / "coat" / "1.png").unlink()
    with Gallery.open(tmp_path / "copy", fingerprint=None) as copy:
        assert run(copy, photos, prune=True).pruned == 1


def test_a_gallery_built_before_builds_remembered_is_taken_over_and_nothing_is_pruned(
    gallery: Gallery, photos: Path
) -> None:
    run(gallery, photos)
    forget_all(gallery)
    (photos / "coat" / "1.png").unlink()
    first = run(gallery, photos, prune=True)
    assert (first.unchanged, first.stale, first.pruned, first.count) == (4, 0, 0, 5)
    (photos / "coat" / "2.png").unlink()
    assert run(gallery, photos, prune=True).pruned == 1


def test_a_preview_says_what_the_build_then_does_and_changes_nothing(
    gallery: Gallery, photos: Path
) -> None:
    run(gallery, photos)
    change(gallery, "hat:1.png", label="cap")
    (photos / "coat" / "1.png").unlink()
    (photos / "coat" / "2.png").write_bytes(png(50, SIZE))
    (photos / "coat" / "4.png").write_bytes(png(51, SIZE))
    seq = gallery.seq

    foreseen = preview_build(
        gallery,
        image_entries(list_source(photos)),
        source=str(photos.resolve()),
        limits=DEFAULT_LIMITS,
        on_progress=lambda _: None,
        prune=True,
    )

    assert gallery.seq == seq
    done = run(gallery, photos, prune=True)
    assert replace(foreseen, seconds=0) == replace(done, seconds=0)
    assert (done.added, done.replaced, done.unchanged, done.pruned, done.kept) == (1, 1, 3, 1, 1)


# Edits


def test_edits_of_labels_metadata_and_images_survive_any_number_of_builds(
    gallery: Gallery, photos: Path
) -> None:
    run(gallery, photos)
    change(gallery, "coat:1.png", label="jacket")
    change(gallery, "coat:2.png", metadata={"price": 5})
    change(gallery, "coat:3.png", content_sha256="1" * 64)
    for _ in range(2):
        report = run(gallery, photos)
        assert (report.unchanged, report.replaced, report.kept) == (5, 0, 3)
    assert gallery.get("coat:1.png").label == "jacket"
    assert gallery.get("coat:2.png").metadata == {"price": 5}
    assert gallery.get("coat:3.png").content_sha256 == "1" * 64


def test_a_changed_file_brings_its_label_back_and_keeps_what_it_never_said(
    gallery: Gallery, photos: Path
) -> None:
    run(gallery, photos)
    change(gallery, "coat:1.png", label="jacket", metadata={"path": "?", "price": 5})
    (photos / "coat" / "1.png").write_bytes(png(50, SIZE))
    report = run(gallery, photos)
    assert (report.replaced, report.unchanged) == (1, 4)
    item = gallery.get("coat:1.png")
    assert (item.label, item.metadata) == ("coat", {"path": "coat/1.png", "price": 5})
    assert gallery.thumbnail("coat:1.png") != PICTURE


def test_what_a_table_changes_is_taken_over_and_edits_of_the_rest_stay(
    gallery: Gallery, photos: Path
) -> None:
    table = photos / "shop.csv"
    table.write_text("path,label,price,size\ncoat/1.png,coat,5,M\ncoat/2.png,coat,6,L\n")
    run(gallery, table)
    old = gallery.get("coat:1.png")
    change(gallery, "coat:1.png", label="jacket", metadata={**old.metadata, "size": "XL", "own": 1})
    change(gallery, "coat:2.png", content_sha256="1" * 64)
    vector_D = gallery.vector("coat:2.png")
    table.write_text("path,label,price\ncoat/1.png,coat,4\ncoat/2.png,cape,6\n")

    report = run(gallery, table)

    assert (report.replaced, report.kept) == (2, 2)
    first, second = gallery.get("coat:1.png"), gallery.get("coat:2.png")
    assert first.label == "jacket"
    assert first.metadata == {"path": "coat/1.png", "price": 4, "own": 1}
    assert (second.label, second.content_sha256) == ("cape", "1" * 64)
    assert gallery.thumbnail("coat:2.png") == PICTURE, "the image that was put there stays"
    assert (gallery.vector("coat:2.png") == vector_D).all()
    assert run(gallery, table).unchanged == 2


def test_an_older_gallery_gets_the_labels_of_the_present_reading_and_keeps_edits(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    root = tmp_path / "parts"
    shutil.copytree(photos, root / "train")
    run(gallery, root)
    for name in ("coat:1", "coat:2", "hat:1"):  # as version 0.4.0 stored them
        item_id = f"train:{name}.png"
        path = {"path": item_id.replace(":", "/")}
        change(gallery, item_id, label="train", metadata=path)
    change(gallery, "train:coat:2.png", label="jacket")
    forget_all(gallery)

    run(gallery, root)

    assert labels(gallery) == {
        "train:coat:1.png": "coat",
        "train:coat:2.png": "jacket",
        "train:coat:3.png": "coat",
        "train:hat:1.png": "hat",
        "train:hat:2.png": "hat",
    }
    assert gallery.get("train:coat:1.png").metadata["split"] == "train"
