"""The network in another process, seen from a worker: lanes to it, and whether it is there.

Shape suffixes: B images, C channels, H x W pixels.
"""

import contextlib
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.encoding.lane import EncodedBatch
from service.encoding.messages import MEMORY, MOST_BYTES, Answer, Greeting, Request
from service.encoding.shared_batch import BatchShape, SharedBatch
from service.errors import NetworkLostError, StoppingError
from service.telemetry.health import hide_folders
from vision.errors import ModelFolderError
from vision.inference.encoder import Encoding
from vision.model.manifest import read_manifest

LANES: Final = 2  # one batch is computed while the next is decoded
LOOK_S: Final = 0.2  # between two looks at whether to go on waiting
AGAIN_S: Final = 0.1  # between two attempts to connect
RETRY_S: Final = 5  # after which a request may be sent again: some of the time that loading takes
LOST: Final = "the process with the network has ended and is being started again"
logger = logging.getLogger("lookalike.service")


class EncoderClient:
    """An ``ImageEncoder`` whose network is in another process, and the lanes to it.

    When that process ends, whoever waits for it is told at once, and so is everybody who comes
    before its successor is ready. A thread notices the end, and connects the lanes anew.
    """

    def __init__(self, path: Path, model_folder: Path, *, gives_up: Callable[[], bool]) -> None:
        """Connect, once the network is ready.

        Args:
            path: of the socket at which its process listens.
            model_folder: of the model that it has to have.
            gives_up: whether waiting has become pointless.

        Raises:
            ModelFolderError, DeviceError: the network cannot be loaded, or is another one.
            StoppingError: it was given up.
        """
        self.manifest = read_manifest(model_folder)
        self._path = path
        self._model_folder = model_folder
        self._is_closing = False
        self._gives_up = gives_up
        self.unavailable_reason: str | None = None  # None: all lanes are connected
        self.lanes = [RemoteLane() for _ in range(LANES)]
        self._connect(self.lanes[0])
        greeting = self.lanes[0].greeting
        self.device_name, self.runtime = greeting.device, greeting.runtime
        self.batch_size = greeting.images
        for lane in self.lanes[1:]:
            self._connect(lane)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="network-watch", daemon=True)
        self._thread.start()

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L) of pixels (B, C, H, W), B at least 1."""
        return self.lanes[0](list(pixels_BCHW), is_bulk=False).encoding

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Do nothing: a network that answers is warm."""

    def close(self) -> None:
        """Leave; no lane is in use any more."""
        self._is_closing = True
        self._wake.send(b"x")
        self._thread.join()
        for lane in self.lanes:
            lane.close()

    def _watch(self) -> None:
        """Notice the end of the process, and connect to the next."""
        while not self._is_closing:
            poll = select.poll()
            poll.register(self._woken, select.POLLIN)
            for lane in self.lanes:
                poll.register(lane.descriptor, 0)  # that the other end is closed is always told
            poll.poll()
            if self._is_closing:
                return
            self.unavailable_reason = LOST
            logger.warning("%s; requests are answered 503 until then", LOST)
            for lane in self.lanes:
                lane.lose()
            if not self._connect_again():
                return
            self.unavailable_reason = None
            logger.info("the process with the network is there again")

    def _connect_again(self) -> bool:
        """Connect all lanes, however often that fails; return whether it was not given up."""
        while True:
            try:
                for lane in self.lanes:
                    self._connect(lane)
            except StoppingError:
                return False
            except Exception as error:  # another model, or one that cannot be loaded just now
                for lane in self.lanes:
                    lane.lose()
                reason = hide_folders(str(error), [self._model_folder])
                self.unavailable_reason = f"the network cannot be used any more: {reason}"
                logger.exception("the network cannot be used; next try in %d s", RETRY_S)
                select.select([self._woken], [], [], RETRY_S)  # or until it is closed
            else:
                return True

    def _connect(self, lane: "RemoteLane") -> None:
        while True:
            self._check_whether_to_go_on()
            try:
                connection, greeting = self._greeted()
                if greeting.fingerprint != self.manifest.fingerprint:
                    raise ModelFolderError(
                        "the process with the network has loaded another model; the folder was "
                        "changed meanwhile: restart the service"
                    )
                lane.connect(connection, greeting, self.manifest.preprocessing.batch_shape(1)[1:])
            except (OSError, EOFError, json.JSONDecodeError):  # it ends, or has yet to start
                time.sleep(AGAIN_S)
            else:
                return

    def _check_whether_to_go_on(self) -> None:
        if self._is_closing or self._gives_up():
            raise StoppingError("the service is stopping")

    def _greeted(self) -> tuple[socket.socket, Greeting]:
        """Return a new connection, and what came over it first."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(LOOK_S)
            folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
            try:  # the name of a socket has 107 bytes at most
                connection.connect(f"/proc/self/fd/{folder}/{self._path.name}")
            finally:
                os.close(folder)
            while True:
                try:
                    message = connection.recv(MOST_BYTES)
                    break
                except TimeoutError:
                    self._check_whether_to_go_on()
            connection.settimeout(None)
            return connection, Greeting.read(message)
        except BaseException:
            connection.close()
            raise


class RemoteLane:
    """A lane to the process with the network: a socket, and memory for one batch."""

    greeting: Greeting

    def __init__(self) -> None:
        self._end: tuple[socket.socket, SharedBatch] | None = None  # None: it is not connected

    @property
    def descriptor(self) -> int:
        """The open file of the socket."""
        return -1 if self._end is None else self._end[0].fileno()

    @property
    def most(self) -> int:
        """How many images there is room for, in the memory that was agreed on last."""
        return self.greeting.images

    def connect(
        self, connection: socket.socket, greeting: Greeting, pixels: tuple[int, ...]
    ) -> None:
        """Use a new connection from now on, with new memory.

        Raises:
            OSError: the other end has been closed.
        """
        channels, height, width = pixels
        shape = BatchShape(
            greeting.images, (channels, height, width), greeting.width, greeting.labels
        )
        memory, file = SharedBatch.make(shape)
        try:
            socket.send_fds(connection, [MEMORY], [file])
        finally:
            os.close(file)
        self.greeting = greeting
        self._end = connection, memory

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, is_bulk: bool) -> EncodedBatch:
        """Encode images (C, H, W), at most ``most``.

        Raises:
            NetworkLostError: the process ended meanwhile, and its successor is not ready yet or
                takes fewer images than there are.
            Whatever the encoder raises, if it is an error of ``vision``; otherwise RuntimeError.
        """
        end = self._end  # whoever notices its loss puts None there
        if end is None:
            raise NetworkLostError(LOST, retry_after_s=RETRY_S)
        connection, memory = end
        if len(images) > len(memory.pixels_BCHW):  # it was connected anew since ``most`` was asked
            raise NetworkLostError(LOST, retry_after_s=RETRY_S)
        for row, pixels_CHW in enumerate(images):
            memory.pixels_BCHW[row] = pixels_CHW
        try:
            connection.send(Request(len(images), is_bulk).to_bytes())
            message = connection.recv(MOST_BYTES)
        except OSError as error:
            raise NetworkLostError(LOST, retry_after_s=RETRY_S) from error
        if not message:
            raise NetworkLostError(LOST, retry_after_s=RETRY_S)
        answer = Answer.read(message)
        return EncodedBatch(memory.copy_answer(len(images)), answer.seconds, answer.images)

    def lose(self) -> None:
        """Use this connection no more; a thread that waits at it is told."""
        end, self._end = self._end, None
        if end is not None:
            with contextlib.suppress(OSError):
                end[0].shutdown(socket.SHUT_RDWR)  # closed with the last reference to it

    def close(self) -> None:
        """Close the connection."""
        self.lose()
