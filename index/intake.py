"""Stores vectors that come from elsewhere: checked one by one, in transactions of many.

Shape suffix: D vector width.
"""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from index.build_report import BuildReport
from index.errors import BadVectorsError, InvalidIdError, InvalidMetadataError, VectorIndexError
from index.gallery import Gallery
from index.items import NewItem, check_id, check_label, encode_metadata, shown
from index.vector_source import VectorEntry, VectorSource
from index.vectors import VECTOR_TYPE, check_vectors

CHUNK: Final = 1_000  # items per transaction
SHA256: Final = re.compile("[0-9a-f]{64}")


def store_vectors(
    gallery: Gallery,
    source: VectorSource,
    *,
    normalize: bool,
    on_progress: Callable[[int], None],
) -> BuildReport:
    """Store every entry that can be stored; list the ones that cannot.

    What is stored already stays as it is, so an import that was interrupted can be run again. An
    entry's content hash is its picture's where an export tells it, and else the SHA-256 of its
    vector's bytes; the picture comes along where the source has it.

    Args:
        gallery: what it holds under other ids stays.
        source: read as it is stored.
        normalize: scale vectors to unit length, instead of refusing others.
        on_progress: called with the number of entries dealt with since its last call.

    Raises:
        ModelMismatchError: the source holds vectors of another model.
        DiskFullError, StorageError: the chunk at hand was not stored; the ones before it are.
        Whatever reading the source raises, with the same state.
    """
    if source.facts is not None:
        gallery.binding.check(source.facts.fingerprint, gallery.folder)
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    for chunk in _chunks(_checked(source.entries, gallery.binding.width, normalize=normalize)):
        items = [one for one in chunk if isinstance(one, NewItem)]
        refused += [one for one in chunk if not isinstance(one, NewItem)]
        outcomes.update(result.outcome for result in gallery.put(items))
        on_progress(len(chunk))
    return BuildReport.of(outcomes, refused, count=gallery.count, started=started)


def _checked(
    entries: Iterable[VectorEntry], width: int, *, normalize: bool
) -> Iterator[NewItem | tuple[str, str]]:
    """Give every entry as an item, or its id and why it is refused."""
    seen: set[str] = set()
    for row, entry in enumerate(entries, start=1):
        name = entry.id if isinstance(entry.id, str) and entry.id else f"row {row}"
        try:
            item = _item(entry, width, normalize=normalize)
            if item.id in seen:  # else each import would store first the one and then the other
                raise InvalidIdError("its id came before")
        except VectorIndexError as error:
            yield name, str(error)
            continue
        seen.add(item.id)
        yield item


def _item(entry: VectorEntry, width: int, *, normalize: bool) -> NewItem:
    """Return what is stored of an entry.

    Raises:
        InvalidIdError, InvalidMetadataError, BadVectorsError: it cannot be stored.
    """
    check_id(entry.id)
    check_label(entry.label)
    metadata = _metadata(entry.metadata)
    encode_metadata(metadata)
    vector_D = _vector(entry.vector, width, normalize=normalize)
    content_sha256 = entry.content_sha256
    if content_sha256 is None:
        content_sha256 = hashlib.sha256(vector_D.astype(VECTOR_TYPE).tobytes()).hexdigest()
    elif not isinstance(content_sha256, str) or not SHA256.fullmatch(content_sha256):
        raise InvalidMetadataError(f"its content hash is none: {shown(content_sha256)}")
    return NewItem(
        id=entry.id,
        vector_D=vector_D,
        label=entry.label,
        metadata=metadata,
        thumbnail=entry.thumbnail,
        content_sha256=content_sha256,
    )


def _metadata(value: Any) -> Any:
    if value is None or value == "":
        return {}
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidMetadataError(f"its metadata is not JSON: {shown(value)}") from error


def _vector(value: Any, width: int, *, normalize: bool) -> NDArray[np.float32]:
    try:
        numbers_D = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadVectorsError("its vector has something else than numbers") from error
    if numbers_D.shape != (width,):
        has = f"{len(numbers_D)} numbers" if numbers_D.ndim == 1 else "no row of numbers"
        raise BadVectorsError(f"its vector has {has}, not {width}")
    if not np.isfinite(numbers_D).all():
        raise BadVectorsError("its vector has numbers that are not finite")
    if normalize:
        largest = np.abs(numbers_D).max()  # first, so that no square is too large or too small
        if largest == 0:
            raise BadVectorsError("its vector is zero and has no direction")
        numbers_D = numbers_D / largest
        numbers_D = numbers_D / np.linalg.norm(numbers_D)
    with np.errstate(over="ignore"):  # what becomes infinite is not of unit length
        vector_D = numbers_D.astype(np.float32)
    check_vectors(vector_D[np.newaxis], width=width)
    return vector_D


def _chunks(
    entries: Iterator[NewItem | tuple[str, str]],
) -> Iterator[list[NewItem | tuple[str, str]]]:
    chunk: list[NewItem | tuple[str, str]] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
