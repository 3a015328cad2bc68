"""Tables of images, read as CSV and as Parquet."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from dataset.listing import Part
from tests.pictures import picture
from training.data import load_dataset
from training.errors import DataError
from training.table import list_table
from vision.preprocess import Preprocessing

SMALL = Preprocessing(size=12, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)

Rows = list[dict[str, Any]]
Writer = Callable[[Path, Rows], Path]


def write_csv(folder: Path, rows: Rows) -> Path:
    path = folder / "images.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(folder: Path, rows: Rows) -> Path:
    path = folder / "images.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


both_formats = pytest.mark.parametrize("write", [write_csv, write_parquet])


def image_rows(folder: Path, *, splits: dict[str, int]) -> Rows:
    """Draw so many images of two classes for every split and return their rows."""
    rows: Rows = []
    for split, each in splits.items():
        for label in ("bag", "coat"):
            for _ in range(each):
                name = f"{len(rows)}.png"
                picture(len(rows), (16, 14)).save(folder / name)
                rows.append({"path": name, "label": label, "split": split})
    return rows


def without(rows: Rows, column: str) -> Rows:
    return [{name: cell for name, cell in row.items() if name != column} for row in rows]


# What is read


@both_formats
def test_a_table_gives_the_images_that_it_names_with_their_labels_and_parts(
    tmp_path: Path, write: Writer
) -> None:
    rows = image_rows(tmp_path, splits={"train": 3, "val": 2, "test": 1})
    table = write(tmp_path, [{**row, "price": 7} for row in rows])
    dataset = load_dataset(str(table), SMALL)
    assert dataset.name == table.name
    assert dataset.label_names == ("bag", "coat")
    assert dataset.validation is not None
    parts = {"train": dataset.train, "val": dataset.validation, "test": dataset.test}
    for split, part in parts.items():
        of_split = [row for row in rows if row["split"] == split]
        assert [part.label_names[label] for label in part.labels_N] == [
            row["label"] for row in of_split
        ]
        files = [(tmp_path / row["path"]).read_bytes() for row in of_split]
        np.testing.assert_array_equal(
            part.images_NCHW, [SMALL.pixels(SMALL.decode(data)) for data in files]
        )


@both_formats
def test_without_a_split_column_a_fifth_is_the_test_part(tmp_path: Path, write: Writer) -> None:
    rows = image_rows(tmp_path, splits={"train": 10})
    table = write(tmp_path, without(rows, "split"))
    dataset = load_dataset(str(table), SMALL)
    assert np.bincount(dataset.train.labels_N).tolist() == [9, 8]  # drawn, file by file
    assert np.bincount(dataset.test.labels_N).tolist() == [1, 2]
    only_train = load_dataset(str(write(tmp_path, rows)), SMALL)
    assert only_train.to_json() == dataset.to_json()


def test_without_a_test_row_the_validation_rows_are_the_test_part(tmp_path: Path) -> None:
    table = write_csv(tmp_path, image_rows(tmp_path, splits={"train": 3, "validation": 2}))
    dataset = load_dataset(str(table), SMALL)
    assert (len(dataset.train), dataset.validation, len(dataset.test)) == (6, None, 4)


def test_both_formats_give_the_same(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, splits={"train": 3, "test": 2})
    first, second = (
        load_dataset(str(write(tmp_path, rows)), SMALL) for write in (write_csv, write_parquet)
    )
    assert {**first.to_json(), "name": ""} == {**second.to_json(), "name": ""}


def test_a_table_and_a_folder_of_the_same_images_give_the_same(tmp_path: Path) -> None:
    rows: Rows = []
    for label in ("bag", "coat"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(6):
            picture(len(rows), (16, 14)).save(tmp_path / "data" / label / f"{number}.png")
            rows.append({"path": f"data/{label}/{number}.png", "label": label})
    table = load_dataset(str(write_csv(tmp_path, rows)), SMALL)
    folder = load_dataset(str(tmp_path / "data"), SMALL)
    assert {**table.to_json(), "name": ""} == {**folder.to_json(), "name": ""}


def test_classes_can_be_held_out_of_a_table(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, splits={"train": 4, "test": 2})
    rows += [{**row, "label": "hat"} for row in rows[:2]]  # known to the network: left out
    for number, split in enumerate(("train", "train", "test")):
        picture(99 - number, (16, 14)).save(tmp_path / f"hat-{number}.png")
        rows.append({"path": f"hat-{number}.png", "label": "hat", "split": split})
    dataset = load_dataset(str(write_csv(tmp_path, rows)), SMALL, hold_out=["hat"])
    assert dataset.held_out is not None
    assert (len(dataset.held_out.train), len(dataset.held_out.test)) == (2, 1)
    assert dataset.label_names == ("bag", "coat")


def test_files_that_are_missing_or_unreadable_are_left_out_and_named(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, splits={"train": 3, "test": 1})
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "folder").mkdir()
    lost = ["gone.png", "notes.txt", "folder", "x" * 300 + ".png"]
    rows += [{"path": name, "label": "bag", "split": "train"} for name in lost]
    dataset = load_dataset(str(write_csv(tmp_path, rows)), SMALL)
    assert [path.name for path, _ in dataset.unreadable] == lost
    assert len(dataset.train) == 6


def test_paths_start_at_the_table_unless_they_are_absolute(tmp_path: Path) -> None:
    rows = [{"path": "a/b.png", "label": "bag"}, {"path": "/c/d.png", "label": "coat"}]
    listing = list_table(write_csv(tmp_path, rows))
    assert listing.paths == (tmp_path / "a" / "b.png", Path("/c/d.png"))
    assert listing.parts == (Part.TRAIN, Part.TRAIN)


def test_csv_may_have_a_byte_order_mark_quotes_empty_lines_and_columns_in_any_order(
    tmp_path: Path,
) -> None:
    table = tmp_path / "Images.CSV"
    table.write_bytes(
        '\ufefflabel,note,path\r\n\r\nbag,"one, two\nlines",a.png\r\nÄpfel,,b.png\r\n\r\n'.encode()
    )
    listing = list_table(table)
    assert listing.label_names == ("bag", "Äpfel")
    assert [path.name for path in listing.paths] == ["a.png", "b.png"]


def test_whole_numbers_in_parquet_are_labels_as_text(tmp_path: Path) -> None:
    rows = [{"path": "a.png", "label": 10}, {"path": "b.png", "label": 9}]
    assert list_table(write_parquet(tmp_path, rows)).label_names == ("10", "9")


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=2, unique=True
    )
)
def test_any_printable_labels_come_back_from_both_formats(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    rows = [{"path": f"{number}.png", "label": label} for number, label in enumerate(labels)]
    for write in (write_csv, write_parquet):
        listing = list_table(write(folder, rows))
        assert [listing.label_names[label] for label in listing.labels] == labels
        assert listing.label_names == tuple(sorted(labels))


# What is refused


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", r"images.csv is empty; a first line with path and label was expected"),
        (b"path,label\n", r"images.csv has no rows; one per image was expected"),
        (b"path,class\na,b\n", r"no column 'label'; its columns are 'path', 'class'"),
        (b"file,label\na,b\n", r"no column 'path'; its columns are 'file', 'label'"),
        (b"path,label,path\na,b,c\n", r"images.csv has the column 'path' 2 times"),
        (b"path,label\na,b\nc\n", r"line 3 of .*images.csv has 1 cells; 2 were expected"),
        (b"path,label\na,b\nc,d,e\n", r"line 3 of .*images.csv has 3 cells; 2 were expected"),
        (b"path,label\na,\n", r"line 2 of .*images.csv has no label"),
        (b"path,label\na,  \n", r"line 2 of .*images.csv has no label"),
        (b"path,label\n,bag\n", r"line 2 of .*images.csv has no path"),
        (b"path,label\na\0,bag\n", r"line 2 of .* has the path 'a\\x00'; a file's path was"),
        (b"path,label\na,b\x07\n", r"line 2 of .* has an unprintable label, 'b\\x07'"),
        (b'path,label\na,"b\nc"\n', r"line 3 of .* has an unprintable label, 'b\\nc'"),
        (b"path,label\na,b\nc,\xe4\n", r"line 3 of .*images.csv is not UTF-8; save the table"),
        ("path,label\na,b\n".encode("utf-16"), r"line 1 of .*images.csv is not UTF-8"),
        (b'path,label\na,"b\n', r"line 2 of .*images.csv is not CSV: unexpected end of data"),
        (b"path,label\na,b\n", r"images.csv holds one class, 'b'; at least 2 are needed"),
        (b"path,label,split\na,b,dev\n", r"line 2 of .* has the split 'dev'; one of train, valid"),
        (b"path,label,split\na,b,\n", r"line 2 of .* has the split ''; one of train, valid"),
        (b"path,label,split\na,b,test\n", r"has no row of split 'train'; there is nothing to"),
        (
            b"path,label,split\na,b,train\nc,d,train\ne,hat,test\n",
            r"line 4 of .*images.csv is of an unknown class, 'hat': no training row has it",
        ),
    ],
)
def test_a_csv_file_that_says_too_little_is_refused_with_its_line(
    tmp_path: Path, text: bytes, sentence: str
) -> None:
    table = tmp_path / "images.csv"
    table.write_bytes(text)
    with pytest.raises(DataError, match=sentence):
        load_dataset(str(table), SMALL)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"path": ["a"]}, r"no column 'label'; its columns are 'path'"),
        ({"path": [], "label": []}, r"images.parquet has no rows; one per image was expected"),
        ({"path": ["a", "b"], "label": ["x", None]}, r"row 2 of .*images.parquet has no label"),
        ({"path": ["a", None], "label": ["x", "y"]}, r"row 2 of .*images.parquet has no path"),
        ({"path": [1], "label": ["x"]}, r"row 1 of .* has the path 1; a file's path was expected"),
        ({"path": ["a"], "label": [1.5]}, r"row 1 of .* has the label 1.5; text or a whole number"),
        ({"path": ["a"], "label": [True]}, r"row 1 of .* has the label True; text or a whole"),
        ({"path": ["a"], "label": [["x"]]}, r"row 1 of .* has the label \['x'\]; text or a whole"),
        ({"path": ["a"], "label": ["x"], "split": [None]}, r"row 1 of .* has the split None; one"),
        ({"path": ["a"], "label": ["x"], "split": [["test"]]}, r"the split \['test'\]; one of"),
    ],
)
def test_a_parquet_file_that_says_too_little_is_refused_with_its_row(
    tmp_path: Path, columns: dict[str, list[Any]], sentence: str
) -> None:
    table = tmp_path / "images.parquet"
    parquet.write_table(pa.table(columns), table)
    with pytest.raises(DataError, match=sentence):
        load_dataset(str(table), SMALL)


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "images.parquet"
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])]
    parquet.write_table(pa.Table.from_arrays(columns, names=["path", "label", "label"]), table)
    with pytest.raises(DataError, match=r"images.parquet has the column 'label' 2 times"):
        load_dataset(str(table), SMALL)


def test_a_parquet_file_whose_text_is_not_utf8_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "images.parquet"
    wrong = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    parquet.write_table(pa.table({"path": ["a"], "label": wrong}), table)
    with pytest.raises(DataError, match=r"images.parquet is not Parquet, or damaged: .*utf-?8"):
        load_dataset(str(table), SMALL)


@pytest.mark.parametrize("keep", [0, 3, 0.5])
def test_what_is_not_parquet_is_refused(tmp_path: Path, keep: float) -> None:
    table = write_parquet(tmp_path, [{"path": "a", "label": "x"}])
    data = table.read_bytes()
    table.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(DataError, match=r"images.parquet is not Parquet, or damaged: \w"):
        load_dataset(str(table), SMALL)


@pytest.mark.parametrize("name", ["images.csv", "images.parquet"])
def test_a_table_that_is_not_there_is_told_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"cannot read .*{name}: No such file or directory"):
        load_dataset(str(tmp_path / name), SMALL)


def test_a_folder_may_be_called_like_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "images.csv"
    folder.mkdir()
    with pytest.raises(DataError, match=r"images.csv holds no class folders"):
        load_dataset(str(folder), SMALL)


def test_without_pyarrow_a_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_parquet(tmp_path, [{"path": "a", "label": "x"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"^reading Parquet needs pyarrow: pip install 'lookalike\[parquet\]'$"
    ):
        load_dataset(str(table), SMALL)
