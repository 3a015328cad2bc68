"""The BentoML service. What a worker does is in worker.py, the routes are in application.py.

The process that supervises the workers imports this module too, so nothing heavy stands at its top.
"""

import atexit
import logging
import os
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bentoml
from uvicorn.config import HTTP_PROTOCOLS

from files.processes import end_with_parent
from index.errors import VectorIndexError
from service.config import ServiceSettings
from service.errors import ServiceConfigError
from service.telemetry.shared_metrics import remove_shared_folder
from vision.errors import VisionError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# BentoML reports usage to its makers unless told not to, before it starts to serve.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

# Set by whichever process of a server imports this first, the supervising one; workers inherit it.
# That one outlives every worker, so it removes what they share.
if "LOOKALIKE_SERVER_ID" not in os.environ:
    os.environ["LOOKALIKE_SERVER_ID"] = uuid.uuid4().hex
    os.environ["LOOKALIKE_SUPERVISOR"] = str(os.getpid())
    atexit.register(remove_shared_folder, os.environ["LOOKALIKE_SERVER_ID"])
else:
    end_with_parent(
        int(os.environ["LOOKALIKE_SUPERVISOR"]),
        before=partial(remove_shared_folder, os.environ["LOOKALIKE_SERVER_ID"]),
    )
SERVER_ID: Final = os.environ["LOOKALIKE_SERVER_ID"]

PACKED_MODEL: Final = "lookalike-model"  # its name in BentoML's model store


@bentoml.service(
    name="lookalike",
    workers=1,  # the supervisor counts them
    # Ours, in service/telemetry, do the same for less and by route template.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Lookalike:
    """Classifies images and finds stored ones that look alike."""

    @bentoml.on_deployment
    def supervise() -> None:
        """Prepare the process that supervises the workers, before it opens anything."""
        from service.inference.preflight import check_start  # noqa: PLC0415
        from service.server.bento_supervisor import adapt_supervisor, refuse_start  # noqa: PLC0415
        from service.server.worker_count import has_encoder_process  # noqa: PLC0415
        from service.telemetry.json_log import configure_logging  # noqa: PLC0415

        atexit.register(configure_logging("info").flush)
        beside = None
        try:
            settings = ServiceSettings.from_environment()
            logging.getLogger("lookalike").setLevel(settings.log_level.upper())
            model = model_folder(settings)
            check_start(settings, model)
            if has_encoder_process(settings):
                from service.encoding.supervision import encoder_process  # noqa: PLC0415

                beside = partial(encoder_process, model, SERVER_ID)
        except (ServiceConfigError, VisionError, VectorIndexError, OSError) as error:
            refuse_start(error)
        adapt_supervisor(SERVER_ID, model, beside)

    def __init__(self) -> None:
        """Log as this service does from here on: before BentoML says how it starts."""
        from service.telemetry.json_log import configure_logging  # noqa: PLC0415

        self._log = configure_logging(ServiceSettings.from_environment().log_level)

    @bentoml.on_startup
    async def start(self) -> None:
        """Begin to answer."""
        from service.worker import Worker, end_failed_start  # noqa: PLC0415

        settings = ServiceSettings.from_environment()
        encoder_socket = os.environ.get("LOOKALIKE_ENCODER_SOCKET")
        try:
            self._worker = await Worker.start(
                settings,
                model_folder(settings),
                log=self._log,
                server_id=SERVER_ID,
                index=bentoml.server_context.worker_index or 1,
                size=settings.workers or 1,  # in a worker the supervisor has said it
                encoder_socket=None if encoder_socket is None else Path(encoder_socket),
            )
        except ServiceConfigError as error:
            end_failed_start(SERVER_ID, self._log, str(error))

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Close everything after the last request."""
        await self._worker.stop()


def stand_before(inner: "ASGIApp") -> "ASGIApp":
    """Return the gateway, which stands before BentoML's own application in a worker."""
    from service.worker import gateway  # noqa: PLC0415

    gateway.inner = inner
    return gateway


Lookalike.add_asgi_middleware(stand_before)  # type: ignore[attr-defined]
# A worker of BentoML imports this module, and then lets uvicorn choose by this entry.
HTTP_PROTOCOLS["auto"] = "service.worker:Connection"


def model_folder(settings: ServiceSettings) -> Path:
    """Return the folder of the model to serve: the one named, or else the one packed in the bento.

    Raises:
        ServiceConfigError: there is neither.
    """
    if settings.model is not None:
        return settings.model
    bento = Lookalike.bento  # type: ignore[attr-defined]
    for model in bento.info.all_models if bento is not None else ():
        if model.tag.name == PACKED_MODEL:
            return Path(bentoml.models.get(model.tag).path)
    raise ServiceConfigError(
        "no model: set LOOKALIKE_MODEL to a model folder, or pack one into the bento"
    )
