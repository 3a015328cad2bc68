"""Routes that store, show and delete the gallery's items."""

import hashlib
from functools import partial
from http import HTTPStatus

from fastapi import APIRouter, Response

from index.items.filter import parse_filter
from index.items.ids import check_id
from index.query.editing import unexpected_item
from service.api.openapi import bulk_request, image_request, problem_responses, query_request
from service.errors import AmbiguousQueryError
from service.http.negotiation import is_not_modified
from service.inference.task import Task
from service.request.bulk_items import conflict, entries_of, store_all, tasks_of
from service.request.context import RequestContext, json_response
from service.request.new_item import check_item, new_bare_item, new_item, vector_to_store
from service.request.preconditions import expected_of, tag_of
from service.schemas.parameters import BulkOptions, ItemOptions, NoOptions, PageOptions
from service.schemas.responses import (
    BulkAnswer,
    DeleteAnswer,
    ItemAnswer,
    ItemPage,
    StoreAnswer,
    stored_item,
)

router = APIRouter(prefix="/v1/items", tags=["Items"], responses=problem_responses())


@router.put(
    "/{item_id}",
    summary="Store or replace one item",
    openapi_extra=image_request(ItemOptions),
    response_model=StoreAnswer,
    responses={201: {"model": StoreAnswer, "description": "Created"}},
)
async def put_item(request: RequestContext, item_id: str) -> Response:
    """Store an image, or a vector without one, under an id; answered once it is on disk.

    What is there is replaced.
    """
    engine = await request.receive_images()
    options = ItemOptions.parse(request.fields)
    label = options.label
    metadata = check_item(item_id, label=label, metadata=options.metadata)
    expected = expected_of(request.headers)
    tasks: list[Task] = []
    if options.vector is None:
        data = request.image
        tasks = [Task.of(data, with_thumbnail=True)]
    elif request.images:
        raise AmbiguousQueryError("send an image or a vector, not both")
    else:
        vector_D = vector_to_store(options.vector, engine.manifest.architecture)
    with request.admit(tasks):
        if options.vector is None:
            encoded = await request.encode_one(tasks[0])
            item = new_item(item_id, data, encoded, label=label, metadata=metadata)
        else:
            item = new_bare_item(item_id, vector_D, label=label, metadata=metadata)
        put = partial(engine.gallery.put, [item], upsert=options.upsert, expected=expected)
        (result,) = await request.write(put)
    if result.outcome == "conflict":
        raise conflict(item_id)
    if result.outcome == "unexpected":
        raise unexpected_item(item_id, result.seq, expected)
    status = HTTPStatus.CREATED if result.outcome == "created" else HTTPStatus.OK
    answer = json_response(
        StoreAnswer(
            request_id=request.id,
            id=item_id,
            outcome=result.outcome,
            seq=result.seq,
            model=engine.model_name,
            timings_ms=request.timings(),
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
async def get_item(request: RequestContext, item_id: str) -> Response:
    """Show one item."""
    engine = request.engine
    await request.receive_options(NoOptions)
    item = await engine.read(lambda: engine.gallery.get(item_id))
    tag = tag_of(item.seq)
    if is_not_modified(tag, request.headers):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    answer = json_response(ItemAnswer(request_id=request.id, **stored_item(item)))
    answer.headers["ETag"] = tag
    return answer


@router.get(
    "/{item_id}/image",
    summary="One item's picture",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}},
)
async def get_thumbnail(request: RequestContext, item_id: str) -> Response:
    """Show one item's picture, its longest side at most 256 pixels."""
    engine = request.engine
    await request.receive_options(NoOptions)
    thumbnail = await engine.read(lambda: engine.gallery.thumbnail(item_id))
    tag = f'"{hashlib.sha256(thumbnail.data).hexdigest()[:32]}"'
    cors = request.worker.cors
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if cors is not None and cors.allows_embedding(request.headers):
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if is_not_modified(tag, request.headers):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(thumbnail.data, media_type=thumbnail.media_type, headers=headers)


@router.delete("/{item_id}", summary="Delete one item", response_model=DeleteAnswer)
async def delete_item(request: RequestContext, item_id: str) -> Response:
    """Delete one item; answered once that is on disk."""
    engine = request.check_room()
    check_id(item_id)
    expected = expected_of(request.headers)
    await request.receive_options(NoOptions)
    with request.admit():
        await request.write(lambda: engine.gallery.delete_item(item_id, expected=expected))
    return json_response(DeleteAnswer(request_id=request.id, id=item_id, seq=engine.gallery.seq))


@router.get(
    "",
    summary="Page through items",
    openapi_extra=query_request(PageOptions),
    response_model=ItemPage,
)
async def list_items(request: RequestContext) -> Response:
    """Page through the items in the order they were stored."""
    engine = request.engine
    options = await request.receive_options(PageOptions)
    wanted = parse_filter(options.filter) if options.filter is not None else None

    def read() -> Response:  # a thousand items take longer than the event loop may be kept
        page = engine.gallery.page(limit=options.limit, cursor=options.cursor, filter=wanted)
        return json_response(
            ItemPage(
                request_id=request.id,
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
async def put_items(request: RequestContext) -> Response:
    """Store many images, or vectors; each item has its own status, what is stored is on disk."""
    engine = await request.receive_images()
    options = BulkOptions.parse(request.fields)
    request.charge(images=len(options.items))
    entries = entries_of(options.items, request.images, engine.manifest.architecture)
    tasks = tasks_of(entries)
    sound = sum(entry.error is None for entry in entries)
    with request.admit(tasks, others=sound - len(tasks)):
        results = await store_all(request, entries, tasks, upsert=options.upsert)
    return json_response(
        BulkAnswer(request_id=request.id, seq=engine.gallery.seq, results=results),
        status=HTTPStatus.MULTI_STATUS,
    )
