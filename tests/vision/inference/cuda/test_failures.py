"""A GPU whose memory runs out, or which is lost: smaller batches, a refusal, or an end."""

import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.models import manifest, write_model
from tests.vision.inference.test_cuda_encoder import CPU, network, on_a_gpu, pixels, plain
from vision.errors import DeviceError, DeviceLostError, DeviceMemoryError
from vision.inference import cuda_encoder
from vision.inference.cuda import failures
from vision.inference.cuda.failures import RETRY_S, MemoryLimit, is_out_of_memory
from vision.inference.cuda.streams import Event, StreamName
from vision.inference.cuda_encoder import CudaEncoder


class Done:
    def synchronize(self) -> None:
        pass


@dataclass
class PromptStreams:
    """Does everything at once, as CUDA does what an error is raised of: memory, launches."""

    device: torch.device = CPU
    lost: bool = False
    freed: int = 0

    def run(
        self, name: StreamName, work: Callable[[], object], *, after: Event | None = None
    ) -> Event:
        work()
        return Done()

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        return work

    def seconds(self, work: Callable[[], object]) -> float:
        return 0.001

    def free_memory(self) -> None:
        self.freed += 1

    def is_lost(self) -> bool:
        return self.lost


class Greedy(nn.Module):
    """Features for which there is room for so many images at once."""

    def __init__(self, *, room: float = 1000, error: RuntimeError | None = None) -> None:
        super().__init__()
        self.features = network().features
        self.room = room
        self.error = error
        self.sizes: list[int] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if self.error is not None:
            raise self.error
        if len(images_BCHW) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.06 GiB.")
        self.sizes.append(len(images_BCHW))
        features_BF: Tensor = self.features(images_BCHW)
        return features_BF


def encoder_of(features: Greedy, streams: PromptStreams | None = None) -> CudaEncoder:
    with_them = network()
    with_them.features = features
    return CudaEncoder(manifest(), with_them, torch.float32, streams or PromptStreams())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [0.0]
    monkeypatch.setattr(cuda_encoder, "MemoryLimit", lambda: MemoryLimit(clock=lambda: clock[0]))
    return clock


def test_a_batch_that_does_not_fit_goes_on_in_halves(caplog: pytest.LogCaptureFixture) -> None:
    features, streams = Greedy(room=50), PromptStreams()
    ours = encoder_of(features, streams)
    with caplog.at_level(logging.WARNING, "lookalike.vision"):
        answer = ours.encode(pixels(200))

    np.testing.assert_allclose(answer.vectors_BD, plain().encode(pixels(200)).vectors_BD, atol=1e-5)
    assert features.sizes == [50, 50, 50, 50]
    assert streams.freed == 2
    assert "no memory for 200 images at once: going on with 100" in caplog.text


def test_batches_of_a_pipeline_fail_and_go_on_in_their_order() -> None:
    features = Greedy(room=20)
    ours = encoder_of(features)
    batches = [pixels(40, seed) for seed in range(4)]
    under_way = [ours.start(batches[0]), ours.start(batches[1])]
    answers = [under_way[0]()]
    for batch in batches[2:]:
        under_way = [under_way[1], ours.start(batch)]
        answers.append(under_way[0]())
    answers.append(under_way[1]())

    for batch, answer in zip(batches, answers, strict=True):
        expected_BD = plain().encode(batch).vectors_BD
        np.testing.assert_allclose(answer.vectors_BD, expected_BD, atol=1e-5)


def test_a_batch_that_cannot_begin_leaves_the_one_under_way_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = encoder_of(Greedy())
    first, third = pixels(4, 0), pixels(4, 2)
    under_way = ours.start(first)
    with monkeypatch.context() as failing:
        failing.setattr(ours, "_run", raise_illegal)
        with pytest.raises(RuntimeError, match="illegal"):
            ours.start(pixels(4, 1))
    after = ours.start(third)
    for finish, batch in ((under_way, first), (after, third)):
        np.testing.assert_allclose(finish().vectors_BD, plain().encode(batch).vectors_BD, atol=1e-5)


def raise_illegal(*_: object) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_plan_is_made_once_until_more_is_measured() -> None:
    ours = encoder_of(Greedy())
    ours.warm_up((1, 8))
    ours.finish_warm_up()
    graphs = ours._graphs
    plan = graphs.plan(8)
    assert graphs.plan(8) is plan
    assert graphs.plan(4) is not plan
    plan = graphs.plan(8)
    graphs.seconds = {**graphs.seconds, 8: 0.1}
    assert graphs.plan(8) is not plan


def test_the_smaller_size_is_remembered_and_larger_ones_are_tried_again_later(
    now: list[float],
) -> None:
    features, streams = Greedy(room=64), PromptStreams()
    ours = encoder_of(features, streams)
    ours.encode(pixels(256))
    assert streams.freed == 2
    ours.encode(pixels(256))
    assert streams.freed == 2

    features.room = 1000
    now[0] += RETRY_S
    features.sizes.clear()
    ours.encode(pixels(256))
    assert features.sizes == [128, 128]
    now[0] += RETRY_S
    features.sizes.clear()
    ours.encode(pixels(256))
    assert features.sizes == [256]


def test_without_memory_for_one_image_the_batch_is_refused_and_the_next_may_succeed() -> None:
    features = Greedy(room=0.5)
    ours = encoder_of(features)
    with pytest.raises(DeviceMemoryError, match="no memory left for even one image"):
        ours.encode(pixels(4))

    features.room = 1000
    np.testing.assert_allclose(
        ours.encode(pixels(4)).vectors_BD, plain().encode(pixels(4)).vectors_BD, atol=1e-5
    )


def test_memory_that_lacks_for_larger_graphs_leaves_the_smaller_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = encoder_of(Greedy(room=64))
    with caplog.at_level(logging.WARNING, "lookalike.vision"):
        ours.warm_up((1, 256))
        ours.finish_warm_up()

    assert max(ours.recorded) == 64
    assert "no memory for more CUDA graphs" in caplog.text
    assert len(ours.encode(pixels(256)).vectors_BD) == 256


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory


def test_a_lost_device_is_told_from_an_error_that_leaves_it_well() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    streams = PromptStreams(lost=True)
    ours = encoder_of(Greedy(error=error), streams)
    with pytest.raises(DeviceLostError, match="does not answer any more: CUDA error: an illegal"):
        ours.encode(pixels(4))

    streams.lost = False
    with pytest.raises(RuntimeError, match="illegal") as raised:
        ours.encode(pixels(4))
    assert raised.value is error


def test_a_model_for_which_there_is_no_room_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model")

    def full(device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(cuda_encoder, "pick_device", lambda name: torch.device("cuda:0"))
    monkeypatch.setattr(cuda_encoder, "_wake", full)
    with pytest.raises(DeviceError, match="cuda has no room for the model in"):
        CudaEncoder.load(tmp_path / "model")


def test_the_limit_goes_away_when_it_no_longer_limits() -> None:
    clock = [0.0]
    limit = MemoryLimit(clock=lambda: clock[0])
    assert limit.halve(64) == 32
    assert limit.most(256) == 32
    for expected in (64, 128, 256, 256):
        clock[0] += failures.RETRY_S
        assert limit.most(256) == expected


@pytest.mark.gpu
@on_a_gpu
def test_a_full_gpu_refuses_or_goes_on_and_recovers(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    ours = CudaEncoder.load(tmp_path / "model")
    expected = ours.encode(pixels(64)).vectors_BD
    hogs = []
    for size in (2**30, 2**24, 2**20, 2**14):  # until nothing is left
        with suppress(torch.OutOfMemoryError):
            while True:
                hogs.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    with suppress(DeviceMemoryError):
        np.testing.assert_allclose(ours.encode(pixels(64)).vectors_BD, expected, atol=5e-3)
    hogs.clear()
    torch.cuda.empty_cache()

    np.testing.assert_allclose(ours.encode(pixels(64)).vectors_BD, expected, atol=5e-3)


@pytest.mark.gpu
@on_a_gpu
def test_a_device_side_fault_is_told_as_a_lost_device(tmp_path: Path) -> None:
    """In a process of its own: nothing on the GPU works there afterwards."""
    write_model(tmp_path / "model")
    code = (
        "import sys, numpy as np, torch; from pathlib import Path\n"
        "from vision.errors import DeviceLostError\n"
        "from vision.inference.cuda_encoder import CudaEncoder\n"
        "encoder = CudaEncoder.load(Path(sys.argv[1]))\n"
        "torch.zeros(2, device='cuda')[torch.tensor([2**20], device='cuda')]\n"
        "try: encoder.encode(np.zeros((1, 3, 28, 28), np.uint8))\n"
        "except DeviceLostError as error: print('lost:', error); import os; sys.stdout.flush(); "
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "lost: cuda" in done.stdout, done.stderr
