"""Routes that ask the network alone: classify and embed."""

import heapq
from http import HTTPStatus

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from service.answers import (
    Classification,
    Embeddings,
    EmbedResult,
    Prediction,
)
from service.documents import image_request, problem_answers
from service.errors import MissingImageError
from service.exchange import Stopwatch, answer_with, ready_engine, receive
from service.options import ClassifyOptions, EmbedOptions
from service.pipeline import Task
from service.problems import describe
from vision.manifest import Manifest

router = APIRouter(prefix="/v1", tags=["Queries"], responses=problem_answers())


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
        outcomes = await engine.pipeline.encode_all([Task(data=data) for data in submission.images])
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


def top_predictions(
    probabilities_L: NDArray[np.float32], manifest: Manifest, *, k: int
) -> list[Prediction]:
    """Return the ``k`` most probable classes, best first."""
    values = probabilities_L.tolist()
    best = heapq.nlargest(k, range(len(values)), key=values.__getitem__)
    return [Prediction(label=manifest.labels[row], probability=values[row]) for row in best]
