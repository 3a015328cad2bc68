"""Folders and tables of images as items: ids, labels, metadata and what cannot be read."""

import os
from pathlib import Path

import pytest

from dataset.listing import ListedFile, Listing, Part
from dataset.source import list_source
from index.decoding.file_decoder import read_content
from index.items.ids import check_id
from index.items.item import MAX_METADATA_BYTES, encode_metadata
from index.items.source_entries import ImageEntry, id_of_path, image_entries
from tests.support.images.pngs import png
from vision.image.limits import ImageLimits

MAX_BYTES = 10_000


def write(root: Path, *keys: str) -> Path:
    for number, key in enumerate(keys):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(png(number, (8, 8)))
    return root


def entries(source: Path) -> list[ImageEntry]:
    return list(image_entries(list_source(source)))


def test_class_folders_give_labels_and_paths_give_ids(tmp_path: Path) -> None:
    write(tmp_path, "shirt/b.png", "coat/a.png", "coat/deep/c.png", "flat.png")
    found = entries(tmp_path)
    assert [(entry.id, entry.label, entry.metadata) for entry in found] == [
        ("coat:a.png", "coat", {"path": "coat/a.png"}),
        ("coat:deep:c.png", "coat", {"path": "coat/deep/c.png"}),
        ("flat.png", None, {"path": "flat.png"}),
        ("shirt:b.png", "shirt", {"path": "shirt/b.png"}),
    ]
    assert found[0].data == tmp_path / "coat" / "a.png"


def test_parts_are_metadata_and_keep_their_place_in_the_id(tmp_path: Path) -> None:
    write(tmp_path, "train/coat/a.png", "Valid/coat/b.png", "test/1.png")
    assert [(entry.id, entry.label, entry.metadata["split"]) for entry in entries(tmp_path)] == [
        ("Valid:coat:b.png", "coat", "validation"),
        ("test:1.png", None, "test"),
        ("train:coat:a.png", "coat", "train"),
    ]


def test_a_table_gives_labels_and_its_other_columns_as_metadata(tmp_path: Path) -> None:
    write(tmp_path, "coat/a.png", "b.png")
    table = tmp_path / "images.csv"
    table.write_text("file;class;set;price;colour\ncoat\\a.png;coat;val;49,5;\nb.png;;train;7;red")
    assert [(entry.id, entry.label, entry.metadata) for entry in entries(table)] == [
        ("coat:a.png", "coat", {"path": "coat/a.png", "split": "validation", "price": 49.5}),
        ("b.png", None, {"path": "b.png", "split": "train", "price": 7, "colour": "red"}),
    ]


def test_a_table_and_the_folder_it_describes_give_the_same_ids(tmp_path: Path) -> None:
    write(tmp_path, "coat/a.png", "hat/été b.png")
    by_folder = [entry.id for entry in entries(tmp_path)]
    table = tmp_path / "images.csv"
    table.write_text(f"path\n./coat/a.png\n{tmp_path}/hat/été b.png\n")
    assert [entry.id for entry in entries(table)] == by_folder


def test_metadata_that_an_item_cannot_hold_is_left_out_and_said(tmp_path: Path) -> None:
    file = ListedFile(
        place=str(tmp_path / "a.png"),
        key="a.png",
        part=Part.TEST,
        metadata={"small": 1, "huge": "x" * MAX_METADATA_BYTES, "large": "y" * 9000},
    )
    listing = Listing(source=tmp_path, files=(file,))
    (entry,) = image_entries(listing)
    assert set(entry.metadata) == {"path", "split", "small", "large"}
    encode_metadata(entry.metadata)
    ((reason, examples),) = [(one.reason, one.examples) for one in listing.findings]
    assert reason.startswith("more metadata than an item holds")
    assert examples == ("a.png: huge",)


def test_paths_that_are_no_ids_get_a_hash_and_stay_apart() -> None:
    paths = ["a/b.png", "a:b.png", "a b.png", "a_b.png", "a?b.png", "é.png", "x" * 200, "x" * 201]
    paths += ["../a/b.png", "/a/b.png"]

    ids = [id_of_path(path) for path in paths]

    assert len(set(ids)) == len(paths)
    assert ids == [id_of_path(path) for path in paths]
    for item_id in ids:
        check_id(item_id)


def test_what_cannot_be_read_becomes_a_problem_and_not_an_end(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", "c.png")
    listed = image_entries(list_source(tmp_path))
    (tmp_path / "a.png").unlink()
    (tmp_path / "c.png").unlink()
    os.mkfifo(tmp_path / "c.png")
    limits = ImageLimits(max_bytes=MAX_BYTES)

    (_, a), (b, fine), (_, pipe) = (read_content(entry.data, limits=limits) for entry in listed)

    assert a == "the file cannot be read: No such file or directory"
    assert (b, fine) == ((tmp_path / "b.png").read_bytes(), None)
    assert pipe == "the file cannot be read: not a regular file"


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bytes(5 * MAX_BYTES))
    (entry,) = entries(tmp_path)
    assert read_content(entry.data, limits=ImageLimits(max_bytes=MAX_BYTES)) == (
        b"",
        f"the image has {5 * MAX_BYTES} bytes; at most {MAX_BYTES} are allowed",
    )


@pytest.mark.parametrize("name", [b"cl\xffass", b"cl\x07ass"])
def test_names_that_are_not_plain_text_are_shown_with_a_mark(tmp_path: Path, name: bytes) -> None:
    folder = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(folder)
    with open(folder + b"/\n.png", "wb"):
        pass

    listing = list_source(tmp_path)
    (entry,) = image_entries(listing)

    assert entry.label == "cl\ufffdass"
    assert entry.metadata == {"path": "cl\ufffdass/\ufffd.png"}
    check_id(entry.id)
    assert [one.examples for one in listing.findings] == [("cl\ufffdass",)]
