"""Exports and imports of galleries and of vectors: whole, interrupted, refused."""

import csv
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from index.errors import (
    DiskFullError,
    GalleryFolderError,
    ModelMismatchError,
    NoThumbnailError,
    SourceError,
)
from index.gallery import Gallery
from index.items.item import NewItem
from index.operations.build_report import BuildReport
from index.transfer.export import export_folder, export_parquet
from index.transfer.import_vectors import store_vectors
from index.transfer.stored_items import Provenance
from index.transfer.vector_source import open_vectors
from tests.support.fakes import new_item, unit_vectors
from tests.support.faults.loop_filesystems import small_filesystem
from vision.image.thumbnail import Thumbnail

WIDTH = 8
FINGERPRINT = "a1" * 32
PNG = b"\x89PNG\r\n\x1a\n"


def make(folder: Path, *, fingerprint: str = FINGERPRINT, width: int = WIDTH) -> Gallery:
    return Gallery.create(folder, model_name="fake", fingerprint=fingerprint, width=width)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with make(tmp_path / "g") as gallery:
        yield gallery


def quiet(_: int) -> None:
    return


def imported(
    gallery: Gallery, source: Path, *, normalize: bool = False, **beside: Path
) -> BuildReport:
    opened = open_vectors(source, **beside)
    return store_vectors(gallery, opened, normalize=normalize, on_progress=quiet)


def export(gallery: Gallery, out: Path) -> Provenance:
    """Export as the path's ending says; Parquet with pictures."""
    if out.suffix == ".parquet":
        return export_parquet(gallery, out, thumbnails=True, on_progress=quiet)
    table = "csv" if out.suffix == ".csv" else "jsonl"
    return export_folder(gallery, out, table=table, on_progress=quiet)  # type: ignore[arg-type]


def content(gallery: Gallery) -> list[tuple[Any, ...]]:
    return [
        (item.id, item.label, item.metadata, item.content_sha256, gallery.vector(item.id).tobytes())
        for item in gallery.page(limit=100_000).items
    ]


def picture(gallery: Gallery, item_id: str) -> Thumbnail | None:
    try:
        return gallery.thumbnail(item_id)
    except NoThumbnailError:
        return None


def pictured(item_id: str, **settings: Any) -> NewItem:
    item = new_item(item_id, **settings)
    thumbnail = Thumbnail("image/png", PNG + item_id.encode())
    return NewItem(**{name: getattr(item, name) for name in NEW_ITEM} | {"thumbnail": thumbnail})


NEW_ITEM = ("id", "vector_D", "label", "metadata", "content_sha256")
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NOT_IN_IDS = "/\u200b\ufeff\ufffd" + "".join(
    map(chr, (*range(0x2028, 0x202F), *range(0x2060, 0x2070)))
)
ANY_ID = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=NOT_IN_IDS),
    min_size=1,
    max_size=64,
).filter(lambda text: text not in (".", "..") and unicodedata.normalize("NFC", text) == text)
ITEMS = st.lists(
    st.builds(
        lambda item_id, seed, label, metadata, has_picture: (
            pictured(item_id, seed=seed, label=label, metadata=metadata)
            if has_picture
            else NewItem(
                id=item_id,
                vector_D=unit_vectors(1, WIDTH, seed)[0],
                label=label,
                metadata=metadata,
                thumbnail=None,
                content_sha256=f"{seed:064x}",
            )
        ),
        st.from_regex(r"(?!\.{1,2}$)[A-Za-z0-9._:-]{1,128}", fullmatch=True) | ANY_ID,
        st.integers(0, 50),
        st.none() | TEXT,
        st.dictionaries(TEXT, JSON_VALUES, max_size=3),
        st.booleans(),
    ),
    max_size=8,
    unique_by=lambda item: item.id,
)


@settings(deadline=None, max_examples=15)
@given(items=ITEMS)
def test_what_was_exported_comes_back_as_it_was(items: list[NewItem]) -> None:
    with TemporaryDirectory() as name, make(Path(name, "g")) as gallery:
        gallery.put(items)
        for out in (Path(name, "x.parquet"), Path(name, "x.csv"), Path(name, "x"), Path(name, "g")):
            if out.name != "g":
                facts = export(gallery, out)
                assert (facts.count, facts.seq) == (len(items), gallery.seq)
            with make(Path(name, f"{out.name}.again")) as again:
                report = imported(again, out)
                assert (report.added, report.refused) == (len(items), [])
                assert content(again) == content(gallery)
                if out.suffix == ".parquet" or out.name == "g":
                    for item in items:
                        assert picture(again, item.id) == item.thumbnail
                assert imported(again, out).unchanged == len(items)
                assert again.verify() == []


def test_an_export_is_one_moment_whatever_is_written_meanwhile(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.transfer.export.GROUP_ROWS", 10)
    gallery.put([new_item(f"i{n}", seed=n) for n in range(95)])
    before = content(gallery)
    calls: list[int] = []

    def write(done: int) -> None:
        calls.append(done)
        gallery.put([new_item(f"n{len(calls)}", seed=500 + len(calls))])
        gallery.delete([f"i{90 + len(calls)}"])

    export_parquet(gallery, tmp_path / "x.parquet", thumbnails=False, on_progress=write)
    export_folder(gallery, tmp_path / "x", table="csv", on_progress=quiet)

    assert sum(calls) == 95
    with make(tmp_path / "again") as again:
        imported(again, tmp_path / "x.parquet")
        assert content(again) == before
    assert len(np.load(tmp_path / "x" / "vectors.npy")) == gallery.count


def test_other_programs_read_an_export(gallery: Gallery, tmp_path: Path) -> None:
    item = pictured("a", seed=1, label="coat", metadata={"price": 2})
    gallery.put([item, new_item("b", seed=2)])
    for name in ("x.parquet", "x.csv", "x"):
        export(gallery, tmp_path / name)

    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names[:5] == ["id", "label", "metadata", "content_sha256", "created"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), WIDTH)
    row = table.to_pylist()[0]
    assert (row["id"], row["label"], json.loads(row["metadata"])) == ("a", "coat", {"price": 2})
    assert np.array_equal(np.array(row["vector"], np.float32), item.vector_D)
    assert (row["thumbnail_type"], row["thumbnail"]) == ("image/png", PNG + b"a")
    vectors = np.load(tmp_path / "x" / "vectors.npy")
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, WIDTH))
    lines = [json.loads(line) for line in (tmp_path / "x" / "items.jsonl").open()]
    assert [(line["id"], line["label"]) for line in lines] == [("a", "coat"), ("b", None)]
    with (tmp_path / "x.csv" / "items.csv").open(newline="") as file:
        assert [line["id"] for line in csv.DictReader(file)] == ["a", "b"]
    facts = json.loads((tmp_path / "x" / "gallery.json").read_text())
    assert (facts["fingerprint"], facts["count"]) == (FINGERPRINT, 2)


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


VECTORS = unit_vectors(3, WIDTH, seed=5)


def as_csv(folder: Path) -> dict[str, Path]:
    names = ["id", "label", "metadata", *[f"v{n}" for n in range(WIDTH)]]
    rows = [
        [f"i{n}", "l" if n else "", '{"n": 1}' if n else "", *map(repr, map(float, VECTORS[n]))]
        for n in range(3)
    ]
    return {"source": write_csv(folder / "x.csv", [names, *rows])}


def as_csv_lists(folder: Path) -> dict[str, Path]:
    rows = [
        [json.dumps(VECTORS[n].tolist()), f"i{n}", "l" if n else "", '{"n": 1}' if n else "{}"]
        for n in range(3)
    ]
    names = ["vector", "id", "label", "metadata"]
    return {"source": write_csv(folder / "x.csv", [names, *rows])}


def as_jsonl(folder: Path) -> dict[str, Path]:
    rows = [
        {"id": "i0", "vector": VECTORS[0].tolist()},
        *[
            {"id": f"i{n}", "vector": VECTORS[n].tolist(), "label": "l", "metadata": {"n": 1}}
            for n in (1, 2)
        ],
    ]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"source": folder / "x.jsonl"}


def as_parquet(vectors: Callable[[], dict[str, Any]]) -> Callable[[Path], dict[str, Path]]:
    def write(folder: Path) -> dict[str, Path]:
        columns = {
            "id": ["i0", "i1", "i2"],
            "label": [None, "l", "l"],
            "metadata": [None, '{"n": 1}', '{"n": 1}'],
        }
        parquet.write_table(pa.table(columns | vectors()), folder / "x.parquet")
        return {"source": folder / "x.parquet"}

    return write


def with_npy(folder: Path) -> dict[str, Path]:
    np.save(folder / "v.npy", VECTORS.astype(np.float64))
    rows = [
        ["id", "label", "metadata"],
        ["i0", "", ""],
        *[[f"i{n}", "l", '{"n": 1}'] for n in (1, 2)],
    ]
    return {"source": write_csv(folder / "x.csv", rows), "vectors": folder / "v.npy"}


@pytest.mark.parametrize(
    "write",
    [
        as_csv,
        as_csv_lists,
        as_jsonl,
        as_parquet(lambda: {"vector": VECTORS.tolist()}),
        as_parquet(lambda: {"vector": pa.array(list(VECTORS), pa.list_(pa.float32(), WIDTH))}),
        as_parquet(lambda: {f"v{n}": VECTORS[:, n] for n in range(WIDTH)}),
        with_npy,
    ],
)
def test_tables_of_vectors_are_stored(
    gallery: Gallery, tmp_path: Path, write: Callable[[Path], dict[str, Path]]
) -> None:
    report = imported(gallery, **write(tmp_path))

    assert (report.added, report.refused, report.count) == (3, [], 3)
    items = gallery.page(limit=10).items
    assert [(item.id, item.label, item.metadata) for item in items] == [
        ("i0", None, {}),
        ("i1", "l", {"n": 1}),
        ("i2", "l", {"n": 1}),
    ]
    for n in range(3):
        assert np.array_equal(gallery.vector(f"i{n}"), VECTORS[n])
    with pytest.raises(NoThumbnailError):
        gallery.thumbnail("i0")
    assert imported(gallery, **write(tmp_path)).unchanged == 3
    assert gallery.verify() == []


def test_an_array_with_a_file_of_ids_is_stored(gallery: Gallery, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "ids.txt").write_text("a\nb\nc\n")

    assert imported(gallery, tmp_path / "v.npy", ids=tmp_path / "ids.txt").added == 3
    assert np.array_equal(gallery.vector("b"), VECTORS[1])

    (tmp_path / "ids.txt").write_text("a\nb\n")
    with pytest.raises(SourceError, match=r"has 3 vectors, .* has 2 ids"):
        imported(gallery, tmp_path / "v.npy", ids=tmp_path / "ids.txt")
    with pytest.raises(SourceError, match="name the file of their ids"):
        imported(gallery, tmp_path / "v.npy")


def test_rows_that_cannot_be_stored_are_listed_and_the_others_stored(
    gallery: Gallery, tmp_path: Path
) -> None:
    good = VECTORS[0].tolist()
    rows: list[dict[str, Any]] = [
        {"id": "good", "vector": good},
        {"id": "nan", "vector": [float("nan"), *good[1:]]},
        {"id": "infinite", "vector": [float("inf"), *good[1:]]},
        {"id": "long", "vector": [2 * one for one in good]},
        {"id": "huge", "vector": [1e300] * WIDTH},
        {"id": "wide", "vector": [*good, 0.0]},
        {"id": "none"},
        {"id": "text", "vector": ["x"] * WIDTH},
        {"id": "flat", "vector": 0.5},
        {"id": "bad/id", "vector": good},
        {"vector": good},
        {"id": "labelled", "vector": good, "label": "x" * 300},
        {"id": "listed", "vector": good, "metadata": [1]},
        {"id": "broken", "vector": good, "metadata": "{"},
        {"id": "good", "vector": VECTORS[1].tolist()},
        {"id": "last", "vector": VECTORS[2].tolist()},
    ]
    source = tmp_path / "x.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))

    report = imported(gallery, source)

    assert report.added == 2
    assert [item.id for item in gallery.page(limit=10).items] == ["good", "last"]
    reasons = dict(report.refused)
    assert len(report.refused) == len(rows) - 2
    for item_id, part in {
        "nan": "not finite",
        "infinite": "not finite",
        "long": "its vector has the length",
        "wide": "has 9 numbers, not 8",
        "none": "no row of numbers",
        "text": "something other than a number at 1: 'x'",
        "flat": "no row of numbers",
        "bad/id": "an id has no '/'",
        "row 11": "an id is text",
        "labelled": "a label has",
        "listed": "must be a JSON object",
        "broken": "not JSON",
        "good": "came in an earlier row",
    }.items():
        assert part in reasons[item_id], item_id
    assert "huge" in reasons
    again = imported(gallery, source)
    assert (again.added, again.replaced, again.unchanged) == (0, 0, 2)


def test_vectors_are_scaled_only_when_that_is_asked_for(gallery: Gallery, tmp_path: Path) -> None:
    factors = [1e-200, 1e200, 0.0]
    np.save(tmp_path / "v.npy", VECTORS.astype(np.float64) * np.array(factors)[:, np.newaxis])
    (tmp_path / "ids").write_text("tiny\nhuge\nzero")
    given = {"source": tmp_path / "v.npy", "ids": tmp_path / "ids"}

    assert len(imported(gallery, **given).refused) == 3
    report = imported(gallery, **given, normalize=True)  # type: ignore[arg-type]

    assert report.refused == [("zero", "its vector is zero and has no direction")]
    np.testing.assert_allclose(gallery.vector("tiny"), VECTORS[0], atol=1e-6)
    np.testing.assert_allclose(gallery.vector("huge"), VECTORS[1], atol=1e-6)
    assert imported(gallery, **given, normalize=True).unchanged == 2  # type: ignore[arg-type]


def test_vectors_of_another_model_are_refused(gallery: Gallery, tmp_path: Path) -> None:
    gallery.put([new_item("a")])
    outs = [tmp_path / "x.parquet", tmp_path / "x", tmp_path / "g"]
    for out in outs[:2]:
        export(gallery, out)
    with make(tmp_path / "other", fingerprint="b2" * 32) as other:
        for out in outs:
            with pytest.raises(ModelMismatchError):
                imported(other, out)
        assert other.count == 0


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("x.csv", "", "no column id"),
        ("x.csv", "name,v\na,1\n", "no column id"),
        ("x.csv", "id,id\na,1\n", "two columns of the same name"),
        ("x.csv", "id,vector,size\na,[1],3\n", "which is not known"),
        ("x.csv", 'id,v\na,"1\n', "line"),
        ("x.csv", "id,v\n\xff", None),
        ("x.jsonl", "[1]", "not a JSON object"),
        ("x.jsonl", '{"id": "a"}\n{', "line 2"),
        ("x.parquet", "PAR1 but no more", "cannot read"),
        ("x.npy", "no array", "ids"),
        ("x.txt", "a", "is not a gallery, export"),
        ("folder/picture.png", "a", None),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused_with_a_sentence(
    gallery: Gallery, tmp_path: Path, name: str, text: str, part: str | None
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(SourceError, match=part):
        imported(gallery, path if path.parent == tmp_path else path.parent)

    assert gallery.count == 0


def test_rows_and_companion_vectors_must_be_as_many(gallery: Gallery, tmp_path: Path) -> None:
    given = with_npy(tmp_path)
    for count in (2, 4):
        np.save(tmp_path / "v.npy", unit_vectors(count, WIDTH, seed=0))
        with pytest.raises(SourceError, match=f"has {count} vectors"):
            imported(gallery, **given)


def test_an_interrupted_export_leaves_nothing(gallery: Gallery, tmp_path: Path) -> None:
    gallery.put([new_item("a")])

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_parquet(gallery, tmp_path / "x.parquet", thumbnails=False, on_progress=stop)
    with pytest.raises(KeyboardInterrupt):
        export_folder(gallery, tmp_path / "x", table="csv", on_progress=stop)

    assert [path.name for path in tmp_path.iterdir()] == ["g"]


def test_a_full_disk_leaves_nothing_and_what_is_there_is_not_replaced(
    gallery: Gallery, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    gallery.put(
        [new_item(f"i{n}", seed=n, metadata={"x": rng.bytes(6000).hex()}) for n in range(300)]
    )
    with small_filesystem(tmp_path / "small", megabytes=1) as small:
        for out in ("x.parquet", "x.csv"):
            with pytest.raises(DiskFullError, match="cannot export to"):
                export(gallery, small / out)
        assert list(small.iterdir()) == []
    (tmp_path / "x.parquet").write_text("mine")

    with pytest.raises(GalleryFolderError, match="it is there already"):
        export(gallery, tmp_path / "x.parquet")

    assert (tmp_path / "x.parquet").read_text() == "mine"


def test_a_picture_that_is_none_is_left_out(gallery: Gallery, tmp_path: Path) -> None:
    gallery.put([pictured("a")])
    export(gallery, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    place = table.column_names.index("thumbnail_type")
    forged = table.set_column(place, "thumbnail_type", pa.array(["text/html"]))
    parquet.write_table(forged, tmp_path / "forged.parquet")

    with make(tmp_path / "again") as again:
        assert imported(again, tmp_path / "forged.parquet").added == 1
        assert picture(again, "a") is None


def test_without_pyarrow_a_sentence_says_how_to_get_it(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.parquet").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(SourceError, match=r"needs pyarrow: pip install 'lookalike\[parquet\]'"):
        export(gallery, tmp_path / "y.parquet")
    with pytest.raises(SourceError, match="needs pyarrow"):
        imported(gallery, tmp_path / "x.parquet")


def test_many_rows_are_stored_in_chunks_and_an_interrupted_import_goes_on(
    gallery: Gallery, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", unit_vectors(2_500, WIDTH, seed=1))
    (tmp_path / "ids").write_text("\n".join(f"i{n}" for n in range(2_500)))
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        if len(done) == 2:
            raise KeyboardInterrupt

    source = open_vectors(tmp_path / "v.npy", ids=tmp_path / "ids")
    with pytest.raises(KeyboardInterrupt):
        store_vectors(gallery, source, normalize=False, on_progress=stop)
    report = imported(gallery, tmp_path / "v.npy", ids=tmp_path / "ids")

    assert done == [1_000, 1_000]
    assert (report.unchanged, report.added, report.count) == (2_000, 500, 2_500)
