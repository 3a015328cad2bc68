"""A gallery's items as files for other programs: complete, or not there at all.

Parquet: one row per item with its vector as a list of float32. Or a folder: ``vectors.npy``, a
table of the items in the same order, and ``gallery.json``, which says whose vectors these are.

Shape suffixes: N items, D vector width.
"""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np

from dataset.tables.parquet import load_pyarrow
from files.durable import sync_file, sync_folder
from files.unfinished import unfinished
from index.errors import DiskFullError, GalleryFolderError, SourceError, StorageError
from index.gallery import Gallery
from index.search.vectors import VECTOR_TYPE
from index.store.sqlite.database import NO_ROOM
from index.transfer.stored_items import GalleryContents, Provenance, StoredItem, open_contents

GROUP_ROWS: Final = 4_096  # in a row group: 8 MiB of vectors at width 512
PROVENANCE_KEY: Final = b"lookalike"  # of the Parquet file's own metadata
PROVENANCE_NAME: Final = "gallery.json"
VECTORS_NAME: Final = "vectors.npy"
TABLE_STEM: Final = "items"
COLUMNS: Final = ("id", "label", "metadata", "content_sha256", "created")

Progress = Callable[[int], None]  # called with the number of items written since the last call


def export_parquet(
    gallery: Gallery, path: Path, *, thumbnails: bool, on_progress: Progress
) -> Provenance:
    """Write all items as of one moment to a new Parquet file, and return what they are.

    Columns: id, label, metadata (JSON text), content_sha256, created (ISO 8601, UTC), vector, and
    with ``thumbnails`` thumbnail_type and thumbnail. Memory is bounded; others write meanwhile.

    Raises:
        SourceError: pyarrow is not installed.
        GalleryFolderError: ``path`` exists, or the gallery is damaged.
        DiskFullError, StorageError: it cannot be written. In every case nothing is left.
    """
    pyarrow, parquet = load_pyarrow(SourceError)
    with open_contents(gallery.folder) as stored, _new(path) as made:
        schema = _schema(pyarrow, stored.provenance, thumbnails=thumbnails)
        with made.open("xb") as file:
            with parquet.ParquetWriter(
                file, schema, compression="zstd", use_dictionary=["label"]
            ) as writer:
                for group in _groups(stored, thumbnails=thumbnails):
                    writer.write_batch(_record_batch(pyarrow, schema, group))
                    on_progress(len(group))
            sync_file(file)
        return stored.provenance


def export_folder(
    gallery: Gallery, folder: Path, *, table: Literal["csv", "jsonl"], on_progress: Progress
) -> Provenance:
    """Write all items as of one moment to a new folder, and return what they are.

    ``vectors.npy`` is (N, D) float32; row n of it belongs to line n of ``items.jsonl``, or of
    ``items.csv`` after its heading. Raises as ``export_parquet``.
    """
    with open_contents(gallery.folder) as stored, _new(folder) as made:
        made.mkdir()
        with (
            (made / VECTORS_NAME).open("xb") as vectors,
            (made / f"{TABLE_STEM}.{table}").open("x", encoding="utf-8", newline="") as lines,
        ):
            np.lib.format.write_array_header_1_0(
                vectors,
                {
                    "descr": VECTOR_TYPE.str,
                    "fortran_order": False,
                    "shape": (stored.provenance.count, stored.provenance.width),
                },
            )
            write = _item_writer(lines, table)
            for group in _groups(stored, thumbnails=False):
                for item in group:
                    vectors.write(item.vector_D.astype(VECTOR_TYPE).tobytes())
                    write(item)
                on_progress(len(group))
            sync_file(vectors)
            sync_file(lines)
        with (made / PROVENANCE_NAME).open("x") as file:
            json.dump(stored.provenance.to_json(), file, indent=1)
            sync_file(file)
        sync_folder(made)
        return stored.provenance


@contextmanager
def _new(path: Path) -> Iterator[Path]:
    """Give the block a name beside ``path``; what it wrote there gets its name at the end."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise GalleryFolderError(f"cannot export to {path}: it is there already")
    place = path.absolute().parent
    try:
        with unfinished(path) as folder:
            made = folder / path.name
            yield made
            if made.is_dir():
                made.rename(path)
            else:
                path.hardlink_to(made)  # unlike a renaming, it never replaces a rival's file
            sync_folder(place)
    except OSError as error:
        sentence = f"cannot export to {path}: {error.strerror or error}"
        if error.errno in NO_ROOM:
            raise DiskFullError(sentence) from error
        raise StorageError(sentence) from error


def _groups(stored: GalleryContents, *, thumbnails: bool) -> Iterator[list[StoredItem]]:
    items = stored.items(thumbnails=thumbnails)
    while group := list(islice(items, GROUP_ROWS)):
        yield group


def _schema(pyarrow: Any, provenance: Provenance, *, thumbnails: bool) -> Any:
    fields = [pyarrow.field(name, pyarrow.string(), nullable=name == "label") for name in COLUMNS]
    fields.append(pyarrow.field("vector", pyarrow.list_(pyarrow.float32(), provenance.width)))
    if thumbnails:
        fields.append(pyarrow.field("thumbnail_type", pyarrow.string()))
        fields.append(pyarrow.field("thumbnail", pyarrow.binary()))
    return pyarrow.schema(fields, metadata={PROVENANCE_KEY: json.dumps(provenance.to_json())})


def _record_batch(pyarrow: Any, schema: Any, group: list[StoredItem]) -> Any:
    numbers = pyarrow.array(np.concatenate([item.vector_D for item in group]), pyarrow.float32())
    columns = [pyarrow.array([getattr(item, name) for item in group]) for name in COLUMNS]
    columns[1] = pyarrow.array([item.label for item in group], pyarrow.string())
    columns.append(
        pyarrow.FixedSizeListArray.from_arrays(numbers, type=schema.field("vector").type)
    )
    if "thumbnail" in schema.names:
        pictures = [item.thumbnail for item in group]
        types = [None if picture is None else picture.media_type for picture in pictures]
        data = [None if picture is None else picture.data for picture in pictures]
        columns += [pyarrow.array(types, pyarrow.string()), pyarrow.array(data, pyarrow.binary())]
    return pyarrow.record_batch(columns, schema=schema)


def _item_writer(file: IO[str], table: Literal["csv", "jsonl"]) -> Callable[[StoredItem], object]:
    """Return what writes an item to ``file``; of a CSV the heading is written now."""
    if table == "csv":
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        # A label has at least one character, so an empty cell says that there is none.
        return lambda item: writer.writerow([getattr(item, name) for name in COLUMNS])

    def write(item: StoredItem) -> None:
        members = {name: getattr(item, name) for name in COLUMNS}
        members["metadata"] = json.loads(item.metadata)
        file.write(json.dumps(members, ensure_ascii=False) + "\n")

    return write
