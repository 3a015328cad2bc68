"""The route that counts items, and what they say."""

from fastapi import APIRouter, Response

from index.items.filter import parse_filter
from service.api.openapi import json_request, problem_responses
from service.request.context import RequestContext, json_response
from service.schemas.edit_parameters import FacetOptions
from service.schemas.responses import FacetAnswer, FacetValues

router = APIRouter(prefix="/v1/facets", tags=["Items"], responses=problem_responses())


@router.post(
    "",
    summary="How many items, and what do they say?",
    openapi_extra=json_request(FacetOptions, required=False),
    response_model=FacetAnswer,
)
async def count_items(request: RequestContext) -> Response:
    """Count the items a filter holds for, and their labels or other values; exact."""
    engine = request.check_room()
    options = await request.receive_options(FacetOptions)
    parsed = None if options.filter is None else parse_filter(options.filter)
    with request.admit(scans=1 + len(options.keys)):
        counts = await engine.at_length(
            lambda: engine.gallery.facets(parsed, keys=options.keys, limit=options.limit)
        )
    return json_response(
        FacetAnswer(
            request_id=request.id,
            seq=counts.seq,
            count=counts.count,
            facets=[
                FacetValues.model_validate(facet, from_attributes=True) for facet in counts.facets
            ],
        )
    )
