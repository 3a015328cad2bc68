"""One network for several workers: everybody gets his own answer, whatever becomes of the others.

Client and server of one process here, over a real socket; tests/service/encoding/test_apart.py has
them in processes of their own.

Shape suffixes: B images, C channels, H x W pixels.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving.front.stand_in import StandInEncoder, one_hot
from service.encoding import client, program
from service.encoding.client import EncoderClient
from service.encoding.messages import MEMORY, MOST_BYTES, Greeting, Request, failure
from service.encoding.server import EncoderServer, NetworkFailedError
from service.encoding.shared_batch import BatchShape, SharedBatch
from service.errors import NetworkLostError, StoppingError
from service.inference.batcher import Batcher
from service.inference.task import DecodedImage, Task
from service.telemetry.watchdog import Watchdog
from vision.errors import DeviceLostError, DeviceMemoryError, ModelFolderError
from vision.inference.encoder import Encoding, Runtime

WITHIN_S = 20.0
LANE_IMAGES = 8


class GatedEncoder(StandInEncoder):
    """Answers when it is allowed to, and remembers its batches; fails as it is told to."""

    start = None  # type: ignore[assignment] # takes one batch at a time

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.allowed = threading.Event()
        self.allowed.set()
        self.batches: list[list[int]] = []  # the first pixel of each image
        self.error: Exception | None = None

    def encode(self, pixels_BCHW: np.ndarray) -> Encoding:
        self.batches.append(pixels_BCHW[:, 0, 0, 0].tolist())
        assert self.allowed.wait(WITHIN_S)
        if self.error is not None:
            raise self.error
        return self._answer(pixels_BCHW)


class Running:
    """A server on a thread, and how it ended."""

    def __init__(
        self,
        folder: Path,
        encoder: StandInEncoder,
        *,
        most: int = 32,
        lane_images: int = LANE_IMAGES,
    ) -> None:
        self.path = folder / "encoder.sock"
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.path))
        self.listener.listen()
        manifest = encoder.manifest
        self.counted: list[tuple[int, float]] = []
        self.shape = BatchShape(
            lane_images,
            manifest.preprocessing.batch_shape(1)[1:],
            manifest.architecture.width,
            len(manifest.labels),
        )
        self.server = EncoderServer(
            self.listener,
            encoder,
            most=most,
            greeting=Greeting(
                fingerprint=manifest.fingerprint,
                device="stand-in",
                runtime=Runtime(name="stand-in", precision="fp32"),
                images=lane_images,
                width=self.shape.width,
                labels=self.shape.labels,
            ),
            on_batch=lambda images, busy_s: self.counted.append((images, busy_s)),
        )
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except NetworkFailedError as error:
            self.error = error
            for one in (self.listener, *(lane.connection for lane in self.server._lanes)):
                one.close()  # as the end of the process does

    def end(self) -> None:
        self.server.stop()
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()
        self.listener.close()


@contextlib.contextmanager
def served(
    folder: Path, encoder: StandInEncoder, model: Path, *, clients: int = 1, most: int = 32
) -> Iterator[tuple[Running, list[EncoderClient]]]:
    running = Running(folder, encoder, most=most)
    workers = [EncoderClient(running.path, model, gives_up=lambda: False) for _ in range(clients)]
    try:
        yield running, workers
    finally:
        for worker in workers:
            worker.close()
        running.end()


def pictures(encoder: StandInEncoder, firsts: Sequence[int]) -> list[np.ndarray]:
    """Return an image for each number, which is its first pixel, and noise for the rest."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, encoder.manifest.preprocessing.batch_shape(len(firsts)), np.uint8)
    images[:, 0, 0, 0] = firsts
    return list(images)


def is_answer(encoding: Encoding, images: Sequence[np.ndarray]) -> bool:
    sums_B = np.array([image.sum(dtype=np.int64) for image in images])
    return all(np.array_equal(part, one_hot(sums_B, part.shape[1])) for part in encoding) and len(
        encoding.vectors_BD
    ) == len(images)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Asking(threading.Thread):
    """A thread that sends one batch over a lane."""

    def __init__(
        self, lane: Callable[..., object], images: list[np.ndarray], *, is_bulk: bool = False
    ) -> None:
        super().__init__()
        self.outcome: object = None
        self._work = lambda: lane(images, is_bulk=is_bulk)
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._work()
        except Exception as error:
            self.outcome = error


@pytest.mark.parametrize("kind", [StandInEncoder, GatedEncoder])
def test_everybody_gets_his_own_answers(
    kind: type[StandInEncoder], model: Path, tmp_path: Path
) -> None:
    encoder = kind(model)
    wrong: list[object] = []

    def ask(lane: Callable[..., object], seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            images = pictures(encoder, rng.integers(0, 256, rng.integers(1, LANE_IMAGES + 1)))
            batch = lane(images, is_bulk=bool(rng.integers(2)))
            if not is_answer(batch.encoding, images):  # type: ignore[attr-defined]
                wrong.append(images)

    with served(tmp_path, encoder, model, clients=3) as (running, workers):
        threads = [
            threading.Thread(target=ask, args=(lane, number))
            for number, lane in enumerate(lane for worker in workers for lane in worker.lanes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN_S)
        assert wrong == []
        sizes = [images for images, _ in running.counted]
        assert max(sizes) > LANE_IMAGES  # of several workers at once
        assert max(sizes) <= 32


def test_what_waited_while_the_network_was_busy_is_one_batch_and_singles_go_first(
    model: Path, tmp_path: Path
) -> None:
    encoder = GatedEncoder(model)
    with served(tmp_path, encoder, model, clients=3, most=10) as (running, workers):
        lanes = [lane for worker in workers for lane in worker.lanes]
        encoder.allowed.clear()
        first = Asking(lanes[0], pictures(encoder, [1]))
        until(lambda: len(encoder.batches) == 1)
        bulk = Asking(lanes[1], pictures(encoder, [2] * 8), is_bulk=True)
        time.sleep(0.1)  # it is with the server
        singles = [
            Asking(lanes[2], pictures(encoder, [3] * 8)),
            Asking(lanes[3], pictures(encoder, [4])),
        ]
        time.sleep(0.5)
        encoder.allowed.set()
        for one in (first, bulk, *singles):
            one.join(WITHIN_S)
        alone, together, last = encoder.batches
        assert (alone, last) == ([1], [2] * 8)
        assert sorted(together) == [3] * 8 + [4]  # sent by two threads
        assert first.outcome.images == 1  # type: ignore[attr-defined]
        assert [one.outcome.images for one in singles] == [9, 9]  # type: ignore[attr-defined]
        assert all(busy_s > 0 for _, busy_s in running.counted)


def test_no_batch_is_larger_than_the_memory_of_a_lane(model: Path, tmp_path: Path) -> None:
    """Also where the network of the next process takes fewer images at once."""
    encoder = GatedEncoder(model)
    encoder.error = DeviceLostError("the GPU no longer answers")
    shape = encoder.manifest.preprocessing.batch_shape(1)[1:]

    def decoded(task: Task, light_only: bool) -> DecodedImage:
        return DecodedImage(pixels_CHW=np.full(shape, task.data[0], np.uint8), thumbnail=None)

    async def ask(worker: EncoderClient) -> list[object]:
        batcher = Batcher(
            decode=decoded,
            lanes=worker.lanes,
            watchdog=Watchdog(),
            decode_threads=1,
            heavy_threads=1,
            decodes_itself=True,
            is_quick=False,
            max_batch=64,
        )
        tasks = [Task(data=bytes([n]), is_cheap=True) for n in range(50)]
        answers = await batcher.encode(tasks, caller="")
        await batcher.close()
        return [isinstance(one, Exception) and one for one in answers]

    running = Running(tmp_path, encoder, lane_images=16)
    worker = EncoderClient(running.path, model, gives_up=lambda: False)
    with pytest.raises(DeviceLostError):
        worker.lanes[0](pictures(encoder, [1]), is_bulk=False)
    encoder.error = None
    until(lambda: worker.unavailable_reason is not None)
    later = Running(tmp_path, encoder, lane_images=4)
    until(lambda: worker.unavailable_reason is None)
    assert [lane.most for lane in worker.lanes] == [4, 4]
    assert asyncio.run(ask(worker)) == [False] * 50
    with pytest.raises(NetworkLostError):  # it asked how many before the process was replaced
        worker.lanes[0](pictures(encoder, [1] * 5), is_bulk=False)
    worker.close()
    later.end()


def test_the_next_batch_is_begun_while_the_one_before_is_computed(
    model: Path, tmp_path: Path
) -> None:
    """The device of the stand-in is busy all the time, so ten batches take as long as it does."""
    encoder = StandInEncoder(model)
    with served(tmp_path, encoder, model, clients=1, most=LANE_IMAGES) as (running, (worker,)):
        started = time.perf_counter()
        threads = [
            threading.Thread(
                target=lambda lane=lane: [
                    lane(pictures(encoder, [1] * LANE_IMAGES), is_bulk=False) for _ in range(20)
                ]
            )
            for lane in worker.lanes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN_S)
        took = time.perf_counter() - started
        busy = sum(busy_s for _, busy_s in running.counted)
        assert len(running.counted) == 40
        assert 0.5 * took < busy < 1.05 * took  # a busy machine takes its share


def test_an_error_of_the_encoder_reaches_those_who_wait_and_nobody_after(
    model: Path, tmp_path: Path
) -> None:
    encoder = GatedEncoder(model)
    with served(tmp_path, encoder, model) as (_, (worker,)):
        images = pictures(encoder, [1])
        for error, kind in (
            (DeviceMemoryError("full"), DeviceMemoryError),
            (ValueError("x"), RuntimeError),
        ):
            encoder.error = error
            with pytest.raises(kind):
                worker.lanes[0](images, is_bulk=False)
            encoder.error = None
            assert is_answer(worker.lanes[0](images, is_bulk=False).encoding, images)
        assert worker.unavailable_reason is None


@pytest.mark.parametrize(
    ("error", "times", "kind"),
    [
        (RuntimeError("an illegal memory access was encountered"), 3, RuntimeError),
        (DeviceLostError("the GPU no longer answers"), 1, DeviceLostError),
    ],
)
def test_a_network_past_use_is_given_up_and_the_next_one_found(
    model: Path, tmp_path: Path, error: Exception, times: int, kind: type[Exception]
) -> None:
    encoder = GatedEncoder(model)
    encoder.error = error
    running = Running(tmp_path, encoder)
    worker = EncoderClient(running.path, model, gives_up=lambda: False)
    images = pictures(encoder, [1, 2])
    for _ in range(times):
        with pytest.raises(kind):
            worker.lanes[0](images, is_bulk=False)
    until(lambda: worker.unavailable_reason is not None)
    assert running.error is not None
    for lane in worker.lanes:
        with pytest.raises(NetworkLostError) as caught:
            lane(images, is_bulk=False)
        assert caught.value.retry_after_s > 0
    encoder.error = None
    later = Running(tmp_path, encoder)
    until(lambda: worker.unavailable_reason is None)
    for lane in worker.lanes:
        assert is_answer(lane(images, is_bulk=False).encoding, images)
    worker.close()
    later.end()


def test_a_network_that_could_not_be_loaded_once_is_found_later(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "REFUSING_S", 1.0)
    monkeypatch.setattr(client, "RETRY_S", 0.1)
    encoder = GatedEncoder(model)
    encoder.error = DeviceLostError("the GPU no longer answers")
    running = Running(tmp_path, encoder)
    worker = EncoderClient(running.path, model, gives_up=lambda: False)
    with pytest.raises(DeviceLostError):
        worker.lanes[0](pictures(encoder, [1]), is_bulk=False)
    until(lambda: running.error is not None)
    running.path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(running.path))
        listener.listen()
        program._refuse(listener, failure(ModelFolderError("no weights")))  # ends by itself
    assert "no weights" in str(worker.unavailable_reason)
    encoder.error = None
    later = Running(tmp_path, encoder)
    until(lambda: worker.unavailable_reason is None)
    images = pictures(encoder, [1, 2])
    for lane in worker.lanes:
        assert is_answer(lane(images, is_bulk=False).encoding, images)
    worker.close()
    later.end()


def test_a_worker_that_goes_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    encoder = GatedEncoder(model)
    with served(tmp_path, encoder, model, clients=2) as (_, (goes, stays)):
        before = len(os.listdir("/proc/self/fd"))
        encoder.allowed.clear()
        blocking = Asking(stays.lanes[0], pictures(encoder, [1]))
        until(lambda: len(encoder.batches) == 1)
        left = Asking(goes.lanes[0], pictures(encoder, [2]))
        time.sleep(0.2)
        goes._is_closing = True  # no new connection
        for lane in goes.lanes:
            lane.close()
        encoder.allowed.set()
        blocking.join(WITHIN_S)
        left.join(WITHIN_S)
        assert isinstance(left.outcome, NetworkLostError)
        images = pictures(encoder, [3])
        assert is_answer(stays.lanes[0](images, is_bulk=False).encoding, images)
        assert [2] not in encoder.batches  # nobody waits for it
        del blocking, left
        until(lambda: len(os.listdir("/proc/self/fd")) < before)


def test_who_speaks_another_language_is_shown_the_door(model: Path, tmp_path: Path) -> None:
    encoder = StandInEncoder(model)
    with served(tmp_path, encoder, model) as (running, (worker,)):
        for messages in (
            [(b"hello", None)],
            [(MEMORY, BatchShape(1, (1, 2, 3), 4, 5))],
            [(MEMORY, running.shape), (b"hello", None)],
            [(MEMORY, running.shape), (Request(0, is_bulk=False).to_bytes(), None)],
            [(MEMORY, running.shape), (Request(LANE_IMAGES + 1, is_bulk=False).to_bytes(), None)],
        ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                stranger.settimeout(WITHIN_S)
                stranger.connect(str(running.path))
                assert stranger.recv(MOST_BYTES).startswith(b"{")
                for message, shape in messages:
                    if shape is None:
                        stranger.send(message)
                    else:
                        _, file = SharedBatch.make(shape)
                        socket.send_fds(stranger, [message], [file])
                        os.close(file)
                assert stranger.recv(MOST_BYTES) == b""
        images = pictures(encoder, [1])
        assert is_answer(worker.encode(np.stack(images)), images)


def test_another_model_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = StandInEncoder(model)
    running = Running(tmp_path, encoder)
    monkeypatch.setattr(running.server, "_greeting", Greeting(
        fingerprint="another", device="", images=1, width=1, labels=1,
        runtime=Runtime(name="", precision=""),
    ).to_bytes())  # fmt: skip
    with pytest.raises(ModelFolderError, match="another model"):
        EncoderClient(running.path, model, gives_up=lambda: False)
    running.end()


def test_who_stops_does_not_wait_for_a_network_that_never_comes(
    model: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    with pytest.raises(StoppingError):
        EncoderClient(tmp_path / "none", model, gives_up=lambda: time.monotonic() > began + 0.3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(StoppingError):
            EncoderClient(
                tmp_path / "silent", model, gives_up=lambda: time.monotonic() > began + 0.3
            )
