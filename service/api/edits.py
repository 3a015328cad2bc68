"""Routes that change what is stored: a patch of one item, and the end of many."""

from typing import Final

from fastapi import APIRouter, Response

from index.items.ids import check_id
from index.items.item import check_label
from index.query.editing import Patch
from service.api.openapi import json_request, problem_responses
from service.errors import UnexpectedFieldError, UnsupportedBodyError
from service.jobs.deletion import delete_selected, parse_selection
from service.request.context import RequestContext, json_response
from service.request.preconditions import expected_of, tag_of
from service.schemas.edit_parameters import DeleteOptions, PatchOptions
from service.schemas.responses import DeletedAnswer, ItemAnswer, stored_item

PATCHES: Final = ("application/merge-patch+json", "application/json")
router = APIRouter(prefix="/v1/items", tags=["Items"], responses=problem_responses())


@router.patch(
    "/{item_id}",
    summary="Change an item's label or metadata",
    openapi_extra=json_request(PatchOptions, media_types=PATCHES),
    response_model=ItemAnswer,
)
async def patch_item(request: RequestContext, item_id: str) -> Response:
    """Change label or metadata by a JSON merge patch (RFC 7396); answered once it is on disk.

    Null removes. The vector, the picture and the content stay.
    """
    engine = request.check_room()
    check_id(item_id)
    expected = expected_of(request.headers)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in PATCHES:
        raise UnsupportedBodyError(
            f"a patch is of type {' or '.join(PATCHES)}, got {kind[:60]!r}",
            accepts=("Accept-Patch", ", ".join(PATCHES)),  # RFC 5789, 2.2
        )
    if request.url.query:
        raise UnexpectedFieldError("a patch says everything in its body, nothing in the address")
    options = await request.receive_options(PatchOptions)
    check_label(options.label)
    patch = Patch(options.model_dump(exclude_unset=True))
    with request.admit():
        item = await request.write(lambda: engine.gallery.patch(item_id, patch, expected=expected))
    answer = json_response(ItemAnswer(request_id=request.id, **stored_item(item)))
    answer.headers["ETag"] = tag_of(item.seq)
    return answer


@router.post(
    "/delete",
    summary="Delete many items",
    openapi_extra=json_request(DeleteOptions),
    response_model=DeletedAnswer,
)
async def delete_items(request: RequestContext) -> Response:
    """Delete up to 1,000 items, by their ids or by a filter; answered once that is on disk."""
    engine = request.check_room()
    selection = parse_selection(await request.receive_options(DeleteOptions))
    with request.admit():
        deleted = await request.write(lambda: delete_selected(selection, engine.gallery))
    return json_response(
        DeletedAnswer(request_id=request.id, deleted=deleted, seq=engine.gallery.seq)
    )
