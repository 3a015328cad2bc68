"""One request, from its headers to the last byte of its answer, and the steps that it goes through.

Whatever is known of a request is here; routes call its steps in order: ``receive_images``,
``admit``, ``encode``, ``search`` or ``write``, and answer.
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from service.errors import (
    AmbiguousQueryError,
    MissingImageError,
    NotReadyError,
    UnexpectedFieldError,
)
from service.http.admission import Reservation
from service.http.problem_details import find_problem, problem_response, to_failure
from service.http.request_body import read_request
from service.inference.engine import Engine
from service.inference.task import Encoded, Task
from service.request.worker_context import WorkerContext
from service.schemas.parameters import Options
from service.schemas.query_responses import Failure, QueryAnswer, Timings
from service.schemas.responses import Answer
from service.security.security_headers import Header, with_security_headers
from service.telemetry.request_record import RequestRecord, to_ms
from vision.errors import ImageError

Kind = TypeVar("Kind", bound=Options)
T = TypeVar("T")
# os.urandom hands the interpreter to another thread, and waits a millisecond to have it back.
_random: Final = random.Random(random.SystemRandom().getrandbits(256))
_REQUEST_ID: Final = re.compile(r"[\w-]{1,64}", re.ASCII)


class RequestContext(Request):
    """A request and its answer; used on the event loop alone."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, worker: WorkerContext) -> None:
        self.record = record = RequestRecord(method=scope["method"])
        # No method of this object's: a circle would keep its images until garbage is collected.
        super().__init__(scope, partial(_receive_counted, receive, record))
        self._send_message = send
        self.worker = worker
        given = self.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else f"{_random.getrandbits(128):032x}"
        record.request_id = self.id
        self.caller = ""  # whose it is, where that is known: those share what there is
        self.extra_headers: list[Header] = []  # of the answer to pages of other origins
        self.held: Reservation | None = None  # memory for its body
        self.images: list[bytes] = []  # encoded, as they came
        self.fields: dict[str, Any] = {}  # all that came beside the images
        self._is_received = False
        self._charged = 1  # images that were counted in the caller's quota

    async def send(self, message: Message) -> None:
        """Send a piece of the answer, its head with the headers that every answer has (ASGI)."""
        if message["type"] == "http.response.start":
            self.record.status = message["status"]
            message["headers"] = [
                *with_security_headers(message.get("headers", ())),
                (b"x-request-id", self.id.encode()),
                *self.extra_headers,
            ]
        else:
            self.record.bytes_out += len(message.get("body", b""))
        await self._send_message(message)

    @property
    def engine(self) -> Engine:
        """The model and the gallery.

        Raises:
            NotReadyError: they are still loading, could not be loaded, or are closed by now.
        """
        worker = self.worker
        if worker.engine is None:
            raise NotReadyError(str(worker.unready_reason()), retry_after_s=worker.retry_after_s)
        return worker.engine

    def check_room(self) -> Engine:
        """Return the engine, which has room for one more request: asked before the body is read.

        A place is taken only once the body is there, so those who send slowly keep none from
        others.

        Raises:
            NotReadyError: it is still loading, or could not be loaded.
            OverloadedError: it has too much to do.
        """
        engine = self.engine
        engine.quick.check(self.caller)
        return engine

    async def receive_images(self) -> Engine:
        """Read the body once, where there is room for the work that it brings.

        Raises:
            NotReadyError, OverloadedError, RequestError: as ``check_room`` and ``receive_body``.
        """
        if self._is_received:
            return self.engine
        engine = self.check_room()
        await self.receive_body()
        return engine

    async def receive_body(self) -> None:
        """Read the body: afterwards ``images`` and ``fields`` are there.

        Raises:
            RequestError: the body is too large, or cannot be read.
            TooManyRequestsError: it has more images than the caller's quota has left.
        """
        assert self.held is not None  # every route is called with a share
        self.images, self.fields = await read_request(
            self,
            max_bytes=self.worker.settings.max_body_bytes,
            held=self.held,
            turn=self.worker.body_turn,
        )
        self._is_received = True
        self.charge(images=len(self.images))
        self.record.received = time.perf_counter()

    async def receive_options(self, kind: type[Kind]) -> Kind:
        """Read the body of a request that carries no image, and return its options.

        Raises:
            RequestError, VectorIndexError: a field is unknown or wrong.
        """
        await self.receive_body()
        if self.images:
            raise UnexpectedFieldError("'image' is not a field of this route")
        return kind.parse(self.fields)

    @property
    def image(self) -> bytes:
        """The one image.

        Raises:
            MissingImageError: there is none.
            AmbiguousQueryError: there are several.
        """
        if not self.images:
            raise MissingImageError(
                "no image came: send it as the body, as the form field 'image', or in JSON"
            )
        if len(self.images) > 1:
            raise AmbiguousQueryError(f"one image is needed, {len(self.images)} came")
        return self.images[0]

    def charge(self, *, images: int) -> None:
        """Count all its images in the caller's quota; one was counted with the request.

        Raises:
            TooManyRequestsError: there is not so much left.
        """
        more = images - self._charged
        if more > 0 and "charge" in self.scope:  # the authorizer left it: the caller has a quota
            self.scope["charge"](cost=more)
            self._charged = images

    def admit(
        self, tasks: Sequence[Task] = (), *, others: int = 0, scans: int = 0
    ) -> AbstractContextManager[None]:
        """Return a place among those that are worked on, as ``Engine.admit`` gives it.

        Raises:
            OverloadedError: on entering, there is too much of its kind to do already.
        """
        return self.engine.admit(self.caller, tasks, others=others, scans=scans)

    async def encode(self, tasks: Sequence[Task]) -> list[Encoded | Exception]:
        """Decode images and encode them; return what became of each, in order.

        One image is booked the time of the whole batch that it waited for, each of several its
        share of it, so that the sum is never more than the network took.
        """
        outcomes = await self.engine.batcher.encode(tasks, caller=self.caller)
        for outcome in outcomes:
            if isinstance(outcome, Encoded):
                self.record.note_image(
                    queue_ms=outcome.queue_ms,
                    decode_ms=outcome.decode_ms,
                    encode_ms=outcome.encode_ms if len(tasks) == 1 else outcome.encode_share_ms,
                )
        return outcomes

    async def encode_one(self, task: Task) -> Encoded:
        """Decode an image and encode it.

        Raises:
            ImageError, CropError: it cannot be used.
        """
        (outcome,) = await self.encode([task])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def search(self, function: Callable[[], T], *, is_exhaustive: bool = False) -> T:
        """Search the gallery on one of the reading threads."""
        begun = time.perf_counter()
        run = self.engine.at_length if is_exhaustive else self.engine.read
        found = await run(function)
        self.record.note_stage("search", begun=begun)
        return found

    async def write(self, function: Callable[[], T]) -> T:
        """Write to the gallery on one of the writing threads; it ends even if the caller leaves.

        Writes of one request that must keep their order belong in one ``function``.
        """
        begun = time.perf_counter()
        try:
            return await self.engine.write(function)
        finally:
            self.record.note_stage("write", begun=begun)

    def timings(self) -> Timings:
        """Return where the time went, milliseconds; of several images the longest wait."""
        queue_s = decode_s = encode_s = search_s = 0.0
        for stage, _, seconds in self.record.stages:
            if stage == "queue":
                queue_s = max(queue_s, seconds)
            elif stage == "decode":
                decode_s += seconds
            elif stage == "encode":
                encode_s += seconds
            elif stage == "search":
                search_s += seconds
        return Timings(
            queue=to_ms(queue_s),
            decode=to_ms(decode_s),
            encode=to_ms(encode_s),
            search=to_ms(search_s),
            total=to_ms(time.perf_counter() - self.record.received),
        )

    async def answer_at_length(self, make: Callable[[], Answer | QueryAnswer]) -> Response:
        """Return what ``make`` returns as JSON, both done on a thread.

        For answers that may be so long that the event loop cannot be kept for them.
        """
        return await self.engine.at_length(lambda: json_response(make()))

    def fail(self, error: Exception) -> Response:
        """Return the whole answer for ``error``, noted as its problem."""
        self.record.problem = self._problem_code(error)
        return problem_response(error, request_id=self.id)

    def fail_item(self, error: Exception) -> Failure:
        """Return what is said of one failed item, noted as one of its problems."""
        self.record.item_problems.append(self._problem_code(error))
        return to_failure(error)

    def _problem_code(self, error: Exception) -> str:
        _, code = find_problem(error)
        if isinstance(error, ImageError):
            self.record.refusals.append(code)
        return code


async def _receive_counted(receive: Receive, record: RequestRecord) -> Message:
    begun = time.perf_counter()
    message = await receive()
    if message["type"] == "http.request":
        record.bytes_in += len(message.get("body", b""))
        record.note_stage("body", begun=begun)
    return message


def json_response(answer: Answer | QueryAnswer, *, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return ``answer`` as JSON, models without the fields that were never set.

    Vectors are written with as many digits as a float32 needs to be read back unchanged.
    """
    body = orjson.dumps(answer, _fields_set, orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def _fields_set(model: object) -> object:
    if isinstance(model, BaseModel):
        return model.model_dump(exclude_unset=True)
    raise TypeError(f"{type(model).__name__} is not JSON")
