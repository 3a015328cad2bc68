"""The route that counts items, and what they say."""

from fastapi import APIRouter, Request, Response

from index.items.filter import parse_filter
from service.api.openapi import json_request, problem_responses
from service.request.exchange import answer_with, free_engine, receive_options
from service.schemas.edit_parameters import FacetOptions
from service.schemas.responses import FacetAnswer, FacetValue, FacetValues

router = APIRouter(prefix="/v1/facets", tags=["Items"], responses=problem_responses())


@router.post(
    "",
    summary="How many items, and what do they say?",
    openapi_extra=json_request(FacetOptions, required=False),
    response_model=FacetAnswer,
)
async def count_items(request: Request) -> Response:
    """Count the items a filter holds for, and their labels or other values; exact."""
    engine = free_engine(request)
    options = await receive_options(request, FacetOptions)
    wanted = None if options.filter is None else parse_filter(options.filter)
    with engine.admit(scans=1 + len(options.keys)):
        counts = await engine.at_length(
            lambda: engine.gallery.facets(wanted, keys=options.keys, limit=options.limit)
        )
    return answer_with(
        FacetAnswer(
            request_id=request.scope["request_id"],
            seq=counts.seq,
            count=counts.count,
            facets=[
                FacetValues(
                    key=facet.key,
                    values=[FacetValue(value=one.value, count=one.count) for one in facet.values],
                    distinct=facet.distinct,
                )
                for facet in counts.facets
            ],
        )
    )
