"""Tables of images, read as CSV and as Parquet."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.support.images.pngs import picture
from training.data.dataset import load_dataset
from training.errors import DataError
from vision.image.preprocessing import Preprocessing

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


def test_of_many_images_a_tenth_is_the_test_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: Rows = []
    for number in range(1000):
        pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append({"path": f"{number}.png", "label": "ab"[number % 2]})
    many = load_dataset(str(write_csv(tmp_path, rows)), SMALL)
    assert 70 <= len(many.test) <= 130
    less = load_dataset(str(write_csv(tmp_path, rows[:-1])), SMALL)
    assert 150 <= len(less.test) <= 250
    assert not {*many.test.contents_N} & {*less.train.contents_N}, "it was kept apart before, too"


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
    assert [path.name for path, _ in dataset.unreadable] == ["notes.txt", "folder"]
    gone, *unreadable = dataset.findings
    assert (gone.count, gone.examples[0]) == (2, "gone.png")
    assert sum(one.count for one in unreadable) == 2
    assert all(one.reason.startswith("left out, because it cannot be read") for one in unreadable)
    assert len(dataset.train) == 6


def test_rows_without_a_label_are_left_out_and_said(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, splits={"train": 3, "test": 1})
    picture(99, (16, 14)).save(tmp_path / "loose.png")
    table = write_csv(tmp_path, [*rows, {"path": "loose.png", "label": " ", "split": "train"}])
    dataset = load_dataset(str(table), SMALL)
    assert len(dataset.train) + len(dataset.test) == len(rows)
    assert {one.reason: one.examples for one in dataset.findings} == {
        "an image without a class: left out": ("loose.png",)
    }


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (None, r"images.csv says no label; a column 'label' with the class of each image is"),
        ("bag", r"images.csv holds one class, 'bag'; at least 2 are needed"),
        ("b\x07g", r"images.csv has classes with unprintable names, 'b\\x07g'; rename them"),
    ],
)
def test_a_table_without_two_classes_is_refused(
    tmp_path: Path, label: str | None, sentence: str
) -> None:
    picture(0, (16, 14)).save(tmp_path / "a.png")
    row = {"path": "a.png"} | ({} if label is None else {"label": label})
    with pytest.raises(DataError, match=sentence):
        load_dataset(str(write_csv(tmp_path, [row])), SMALL)
