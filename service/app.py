"""The BentoML service: the server's settings and a worker's life. Routes are in application.py.

The process that supervises the workers imports this module too, so nothing heavy stands at its top.
"""

import asyncio
import os
import sys
import uuid
from pathlib import Path
from typing import Final

import bentoml

from service.config import ServiceSettings
from service.errors import ServiceConfigError
from service.front import Desk, Front
from service.keys import KeyRing
from service.logs import configure_logging
from service.metrics import Metrics, SharedFolder
from service.supervision import Roster, look_often

# BentoML reports usage to its makers unless told not to, before it starts to serve.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

# Set by whichever process of a server imports this first, the supervising one; workers inherit it.
SERVER_ID: Final = os.environ.setdefault("LOOKALIKE_SERVER_ID", uuid.uuid4().hex)

PACKED_MODEL: Final = "lookalike-model"  # its name in BentoML's model store
# How long one thread may keep the interpreter while another wants it. The network needs it back
# after every layer, and Python's own 5 ms made photos wait at 32 connections.
SWITCH_INTERVAL_S: Final = 0.001
desk = Desk()
look_often()


@bentoml.service(
    name="lookalike",
    workers=1,
    # Ours, in front.py and body.py, do the same for less and by route template.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    # It cannot be switched off, and leaves a timer of this length behind for every request.
    traffic={"timeout": 60},
)
class Lookalike:
    """Classifies images and finds stored ones that look alike."""

    @bentoml.on_startup
    async def start(self) -> None:
        """Answer probes at once, and load the model and the gallery meanwhile."""
        # FastAPI, pydantic models and faiss: needed in workers only.
        from service.application import create_application, load  # noqa: PLC0415
        from service.exchange import WorkerState  # noqa: PLC0415

        sys.setswitchinterval(SWITCH_INTERVAL_S)
        settings = ServiceSettings.from_environment()
        configure_logging(settings.log_level)
        if settings.api_keys_file is not None:
            desk.keys = KeyRing.load(settings.api_keys_file)
        self._shared = SharedFolder(SERVER_ID)
        self._shared.use()
        desk.metrics = Metrics()
        self._state = WorkerState(settings, desk.metrics)
        roster = Roster(self._shared.path)
        self._loading = asyncio.create_task(
            load(self._state, model_folder(settings), on_loaded=roster.enter)
        )
        desk.application = create_application(self._state)
        if roster.has_another():  # which answers; this one, a replacement, does not listen yet
            await self._loading

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Close the gallery after the last request."""
        from service.application import unload  # noqa: PLC0415

        await unload(self._state, self._loading)
        self._shared.remove()


Lookalike.add_asgi_middleware(Front, desk=desk)  # type: ignore[attr-defined]


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
