"""Stores vectors that come from elsewhere: checked one by one, in transactions of many.

What a source does not have stays as it is stored: a picture, a label, metadata, a creation time. An
empty cell has nothing. Ids and labels are taken as the text they clearly are (the number 7 as "7",
true as "true"); whatever cannot be stored is listed.

Shape suffix: D vector width.
"""

import hashlib
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError, InvalidIdError, InvalidMetadataError, VectorIndexError
from index.items.ids import check_id
from index.items.item import (
    ItemField,
    NewItem,
    PutResult,
    check_label,
    clean_label,
    encode_metadata,
    quoted,
)
from index.operations.build_report import BuildReport
from index.search.vectors import UNIT_TOLERANCE, VECTOR_TYPE, Parts
from index.store.schema import Binding
from index.transfer.vector_source import VectorEntry, VectorSource

CHUNK: Final = 1_000  # items per transaction
CHUNK_BYTES: Final = 2**19  # of metadata per transaction: others wait while it is indexed
SHA256: Final = re.compile("[0-9a-f]{64}")
ITEM_FIELDS: Final[tuple[ItemField, ...]] = ("label", "metadata", "picture", "created")


class Destination(Protocol):
    """What takes items in: a gallery, or as much of one as storing needs."""

    @property
    def binding(self) -> Binding:
        """The model whose vectors it takes."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    @property
    def count(self) -> int:
        """Items in it."""

    def put(self, items: Sequence[NewItem]) -> list[PutResult]:
        """Store ``items`` as ``Gallery.put`` does."""


def store_vectors(
    gallery: Destination,
    source: VectorSource,
    *,
    normalize: bool,
    on_progress: Callable[[int], None],
    parts: Parts | None = None,
) -> BuildReport:
    """Store every entry that can be stored; list the ones that cannot.

    What is stored already stays as it is, so an import that was interrupted can be run again. What
    the source does not have of an item stays as stored, and is counted in the report. A new entry's
    content hash is its picture's where an export tells it, and else the SHA-256 of its vector's
    bytes; the picture comes along where the source has it.

    Args:
        gallery: what it holds under other ids stays.
        source: read as it is stored.
        normalize: scale vectors to unit length, instead of refusing others.
        on_progress: called with the number of entries dealt with since its last call.
        parts: of the model's vectors, where they have two.

    Raises:
        ModelMismatchError: the source holds vectors of another model.
        DiskFullError, StorageError: the chunk at hand was not stored; the ones before it are.
        Whatever reading the source raises, with the same state.
    """
    if source.provenance is not None:
        gallery.binding.check(source.provenance.fingerprint, gallery.folder)
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    left: Counter[str] = Counter()
    refused: list[_Refused] = []
    rules = _VectorRules(gallery.binding.width, parts, normalize)
    for chunk in _chunks(_checked(source.entries, rules)):
        items = [one.item for one in chunk if isinstance(one, _Accepted)]
        refused += [one for one in chunk if isinstance(one, _Refused)]
        results = gallery.put(items)
        outcomes.update(result.outcome for result in results)
        for item, result in zip(items, results, strict=True):
            if result.outcome != "created":
                left.update(part for part in ITEM_FIELDS if part not in (item.provided or ()))
        on_progress(len(chunk))
    pairs = [(one.id, one.reason) for one in refused]
    report = BuildReport.from_outcomes(outcomes, pairs, count=gallery.count, started=started)
    rows = [one.row for one in refused]
    return replace(report, left_as_stored=dict(left), refused_rows=rows)


class _VectorRules(NamedTuple):
    """What a vector has to be."""

    width: int
    parts: Parts | None
    normalize: bool  # it becomes of unit length


@dataclass(frozen=True, slots=True)
class _Accepted:
    item: NewItem
    bytes: int  # of metadata


@dataclass(frozen=True, slots=True)
class _Refused:
    row: int  # from 1
    id: str
    reason: str


def _checked(entries: Iterable[VectorEntry], rules: _VectorRules) -> Iterator[_Accepted | _Refused]:
    """Give every entry as an item, or its id and why it is refused."""
    seen: set[str] = set()
    for row, entry in enumerate(entries, start=1):
        item_id = _text(entry.id)
        try:
            accepted = _item(entry, item_id, rules)
            if (
                accepted.item.id in seen
            ):  # else each import would store first the one, then the other
                raise InvalidIdError("its id came in an earlier row")
        except VectorIndexError as error:
            yield _Refused(row, item_id or f"row {row}", str(error))
            continue
        seen.add(accepted.item.id)
        yield accepted


def _item(entry: VectorEntry, item_id: str | None, rules: _VectorRules) -> _Accepted:
    """Return what is stored of an entry.

    Raises:
        InvalidIdError, InvalidMetadataError, BadVectorsError: it cannot be stored.
    """
    check_id(entry.id if item_id is None else item_id)
    assert item_id is not None
    if entry.problem is not None:
        raise BadVectorsError(entry.problem)
    label, metadata, created = _label(entry.label), _metadata(entry.metadata), _time(entry.created)
    encoded = encode_metadata({} if metadata is None else metadata)
    vector_D = _vector(entry.vector, rules)
    content_sha256 = entry.content_sha256 or None
    if content_sha256 is not None and (
        not isinstance(content_sha256, str) or not SHA256.fullmatch(content_sha256)
    ):
        raise InvalidMetadataError(f"its content hash is not a SHA-256: {quoted(content_sha256)}")
    brought: dict[ItemField, object] = {
        "label": label,
        "metadata": metadata,
        "picture": entry.thumbnail,
        "content": content_sha256,
        "created": created,
    }
    item = NewItem(
        id=item_id,
        vector_D=vector_D,
        label=label,
        metadata=encoded,
        thumbnail=entry.thumbnail,
        content_sha256=content_sha256
        or hashlib.sha256(vector_D.astype(VECTOR_TYPE).tobytes()).hexdigest(),
        created=created,
        provided=frozenset(part for part, value in brought.items() if value is not None),
    )
    return _Accepted(item, len(encoded.text))


def _text(value: Any) -> str | None:
    """Return a cell as the text it clearly is; ``None`` when it is none, or empty."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, str | int | Decimal | date):
        return str(value) or None
    return None


def _label(value: Any) -> str | None:
    if value is None or value == "":
        return None
    label = clean_label(_text(value))
    check_label(value if label is None else label)
    return label


def _metadata(value: Any) -> Any:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        return value
    try:
        metadata = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidMetadataError(f"its metadata is not JSON: {quoted(value)}") from error
    if metadata is None:
        raise InvalidMetadataError("metadata must be a JSON object, got null")
    return metadata


def _time(value: Any) -> str | None:
    """Return a creation time as it is stored."""
    if value is None or value == "":
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidMetadataError(
            f"its creation time is not of the form 2026-01-31T12:00:00+00:00: {quoted(value)}"
        ) from error


def _vector(value: Any, rules: _VectorRules) -> NDArray[np.float32]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadVectorsError(f"its vector is not a list of numbers: {quoted(value)}") from None
    try:
        numbers_D = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadVectorsError(f"its vector has {_no_number(value)}") from error
    if numbers_D.shape != (rules.width,):
        has = f"{len(numbers_D)} numbers" if numbers_D.ndim == 1 else "no row of numbers"
        raise BadVectorsError(f"its vector has {has}, not {rules.width}")
    if not np.isfinite(numbers_D).all():
        raise BadVectorsError("its vector has numbers that are not finite")
    if rules.normalize:
        largest = np.abs(numbers_D).max()  # first, so that no square is too large or too small
        if largest == 0:
            raise BadVectorsError("its vector is zero and has no direction")
        numbers_D = numbers_D / largest
        numbers_D = numbers_D / np.linalg.norm(numbers_D)
    with np.errstate(over="ignore"):  # what becomes infinite is not of unit length
        vector_D = numbers_D.astype(np.float32)
    length = float(np.linalg.norm(vector_D.astype(np.float64)))
    if not abs(length - 1) <= UNIT_TOLERANCE:
        raise BadVectorsError(f"its vector has the length {length:.6g}, not 1")
    if rules.parts is not None:
        rules.parts.check(vector_D)
    return vector_D


def _no_number(value: Any) -> str:
    """Say what in ``value`` is none of a vector's numbers."""
    for place, number in enumerate(value if isinstance(value, list | tuple) else [], start=1):
        if number in ("", None):
            return f"nothing as its number {place}"
        try:
            float(number)
        except (ValueError, TypeError, OverflowError):
            return f"something other than a number at {place}: {quoted(number)}"
    return "something other than numbers"


def _chunks(entries: Iterator[_Accepted | _Refused]) -> Iterator[list[_Accepted | _Refused]]:
    chunk: list[_Accepted | _Refused] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += entry.bytes if isinstance(entry, _Accepted) else 0
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
