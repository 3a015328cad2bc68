"""Routes about the service itself: the model, the gallery, probes and metrics."""

import asyncio
from dataclasses import asdict
from functools import partial

from fastapi import APIRouter, Response

from files.filesystem import storage_warning
from files.version import VERSION
from service.api.openapi import problem_responses
from service.errors import NotReadyError, StoppingError, StuckError
from service.request.context import RequestContext, json_response
from service.schemas.responses import GalleryAnswer, Health, ModelAnswer, Readiness, RuntimeInfo
from service.telemetry.health import READ_ONLY, checks
from service.telemetry.shared_metrics import CONTENT_TYPE

router = APIRouter(tags=["Service"], responses=problem_responses())


@router.get("/v1/model", summary="The model", response_model=ModelAnswer)
async def get_model(request: RequestContext) -> Response:
    """Say which model is loaded, what it was trained for and how good it was measured to be."""
    engine = request.engine
    manifest = engine.manifest
    return json_response(
        ModelAnswer(
            request_id=request.id,
            version=VERSION,
            name=manifest.name,
            fingerprint=manifest.fingerprint,
            labels=list(manifest.labels),
            kind=manifest.architecture.kind_share,
            metrics=manifest.metrics,
            architecture=manifest.architecture.to_json(),
            preprocessing=manifest.preprocessing.to_json(),
            created=manifest.created,
            device=engine.device,
            runtime=RuntimeInfo.model_validate(asdict(engine.runtime)),
        )
    )


@router.get("/v1/gallery", summary="The gallery", response_model=GalleryAnswer)
async def get_gallery(request: RequestContext) -> Response:
    """Say which gallery is open, how many items it holds and how new this view of it is."""
    engine = request.engine
    facts = asdict(await engine.read(engine.gallery.info))
    facts["model_fingerprint"] = facts.pop("fingerprint")
    facts["storage_note"] = await engine.read(partial(storage_warning, engine.gallery.folder))
    return json_response(GalleryAnswer(request_id=request.id, **facts))


@router.get("/livez", summary="Is the process alive?", response_model=Health)
async def livez(request: RequestContext) -> Response:
    """Say that the process answers; 503 when a thread is stuck, and only a restart helps."""
    reason = request.worker.stuck_reason()
    if reason is not None:
        raise StuckError(reason)
    return json_response(Health(request_id=request.id, status="ok"))


@router.get("/readyz", summary="Is everything loaded?", response_model=Readiness)
async def readyz(request: RequestContext) -> Response:
    """Say that searches work, and whether writes do; 503 with the reason while they do not."""
    worker = request.worker
    gallery = worker.engine.gallery if worker.engine is not None else None
    is_read_only = gallery is not None and gallery.read_only_reason is not None
    server = worker.server_readiness()
    found = checks(
        worker.loading,
        worker.watchdog,
        is_stopping=worker.is_stopping,
        is_read_only=is_read_only,
        has_trouble=gallery is not None and gallery.maintenance_error is not None,
        network_reason=worker.network_reason(),
        server=server,
    )
    reason = worker.unready_reason() or (None if server.has_started else server.reason)
    if reason is not None:
        unready = StoppingError if worker.is_stopping else NotReadyError
        raise unready(reason, retry_after_s=worker.retry_after_s, checks=found)
    return json_response(
        Readiness(
            request_id=request.id,
            status="ok",
            gallery="read-only" if is_read_only else "writable",
            reason=READ_ONLY if is_read_only else None,
            checks=found,
        )
    )


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: RequestContext) -> Response:
    """Give Prometheus the numbers of all workers, also while this one loads."""
    text = await asyncio.to_thread(request.worker.prometheus_text)
    return Response(text, media_type=CONTENT_TYPE)
