"""The encoder for GPUs: its bookkeeping on any machine, its answers on one that has a GPU."""

import gc
import logging
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.support.models import manifest, write_model
from tests.support.server.servers import ROOT
from vision.errors import DeviceError
from vision.inference.cuda.batch_plan import SIZES
from vision.inference.cuda.streams import STREAM_NAMES, Event, StreamName
from vision.inference.cuda_encoder import CudaEncoder
from vision.inference.open_encoder import open_encoder
from vision.inference.torch_encoder import TorchEncoder
from vision.networks.network import Network, build_network
from vision.networks.normalization import Normalization
from vision.networks.precision import (
    MIN_COSINE,
    fastest_precision,
    gpu_precision,
    in_precision,
    lowest_cosine,
)

CPU = torch.device("cpu")
LARGEST = SIZES[-1]
COUNTS = (*range(1, 18), 31, 32, 33, 64, 65, 100, LARGEST, LARGEST + 1, 300)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@dataclass
class LateEvent:
    streams: "LateStreams"
    stream: StreamName
    work: Callable[[], object]
    after: "LateEvent | None"
    done: bool = False

    def synchronize(self) -> None:
        waiting = self.streams.waiting[self.stream]
        while not self.done:
            first = waiting.popleft()
            if first.after and self.streams.heeds_events:
                first.after.synchronize()
            first.work()
            first.done = True


@dataclass
class LateStreams:
    """Does nothing until somebody waits, and then only what they really have to wait for."""

    device: torch.device = CPU
    heeds_events: bool = True
    captures: bool = True
    replayed: list[int] = field(default_factory=list)
    waiting: dict[StreamName, deque[LateEvent]] = field(
        default_factory=lambda: {name: deque() for name in STREAM_NAMES}
    )
    took_s: Callable[[int], float] = lambda size: 0.001 + size * 1e-5
    sizes: dict[Callable[[], object], int] = field(default_factory=dict)

    def run(
        self, name: StreamName, work: Callable[[], object], *, after: Event | None = None
    ) -> Event:
        assert after is None or isinstance(after, LateEvent)
        event = LateEvent(self, name, work, after)
        self.waiting[name].append(event)
        return event

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        if not self.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        assert isinstance(work, partial)
        size = work.args[-1]

        def replay() -> None:
            self.replayed.append(size)
            work()

        self.sizes[replay] = size
        return replay

    def seconds(self, work: Callable[[], object]) -> float:
        return self.took_s(self.sizes[work])

    def free_memory(self) -> None:
        pass

    def is_lost(self) -> bool:
        return False


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(manifest().architecture, manifest().preprocessing).eval()


def encoder(streams: LateStreams | None = None, *, warm: bool = True) -> CudaEncoder:
    made = CudaEncoder(manifest(), network(), torch.float32, streams or LateStreams())
    if warm:
        made.warm_up((1, LARGEST))
        made.finish_warm_up()
    return made


def plain() -> TorchEncoder:
    return TorchEncoder(manifest(), network(), CPU)


def pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 28, 28), np.uint8)


def cosines(ours_BD: NDArray[np.float32], theirs_BD: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.einsum("bd,bd->b", ours_BD, theirs_BD)


@pytest.mark.parametrize("warm", [False, True], ids=["piece by piece", "graphs"])
def test_answers_are_those_of_the_plain_encoder_for_every_batch_size(warm: bool) -> None:
    ours, expected = encoder(warm=warm), plain().encode(pixels(300))
    for count in COUNTS:
        answer = ours.encode(pixels(300)[:count])
        assert answer.vectors_BD.shape == (count, 256)
        np.testing.assert_allclose(answer.vectors_BD, expected.vectors_BD[:count], atol=1e-5)
        np.testing.assert_allclose(
            answer.probabilities_BL, expected.probabilities_BL[:count], atol=1e-5
        )


def test_without_waiting_for_each_other_the_streams_would_give_wrong_answers() -> None:
    """So the tests here do see whether the encoder orders its work."""
    careless = encoder(LateStreams(heeds_events=False), warm=False)

    ours, theirs = careless.encode(pixels(8)), plain().encode(pixels(8))
    assert not np.allclose(ours.vectors_BD, theirs.vectors_BD, atol=1e-5)


def test_an_answer_stays_when_the_next_batches_use_the_same_memory() -> None:
    ours = encoder()
    first = ours.encode(pixels(LARGEST))
    kept = (first.vectors_BD.copy(), first.probabilities_BL.copy())
    for seed in range(1, 4):
        ours.encode(pixels(LARGEST, seed))

    np.testing.assert_array_equal(first.vectors_BD, kept[0])
    np.testing.assert_array_equal(first.probabilities_BL, kept[1])


def test_a_batch_begins_while_the_one_before_is_under_way() -> None:
    ours = encoder()
    batches = [pixels(count, count) for count in (3, 256, 40, 1)]
    under_way = deque([ours.start(batches[0])])
    answers = []
    for batch in batches[1:]:
        under_way.append(ours.start(batch))
        answers.append(under_way.popleft()())
    answers.append(under_way.popleft()())

    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer.vectors_BD, plain().encode(batch).vectors_BD, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 17, 130])
def test_what_an_earlier_batch_left_in_the_padding_changes_nothing(count: int) -> None:
    fresh, used = encoder(), encoder()
    used.encode(pixels(LARGEST, seed=9))

    np.testing.assert_array_equal(
        fresh.encode(pixels(count)).vectors_BD, used.encode(pixels(count)).vectors_BD
    )


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (3, [4]), (33, [64]), (200, [256]), (256, [256]), (257, [256, 1]), (300, [256, 64])],
)
def test_where_a_launch_costs_most_batches_are_padded(count: int, sizes: list[int]) -> None:
    streams = LateStreams()
    ours = encoder(streams)
    streams.replayed.clear()
    ours.encode(pixels(count))

    assert streams.replayed == sizes


@pytest.mark.parametrize(
    ("count", "sizes"), [(33, [32, 1]), (70, [64, 4, 2]), (96, [64, 32]), (100, [64, 32, 4])]
)
def test_where_images_cost_most_batches_are_cut(count: int, sizes: list[int]) -> None:
    streams = LateStreams(took_s=lambda size: 1e-6 + size * 1e-4)
    ours = encoder(streams)
    streams.replayed.clear()
    ours.encode(pixels(count))

    assert streams.replayed == sizes


def test_batches_that_would_take_too_long_are_not_wanted() -> None:
    streams = LateStreams(took_s=lambda size: size * 1e-3)
    ours = encoder(streams)

    assert ours.batch_size == 32
    assert max(ours.recorded) == 32


def test_sizes_that_gain_nothing_are_not_recorded() -> None:
    ours = encoder(LateStreams(took_s=lambda size: max(16, size) * 1e-5))

    assert ours.recorded == {1, 2, 4, 8, 16, 32, 64}  # 64 was tried


def test_only_what_the_first_batches_need_is_recorded_before_them() -> None:
    ours = encoder(warm=False)
    ours._graphs.record_first(LARGEST)

    assert ours.recorded == {1, 8, 32}


def test_the_thread_of_the_graphs_stays_as_long_as_the_encoder() -> None:
    """What cuDNN keeps for a thread may be what its graphs run."""

    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "graphs"}

    before = threads()
    ours = encoder()
    (made,) = threads() - before
    assert made.is_alive()

    del ours
    gc.collect()
    made.join(timeout=10)
    assert not made.is_alive()


@pytest.mark.parametrize(("largest", "recorded"), [(1, {1}), (5, {1, 2, 4, 8}), (500, set(SIZES))])
def test_only_sizes_that_can_come_are_recorded(largest: int, recorded: set[int]) -> None:
    streams = LateStreams()
    ours = encoder(streams, warm=False)
    ours.warm_up((1, largest))
    ours.finish_warm_up()

    assert ours.recorded == recorded


def test_where_recording_fails_batches_are_launched_piece_by_piece(
    caplog: pytest.LogCaptureFixture,
) -> None:
    streams = LateStreams(captures=False)
    with caplog.at_level(logging.WARNING, "lookalike.vision"):
        ours = encoder(streams)

    assert "no CUDA graphs" in caplog.text
    np.testing.assert_allclose(
        ours.encode(pixels(40)).vectors_BD, plain().encode(pixels(40)).vectors_BD, atol=1e-5
    )
    assert streams.replayed == []


def test_the_search_for_algorithms_ends_with_the_warm_up() -> None:
    before = torch.backends.cudnn.benchmark
    encoder()

    assert torch.backends.cudnn.benchmark == before


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((6, 1), torch.float32),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((9, 0), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_precision_follows_the_capability(
    capability: tuple[int, int], precision: torch.dtype
) -> None:
    assert gpu_precision(capability) is precision


def test_fewer_bits_are_for_the_features_alone() -> None:
    exact = network()
    half = in_precision(exact, torch.bfloat16)

    layers = [
        layer for layer in half.features.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    head = (*half.embedding.parameters(), *half.classifier.parameters())
    assert {part.dtype for part in (*head, *exact.parameters())} == {torch.float32}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_fewer_bits_keep_the_vectors_and_unit_length(precision: torch.dtype) -> None:
    half = CudaEncoder(manifest(), in_precision(network(), precision), precision, LateStreams())
    half.warm_up((16,))
    half.finish_warm_up()
    ours, theirs = half.encode(pixels(16)), plain().encode(pixels(16))

    assert ours.vectors_BD.dtype == np.float32
    assert cosines(ours.vectors_BD, theirs.vectors_BD).min() > MIN_COSINE
    assert not np.array_equal(ours.vectors_BD, theirs.vectors_BD)  # it did compute in fewer
    np.testing.assert_allclose(np.linalg.norm(ours.vectors_BD, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(ours.probabilities_BL.sum(axis=1), 1, atol=1e-5)


def test_a_network_that_overflows_in_fewer_bits_stays_in_float32(
    caplog: pytest.LogCaptureFixture,
) -> None:
    large = network()
    with torch.no_grad():
        for part in large.features.parameters():
            part.mul_(300)
    normalised = Normalization(manifest().preprocessing, CPU)(torch.from_numpy(pixels(4)))

    assert lowest_cosine(large, in_precision(large, torch.float16), normalised, torch.float16) == 0
    with caplog.at_level(logging.WARNING, "lookalike.vision"):
        kept, precision = fastest_precision(large, manifest().preprocessing, (7, 0))
    assert (kept is large, precision) == (True, torch.float32)
    assert "float32" in caplog.text


def test_a_network_that_keeps_its_vectors_is_lowered() -> None:
    lower, precision = fastest_precision(network(), manifest().preprocessing, (8, 0))

    assert precision is torch.bfloat16
    assert {part.dtype for part in lower.features.parameters()} == {torch.bfloat16}


def test_only_a_gpu_will_do(tmp_path: Path) -> None:
    write_model(tmp_path / "model")

    with pytest.raises(DeviceError, match="not a GPU"):
        CudaEncoder.load(tmp_path / "model", device="cpu")


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("warm", [False, True], ids=["piece by piece", "graphs"])
def test_a_gpu_gives_the_vectors_of_float32(
    tmp_path: Path, warm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path / "model")
    ours = CudaEncoder.load(tmp_path / "model")
    theirs = TorchEncoder.load(tmp_path / "model", device="cuda")
    if warm:
        ours.warm_up((1, LARGEST))
        ours.finish_warm_up()
    assert "CUDA graphs" not in caplog.text
    for count in COUNTS:
        mine, other = ours.encode(pixels(count, count)), theirs.encode(pixels(count, count))
        assert cosines(mine.vectors_BD, other.vectors_BD).min() > MIN_COSINE
        np.testing.assert_allclose(mine.probabilities_BL, other.probabilities_BL, atol=0.01)


@pytest.mark.gpu
@on_a_gpu
def test_a_gpu_is_taken_where_there_is_one(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    ours = open_encoder(tmp_path / "model", device="auto", runtime="auto", threads=1)

    assert isinstance(ours, CudaEncoder)
    assert ours.runtime.precision in {"bf16", "fp16"}


@pytest.mark.gpu
@on_a_gpu
def test_graphs_on_a_gpu_answer_as_what_they_recorded(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    recorded, piecewise = (CudaEncoder.load(tmp_path / "model") for _ in range(2))
    recorded.warm_up((1, LARGEST))
    recorded.finish_warm_up()
    for count in (*SIZES, 100):
        np.testing.assert_allclose(
            recorded.encode(pixels(count)).vectors_BD,
            piecewise.encode(pixels(count)).vectors_BD,
            atol=5e-3,
        )


@pytest.mark.gpu
@on_a_gpu
def test_on_a_gpu_neither_neighbours_nor_padding_nor_later_batches_change_a_row(
    tmp_path: Path,
) -> None:
    write_model(tmp_path / "model")
    ours = CudaEncoder.load(tmp_path / "model")
    ours.warm_up((1, LARGEST))
    ours.finish_warm_up()
    for count in (1, 3, 20, 32, 90, 200):
        alike = [np.concatenate([pixels(1), pixels(count, seed)[1:]]) for seed in (1, 2)]
        first = ours.encode(alike[0]).vectors_BD
        kept = first.copy()
        second = ours.encode(alike[1]).vectors_BD
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(first[0], second[0])


@pytest.mark.gpu
@on_a_gpu
def test_two_processes_share_a_gpu(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    np.save(tmp_path / "pixels.npy", pixels(LARGEST))
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from vision.inference.cuda_encoder import CudaEncoder\n"
        "folder = Path(sys.argv[1]); encoder = CudaEncoder.load(folder / 'model')\n"
        "encoder.warm_up((1, 32)); images = np.load(folder / 'pixels.npy')\n"
        "for _ in range(500): vectors = encoder.encode(images).vectors_BD\n"
        "np.save(folder / sys.argv[2], vectors)\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"{name}.npy"], cwd=ROOT)
        for name in "ab"
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]

    expected = TorchEncoder.load(tmp_path / "model").encode(pixels(LARGEST)).vectors_BD
    for name in "ab":
        assert cosines(np.load(tmp_path / f"{name}.npy"), expected).min() > MIN_COSINE
