"""What the routes share: the worker's state, and reading one request for one route."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

from service.config import ServiceSettings
from service.errors import NotReadyError, UnexpectedFieldError
from service.http.admission import Admission, BodyMemoryBudget
from service.http.request_body import Submission, read_submission
from service.inference.engine import Engine
from service.inference.task import Encoded
from service.schemas.parameters import Options
from service.schemas.query_responses import QueryAnswer, Timings
from service.schemas.responses import Answer
from service.security.trusted_proxies import Proxies
from service.telemetry.health import Loading, Standing, stuck_reason
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.request_record import current_caller, note_image
from service.telemetry.watchdog import BusyThreads

STATE: Final = "lookalike"  # where an endpoint finds the worker's state in the scope
READS: Final = 256  # requests that only read, under way in one worker
READS_WAIT_S: Final = 1.0  # what the last of them waits at most
Kind = TypeVar("Kind", bound=Options)


@dataclass(slots=True)
class WorkerState:
    """What one worker has loaded so far."""

    settings: ServiceSettings
    metrics: WorkerMetrics
    bodies: BodyMemoryBudget
    engine: Engine | None = None  # None: still loading, failed, or closed
    loading: Loading = field(default_factory=Loading)
    busy: BusyThreads = field(default_factory=BusyThreads)
    reading: Admission = field(default_factory=lambda: Admission(READS, max_wait_s=READS_WAIT_S))
    proxies: Proxies = field(default_factory=Proxies)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of large bodies
    is_stopping: bool = False
    standing: Callable[[], Standing] = Standing  # of all workers of this server
    prometheus_text: Callable[[], bytes] = bytes  # of all workers; may wait for the disk

    @property
    def retry_after_s(self) -> int:
        """When it is worth while to ask again, seconds."""
        return 2 if self.loading.failure is None else 30

    def unready_reason(self) -> str | None:
        """Return why no search should be sent here, a sentence; ``None``: it answers them."""
        if self.is_stopping:
            return "the service is stopping"
        return self.loading.reason or self.stuck_reason()

    def stuck_reason(self) -> str | None:
        """Return which work on images does not end, a sentence; ``None``: none is known."""
        return stuck_reason(self.busy, "network") or stuck_reason(self.busy, "decode")


def worker_state(request: Request) -> WorkerState:
    """Return the state of the worker that serves ``request``."""
    state: WorkerState = request.scope[STATE]
    return state


def ready_engine(request: Request) -> Engine:
    """Return the engine.

    Raises:
        NotReadyError: it is still loading, could not be loaded, or is closed by now.
    """
    state = worker_state(request)
    if state.engine is None:
        raise NotReadyError(str(state.unready_reason()), retry_after_s=state.retry_after_s)
    return state.engine


def free_engine(request: Request) -> Engine:
    """Return the engine, which has room for one more request: asked before the body is read.

    A place is taken only once the body is there, so those who send slowly keep none from others.

    Raises:
        NotReadyError: it is still loading, or could not be loaded.
        OverloadedError: it has too much to do.
    """
    engine = ready_engine(request)
    engine.quick.check(current_caller())
    return engine


async def receive(request: Request) -> Submission:
    """Return the images and fields of ``request``, within the service's limits.

    Raises:
        RequestError: the body is too large, or cannot be read.
        TooManyRequestsError: it has more images than the caller's quota has left.
    """
    state = worker_state(request)
    submission = await read_submission(
        request,
        max_bytes=state.settings.max_body_bytes,
        held=request.scope["held"],
        turn=state.turn,
    )
    charge(request, images=len(submission.images))
    return submission


def charge(request: Request, *, images: int) -> None:
    """Count all the images of a request in its caller's quota; one was counted with the request.

    Raises:
        TooManyRequestsError: there is not so much left.
    """
    more = images - request.scope.get("charged", 1)
    if more > 0 and "charge" in request.scope:
        request.scope["charge"](cost=more)
        request.scope["charged"] = images


async def receive_options(request: Request, kind: type[Kind]) -> Kind:
    """Return the options of a request that carries no image.

    Raises:
        RequestError, VectorIndexError: a field is unknown or wrong.
    """
    submission = await receive(request)
    if submission.images:
        raise UnexpectedFieldError("'image' is not a field of this route")
    return kind.parse(submission.fields)


def answer_with(answer: Answer | QueryAnswer, *, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return ``answer`` as JSON, models without the fields that were never set.

    Vectors are written with as many digits as a float32 needs to be read back unchanged.
    """
    body = orjson.dumps(answer, _fields_set, orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


async def answer_at_length(engine: Engine, make: Callable[[], Answer | QueryAnswer]) -> Response:
    """Return what ``make`` returns as JSON, both done on a thread.

    For answers that may be so long that the event loop cannot be kept for them.
    """
    return await engine.at_length(lambda: answer_with(make()))


def _fields_set(model: object) -> object:
    if isinstance(model, BaseModel):
        return model.model_dump(exclude_unset=True)
    raise TypeError(f"{type(model).__name__} is not JSON")


@dataclass(slots=True)
class Stopwatch:
    """Adds up where a request's time went."""

    started: float = field(default_factory=time.perf_counter)
    queue_ms: float = 0.0
    decode_ms: float = 0.0
    encode_ms: float = 0.0
    search_ms: float = 0.0

    def add(self, encoded: Encoded) -> None:
        """Count the stages of one image."""
        self.queue_ms += encoded.queue_ms
        self.decode_ms += encoded.decode_ms
        self.encode_ms += encoded.encode_ms
        note_image(
            queue_ms=encoded.queue_ms, decode_ms=encoded.decode_ms, encode_ms=encoded.encode_ms
        )

    def add_many(self, encoded: Iterable[Encoded]) -> None:
        """Count the stages of several images: the longest wait, and their share of each batch."""
        for one in encoded:
            self.queue_ms = max(self.queue_ms, one.queue_ms)
            self.decode_ms += one.decode_ms
            self.encode_ms += one.encode_share_ms
            note_image(
                queue_ms=one.queue_ms, decode_ms=one.decode_ms, encode_ms=one.encode_share_ms
            )

    def stop(self) -> Timings:
        """Return the times in milliseconds."""
        return Timings(
            queue=round(self.queue_ms, 3),
            decode=round(self.decode_ms, 3),
            encode=round(self.encode_ms, 3),
            search=round(self.search_ms, 3),
            total=round((time.perf_counter() - self.started) * 1000, 3),
        )
