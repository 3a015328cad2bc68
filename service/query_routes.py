"""Routes that look and change nothing: classify, embed, search."""

import asyncio
import time
from http import HTTPStatus

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from index.errors import BadVectorsError, UnknownIdError
from index.filter import Filter, parse_filter
from index.items import SearchResult
from service.answers import (
    Classification,
    Embeddings,
    EmbedResult,
    FoundItem,
    Prediction,
    SearchAnswer,
)
from service.body import Submission
from service.direct import DirectRoute
from service.documents import image_request, problem_answers
from service.engine import Engine
from service.errors import AmbiguousQueryError, MissingImageError, NotReadyError
from service.exchange import Stopwatch, answer_with, ready_engine, receive
from service.options import ClassifyOptions, CropOption, EmbedOptions, SearchOptions
from service.pipeline import Encoded, Task
from service.problems import describe
from vision.manifest import Manifest
from vision.preprocess import CropBox

MIN_SEQ_WAIT_S = 1.0  # how long a search waits for the write it must see

router = APIRouter(
    route_class=DirectRoute, prefix="/v1", tags=["Queries"], responses=problem_answers()
)


@router.post(
    "/classify",
    summary="What is this?",
    openapi_extra=image_request(ClassifyOptions),
    response_model=Classification,
)
async def classify(request: Request) -> Response:
    """Say what the image is, with calibrated probabilities."""
    engine = ready_engine(request)
    submission = await receive(request)
    watch = Stopwatch()
    options = ClassifyOptions.parse(submission.fields)
    task = Task(data=submission.image)
    with engine.admission.admit():
        encoded = await engine.pipeline(task)
    watch.add(encoded)
    predictions = top_predictions(encoded.probabilities_L, engine.manifest, k=options.k)
    return answer_with(
        Classification(
            request_id=request.scope["request_id"],
            model=engine.model_name,
            seq=engine.gallery.seq,
            timings_ms=watch.stop(request),
            label=predictions[0].label,
            probability=predictions[0].probability,
            predictions=predictions,
        )
    )


@router.post(
    "/embed",
    summary="Vectors of images",
    openapi_extra=image_request(EmbedOptions, many=True),
    response_model=Embeddings,
    responses={207: {"model": Embeddings, "description": "An image failed"}},
)
async def embed(request: Request) -> Response:
    """Turn images into unit vectors; of several images each has its own status."""
    engine = ready_engine(request)
    submission = await receive(request)
    watch = Stopwatch()
    EmbedOptions.parse(submission.fields)
    if not submission.images:
        raise MissingImageError("no image came: send one or several as 'image'")
    with engine.admission.admit():
        outcomes = await encode_all(engine, [Task(data=data) for data in submission.images])
    if len(outcomes) == 1 and isinstance(outcomes[0], Exception):
        raise outcomes[0]
    results = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            results.append(EmbedResult(**describe(outcome)))
        else:
            watch.add(outcome)
            results.append(EmbedResult(status=HTTPStatus.OK, vector=outcome.vector_D.tolist()))
    failed = any(result.status != HTTPStatus.OK for result in results)
    return answer_with(
        Embeddings(
            request_id=request.scope["request_id"],
            model=engine.model_name,
            timings_ms=watch.stop(request),
            results=results,
        ),
        status=HTTPStatus.MULTI_STATUS if failed else HTTPStatus.OK,
    )


@router.post(
    "/search",
    summary="What looks like this?",
    openapi_extra=image_request(SearchOptions),
    response_model=SearchAnswer,
)
async def search(request: Request) -> Response:
    """Find the stored items most like an image, a stored item (``id``) or a ``vector``."""
    engine = ready_engine(request)
    submission = await receive(request)
    watch = Stopwatch()
    options = SearchOptions.parse(submission.fields)
    wanted = parse_filter(options.filter) if options.filter is not None else None
    _check_one_source(submission, options)
    with engine.admission.admit():
        await _see_write(engine, options.min_seq)
        query_D = await _query_vector(engine, submission, options, watch)
        searched = time.perf_counter()
        result, vectors = await engine.read(lambda: _find(engine, query_D, wanted, options))
        watch.search_ms = (time.perf_counter() - searched) * 1000
    hits = [
        FoundItem(id=hit.id, score=hit.score, label=hit.label, metadata=hit.metadata)
        for hit in result.hits[0]
    ]
    for hit, vector_D in zip(hits, vectors, strict=False):
        hit.vector = vector_D.tolist()
    return answer_with(
        SearchAnswer(
            request_id=request.scope["request_id"],
            model=engine.model_name,
            seq=result.seq,
            timings_ms=watch.stop(request),
            hits=hits,
        )
    )


def top_predictions(
    probabilities_L: NDArray[np.float32], manifest: Manifest, *, k: int
) -> list[Prediction]:
    """Return the ``k`` most probable classes, best first."""
    best = np.argsort(-probabilities_L, kind="stable")[:k]
    return [
        Prediction(label=manifest.labels[row], probability=float(probabilities_L[row]))
        for row in best
    ]


async def encode_all(engine: Engine, tasks: list[Task]) -> list[Encoded | Exception]:
    """Return what became of each task, in order; a broken image fails alone.

    At most two batches of one request are under way, so that a large one leaves room for others.
    """
    places = asyncio.Semaphore(2 * engine.settings.max_batch)

    async def encode_one(task: Task) -> Encoded | Exception:
        async with places:
            try:
                return await engine.pipeline(task)
            except Exception as error:
                return error

    return await asyncio.gather(*map(encode_one, tasks))


def _check_one_source(submission: Submission, options: SearchOptions) -> None:
    sources = len(submission.images) + (options.id is not None) + (options.vector is not None)
    if sources == 0:
        raise MissingImageError("nothing to search by: send an image, an id or a vector")
    if sources > 1:
        raise AmbiguousQueryError("send one of image, id and vector, not several")


async def _see_write(engine: Engine, min_seq: int | None) -> None:
    if min_seq is not None and not await engine.wait_for(min_seq, timeout_s=MIN_SEQ_WAIT_S):
        raise NotReadyError(f"write {min_seq} has not arrived; the newest is {engine.gallery.seq}")


async def _query_vector(
    engine: Engine, submission: Submission, options: SearchOptions, watch: Stopwatch
) -> NDArray[np.float32]:
    if options.vector is not None:
        return _unit_vector(options.vector, width=engine.manifest.architecture.width)
    if options.id is not None:
        item_id = options.id
        return await engine.read(lambda: engine.gallery.vector(item_id))
    encoded = await engine.pipeline(Task(data=submission.image, crop=_box(options.crop)))
    watch.add(encoded)
    return encoded.vector_D


def _find(
    engine: Engine, query_D: NDArray[np.float32], wanted: Filter | None, options: SearchOptions
) -> tuple[SearchResult, list[NDArray[np.float32]]]:
    gallery = engine.gallery
    while True:
        result = gallery.search(
            query_D[np.newaxis], k=options.k, filter=wanted, min_score=options.min_score
        )
        if not options.with_vector:
            return result, []
        try:
            return result, [gallery.vector(hit.id) for hit in result.hits[0]]
        except UnknownIdError:  # deleted meanwhile: the next search no longer finds it
            continue


def _unit_vector(values: list[float], *, width: int) -> NDArray[np.float32]:
    vector_D = np.asarray(values, np.float64)
    if vector_D.shape != (width,):
        raise BadVectorsError(f"vector must have {width} numbers, got {len(values)}")
    length = float(np.linalg.norm(vector_D))
    if not np.isfinite(length) or length == 0:
        raise BadVectorsError("vector must have finite numbers, not all of them zero")
    return (vector_D / length).astype(np.float32)


def _box(crop: CropOption | None) -> CropBox | None:
    return CropBox(**crop.model_dump()) if crop is not None else None
