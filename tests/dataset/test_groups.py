"""Photos of one thing: by a column, by folders, by names; and what is said of it."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from dataset.errors import DatasetError
from dataset.listing import Listing
from dataset.source import list_source
from index.items.source_entries import image_entries
from tests.support.listings import found, write


def groups(listing: Listing) -> dict[str, str | None]:
    return {file.key: file.group for file in listing.files}


def test_without_a_word_folders_hold_no_groups(tmp_path: Path) -> None:
    listing = list_source(write(tmp_path, "hat/1/a.png", "hat/1/b.png", "coat/c.png"))
    assert set(groups(listing).values()) == {None}
    assert found(listing) == {}


def test_the_innermost_folder_below_a_class_is_a_thing(tmp_path: Path) -> None:
    write(tmp_path, "hat/1/a.png", "hat/1/b.png", "hat/red/2/c.png", "coat/1/d.png", "coat/e.png")
    listing = list_source(tmp_path, group="folder")
    assert groups(listing) == {
        "coat/1/d.png": "coat/1",
        "coat/e.png": None,
        "hat/1/a.png": "hat/1",
        "hat/1/b.png": "hat/1",
        "hat/red/2/c.png": "hat/red/2",
    }
    assert listing.labels == ("coat", "hat")
    assert found(listing) == {
        "a group by --group folder: its photos stay in one part": (1, ("hat/1: 2 photos",)),
        "an image of no group: stands for itself": (1, ("coat/e.png",)),
    }


def test_a_thing_in_two_parts_is_one_thing(tmp_path: Path) -> None:
    listing = list_source(write(tmp_path, "train/hat/1/a.png", "test/hat/1/b.png"), group="folder")
    assert set(groups(listing).values()) == {"hat/1"}


def test_folders_that_hold_one_thing_each_are_no_classes(tmp_path: Path) -> None:
    listing = list_source(write(tmp_path, "1/a.png", "1/b.png", "2/c.png"), group="folder")
    assert groups(listing) == {"1/a.png": "1", "1/b.png": "1", "2/c.png": "2"}
    assert listing.labels == ()
    parts = list_source(write(tmp_path / "p", "train/1/a.png", "test/2/b.png"), group="folder")
    assert set(groups(parts).values()) == {"1", "2"}
    assert parts.labels == ()


def test_a_pattern_takes_what_names_of_one_folder_have_in_common(tmp_path: Path) -> None:
    write(tmp_path, "hat/A1_1.png", "hat/A1_2.png", "coat/A1_1.png", "coat/other.png")
    listing = list_source(tmp_path, group=r"(.*)_\d+")
    assert groups(listing) == {
        "coat/A1_1.png": "coat/A1",
        "coat/other.png": None,
        "hat/A1_1.png": "hat/A1",
        "hat/A1_2.png": "hat/A1",
    }
    assert found(listing) == {
        r"a group by --group (.*)_\d+: its photos stay in one part": (1, ("hat/A1: 2 photos",)),
        "an image of no group: stands for itself": (1, ("coat/other.png",)),
    }


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        ("product", "'product' is neither 'folder' nor a pattern with parentheses"),
        ("(", "is not a regular expression: missing"),
        ("(?:x)y", "marks nothing: put parentheses around"),
        ("(z+)", "does not fit .*: no name of a file in it, without its ending, fits; one is 'a'"),
        ("folder", "does not fit .*: no image in it lies in a folder of its own thing"),
    ],
)
def test_what_groups_nothing_is_refused(tmp_path: Path, group: str, sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        list_source(write(tmp_path, "a.png", "b.png"), group=group)


def test_groups_of_one_photo_each_are_said_to_change_nothing(tmp_path: Path) -> None:
    listing = list_source(write(tmp_path, "hat/a_1.png", "hat/b_1.png"), group="(.*)_1")
    assert found(listing) == {
        "groups by --group (.*)_1 of a single photo each: the same as none": (1, ("hat/a",))
    }


def table(folder: Path, text: str) -> Path:
    write(folder, "a.png", "b.png", "x/c.png")
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


@pytest.mark.parametrize("column", ["group", "Group", "group_id"])
def test_a_tables_column_of_groups_is_known_by_its_name(tmp_path: Path, column: str) -> None:
    listing = list_source(table(tmp_path, f"path,{column}\na.png,7\nb.png,7\nx/c.png,\n"))
    assert groups(listing) == {"a.png": "7", "b.png": "7", "x/c.png": None}
    assert found(listing) == {
        f"a group by the column {column!r}: its photos stay in one part": (1, ("7: 2 photos",)),
        "an image of no group: stands for itself": (1, ("x/c.png",)),
    }
    assert [file.metadata for file in listing.files] == [{}, {}, {}]


def test_another_column_of_groups_is_named_and_stays_metadata(tmp_path: Path) -> None:
    path = table(tmp_path, "path,Product No\na.png,7\nb.png,7\nx/c.png,8\n")
    listing = list_source(path, group="product no")
    assert groups(listing) == {"a.png": "7", "b.png": "7", "x/c.png": "8"}
    assert [dict(file.metadata) for file in listing.files] == [{"Product No": n} for n in (7, 7, 8)]
    with pytest.raises(DatasetError, match=r"no column 'sku' for --group; its columns are 'path'"):
        list_source(path, group="sku")


def test_paths_of_a_table_may_say_the_group(tmp_path: Path) -> None:
    path = table(tmp_path, "path\na.png\nb.png\nx/c.png\n")
    assert groups(list_source(path, group="folder")) == {
        "a.png": None,
        "b.png": None,
        "x/c.png": "x",
    }
    assert groups(list_source(path, group="([abc])"))["x/c.png"] == "x/c"


def test_a_group_that_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    parquet.write_table(pa.table({"path": ["a.png"], "group": [True]}), tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=r"row 1 of .* has the group True; text or a whole"):
        list_source(tmp_path / "t.parquet")


def test_items_of_a_gallery_have_their_group_as_metadata(tmp_path: Path) -> None:
    listing = list_source(write(tmp_path, "hat/1/a.png", "hat/b.png"), group="folder")
    assert [entry.metadata for entry in image_entries(listing)] == [
        {"path": "hat/1/a.png", "group": "hat/1"},
        {"path": "hat/b.png"},
    ]
