"""Routes that find stored items: the nearest, all that are near enough, and what they vote for."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from index.items.item import Hit, RangeResult, SearchResult
from index.query.knn_vote import vote
from service.api.inference import status_of
from service.api.openapi import image_request, problem_responses
from service.request.context import RequestContext, json_response
from service.request.lifecycle import run_search
from service.request.result_selection import result_selection
from service.request.search_queries import asks_several, run_searches
from service.request.search_query import SearchQuery
from service.schemas.query_parameters import MAX_QUERIES, RangeOptions, SearchOptions, VoteOptions
from service.schemas.query_responses import (
    Failure,
    FoundItem,
    LabelShare,
    RangeAnswer,
    SearchAnswer,
    SearchAnswers,
    SearchResultOf,
    VoteAnswer,
)

MANY_HITS: Final = 100  # take longer to write down than a thread takes to wake
router = APIRouter(prefix="/v1/search", tags=["Queries"], responses=problem_responses())


@router.post(
    "",
    summary="What looks like this?",
    openapi_extra=image_request(SearchOptions, most=MAX_QUERIES),
    response_model=SearchAnswer | SearchAnswers,
    responses={207: {"model": SearchAnswers, "description": "One of several queries failed"}},
)
async def search(request: RequestContext) -> Response:
    """Find the stored items most like an image, a stored item (``id``) or a ``vector``.

    Several images, or ``queries``, are answered in ``results``, each with its own status.
    """
    await request.receive_images()
    if asks_several(request):
        return await _search_many(request)
    result, vectors = await run_search(request, SearchOptions, _search)
    timings_ms = request.timings()

    def make() -> SearchAnswer:
        return SearchAnswer(
            request_id=request.id,
            model=request.engine.model_name,
            seq=result.seq,
            timings_ms=timings_ms,
            hits=found_items(result.hits[0], vectors),
        )

    if len(result.hits[0]) > MANY_HITS:
        return await request.answer_at_length(make)
    return json_response(make())


async def _search_many(request: RequestContext) -> Response:
    engine = request.engine
    queries = request.fields.get("queries")
    request.charge(images=len(queries) if isinstance(queries, list) else 1)
    found = await run_searches(request, _search)
    seqs = [engine.gallery.seq]
    results: list[SearchResultOf | Failure] = []
    for outcome in found:
        if isinstance(outcome, Exception):
            results.append(request.fail_item(outcome))
            continue
        result, vectors = outcome
        seqs.append(result.seq)
        results.append(SearchResultOf(status=200, hits=found_items(result.hits[0], vectors)))
    answer = SearchAnswers(
        request_id=request.id,
        model=request.engine.model_name,
        seq=min(seqs),
        timings_ms=request.timings(),
        results=results,
    )
    return await engine.at_length(lambda: json_response(answer, status=status_of(results)))


@router.post(
    "/range",
    summary="Everything that looks enough like this",
    openapi_extra=image_request(RangeOptions),
    response_model=RangeAnswer,
)
async def search_range(request: RequestContext) -> Response:
    """Find all stored items that score at least ``min_score``; exact, it looks at every item."""
    result = await run_search(request, RangeOptions, _range_search)
    timings_ms = request.timings()
    return await request.answer_at_length(
        lambda: RangeAnswer(
            request_id=request.id,
            model=request.engine.model_name,
            seq=result.seq,
            timings_ms=timings_ms,
            hits=found_items(result.hits),
            total=result.total,
        ),
    )


@router.post(
    "/vote",
    summary="What do the items that look like this say it is?",
    openapi_extra=image_request(VoteOptions),
    response_model=VoteAnswer,
)
async def search_vote(request: RequestContext) -> Response:
    """Let the labels of the nearest items vote; an item asked for by ``id`` has no vote itself."""
    result = await run_search(request, VoteOptions, _search_for_vote)
    votes = [LabelShare(label=one.label, share=one.share) for one in vote(result.hits[0])]
    return json_response(
        VoteAnswer(
            request_id=request.id,
            model=request.engine.model_name,
            seq=result.seq,
            timings_ms=request.timings(),
            label=votes[0]["label"] if votes else None,
            votes=votes,
            hits=found_items(result.hits[0]),
        )
    )


def found_items(
    hits: Sequence[Hit], vectors: Sequence[NDArray[np.float32]] = ()
) -> list[FoundItem]:
    """Return the hits as an answer shows them, with their vectors where these were asked for."""
    found = [
        FoundItem(id=hit.id, score=hit.score, label=hit.label, metadata=hit.metadata)
        for hit in hits
    ]
    for item, vector_D in zip(found, vectors, strict=False):
        item["vector"] = vector_D
    return found


def _search(query: SearchQuery[SearchOptions]) -> tuple[SearchResult, list[NDArray[np.float32]]]:
    gallery, options, selection = query.gallery, query.options, result_selection(query)
    while True:
        result = gallery.search(
            query.vector_D[np.newaxis],
            k=options.k,
            filter=query.filter,
            min_score=options.min_score,
            exact=options.exact,
            query_item=query.query_item,
            factor=query.factor,
            selection=selection,
        )
        if not options.with_vector:
            return result, []
        vectors = gallery.vectors([hit.id for hit in result.hits[0]])
        if len(vectors) == len(result.hits[0]):
            return result, [vectors[hit.id] for hit in result.hits[0]]
        # One was deleted meanwhile: the next search no longer finds it.


def _range_search(query: SearchQuery[RangeOptions]) -> RangeResult:
    options = query.options
    return query.gallery.range_search(
        query.vector_D,
        min_score=options.min_score,
        limit=options.limit,
        filter=query.filter,
        factor=query.factor,
    )


def _search_for_vote(query: SearchQuery[VoteOptions]) -> SearchResult:
    k, asked_for = query.options.k, query.options.id
    found = query.gallery.search(
        query.vector_D[np.newaxis],
        k=k + (asked_for is not None),
        filter=query.filter,
        query_item=query.query_item,
        factor=query.factor,
    )
    others = [hit for hit in found.hits[0] if hit.id != asked_for]
    return SearchResult([others[:k]], found.seq)
