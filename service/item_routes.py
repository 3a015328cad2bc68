"""Routes that store, show and delete the gallery's items."""

import hashlib
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from index.editing import unexpected_item
from index.errors import VectorIndexError
from index.filter import parse_filter
from index.ids import check_id
from index.items import PutResult
from service.account import note_image
from service.answers import (
    BulkAnswer,
    BulkResult,
    DeleteAnswer,
    ItemAnswer,
    ItemPage,
    StoreAnswer,
    stored_item,
)
from service.body import decode_image_text
from service.documents import bulk_request, image_request, problem_answers, query_request
from service.engine import Engine
from service.errors import (
    AmbiguousQueryError,
    IdConflictError,
    MissingImageError,
    RequestError,
)
from service.exchange import (
    Stopwatch,
    answer_with,
    charge,
    free_engine,
    ready_engine,
    receive,
    receive_options,
)
from service.negotiation import has_it
from service.new_items import check_item, new_bare_item, new_item, vector_to_store
from service.options import BulkItem, BulkOptions, ItemOptions, NoOptions, PageOptions
from service.preconditions import expected_of, tag_of
from service.problems import describe
from service.task import Encoded, Task

router = APIRouter(prefix="/v1/items", tags=["Items"], responses=problem_answers())


@router.put(
    "/{item_id}",
    summary="Store or replace one item",
    openapi_extra=image_request(ItemOptions),
    response_model=StoreAnswer,
    responses={201: {"model": StoreAnswer, "description": "Created"}},
)
async def put_item(request: Request, item_id: str) -> Response:
    """Store an image, or a vector without one, under an id; answered once it is on disk.

    What is there is replaced.
    """
    engine = free_engine(request)
    submission = await receive(request)
    watch = Stopwatch()
    options = ItemOptions.parse(submission.fields)
    label, metadata = options.label, options.metadata
    check_item(item_id, label=label, metadata=metadata)
    expected = expected_of(request.headers)
    tasks: list[Task] = []
    if options.vector is None:
        data = submission.image
        tasks = [Task.of(data, with_thumbnail=True)]
    elif submission.images:
        raise AmbiguousQueryError("send an image or a vector, not both")
    else:
        vector_D = vector_to_store(options.vector, engine.manifest.architecture)
    with engine.admit(tasks):
        if options.vector is None:
            encoded = await engine.pipeline(tasks[0])
            watch.add(encoded)
            item = new_item(item_id, data, encoded, label=label, metadata=metadata)
        else:
            item = new_bare_item(item_id, vector_D, label=label, metadata=metadata)
        put = partial(engine.gallery.editing.put, [item], upsert=options.upsert, expected=expected)
        (result,) = await engine.write(put)
    if result.outcome == "conflict":
        raise _conflict(item_id)
    if result.outcome == "unexpected":
        raise unexpected_item(item_id, result.seq)
    status = HTTPStatus.CREATED if result.outcome == "created" else HTTPStatus.OK
    answer = answer_with(
        StoreAnswer(
            request_id=request.scope["request_id"],
            id=item_id,
            outcome=result.outcome,
            seq=result.seq,
            model=engine.model_name,
            timings_ms=watch.stop(),
        ),
        status=status,
    )
    answer.headers["ETag"] = tag_of(result.seq)
    return answer


@router.get(
    "/{item_id}",
    summary="One item",
    openapi_extra=query_request(NoOptions),
    response_model=ItemAnswer,
)
async def get_item(request: Request, item_id: str) -> Response:
    """Show one item."""
    engine = ready_engine(request)
    await receive_options(request, NoOptions)
    item = await engine.read(lambda: engine.gallery.get(item_id))
    tag = tag_of(item.seq)
    if has_it(tag, request.headers):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    answer = answer_with(ItemAnswer(request_id=request.scope["request_id"], **stored_item(item)))
    answer.headers["ETag"] = tag
    return answer


@router.get(
    "/{item_id}/image",
    summary="One item's picture",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}},
)
async def get_thumbnail(request: Request, item_id: str) -> Response:
    """Show one item's picture, its longest side at most 256 pixels."""
    engine = ready_engine(request)
    await receive_options(request, NoOptions)
    thumbnail = await engine.read(lambda: engine.gallery.thumbnail(item_id))
    tag = f'"{hashlib.sha256(thumbnail.data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if "cors" in request.scope and request.scope["cors"].lets_show(request.headers):
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if has_it(tag, request.headers):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(thumbnail.data, media_type=thumbnail.media_type, headers=headers)


@router.delete("/{item_id}", summary="Delete one item", response_model=DeleteAnswer)
async def delete_item(request: Request, item_id: str) -> Response:
    """Delete one item; answered once that is on disk."""
    engine = free_engine(request)
    check_id(item_id)
    expected = expected_of(request.headers)
    await receive_options(request, NoOptions)
    with engine.admit():
        await engine.write(lambda: engine.gallery.editing.delete(item_id, expected=expected))
    return answer_with(
        DeleteAnswer(request_id=request.scope["request_id"], id=item_id, seq=engine.gallery.seq)
    )


@router.get(
    "",
    summary="Page through items",
    openapi_extra=query_request(PageOptions),
    response_model=ItemPage,
)
async def list_items(request: Request) -> Response:
    """Page through the items in the order they were stored."""
    engine = ready_engine(request)
    options = await receive_options(request, PageOptions)
    wanted = parse_filter(options.filter) if options.filter is not None else None

    def read() -> Response:  # a thousand items take longer than the event loop may be kept
        page = engine.gallery.page(limit=options.limit, cursor=options.cursor, filter=wanted)
        return answer_with(
            ItemPage(
                request_id=request.scope["request_id"],
                seq=engine.gallery.seq,
                items=[stored_item(item) for item in page.items],
                next_cursor=page.next_cursor,
            )
        )

    return await engine.at_length(read)


@router.post(
    "",
    summary="Store many items",
    openapi_extra=bulk_request(),
    status_code=HTTPStatus.MULTI_STATUS,
    response_model=BulkAnswer,
)
async def put_items(request: Request) -> Response:
    """Store many images; each item has its own status, and what is stored is on disk."""
    engine = free_engine(request)
    submission = await receive(request)
    options = BulkOptions.parse(submission.fields)
    charge(request, images=len(options.items))
    entries = _entries(options.items, submission.images)
    sound = [entry for entry in entries if entry.error is None]
    tasks = [Task.of(entry.data, with_thumbnail=True) for entry in sound]
    with engine.admit(tasks):
        results = await _store_all(engine, entries, tasks, upsert=options.upsert)
    return answer_with(
        BulkAnswer(request_id=request.scope["request_id"], seq=engine.gallery.seq, results=results),
        status=HTTPStatus.MULTI_STATUS,
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One item of a bulk request: what to store, or why it cannot be stored."""

    id: str | None
    data: bytes = b""
    label: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None


def _entries(items: list[Any], images: list[bytes]) -> list[_Entry]:
    if images and len(images) != len(items):
        raise AmbiguousQueryError(
            f"{len(images)} images came for {len(items)} items; send one image per item"
        )
    files: list[bytes | None] = [*images] if images else [None] * len(items)
    return [_entry(value, file) for value, file in zip(items, files, strict=True)]


def _entry(value: Any, file: bytes | None) -> _Entry:
    item_id = value.get("id") if isinstance(value, dict) else None
    item_id = item_id if isinstance(item_id, str) else None
    try:
        item = BulkItem.parse(value)
        check_item(item.id, label=item.label, metadata=item.metadata)
        if file is not None and item.image is not None:
            raise AmbiguousQueryError("an item's image came twice, as a file and in JSON")
        if file is None and item.image is None:
            raise MissingImageError("the item has no image")
        data = file if file is not None else decode_image_text(item.image, name="image")
    except (RequestError, VectorIndexError) as error:
        return _Entry(item_id, error=error)
    return _Entry(item.id, data, item.label, item.metadata)


async def _store_all(
    engine: Engine, entries: list[_Entry], tasks: list[Task], *, upsert: bool
) -> list[BulkResult]:
    """Store the sound ones of ``entries``, whose images are ``tasks``."""
    sound = [entry for entry in entries if entry.error is None]
    outcomes = await engine.pipeline.encode_all(tasks)
    for outcome in outcomes:
        if isinstance(outcome, Encoded):
            note_image(
                queue_ms=outcome.queue_ms,
                decode_ms=outcome.decode_ms,
                encode_ms=outcome.encode_share_ms,
            )
    items = [
        new_item(str(entry.id), entry.data, outcome, label=entry.label, metadata=entry.metadata)
        for entry, outcome in zip(sound, outcomes, strict=True)
        if not isinstance(outcome, Exception)
    ]
    stored = await engine.write(lambda: engine.gallery.put(items, upsert=upsert))
    # Put the two kinds of outcome back into the order in which the items came.
    next_outcome, next_stored = iter(outcomes), iter(stored)
    results = []
    for entry in entries:
        error = entry.error
        if error is None and isinstance(outcome := next(next_outcome), Exception):
            error = outcome
        if error is not None:
            results.append(BulkResult(id=entry.id, **describe(error)))
        else:
            results.append(_stored_result(next(next_stored)))
    return results


def _stored_result(result: PutResult) -> BulkResult:
    if result.outcome == "conflict":
        return BulkResult(id=result.id, **describe(_conflict(result.id)))
    status = HTTPStatus.CREATED if result.outcome == "created" else HTTPStatus.OK
    return BulkResult(id=result.id, status=status, outcome=result.outcome)


def _conflict(item_id: str) -> IdConflictError:
    return IdConflictError(f"{item_id!r} holds other content; send upsert=true to replace it")
