"""The BentoML service: the server's settings and a worker's life. Routes are in application.py.

The process that supervises the workers imports this module too, so nothing heavy stands at its top.
"""

import asyncio
import atexit
import os
import resource
import signal
import sys
import uuid
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import bentoml
from uvicorn.config import HTTP_PROTOCOLS

from service.access import Gate
from service.admission import BodyBudget
from service.board import Board, remove_shared_folder, shared_folder
from service.config import ServiceSettings
from service.containment import close_control_ports, refuse_pickles
from service.cors import Cors
from service.deadlines import Watch
from service.errors import ServiceConfigError
from service.front import Desk, Front
from service.keys import WatchedKeys
from service.logs import configure_logging
from service.metrics import Metrics
from service.protocol import WorkerProtocol
from service.quotas import Quotas
from service.supervision import Roster, look_often
from service.tracing import start_tracing
from service.workers import worker_count

if TYPE_CHECKING:
    from service.exchange import WorkerState

# BentoML reports usage to its makers unless told not to, before it starts to serve.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

# Set by whichever process of a server imports this first, the supervising one; workers inherit it.
# That one outlives every worker, so it removes what they share.
if "LOOKALIKE_SERVER_ID" not in os.environ:
    os.environ["LOOKALIKE_SERVER_ID"] = uuid.uuid4().hex
    atexit.register(remove_shared_folder, os.environ["LOOKALIKE_SERVER_ID"])
SERVER_ID: Final = os.environ["LOOKALIKE_SERVER_ID"]

PACKED_MODEL: Final = "lookalike-model"  # its name in BentoML's model store
# How long one thread may keep the interpreter while another wants it. The network needs it back
# after every layer, and Python's own 5 ms made photos wait at 32 connections.
SWITCH_INTERVAL_S: Final = 0.001
OTHER_DESCRIPTORS: Final = 512  # files, sockets and threads' pipes beside the connections
desk = Desk()
look_often()


@bentoml.service(
    name="lookalike",
    workers=worker_count(ServiceSettings.from_environment()),
    # Ours, in front.py and body.py, do the same for less and by route template.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Lookalike:
    """Classifies images and finds stored ones that look alike."""

    @bentoml.on_deployment
    def supervise() -> None:
        """Prepare the process that supervises the workers, before it opens anything."""
        close_control_ports()

    @bentoml.on_startup
    async def start(self) -> None:
        """Answer probes at once, and load the model and the gallery meanwhile."""
        # FastAPI, pydantic models and faiss: needed in workers only.
        from service.application import create_application, load  # noqa: PLC0415
        from service.exchange import WorkerState  # noqa: PLC0415
        from service.vitals import Vitals  # noqa: PLC0415

        refuse_pickles()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        settings = ServiceSettings.from_environment()
        desk.settings = settings
        allow_descriptors(settings.max_connections)
        desk.log = configure_logging(settings.log_level)
        shared = shared_folder(SERVER_ID)
        shared.mkdir(mode=0o700, exist_ok=True)
        desk.gate = open_gate(settings, shared / "quotas")
        desk.cors = Cors(settings.cors_origins) if settings.cors_origins else None
        desk.tracing = start_tracing(settings)
        desk.worker = bentoml.server_context.worker_index or 1
        board = Board(SERVER_ID, desk.worker)
        before = board.predecessor()
        desk.metrics = Metrics(before)
        self._state = state = WorkerState(
            settings, desk.metrics, BodyBudget(settings.max_bodies_bytes)
        )
        self._vitals = Vitals(state, board, log=desk.log, before=before, worker=desk.worker)
        state.expose = self._vitals.exposition
        self._vitals.start()
        announce_stop(state, drain_s=settings.drain_s)
        roster = Roster(shared)
        self._loading = asyncio.create_task(
            load(state, model_folder(settings), on_loaded=roster.enter)
        )
        desk.application = create_application(state)
        if roster.has_another():  # which answers; this one, a replacement, does not listen yet
            await self._loading

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Close the gallery after the last request."""
        from service.application import unload  # noqa: PLC0415

        await unload(self._state, self._loading)
        await asyncio.to_thread(self._end_reports)

    def _end_reports(self) -> None:
        """Hand out what was counted, traced and logged, to whoever takes it in time."""
        self._vitals.close()
        if desk.tracing is not None:
            desk.tracing.close()
        if desk.log is not None:
            desk.log.flush()


Lookalike.add_asgi_middleware(Front, desk=desk)  # type: ignore[attr-defined]


def announce_stop(state: "WorkerState", *, drain_s: float) -> None:
    """Have ``/readyz`` say that the service stops from the moment of SIGTERM on.

    The server goes on listening for ``drain_s`` seconds, in which a load balancer can find out.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)  # uvicorn's
    if not callable(stop):  # not under uvicorn
        return

    def announce(number: int, frame: FrameType | None) -> None:
        state.is_stopping = True
        if drain_s == 0:
            stop(number, frame)
        else:
            loop.call_soon_threadsafe(loop.call_later, drain_s, stop, number, None)

    signal.signal(signal.SIGTERM, announce)


class Connection(WorkerProtocol):
    """A connection of this service: it calls the front, past all that BentoML puts around it."""

    desk = desk
    watch = Watch()


# A worker of BentoML imports this module, and then lets uvicorn choose by this entry.
HTTP_PROTOCOLS["auto"] = Connection  # type: ignore[assignment]


def allow_descriptors(connections: int) -> None:
    """Let this process open as many files as that many connections, and what else it does, need.

    Twice the connections, because those past the limit are told so before they are closed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def open_gate(settings: ServiceSettings, counts: Path) -> Gate | None:
    """Return what the settings ask of requests; None: nothing. ``counts`` is shared by all workers.

    Raises:
        ServiceConfigError: the key file cannot be used.
    """
    if settings.api_keys_file is None and settings.requests_per_minute is None:
        return None
    return Gate(
        quotas=Quotas(counts, secret=SERVER_ID),
        keys=None if settings.api_keys_file is None else WatchedKeys(settings.api_keys_file),
        requests_per_minute=settings.requests_per_minute,
        wrong_keys_per_minute=settings.wrong_keys_per_minute or None,
        trusted_proxies=settings.trusted_proxies,
    )


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
