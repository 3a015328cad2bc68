"""Imports into a gallery that holds the items already, and cells that are not what they seem."""

import csv
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from index.errors import NoThumbnailError, SourceError
from index.gallery import Gallery
from index.items.item import NewItem
from index.operations.add_images import BuildReport
from index.transfer.export import export_folder, export_parquet
from index.transfer.import_vectors import store_vectors
from index.transfer.vector_source import open_vectors
from tests.support.fakes import unit_vectors
from vision.image.thumbnail import Thumbnail

WIDTH = 8
COUNT = 12
THEN = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
LATER = datetime(2026, 5, 6, tzinfo=UTC)
State = dict[str, tuple[Any, ...]]
Write = Callable[[Gallery, Path], dict[str, Path]]


class Clock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.now = THEN

    def __call__(self) -> datetime:
        return self.now


def item(number: int, **settings: Any) -> NewItem:
    """Return an item with everything that an item can have."""
    facts = {
        "id": f"i{number:02}",
        "vector_D": unit_vectors(1, WIDTH, seed=number)[0],
        "label": None if number % 4 == 3 else f"label {number % 4}",
        "metadata": {"n": number, "size": {"eu": 40}} if number % 3 else {},
        "thumbnail": Thumbnail("image/png", b"\x89PNG\r\n%d" % number),
        "content_sha256": f"{number:064x}",
    }
    return NewItem(**facts | settings)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gallery(tmp_path: Path, clock: Clock) -> Iterator[Gallery]:
    with make(tmp_path / "g", clock) as gallery:
        gallery.put([item(n) for n in range(COUNT)])
        clock.now = LATER
        yield gallery


def make(folder: Path, clock: Clock) -> Gallery:
    return Gallery.create(
        folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH, clock=clock
    )


def state(gallery: Gallery) -> State:
    def picture(item_id: str) -> bytes | None:
        try:
            return gallery.thumbnail(item_id).data
        except NoThumbnailError:
            return None

    return {
        one.id: (
            *(one.label, one.metadata, one.content_sha256, one.created),
            *(gallery.vector(one.id).tobytes(), picture(one.id)),
        )
        for one in gallery.page(limit=1_000).items
    }


def quiet(_: int) -> None:
    return


def imported(gallery: Gallery, source: Path, **beside: Path) -> BuildReport:
    opened = open_vectors(source, **beside)
    return store_vectors(gallery, opened, normalize=False, on_progress=quiet)


def counts(report: BuildReport) -> tuple[int, int, int, int]:
    return report.added, report.replaced, report.unchanged, len(report.refused)


def as_parquet(gallery: Gallery, folder: Path, *, thumbnails: bool = False) -> dict[str, Path]:
    out = folder / "x.parquet"
    export_parquet(gallery, out, thumbnails=thumbnails, on_progress=quiet)
    return {"source": out}


def as_whole_parquet(gallery: Gallery, folder: Path) -> dict[str, Path]:
    return as_parquet(gallery, folder, thumbnails=True)


def as_csv(gallery: Gallery, folder: Path) -> dict[str, Path]:
    export_folder(gallery, folder / "csv", table="csv", on_progress=quiet)
    return {"source": folder / "csv"}


def as_jsonl(gallery: Gallery, folder: Path) -> dict[str, Path]:
    export_folder(gallery, folder / "jsonl", table="jsonl", on_progress=quiet)
    return {"source": folder / "jsonl"}


def as_csv_alone(gallery: Gallery, folder: Path) -> dict[str, Path]:
    """The table of an export, which then is a table like any other."""
    made = as_csv(gallery, folder)["source"]
    return {"source": made / "items.csv", "vectors": made / "vectors.npy"}


def as_jsonl_alone(gallery: Gallery, folder: Path) -> dict[str, Path]:
    made = as_jsonl(gallery, folder)["source"]
    return {"source": made / "items.jsonl", "vectors": made / "vectors.npy"}


def as_vectors_alone(gallery: Gallery, folder: Path) -> dict[str, Path]:
    made = as_csv(gallery, folder)["source"]
    ids = folder / "ids.txt"
    ids.write_text("\n".join(one.id for one in gallery.page(limit=1_000).items))
    return {"source": made / "vectors.npy", "ids": ids}


def as_plain_csv(gallery: Gallery, folder: Path) -> dict[str, Path]:
    """A column per number, and the ids; nothing else; the last item first."""
    with (folder / "plain.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *[f"v{n}" for n in range(WIDTH)]])
        for one in reversed(gallery.page(limit=1_000).items):
            writer.writerow([one.id, *map(repr, map(float, gallery.vector(one.id)))])
    return {"source": folder / "plain.csv"}


def as_gallery(gallery: Gallery, _: Path) -> dict[str, Path]:
    return {"source": gallery.folder}


WAYS: list[Write] = [
    *(as_parquet, as_whole_parquet, as_csv, as_jsonl, as_csv_alone, as_jsonl_alone),
    *(as_vectors_alone, as_plain_csv, as_gallery),
]


@pytest.mark.parametrize("write", WAYS)
def test_what_comes_back_unchanged_changes_nothing(
    gallery: Gallery, tmp_path: Path, write: Write
) -> None:
    before, seq = state(gallery), gallery.seq

    report = imported(gallery, **write(gallery, tmp_path))

    assert counts(report) == (0, 0, COUNT, 0)
    assert (state(gallery), gallery.seq) == (before, seq)


@pytest.mark.parametrize("write", WAYS)
def test_half_of_it_in_another_order_leaves_the_other_half_alone(
    gallery: Gallery, tmp_path: Path, clock: Clock, write: Write
) -> None:
    before = state(gallery)
    with make(tmp_path / "half", clock) as half:
        half.put([item(n) for n in range(COUNT - 1, 0, -2)])
        given = write(half, tmp_path)

        assert counts(imported(gallery, **given)) == (0, 0, COUNT // 2, 0)

    assert state(gallery) == before


@pytest.mark.parametrize("write", WAYS)
def test_after_edits_only_what_the_source_has_comes_back(
    gallery: Gallery, tmp_path: Path, write: Write
) -> None:
    before = state(gallery)
    given = write(gallery, tmp_path)
    if write is as_gallery:
        return  # it is the edited one itself
    edited = item(1, label="edited", metadata={"edited": True})
    gallery.put([edited])
    gallery.delete(["i02"])

    report = imported(gallery, **given)

    provided = write not in (as_vectors_alone, as_plain_csv)
    assert counts(report) == (1, 1, COUNT - 2, 0) if provided else (1, 0, COUNT - 1, 0)
    after = state(gallery)
    label, metadata, _, created, vector, picture = after["i01"]
    expected = before["i01"] if provided else ("edited", {"edited": True})
    assert (label, metadata) == tuple(expected[:2])
    assert created == (THEN if provided else LATER).isoformat(timespec="milliseconds")
    assert (vector, picture) == before["i01"][4:], "its picture stays"
    untouched = before.keys() - {"i01", "i02"}
    assert {one: after[one] for one in untouched} == {one: before[one] for one in untouched}
    assert gallery.verify() == []


@pytest.mark.parametrize("write", WAYS)
def test_a_new_gallery_gets_all_that_the_source_has(
    gallery: Gallery, tmp_path: Path, clock: Clock, write: Write
) -> None:
    before = state(gallery)
    with make(tmp_path / "new", clock) as new:
        report = imported(new, **write(gallery, tmp_path))

        assert counts(report) == (COUNT, 0, 0, 0)
        assert report.left_as_stored == {}
        for item_id, (label, metadata, content, created, vector, picture) in state(new).items():
            was = before[item_id]
            assert vector == was[4]
            if write in (as_vectors_alone, as_plain_csv):
                assert (label, metadata, picture) == (None, {}, None)
                continue
            assert (label, metadata, created) == (was[0], was[1], was[3])
            if write not in (as_csv_alone, as_jsonl_alone):
                assert content == was[2]
            assert picture == (was[5] if write in (as_whole_parquet, as_gallery) else None)


def test_the_report_counts_what_stayed_as_it_was(gallery: Gallery, tmp_path: Path) -> None:
    report = imported(gallery, **as_plain_csv(gallery, tmp_path))
    assert report.left_as_stored == dict.fromkeys(
        ("label", "metadata", "picture", "created"), COUNT
    )

    report = imported(gallery, **as_csv(gallery, tmp_path))
    assert report.left_as_stored == {"label": 3, "picture": COUNT}, (
        "three have no label in the export too"
    )


def test_pictures_that_were_lost_come_back_with_an_export_that_has_them(
    gallery: Gallery, tmp_path: Path
) -> None:
    before = state(gallery)
    given = as_whole_parquet(gallery, tmp_path)
    gallery.put([item(n, thumbnail=None, label="lost") for n in range(COUNT)])
    gallery.put([item(n, thumbnail=None) for n in range(COUNT)])

    assert counts(imported(gallery, **given)) == (0, COUNT, 0, 0)
    assert {one: kept[:3] + kept[4:] for one, kept in state(gallery).items()} == {
        one: kept[:3] + kept[4:] for one, kept in before.items()
    }


def test_another_vector_keeps_the_picture_and_another_image_does_not(
    gallery: Gallery, tmp_path: Path
) -> None:
    before = state(gallery)
    vectors = [unit_vectors(1, WIDTH, seed=50 + n)[0].tolist() for n in range(2)]
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": "i01", "vector": vectors[0]}))

    assert counts(imported(gallery, tmp_path / "x.jsonl")) == (0, 1, 0, 0)
    label, metadata, content, created, vector, picture = state(gallery)["i01"]
    assert (label, metadata, created, picture) == (*before["i01"][:2], *before["i01"][3::2])
    assert content != before["i01"][2]
    assert vector == np.array(vectors[0], np.float32).tobytes()

    made = as_jsonl(gallery, tmp_path)["source"]
    lines = [json.loads(line) for line in (made / "items.jsonl").read_text().splitlines()]
    lines[2]["content_sha256"] = "ab" * 32
    (made / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert counts(imported(gallery, made)) == (0, 1, COUNT - 1, 0)
    assert state(gallery)[lines[2]["id"]][2::3] == ("ab" * 32, None)


def test_a_label_column_alone_changes_labels_alone(gallery: Gallery, tmp_path: Path) -> None:
    before = state(gallery)
    given = as_csv(gallery, tmp_path)["source"]
    rows = [["id", "label"], *[[item_id, ""] for item_id in before]]
    rows[1][1], rows[2][1] = " new ", "label 1"
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    report = imported(gallery, tmp_path / "labels.csv", vectors=given / "vectors.npy")

    assert counts(report) == (0, 1, COUNT - 1, 0)
    assert state(gallery) == before | {"i00": ("new", *before["i00"][1:])}


VECTOR = unit_vectors(1, WIDTH, seed=0)[0].tolist()


@pytest.mark.parametrize(
    ("label", "stored"),
    [
        (0, "0"),
        (-7, "-7"),
        (2**70, str(2**70)),
        (3.0, "3"),
        (2.5, "2.5"),
        (False, "false"),
        (True, "true"),
        ("0", "0"),
        ("false", "false"),
        ("[]", "[]"),
        ("null", "null"),
        ("NaN", "NaN"),
        (" a  b ", "a  b"),
        ("\u00a0a\u3000", "a"),
        ("e\u0301", "\u00e9"),
        ("x" * 256 + " ", "x" * 256),
        ("", None),
        (None, None),
    ],
)
def test_labels_are_stored_as_the_text_they_are(
    gallery: Gallery, tmp_path: Path, label: Any, stored: str | None
) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": 5, "vector": VECTOR, "label": label}))

    assert counts(imported(gallery, tmp_path / "x.jsonl")) == (1, 0, 0, 0)
    assert gallery.get("5").label == stored
    assert counts(imported(gallery, tmp_path / "x.jsonl")) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"label": []}, "a label has 1 to 256 characters, not only spaces, got []"),
        ({"label": {}}, "not only spaces, got {}"),
        ({"label": ["a"]}, "got ['a']"),
        ({"label": "  "}, "not only spaces"),
        ({"label": float("nan")}, "got nan"),
        ({"label": "x" * 257}, "a label has 1 to 256 characters"),
        ({"label": "a\nb"}, "no control characters"),
        ({"metadata": 0}, "metadata must be a JSON object, got 0"),
        ({"metadata": False}, "metadata must be a JSON object, got False"),
        ({"metadata": []}, "metadata must be a JSON object, got []"),
        ({"metadata": "null"}, "metadata must be a JSON object, got null"),
        ({"metadata": "0"}, "metadata must be a JSON object, got 0"),
        ({"metadata": "a"}, "its metadata is not JSON: 'a'"),
        ({"metadata": '{"a": NaN}'}, "finite numbers"),
        ({"metadata": {"a": 2**64}}, "finite numbers"),
        ({"metadata": {"a": list(range(600))}}, "has 600 values"),
        ({"created": "yesterday"}, "its creation time is not of the form"),
        ({"created": 5}, "its creation time is not of the form"),
        ({"vector": None}, "no row of numbers"),
        ({"vector": ""}, "its vector is not a list of numbers: ''"),
        ({"vector": "1,2"}, "its vector is not a list of numbers: '1,2'"),
        ({"vector": ["a", *VECTOR[1:]]}, "something other than a number at 1: 'a'"),
        ({"vector": [*VECTOR[:-1], ""]}, "nothing as its number 8"),
        ({"vector": [*VECTOR[:-1], None]}, "not finite"),
        ({"vector": [*VECTOR[:-1], float("inf")]}, "not finite"),
        ({"vector": [VECTOR]}, "no row of numbers"),
        ({"vector": {}}, "something other than numbers"),
        ({"id": None}, "an id is text, got None"),
        ({"id": ""}, "an id has at least one character"),
        ({"id": [1]}, "an id is text, got [1]"),
        ({"id": -0.5}, None),
        ({"id": float("nan")}, "an id is text, got nan"),
        ({"id": "a/b"}, "an id has no '/'"),
    ],
)
def test_what_cannot_be_stored_is_listed_and_takes_nothing_away(
    gallery: Gallery, tmp_path: Path, cells: dict[str, Any], reason: str | None
) -> None:
    before = state(gallery)
    good = {"id": "new", "vector": VECTOR}
    rows = [{"id": "i01", "vector": VECTOR, "label": "l"} | cells, good]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))

    report = imported(gallery, tmp_path / "x.jsonl")

    assert report.added == 1 + (reason is None)
    if reason is not None:
        ((name, sentence),) = report.refused
        assert name == (
            "i01" if "id" not in cells else cells["id"] if cells["id"] == "a/b" else "row 1"
        )
        assert reason in sentence
    assert {one: kept for one, kept in state(gallery).items() if one in before} == before


def test_ids_that_are_numbers_are_text(gallery: Gallery, tmp_path: Path) -> None:
    rows = [{"id": value, "vector": VECTOR} for value in (7, 8.0, "9", 7)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))

    report = imported(gallery, tmp_path / "x.jsonl")

    assert (report.added, report.refused) == (3, [("7", "its id came in an earlier row")])
    assert set(gallery.existing(["7", "8", "9"])) == {"7", "8", "9"}


def test_typed_columns_of_parquet_are_text(gallery: Gallery, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2, 3, 4], pa.int64()),
            "label": pa.array([True, False, None, True]),
            "metadata": pa.array([{"a": 1}, {"a": None}, None, {"a": 2}]),
            "created": pa.array([THEN, None, None, LATER], pa.timestamp("ms", "UTC")),
            "vector": [VECTOR] * 3 + [[*VECTOR[:-1], None]],
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")

    report = imported(gallery, tmp_path / "x.parquet")

    assert counts(report) == (3, 0, 0, 1)
    found = gallery.existing(["1", "2", "3"])
    assert [found[one].label for one in "123"] == ["true", "false", None]
    assert [found[one].metadata for one in "123"] == [{"a": 1}, {"a": None}, {}]
    assert found["1"].created == THEN.isoformat(timespec="milliseconds")
    assert found["2"].created == LATER.isoformat(timespec="milliseconds")

    dates = table.set_column(1, "label", pa.array([date(2026, 1, 2)] * 4))
    parquet.write_table(dates, tmp_path / "y.parquet")
    assert counts(imported(gallery, tmp_path / "y.parquet")) == (0, 3, 0, 1)
    assert gallery.get("1").label == "2026-01-02"


def test_a_line_with_too_few_or_too_many_cells_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", unit_vectors(3, WIDTH, seed=1))
    (tmp_path / "x.csv").write_text("id,label\ni00\ni01,a,b\ni02,c\n")

    report = imported(gallery, tmp_path / "x.csv", vectors=tmp_path / "v.npy")

    assert report.refused == [
        ("i00", "its line has 1 cells, the heading 2"),
        ("i01", "its line has 3 cells, the heading 2"),
    ]
    assert report.replaced == 1


def test_metadata_that_is_long_to_index_is_stored_in_shorter_transactions(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"id": f"n{n}", "vector": VECTOR, "metadata": {"tags": [f"{n} {k}" for k in range(500)]}}
        for n in range(400)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    written: list[int] = []
    put = gallery.put

    def counting(items: Any, **settings: Any) -> Any:
        written.append(sum(len(json.loads(one.metadata.text)["tags"]) for one in items))
        return put(items, **settings)

    monkeypatch.setattr(gallery, "put", counting)

    assert imported(gallery, tmp_path / "x.jsonl").added == 400
    assert sum(written) == 200_000
    assert max(written) < 100_000


def test_the_table_of_an_export_alone_is_refused_with_the_way_to_its_vectors(
    gallery: Gallery, tmp_path: Path
) -> None:
    export_folder(gallery, tmp_path / "exported", table="csv", on_progress=quiet)
    table = tmp_path / "exported" / "items.csv"
    with pytest.raises(SourceError, match=r"items.csv has no vectors; .* name .*exported$"):
        open_vectors(table)
    (tmp_path / "alone.csv").write_bytes(table.read_bytes())
    with pytest.raises(SourceError, match=r"named as vectors was expected$"):
        open_vectors(tmp_path / "alone.csv")


def test_cells_that_other_characters_part_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id;label;vector\na;b;[1]\n")
    with pytest.raises(SourceError, match=r"no column id; it has 'id;label;vector' .*by commas"):
        open_vectors(tmp_path / "x.csv")
