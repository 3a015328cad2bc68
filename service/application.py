"""The HTTP application of one worker: its routes, and the loading of what they need."""

import asyncio
import logging
from pathlib import Path

from fastapi import FastAPI

from index.errors import VectorIndexError
from service import item_routes, job_routes, query_routes, search_routes, system_routes
from service.config import ServiceSettings
from service.documents import describe_application
from service.engine import Engine
from service.exchange import WorkerState
from service.metrics import Metrics
from service.pages import mount_pages
from service.problems import install_problems
from vision.errors import VisionError

logger = logging.getLogger("lookalike.service")


def create_application(settings: ServiceSettings, metrics: Metrics) -> FastAPI:
    """Return the application with all its routes; nothing is loaded yet."""
    application = FastAPI(
        title="Lookalike",
        version="1",
        description="Visual search you train yourself: classify an image, find what looks like it.",
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False},  # front.py counts
    )
    application.state.worker = WorkerState(settings, metrics)
    install_problems(application)
    for routes in (query_routes, search_routes, item_routes, job_routes, system_routes):
        application.include_router(routes.router)
    mount_pages(application)
    write_document = application.openapi
    application.openapi = lambda: describe_application(write_document())  # type: ignore[method-assign]
    return application


async def load(application: FastAPI, model_folder: Path) -> None:
    """Load the model and the gallery; until it is done, and if it fails, ``/readyz`` says why."""
    state: WorkerState = application.state.worker
    try:
        state.engine = await Engine.start(
            state.settings, model_folder, on_batch=state.metrics.batch_images.observe
        )
    except (VisionError, VectorIndexError) as error:
        logger.error("the service cannot start: %s", error)  # noqa: TRY400 - a sentence is enough
        state.failure = str(error)
    except Exception:
        logger.exception("the service cannot start")
        state.failure = "an unexpected error; the log has it"


async def unload(application: FastAPI, loading: "asyncio.Task[None]") -> None:
    """Finish what was begun and close what ``load`` opened."""
    await loading
    state: WorkerState = application.state.worker
    if state.engine is not None:
        await state.engine.close()
