"""Tables of pictures: every usual dialect of CSV, and Parquet, and what is said of the rest."""

import datetime
import decimal
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from dataset.errors import DatasetError
from dataset.listing import Listing, Part
from dataset.tables.table import is_table, list_table
from tests.support.images.pngs import png

PICTURE = png(0, (8, 8))


def files(folder: Path, *names: str) -> Path:
    """Write pictures and return the path of a table beside them."""
    for name in names or ("a.png", "b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PICTURE)
    return folder / "images.csv"


def listed(table: Path, text: str | bytes) -> Listing:
    table.write_bytes(text.encode() if isinstance(text, str) else text)
    return list_table(table)


def listed_parquet(folder: Path, columns: dict[str, Any]) -> Listing:
    table = files(folder).with_suffix(".parquet")
    parquet.write_table(pa.table(columns), table)
    return list_table(table)


def claims(listing: Listing) -> list[tuple[str, str | None, Part | None]]:
    return [(file.key, file.label, file.part) for file in listing.files]


def reasons(listing: Listing) -> dict[str, int]:
    return {one.reason: one.count for one in listing.findings}


TWO = [("a.png", "hat", Part.TRAIN), ("b.png", "coat", Part.TEST)]


# Dialects


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "header",
    [
        ("path", "label", "split"),
        ("Path", "Label", "Split"),
        ("FILE", "CLASS", "SET"),
        ("filename", "category", "subset"),
        ("Image Path", "class_name", "part"),
        (" image ", " target ", " partition "),
    ],
)
def test_separators_and_names_of_columns_are_told_from_the_header(
    tmp_path: Path, separator: str, header: tuple[str, ...]
) -> None:
    rows = (header, ("a.png", "hat", "Train"), ("b.png", "coat", "testing"))
    text = "\n".join(separator.join(row) for row in rows)
    listing = listed(files(tmp_path), text)
    assert claims(listing) == TWO
    assert reasons(listing) == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_the_file_states_need_no_word(tmp_path: Path, encoding: str) -> None:
    listing = listed(files(tmp_path), "path,label\na.png,Mütze\n".encode(encoding))
    assert (claims(listing), reasons(listing)) == ([("a.png", "Mütze", None)], {})


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be"])
def test_encodings_that_are_guessed_are_said(tmp_path: Path, encoding: str) -> None:
    listing = listed(files(tmp_path), "path,label\na.png,Mütze\n".encode(encoding))
    assert claims(listing) == [("a.png", "Mütze", None)]
    ((reason, count),) = reasons(listing).items()
    assert (reason.startswith("a table that is not UTF-8: read as"), count) == (True, 1)


def test_quotes_blank_lines_empty_columns_and_short_rows_are_taken(tmp_path: Path) -> None:
    text = (
        "\ufefflabel,note,path,,\r\n\r\n"
        'hat,"one, two\nlines",a.png,,\r\n ,,,,\r\n"co""at",,b.png\r\n\r\n'
    )
    listing = listed(files(tmp_path), text)
    assert claims(listing) == [("a.png", "hat", None), ("b.png", 'co"at', None)]
    assert [dict(file.metadata) for file in listing.files] == [{"note": "one, two\nlines"}, {}]


def test_a_line_that_states_the_separator_is_none_of_the_table(tmp_path: Path) -> None:
    listing = listed(files(tmp_path), "sep=;\r\npath;label\r\na.png;hat, or cap\r\n")
    assert claims(listing) == [("a.png", "hat, or cap", None)]


def test_paths_with_backslashes_spaces_or_dots_lead_to_the_same_file(tmp_path: Path) -> None:
    table = files(tmp_path, "hat/a.png", "hat/b.png", "hat/c.png", "x\\y.png")
    text = f"path\nhat\\a.png\n.\\hat\\..\\hat\\b.png\n {tmp_path}/hat/c.png \nx\\y.png\n"
    assert [file.key for file in listed(table, text).files] == [
        "hat/a.png",
        "hat/b.png",
        "hat/c.png",
        "x\\y.png",
    ]


def test_keys_are_the_same_however_the_table_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tables"
    table = files(folder, "hat/a.png")
    files(tmp_path, "b.png")
    table.write_text(f"path\nhat/a.png\n../b.png\n{folder}/hat/../hat/a.png\n{tmp_path}/b.png\n")
    monkeypatch.chdir(folder)
    for named in (table, Path("images.csv"), Path("../tables/images.csv"), Path("./images.csv")):
        listing = list_table(named)
        assert [file.key for file in listing.files] == ["hat/a.png", "../b.png"]
        assert reasons(listing) == {"a file that a table names twice: taken once": 2}


def test_tables_are_told_by_their_names(tmp_path: Path) -> None:
    names = ("a.csv", "A.CSV", "a.tsv", "a.parquet", "a.txt", "a")
    assert [is_table(tmp_path / name) for name in names] == [True] * 4 + [False] * 2
    (tmp_path / "a.csv").mkdir()
    assert not is_table(tmp_path / "a.csv")


# Labels and parts


def test_labels_are_stripped_and_composed_and_that_is_said(tmp_path: Path) -> None:
    table = files(tmp_path, "a.png", "b.png", "c.png", "d.png")
    text = "path,label\na.png,hat\nb.png,hat \nc.png,cafe\u0301\nd.png,caf\u00e9\n"
    listing = listed(table, text)
    assert listing.labels == ("café", "hat")
    assert list(reasons(listing).values()) == [2]


def test_labels_that_look_like_nothing_are_labels(tmp_path: Path) -> None:
    table = files(tmp_path, "a.png", "b.png", "c.png", "d.png")
    listing = listed(table, "path,label\na.png,0\nb.png,false\nc.png,[]\nd.png,None\n")
    assert [file.label for file in listing.files] == ["0", "false", "[]", "None"]


def test_whole_numbers_in_parquet_are_labels_as_text(tmp_path: Path) -> None:
    paths = ["a.png", "b.png"]
    assert listed_parquet(tmp_path, {"path": paths, "label": [0, 9]}).labels == ("0", "9")
    assert listed_parquet(tmp_path, {"path": paths, "label": [0.0, math.nan]}).labels == ("0",)


def test_empty_cells_are_no_label_and_the_training_part(tmp_path: Path) -> None:
    listing = listed(files(tmp_path), "path,label,split\na.png,,\nb.png,hat,val\n,hat,train\n")
    assert claims(listing) == [("a.png", None, Part.TRAIN), ("b.png", "hat", Part.VALIDATION)]
    assert reasons(listing) == {
        "a row without a split: used for training": 1,
        "a row without a path: left out": 1,
    }


def test_a_split_column_that_says_nothing_is_none(tmp_path: Path) -> None:
    listing = listed(files(tmp_path), "path,label,split\na.png,hat,\nb.png,coat,  \n")
    assert (listing.parts, reasons(listing)) == (frozenset(), {})


def test_a_column_called_set_or_part_is_a_split_only_where_it_names_parts(tmp_path: Path) -> None:
    listing = listed(files(tmp_path), "path,label,set,part\na.png,hat,4711,x\nb.png,coat,4712,y\n")
    assert listing.parts == frozenset()
    assert [dict(file.metadata) for file in listing.files] == [
        {"set": 4711, "part": "x"},
        {"set": 4712, "part": "y"},
    ]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1, unique=True
    )
)
def test_any_labels_come_back_from_both_formats(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    import csv  # noqa: PLC0415
    import unicodedata  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("labels")
    names = [f"{number}.png" for number in range(len(labels))]
    table = files(folder, *names)
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *zip(names, labels, strict=True)])
    parquet.write_table(pa.table({"path": names, "label": labels}), table.with_suffix(".parquet"))
    for path in (table, table.with_suffix(".parquet")):
        assert [file.label for file in list_table(path).files] == [
            unicodedata.normalize("NFC", label) for label in labels
        ]


# Other columns


def test_other_columns_are_metadata_with_numbers_as_numbers(tmp_path: Path) -> None:
    text = (
        "path,price,sku,stock,note,,ratio,big\n"
        "a.png,49.5,0012,3,new,,1e-05,123456789012345678901\n"
        "b.png,-7,13,,,,2.5,2\n"
    )
    listing = listed(files(tmp_path), text)
    assert [dict(file.metadata) for file in listing.files] == [
        {
            "price": 49.5,
            "sku": "0012",
            "stock": 3,
            "note": "new",
            "ratio": 1e-05,
            "big": 123456789012345678901.0,
        },
        {"price": -7, "sku": "13", "ratio": 2.5, "big": 2},
    ]
    assert [type(file.metadata["price"]) for file in listing.files] == [float, int]


def test_a_comma_is_a_point_where_a_semicolon_parts_the_cells(tmp_path: Path) -> None:
    listing = listed(files(tmp_path), "path;price\na.png;49,5\nb.png;7\n")
    assert [file.metadata["price"] for file in listing.files] == [49.5, 7]
    assert len(listing.findings) == 1


def test_columns_without_a_name_of_their_own_are_left_out_and_said(tmp_path: Path) -> None:
    listing = listed(files(tmp_path), ",path,x,x\n0,a.png,1,2\n")
    assert dict(listing.files[0].metadata) == {"x": 1}
    assert reasons(listing) == {
        "a column without a name: left out": 1,
        "a column that has another's name: left out": 1,
    }


def test_values_of_parquet_keep_their_types_where_json_has_them(tmp_path: Path) -> None:
    listing = listed_parquet(
        tmp_path,
        {
            "path": ["a.png"],
            "flag": [True],
            "price": [decimal.Decimal("49.50")],
            "day": [datetime.date(2026, 1, 2)],
            "tags": [["a", None, "b"]],
            "size": [{"w": 1, "h": None}],
            "gone": [math.nan],
            "blob": [b"\x00"],
            "huge": pa.array([2**64 - 1], pa.uint64()),
        },
    )
    assert dict(listing.files[0].metadata) == {
        "flag": True,
        "price": 49.5,
        "day": "2026-01-02",
        "tags": ["a", "b"],
        "size": {"w": 1},
    }
    assert sum(reasons(listing).values()) == 2


# Files


def test_a_file_that_comes_twice_is_taken_once(tmp_path: Path) -> None:
    table = files(tmp_path, "a.png", "b.png")
    (tmp_path / "link.png").symlink_to("b.png")
    rows = ("a.png,hat,train", "./a.png,hat,test", "b.png,hat,train", "link.png,coat,train")
    text = "\n".join(("path,label,split", *rows))
    listing = listed(table, text)
    assert claims(listing) == [("a.png", "hat", Part.TEST), ("b.png", "hat", Part.TRAIN)]
    assert reasons(listing) == {
        "a file that a table names twice: taken once": 1,
        "a file in two parts: kept in the one that is evaluated on": 1,
        "a file with two labels: the first one counts": 1,
    }


def test_a_few_missing_files_are_a_finding_and_many_stop(tmp_path: Path) -> None:
    table = files(tmp_path, *(f"{number}.png" for number in range(6)))
    rows = "".join(f"{number}.png,hat\n" for number in range(8))
    listing = listed(table, "path,label\n" + rows)
    assert len(listing.files) == 6
    assert reasons(listing) == {"a file that a table names is not there": 2}
    many = "".join(f"{number}.png,hat\n" for number in range(506))
    with pytest.raises(DatasetError, match=r"500 of the 506 files .* not there, such as '6.png'"):
        listed(table, "path,label\n" + many)


# What is refused


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", r"images.csv is empty; a first line with the names of columns was expected"),
        (b" \n\n", r"images.csv is empty"),
        (b"path,label\n", r"images.csv has no rows; one per image was expected"),
        (b"a.png,hat\nb.png,coat\n", r"no column 'path'; its columns are 'a.png', 'hat' \(its fir"),
        (b"path,label,path\na,b,c\n", r"images.csv has the column 'path' 2 times"),
        (
            b"file,image\na,b\n",
            r"columns 'file' and 'image', each of which may be the path: re",
        ),
        (
            b"path,class,category\na,b,c\n",
            r"'class' and 'category', each of which may be the lab",
        ),
        (b"path,set,part\na,train,test\n", r"'set' and 'part', each of which may be the split"),
        (
            b"path,label\na,b\nc,d,e\nf,g,h,i\n",
            r"has 2 columns, but line 3 has 3, line 4 has 4 cells; put quotes around .*','",
        ),
        (b"path,label\na\0,bag\n", r"line 2 of .* has the path 'a\\x00'; a file's path was"),
        (b"path,label\na,b\nc,\x81\n", r"images.csv is not text in UTF-8, UTF-16 or Windows-1252"),
        (
            b'path,label\na,"b\n',
            r"line 2 of .*images.csv is not a CSV file: unexpected end of data",
        ),
        (
            b"path,split\na,fold1\nb,fold2\nc,train\n",
            r"line 2 of .* has the split 'fold1'; line 3 .* 'fold2'; one of train, validation, te",
        ),
    ],
)
def test_a_csv_file_that_says_too_little_is_refused_with_its_line(
    tmp_path: Path, text: bytes, sentence: str
) -> None:
    with pytest.raises(DatasetError, match=sentence):
        listed(files(tmp_path), text)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"label": ["a"]}, r"no column 'path'; its columns are 'label'"),
        ({"path": [], "label": []}, r"images.parquet has no rows; one per image was expected"),
        ({"path": [1], "label": ["x"]}, r"row 1 of .* has the path 1; a file's path was expected"),
        ({"path": ["a"], "label": [1.5]}, r"row 1 of .* has the label 1.5; text or a whole number"),
        ({"path": ["a"], "label": [False]}, r"row 1 of .* has the label False; text or a whole"),
        ({"path": ["a"], "label": [[]]}, r"row 1 of .* has the label \[\]; text or a whole"),
        (
            {"path": ["a"] * 5, "label": [True] * 5},
            r"row 1 .*; row 2 .*; row 3 .*, and 2 more like these; text or a whole number",
        ),
        ({"path": ["a"], "split": [["test"]]}, r"the split \['test'\]; one of"),
        ({"path": ["a"], "split": [1]}, r"row 1 of .* has the split 1; one of"),
    ],
)
def test_a_parquet_file_that_says_too_little_is_refused_with_its_row(
    tmp_path: Path, columns: dict[str, list[Any]], sentence: str
) -> None:
    with pytest.raises(DatasetError, match=sentence):
        listed_parquet(tmp_path, columns)


def test_a_parquet_file_whose_text_is_not_utf8_is_refused(tmp_path: Path) -> None:
    wrong = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    with pytest.raises(
        DatasetError, match=r"images.parquet is not a Parquet file, or is damaged: .*utf-?8"
    ):
        listed_parquet(tmp_path, {"path": ["a"], "label": wrong})


@pytest.mark.parametrize("keep", [0, 3, 0.5])
def test_what_is_not_parquet_is_refused(tmp_path: Path, keep: float) -> None:
    table = tmp_path / "images.parquet"
    parquet.write_table(pa.table({"path": ["a"]}), table)
    data = table.read_bytes()
    table.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(
        DatasetError, match=r"images.parquet is not a Parquet file, or is damaged: \w"
    ):
        list_table(table)


@pytest.mark.parametrize("name", ["images.csv", "images.tsv", "images.parquet"])
def test_a_table_that_is_not_there_is_told_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=rf"cannot read .*{name}: No such file or directory"):
        list_table(tmp_path / name)


def test_without_pyarrow_a_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DatasetError, match=r"^Parquet needs pyarrow: pip install 'lookalike\[parquet\]'$"
    ):
        list_table(tmp_path / "images.parquet")


# What programs and people make of a table


def test_spaces_after_the_separator_leave_quotes_around_cells_what_they_are(tmp_path: Path) -> None:
    listing = listed(
        files(tmp_path), 'path, label, note\n"a.png", "hat", "x, ""y"""\n"b.png", "coat", z\n'
    )
    assert [file.label for file in listing.files] == ["hat", "coat"]
    assert [file.metadata["note"] for file in listing.files] == ['x, "y"', "z"]


def test_a_second_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    text = "\ufeff\ufeffpath,label\na.png,hat\nb.png,coat\n"
    for encoding in ("utf-8", "utf-16"):
        assert [file.label for file in listed(files(tmp_path), text.encode(encoding)).files] == [
            "hat",
            "coat",
        ]


def test_lines_before_the_header_are_told_as_such(tmp_path: Path) -> None:
    text = "# made by a tool\npath,label\na.png,hat\n"
    with pytest.raises(DatasetError, match=r"has no column 'path'.*its first line must name"):
        listed(files(tmp_path), text)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(500), b"PK\3\4" + bytes(500)])
def test_what_is_no_text_is_refused_without_showing_it(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DatasetError, match="not text, and so not a table") as refusal:
        listed(files(tmp_path), data)
    assert "\0" not in str(refusal.value)


def test_a_header_of_many_columns_is_told_in_part(tmp_path: Path) -> None:
    text = ",".join(f"x{number}{'y' * 500}" for number in range(999)) + "\n"
    with pytest.raises(DatasetError, match="and 989 more") as refusal:
        listed(files(tmp_path), text)
    assert len(str(refusal.value)) < 1500
