"""Many items of one request: entries in, each an image or a vector; the result of each out.

An item that cannot be stored fails alone; all others are stored together.
"""

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import VectorIndexError
from index.items.item import NO_METADATA, EncodedMetadata, NewItem, PutResult
from service.errors import AmbiguousQueryError, IdConflictError, MissingImageError, RequestError
from service.http.request_body import decode_image_text
from service.inference.task import Encoded, Task
from service.request.context import RequestContext
from service.request.new_item import check_item, new_bare_item, new_item, vector_to_store
from service.schemas.parameters import BulkItem
from service.schemas.responses import BulkResult
from vision.model.manifest import Architecture


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of many: what to store, or why it cannot be stored."""

    id: str | None
    source: bytes | NDArray[np.float32] = b""  # an encoded image, or a vector (D,)
    label: str | None = None
    metadata: EncodedMetadata = NO_METADATA
    error: Exception | None = None


def entries_of(items: list[Any], images: list[bytes], architecture: Architecture) -> list[Entry]:
    """Return the entries of a request, in order.

    Args:
        items: as they came, each an object or something wrong.
        images: files of a form, in the order of the items that have no vector; or none.
        architecture: of the network whose vectors are stored.

    Raises:
        AmbiguousQueryError: there are more files than such items, or fewer.
    """
    files: list[bytes | None] = [None] * len(items)
    if images:
        places = [place for place, value in enumerate(items) if not _has_vector(value)]
        if len(images) != len(places):
            raise AmbiguousQueryError(
                f"an image for each item without a vector was expected, in order: {len(places)} "
                f"in all, got {len(images)}"
            )
        for place, image in zip(places, images, strict=True):
            files[place] = image
    return [_entry(value, file, architecture) for value, file in zip(items, files, strict=True)]


def _has_vector(value: Any) -> bool:
    return isinstance(value, dict) and value.get("vector") is not None


def _entry(value: Any, file: bytes | None, architecture: Architecture) -> Entry:
    item_id = value.get("id") if isinstance(value, dict) else None
    item_id = item_id if isinstance(item_id, str) else None
    try:
        item = BulkItem.parse(value)
        metadata = check_item(item.id, label=item.label, metadata=item.metadata)
        source = _source(item, file, architecture)
    except (RequestError, VectorIndexError) as error:
        return Entry(item_id, error=error)
    return Entry(item.id, source, item.label, metadata)


def _source(
    item: BulkItem, file: bytes | None, architecture: Architecture
) -> bytes | NDArray[np.float32]:
    if item.vector is not None:
        if item.image is not None:
            raise AmbiguousQueryError("an item has an image or a vector, not both")
        return vector_to_store(item.vector, architecture)
    if file is None:
        if item.image is None:
            raise MissingImageError("the item has no image and no vector")
        return decode_image_text(item.image, name="image")
    if item.image is not None:
        raise AmbiguousQueryError("an item's image came twice, as a file and in JSON")
    return file


def tasks_of(entries: list[Entry]) -> list[Task]:
    """Return the images, in order."""
    return [
        Task.of(entry.source, with_thumbnail=True)
        for entry in entries
        if entry.error is None and isinstance(entry.source, bytes)
    ]


async def store_all(
    request: RequestContext, entries: list[Entry], tasks: list[Task], *, upsert: bool
) -> list[BulkResult]:
    """Store all that can be stored in one durable transaction, and return the result of each.

    ``tasks`` are the images among ``entries``.

    Raises:
        VectorIndexError: nothing could be written.
    """
    encoded = iter(await request.encode(tasks))
    pending = [_storable(entry, next(encoded) if _is_image(entry) else None) for entry in entries]
    items = [one for one in pending if isinstance(one, NewItem)]
    put = partial(request.engine.gallery.put, items, upsert=upsert)
    stored = iter(await request.write(put))
    return [
        _stored_result(request, next(stored))
        if isinstance(one, NewItem)
        else BulkResult(id=entry.id, **request.fail_item(one))
        for entry, one in zip(entries, pending, strict=True)
    ]


def _is_image(entry: Entry) -> bool:
    return entry.error is None and isinstance(entry.source, bytes)


def _storable(entry: Entry, encoded: Encoded | Exception | None) -> NewItem | Exception:
    """Return the item of an entry, or why there is none."""
    label, metadata = entry.label, entry.metadata
    if entry.error is not None:
        return entry.error
    if isinstance(encoded, Exception):
        return encoded
    if isinstance(entry.source, bytes):
        assert encoded is not None  # every image that is sound so far was a task
        return new_item(str(entry.id), entry.source, encoded, label=label, metadata=metadata)
    return new_bare_item(str(entry.id), entry.source, label=label, metadata=metadata)


def _stored_result(request: RequestContext, result: PutResult) -> BulkResult:
    if result.outcome == "conflict":
        return BulkResult(id=result.id, **request.fail_item(conflict(result.id)))
    status = HTTPStatus.CREATED if result.outcome == "created" else HTTPStatus.OK
    return BulkResult(id=result.id, status=status, outcome=result.outcome)


def conflict(item_id: str) -> IdConflictError:
    """Return what is said where an id holds something else that is to stay."""
    return IdConflictError(f"{item_id!r} holds other content; send upsert=true to replace it")
