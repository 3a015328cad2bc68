"""Vectors that come from elsewhere: a file, an exported folder or a gallery in, entries out.

Nothing of an entry is checked here but that it could be read; ``index.transfer.import_vectors``
does that.

Shape suffixes: N entries, D vector width.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from index.errors import SourceError
from index.store.schema import DATABASE_NAME
from index.transfer.export import PROVENANCE_NAME, TABLE_STEM, VECTORS_NAME
from index.transfer.stored_items import Provenance, open_contents
from index.transfer.table_reader import PROBLEM, Cells, ItemTable, open_table
from vision.image.thumbnail import Thumbnail

THUMBNAIL_TYPES: Final = {"image/png": b"\x89PNG\r\n", "image/jpeg": b"\xff\xd8\xff"}
MAX_ID_LINE: Final = 1_000  # characters; an id has 128


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorEntry:
    """One vector to store, as it was found."""

    id: Any
    vector: Any  # numbers, one after another
    label: Any = None  # or nothing
    metadata: Any = None  # an object, JSON text of one, or nothing
    created: Any = None  # ISO 8601, or nothing
    content_sha256: str | None = None  # of the image, where an export says so
    thumbnail: Thumbnail | None = None
    problem: str | None = None  # why it cannot be read, a sentence


@dataclass(frozen=True, slots=True)
class VectorSource:
    """Entries to store, read as they are asked for."""

    name: str
    count: int | None  # ``None``: not known before the end
    provenance: Provenance | None  # whose vectors they are, where the source says so
    entries: Iterable[VectorEntry]


def open_vectors(
    path: Path, *, ids: Path | None = None, vectors: Path | None = None
) -> VectorSource:
    """Return what there is to store at ``path``.

    Args:
        path: a gallery; a folder or a Parquet file that was exported; a ``.parquet``, ``.csv`` or
            ``.jsonl`` with ``id``, ``vector`` (or a column per number), and, if there are any,
            ``label``, ``metadata`` and ``created``; or a ``.npy`` with a row per vector.
        ids: for a ``.npy``: a text file with an id per line.
        vectors: for a table: a ``.npy`` whose rows are the vectors of the table's rows.

    Raises:
        SourceError: it is none of these, cannot be read, or does not fit together.
        GalleryFolderError, StorageError: the gallery cannot be read.
    """
    if ids is not None and path.suffix != ".npy":
        raise SourceError(f"ids in a file of their own belong to a .npy, not to {path}")
    if vectors is not None and (path.is_dir() or path.suffix == ".npy"):
        raise SourceError(f"{path} has vectors of its own; those in {vectors} cannot be used")
    if (path / DATABASE_NAME).is_file():
        return _gallery(path)
    if (path / VECTORS_NAME).is_file():
        return _folder(path)
    if path.is_dir():
        raise SourceError(
            f"{path} is neither a gallery nor an export, which has a file {VECTORS_NAME}; "
            "images are not imported but added"
        )
    if path.suffix == ".npy":
        if ids is None:
            raise SourceError(f"{path} holds vectors without ids; name the file of their ids too")
        return _array(path, ids)
    table = open_table(path)
    if vectors is not None:
        return _with_vectors(path.name, table, vectors, provenance=None)
    if not table.has_vectors and path.suffix != ".jsonl":  # whose first line may lack one
        beside = path.parent / VECTORS_NAME
        hint = f"; those of the export are in {beside}: name {path.parent}"
        raise SourceError(
            f"{path} has no vectors; a column 'vector', a column per number, or a .npy named as "
            f"vectors was expected{hint if beside.is_file() else ''}"
        )
    entries = (_entry(cells, trusted=table.provenance is not None) for cells in table.rows)
    return VectorSource(path.name, table.count, table.provenance, entries)


def _gallery(folder: Path) -> VectorSource:
    with open_contents(folder) as stored:
        provenance = stored.provenance

    def entries() -> Iterator[VectorEntry]:
        with open_contents(folder) as stored:
            for item in stored.items(thumbnails=True):
                yield VectorEntry(
                    id=item.id,
                    vector=item.vector_D,
                    label=item.label,
                    metadata=item.metadata,
                    created=item.created,
                    content_sha256=item.content_sha256,
                    thumbnail=item.thumbnail,
                )

    return VectorSource(folder.name, provenance.count, provenance, entries())


def _folder(folder: Path) -> VectorSource:
    tables = [folder / f"{TABLE_STEM}.{kind}" for kind in ("jsonl", "csv")]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise SourceError(f"{folder} has no {tables[0].name} and no {tables[1].name}")
    provenance = None
    if (folder / PROVENANCE_NAME).is_file():
        try:
            provenance = Provenance.from_json(json.loads((folder / PROVENANCE_NAME).read_bytes()))
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {folder / PROVENANCE_NAME}: {error}") from error
    return _with_vectors(
        folder.name, open_table(table), folder / VECTORS_NAME, provenance=provenance
    )


def _array(path: Path, ids: Path) -> VectorSource:
    vectors_ND = _load(path)
    try:
        names = ids.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {ids}: {error}") from error
    if len(names) != len(vectors_ND):
        raise SourceError(f"{path} has {len(vectors_ND)} vectors, {ids} has {len(names)} ids")
    pairs = zip(names, vectors_ND, strict=True)
    entries = (VectorEntry(id=name[:MAX_ID_LINE], vector=vector_D) for name, vector_D in pairs)
    return VectorSource(path.name, len(names), None, entries)


def _with_vectors(
    name: str, table: ItemTable, vectors: Path, *, provenance: Provenance | None
) -> VectorSource:
    """Return the rows of a table with the vectors of another file, in the same order."""
    vectors_ND = _load(vectors)
    if table.has_vectors:
        raise SourceError(f"{table.path} has vectors of its own; those in {vectors} cannot be used")

    def entries() -> Iterator[VectorEntry]:
        row = 0
        for row, cells in enumerate(table.rows, start=1):
            if row > len(vectors_ND):
                break
            yield _entry({**cells, "vector": vectors_ND[row - 1]}, trusted=provenance is not None)
        if row != len(vectors_ND):
            raise SourceError(
                f"{vectors} has {len(vectors_ND)} vectors, {table.path} has "
                f"{'more' if row > len(vectors_ND) else row} rows"
            )

    return VectorSource(name, len(vectors_ND), provenance, entries())


def _load(path: Path) -> NDArray[Any]:
    try:
        vectors_ND = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"cannot read {path}: it is not a .npy file of numbers") from error
    if not isinstance(vectors_ND, np.ndarray) or vectors_ND.ndim != 2:  # noqa: PLR2004 (two axes)
        raise SourceError(f"{path} must hold one row of numbers per vector")
    if vectors_ND.dtype.kind not in "fiu":
        raise SourceError(f"{path} must hold numbers, not {vectors_ND.dtype}")
    return vectors_ND


def _entry(cells: Cells, *, trusted: bool) -> VectorEntry:
    """Return the entry of a table's row; only of an export the picture's hash is believed."""
    return VectorEntry(
        id=cells.get("id"),
        vector=cells.get("vector"),
        label=cells.get("label"),
        metadata=cells.get("metadata"),
        created=cells.get("created"),
        content_sha256=cells.get("content_sha256") if trusted else None,
        thumbnail=_thumbnail(cells) if trusted else None,
        problem=cells.get(PROBLEM),
    )


def _thumbnail(cells: Cells) -> Thumbnail | None:
    """Return the row's picture, if it is what a browser may be given as one."""
    media_type, data = cells.get("thumbnail_type"), cells.get("thumbnail")
    if not isinstance(media_type, str) or media_type not in THUMBNAIL_TYPES:
        return None
    if not isinstance(data, bytes) or not data.startswith(THUMBNAIL_TYPES[media_type]):
        return None
    return Thumbnail(media_type, data)
