"""The HTTP application of one worker: its routes, and the loading of what they need."""

import asyncio
import gc
import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from files.version import VERSION
from index.errors import VectorIndexError
from service.api import edits, facets, inference, items, jobs, search, system
from service.api.openapi import complete_document
from service.api.pages import page_routes
from service.encoding.network import open_network
from service.errors import StoppingError
from service.inference.engine import Engine
from service.request.router import Router
from service.request.worker_context import WorkerContext
from vision.errors import VisionError

logger = logging.getLogger("lookalike.service")


def create_router() -> Router:
    """Return all routes; nothing is loaded yet."""
    routers = [
        module.router
        for module in (
            *(inference, search, items, edits, facets),
            *(jobs, system),
        )
    ]
    routes = [route for router in routers for route in router.routes]
    pages = page_routes(cache(partial(_document, routers)))
    return Router([route for route in (*routes, *pages) if isinstance(route, APIRoute)])


def _document(routers: list[APIRouter]) -> dict[str, Any]:
    """Return the OpenAPI document of the routes."""
    application = FastAPI(
        title="Lookalike",
        version=VERSION,
        description="Visual search you train yourself: classify an image, find what looks like it.",
    )
    for router in routers:
        application.include_router(router)
    return complete_document(application.openapi())


async def load(
    worker: WorkerContext,
    model_folder: Path,
    encoder_socket: Path | None = None,
    *,
    on_loaded: Callable[[], None],
    on_failed: Callable[[str], None],
) -> None:
    """Load the model and the gallery; until it is done, and if it fails, ``/readyz`` says why."""
    try:
        worker.engine = await Engine.start(
            worker.settings,
            model_folder,
            open_network=partial(
                open_network,
                model_folder,
                worker.settings,
                encoder_socket,
                on_batch=worker.metrics.count_batch,
                gives_up=lambda: worker.is_stopping,
            ),
            loading=worker.loading,
            watchdog=worker.watchdog,
        )
        _leave_alone_what_stays()
        on_loaded()
    except (VisionError, VectorIndexError) as error:
        worker.loading.fail(str(error), folders=[model_folder, worker.settings.gallery])
        on_failed(str(error))
    except StoppingError:  # told to end before there was a network
        logger.info("stopped while loading")
    except Exception:
        logger.exception("an unexpected error")
        worker.loading.fail("an unexpected error; the log has it", folders=[])
        on_failed("an unexpected error; the log has it")


def _leave_alone_what_stays() -> None:
    """Spare what was loaded the garbage collector: to walk it holds everybody up for 0.1 s."""
    gc.collect()
    gc.freeze()


async def unload(worker: WorkerContext, loading: "asyncio.Task[None]") -> None:
    """Finish what was begun and close what ``load`` opened."""
    worker.is_stopping = True  # loading, which may wait for another process, sees it
    await loading
    engine, worker.engine = worker.engine, None  # so that nobody looks at a closed gallery
    if engine is not None:
        await engine.close()
