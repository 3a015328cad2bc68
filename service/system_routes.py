"""Routes about the service itself: the model, the gallery, probes and metrics."""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from service.answers import GalleryAnswer, Health, ModelAnswer, Readiness
from service.documents import problem_answers
from service.exchange import answer_with, ready_engine, worker_state
from service.metrics import CONTENT_TYPE

# Not the gallery's own sentence, which names its folder: this route needs no key.
READ_ONLY = "a write met an I/O error: check the disk, then restart the service; its log says more"

router = APIRouter(tags=["Service"], responses=problem_answers())


@router.get("/v1/model", summary="The model", response_model=ModelAnswer)
async def get_model(request: Request) -> Response:
    """Say which model is loaded, what it was trained for and how good it was measured to be."""
    engine = ready_engine(request)
    manifest = engine.manifest
    return answer_with(
        ModelAnswer(
            request_id=request.scope["request_id"],
            name=manifest.name,
            fingerprint=manifest.fingerprint,
            labels=list(manifest.labels),
            metrics=manifest.metrics,
            architecture=manifest.architecture.to_json(),
            preprocessing=asdict(manifest.preprocessing),
            created=manifest.created,
            device=engine.device,
        )
    )


@router.get("/v1/gallery", summary="The gallery", response_model=GalleryAnswer)
async def get_gallery(request: Request) -> Response:
    """Say which gallery is open, how many items it holds and how new this view of it is."""
    engine = ready_engine(request)
    info = await engine.read(engine.gallery.info)
    return answer_with(
        GalleryAnswer(
            request_id=request.scope["request_id"],
            name=info.name,
            count=info.count,
            seq=info.seq,
            structure=info.structure,
            recall=info.recall,
            generation=info.generation,
            recent=info.recent,
            state=info.state,
            reason=info.reason,
            model_name=info.model_name,
            model_fingerprint=info.fingerprint,
            width=info.width,
            bytes_on_disk=info.bytes_on_disk,
        )
    )


@router.get("/livez", summary="Is the process alive?", response_model=Health)
async def livez(request: Request) -> Response:
    """Say that the process answers."""
    return answer_with(Health(request_id=request.scope["request_id"], status="ok"))


@router.get("/readyz", summary="Is everything loaded?", response_model=Readiness)
async def readyz(request: Request) -> Response:
    """Say that searches work, and whether writes do; 503 with the reason until it is loaded."""
    reason = ready_engine(request).gallery.read_only_reason
    worker_state(request).metrics.gallery_read_only.set(reason is not None)
    return answer_with(
        Readiness(
            request_id=request.scope["request_id"],
            status="ok",
            gallery="writable" if reason is None else "read-only",
            reason=None if reason is None else READ_ONLY,
        )
    )


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Give Prometheus the counters of all workers."""
    state = worker_state(request)
    if state.engine is not None:
        state.metrics.observe(await state.engine.read(state.engine.gallery.info))
    return Response(state.metrics.exposition(), media_type=CONTENT_TYPE)
