"""The network, as the process that has it runs it: batches of all workers in, answers out.

One thread: it takes what has come, has it computed, answers, and looks again. What came while the
network was busy is the next batch, up to the encoder's own size. Where the encoder can, a second
batch is copied to it while it computes the first. Each worker has as many batches under way as it
has lanes, so none can take the network for itself, and what waits is bounded by their memory.

Shape suffixes: B images, C channels, H x W pixels.
"""

import logging
import os
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.encoding.messages import MOST_BYTES, Answer, Greeting, Request, failure
from service.encoding.priority_queue import PriorityQueue
from service.encoding.shared_batch import BatchShape, SharedBatch
from vision.errors import DeviceLostError, VisionError
from vision.inference.encoder import Encoding, ImageEncoder, PipelinedEncoder

FAILURES: Final = 3  # in a row, of which nobody knows why: the device may be past use
PIPELINED: Final = 2  # batches under way, where the encoder can do that
_CREDENTIALS: Final = struct.Struct("3i")  # of unix(7): process, user, group
logger = logging.getLogger("lookalike.service")


class NetworkFailedError(Exception):
    """This process cannot go on computing; a new one may."""


@dataclass(slots=True, eq=False)
class _Lane:
    """A worker's lane, and what it waits for."""

    connection: socket.socket
    memory: SharedBatch | None = None  # None: it has not come yet


class _Piece(NamedTuple):
    """What one lane sent."""

    lane: _Lane
    pixels_BCHW: NDArray[np.uint8]


@dataclass(slots=True)
class _UnderWay:
    """A batch that the encoder has begun with."""

    pieces: list[_Piece]
    images: int
    finish: Callable[[], Encoding]
    began: float = field(default_factory=time.perf_counter)


class EncoderServer:
    """Encodes for all workers that connect, until it is told to stop and the last has left."""

    def __init__(
        self,
        listener: socket.socket,
        encoder: ImageEncoder,
        *,
        most: int,
        greeting: Greeting,
        on_batch: Callable[[int, float], None],
    ) -> None:
        """Take a socket that listens, and an encoder that is warm.

        Args:
            listener: at which workers connect.
            encoder: of the network.
            most: images in a batch.
            greeting: for those who connect.
            on_batch: told the size of every batch, and for how many more seconds the network was
                busy.
        """
        shape = encoder.manifest.preprocessing.batch_shape(1)
        self._shape = BatchShape(
            greeting.images, (shape[1], shape[2], shape[3]), greeting.width, greeting.labels
        )
        self._listener = listener
        self._greeting = greeting.to_bytes()
        self._encoder = encoder
        self._most = most
        self._on_batch = on_batch
        self._start, self._deepest = self._encode_at_once, 1
        if isinstance(encoder, PipelinedEncoder):
            self._start, self._deepest = encoder.start, PIPELINED
        self._waiting: PriorityQueue[_Piece] = PriorityQueue()
        self._images_waiting = 0
        self._next: _Piece | None = None  # did not fit into the batch before
        self._under_way: deque[_UnderWay] = deque()
        self._rooms = deque(  # for the batches under way
            np.empty((most, *self._shape.pixels), np.uint8) for _ in range(self._deepest)
        )
        self._lanes: set[_Lane] = set()
        self._busy_since = 0.0
        self._failures = 0
        self._is_stopping = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        for one in (self._listener, self._woken):
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ)

    def stop(self) -> None:
        """End once the last worker has left; from any thread, or a handler of a signal."""
        self._is_stopping = True
        with suppress(OSError):
            self._wake.send(b"x")

    def run(self) -> None:
        """Serve.

        Raises:
            NetworkFailedError: this process cannot go on computing.
        """
        while self._lanes or not self._is_stopping:
            is_idle = not self._under_way and not self._images_waiting
            for key, _ in self._selector.select(None if is_idle else 0):
                self._receive(key)
            if self._should_begin():
                self._begin()
            elif self._under_way:
                self._finish()

    def _receive(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fileobj is self._woken:
            self._woken.recv(64)
        else:
            lane: _Lane = key.data
            try:
                self._take(lane)
            except (OSError, EOFError, ValueError) as error:
                if not isinstance(error, (EOFError, ConnectionError)):
                    logger.warning("a worker's connection to the network was closed: %s", error)
                self._leave(lane)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # whoever it was has gone, or there are no more descriptors
            return
        lane = _Lane(connection)
        try:
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            if _CREDENTIALS.unpack(credentials)[1] != os.geteuid():
                raise PermissionError("another user's")
            connection.setblocking(False)
            connection.send(self._greeting)
        except OSError:
            connection.close()
            return
        self._lanes.add(lane)
        self._selector.register(connection, selectors.EVENT_READ, lane)

    def _take(self, lane: _Lane) -> None:
        """Take what a lane sent: its memory at first, then one request after the other."""
        if lane.memory is None:
            message, files, _, _ = socket.recv_fds(lane.connection, MOST_BYTES, 1)
            try:
                if not message:
                    raise EOFError
                if len(files) != 1:
                    raise ValueError("shared memory was expected")
                lane.memory = SharedBatch(self._shape, files[0])
            finally:
                for file in files:
                    os.close(file)
            return
        message = lane.connection.recv(MOST_BYTES)
        if not message:
            raise EOFError
        request = Request.read(message)
        if not 1 <= request.images <= self._shape.images:
            raise ValueError(f"a batch of {request.images} images")
        piece = _Piece(lane, lane.memory.pixels_BCHW[: request.images])
        self._waiting.put(piece, is_bulk=request.is_bulk)
        self._images_waiting += request.images

    def _leave(self, lane: _Lane) -> None:
        """Forget a lane whose worker has gone; what it had waiting is left out in its turn."""
        self._lanes.discard(lane)
        self._selector.unregister(lane.connection)
        lane.connection.close()

    def _should_begin(self) -> bool:
        """Say whether to begin with a batch now, rather than to wait for one that is under way."""
        if not self._images_waiting or len(self._under_way) == self._deepest:
            return False
        if not self._under_way:
            return True
        # Too small a batch behind another would only keep those that come meanwhile waiting.
        return self._images_waiting >= min(self._under_way[0].images, self._most)

    def _begin(self) -> None:
        pieces: list[_Piece] = []
        images = 0
        while self._images_waiting:
            piece, self._next = self._next or self._waiting.pop(), None
            assert piece is not None  # its images were counted
            count = len(piece.pixels_BCHW)
            if pieces and images + count > self._most:
                self._next = piece
                break
            self._images_waiting -= count
            if piece.lane in self._lanes:
                pieces.append(piece)
                images += count
        if not pieces:
            return
        batch = _UnderWay(pieces, images, finish=_nothing)
        if not self._under_way:
            self._busy_since = batch.began
        try:
            batch.finish = self._start(self._gathered(pieces, images))
        except Exception as error:  # goes to all that wait for it
            self._fail(batch, error)
        else:
            self._under_way.append(batch)
            self._rooms.rotate()  # not before: the other room may be under way

    def _gathered(self, pieces: list[_Piece], images: int) -> NDArray[np.uint8]:
        if len(pieces) == 1:
            return pieces[0].pixels_BCHW  # they stay as they are until they are answered
        pixels_BCHW: NDArray[np.uint8] = np.concatenate(
            [piece.pixels_BCHW for piece in pieces], out=self._rooms[-1][:images]
        )
        return pixels_BCHW

    def _encode_at_once(self, pixels_BCHW: NDArray[np.uint8]) -> Callable[[], Encoding]:
        encoding = self._encoder.encode(pixels_BCHW)
        return lambda: encoding

    def _finish(self) -> None:
        batch = self._under_way.popleft()
        try:
            encoding = batch.finish()
        except Exception as error:
            self._fail(batch, error)
            return
        self._failures = 0
        now = time.perf_counter()
        self._on_batch(batch.images, now - self._busy_since)
        began = max(batch.began, self._busy_since)
        answer = Answer(now - began, batch.images).to_bytes()
        self._busy_since = now
        row = 0
        for piece in batch.pieces:
            end = row + len(piece.pixels_BCHW)
            if piece.lane.memory is not None:
                piece.lane.memory.write_answer(Encoding(*(part[row:end] for part in encoding)))
            _send(piece.lane, answer)
            row = end

    def _fail(self, batch: _UnderWay, error: Exception) -> None:
        """Tell those who wait for ``batch`` why it failed.

        Raises:
            NetworkFailedError: the device is lost, or it was the last of several failures in a row
                that nobody expected.
        """
        for piece in batch.pieces:
            _send(piece.lane, failure(error))
        if isinstance(error, DeviceLostError):
            raise NetworkFailedError("the device is lost") from error
        if isinstance(error, VisionError):  # it says what is the matter
            logger.warning("a batch of %d images failed: %s", batch.images, error)
            return
        logger.error("a batch of %d images failed", batch.images, exc_info=error)
        self._failures += 1
        if self._failures == FAILURES:
            raise NetworkFailedError(f"{FAILURES} batches in a row failed") from error


def _send(lane: _Lane, message: bytes) -> None:
    with suppress(OSError):  # the worker has gone, which is noticed when it is looked for messages
        lane.connection.send(message)


def _nothing() -> Encoding:
    raise AssertionError("not begun")
