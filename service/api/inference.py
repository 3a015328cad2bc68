"""Routes that ask the network alone: classify and embed."""

import heapq
from collections.abc import Sequence
from http import HTTPStatus

import numpy as np
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from service.api.openapi import image_request, problem_responses
from service.errors import MissingImageError, NoClassesError
from service.inference.engine import Engine
from service.inference.task import Encoded, Task
from service.request.context import RequestContext, json_response
from service.schemas.parameters import MAX_IMAGES, ClassifyOptions, EmbedOptions
from service.schemas.query_responses import (
    Classification,
    Classifications,
    ClassifyResult,
    Embeddings,
    EmbedResult,
    Failure,
    Named,
    Prediction,
    SearchResultOf,
    WhyNot,
)
from vision.model.manifest import Manifest
from vision.model.open_set import judge

router = APIRouter(prefix="/v1", tags=["Queries"], responses=problem_responses())


@router.post(
    "/classify",
    summary="What is this?",
    openapi_extra=image_request(ClassifyOptions, most=MAX_IMAGES),
    response_model=Classification | Classifications,
    responses={207: {"model": Classifications, "description": "One of several images failed"}},
)
async def classify(request: RequestContext) -> Response:
    """Say what the image is, with calibrated probabilities; of several images, what each is."""
    engine = await request.receive_images()
    options = ClassifyOptions.parse(request.fields)
    check_classes(engine.manifest)
    if len(request.images) > 1:
        return await _classify_many(request, k=options.k)
    task = Task.of(request.image)
    with request.admit([task]):
        encoded = await request.encode_one(task)
    return json_response(
        Classification(
            request_id=request.id,
            model=engine.model_name,
            seq=engine.gallery.seq,
            timings_ms=request.timings(),
            **name_class(encoded, engine, k=options.k),
        )
    )


def check_classes(manifest: Manifest) -> None:
    """Refuse to classify with a model that has learnt no classes."""
    if not manifest.labels:
        raise NoClassesError(
            "this model has learnt no classes: POST /v1/search finds what looks alike, and "
            "POST /v1/search/vote says what the labels of those items speak for; the command "
            "`lookalike index classes` makes these labels the classes of a model"
        )


async def _classify_many(request: RequestContext, *, k: int) -> Response:
    engine = request.engine
    outcomes = _with_failures(request, await _encode_all(request))
    timings_ms = request.timings()

    def named() -> Response:  # to judge each takes 0.1 ms
        results: list[ClassifyResult | Failure] = [
            ClassifyResult(status=200, **name_class(outcome, engine, k=k))
            if isinstance(outcome, Encoded)
            else outcome
            for outcome in outcomes
        ]
        answer = Classifications(
            request_id=request.id,
            model=engine.model_name,
            seq=engine.gallery.seq,
            timings_ms=timings_ms,
            results=results,
        )
        return json_response(answer, status=status_of(results))

    return await engine.at_length(named)


@router.post(
    "/embed",
    summary="Vectors of images",
    openapi_extra=image_request(EmbedOptions, most=MAX_IMAGES),
    response_model=Embeddings,
    responses={207: {"model": Embeddings, "description": "An image failed"}},
)
async def embed(request: RequestContext) -> Response:
    """Turn images into unit vectors; of several images each has its own status."""
    engine = await request.receive_images()
    EmbedOptions.parse(request.fields)
    if not request.images:
        raise MissingImageError("no image came: send one or several as 'image'")
    outcomes = await _encode_all(request)
    if len(outcomes) == 1 and isinstance(outcomes[0], Exception):
        raise outcomes[0]
    results = [
        EmbedResult(status=200, vector=outcome.vector_D)
        if isinstance(outcome, Encoded)
        else outcome
        for outcome in _with_failures(request, outcomes)
    ]
    answer = Embeddings(
        request_id=request.id,
        model=engine.model_name,
        timings_ms=request.timings(),
        results=results,
    )
    if len(results) == 1:
        return json_response(answer, status=status_of(results))
    return await engine.at_length(lambda: json_response(answer, status=status_of(results)))


async def _encode_all(request: RequestContext) -> list[Encoded | Exception]:
    """Return what became of each image, in order."""
    tasks = [Task.of(data) for data in request.images]
    with request.admit(tasks):
        return await request.encode(tasks)


def _with_failures(
    request: RequestContext, outcomes: list[Encoded | Exception]
) -> list[Encoded | Failure]:
    return [
        request.fail_item(outcome) if isinstance(outcome, Exception) else outcome
        for outcome in outcomes
    ]


def status_of(
    results: Sequence[ClassifyResult | EmbedResult | SearchResultOf | Failure],
) -> HTTPStatus:
    """Return 200, or 207 where one of several images or queries failed."""
    failed = any(result["status"] != HTTPStatus.OK for result in results)
    return HTTPStatus.MULTI_STATUS if failed else HTTPStatus.OK


def name_class(encoded: Encoded, engine: Engine, *, k: int) -> Named:
    """Return the ``k`` most probable classes, and whether the first of them is sure."""
    predictions = top_predictions(encoded.probabilities_L, engine.manifest, k=k)
    sure, why_not = judge(engine.references, encoded.vector_D, encoded.probabilities_L)
    return Named(
        label=predictions[0]["label"],
        probability=predictions[0]["probability"],
        predictions=predictions,
        sure=sure,
        why_not=None if why_not is None else WhyNot(code=why_not.code, detail=why_not.detail),
    )


def top_predictions(
    probabilities_L: NDArray[np.float32], manifest: Manifest, *, k: int
) -> list[Prediction]:
    """Return the ``k`` most probable classes, best first."""
    values = probabilities_L.tolist()
    best = heapq.nlargest(k, range(len(values)), key=values.__getitem__)
    return [Prediction(label=manifest.labels[row], probability=values[row]) for row in best]
