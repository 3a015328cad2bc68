"""The bare encoder: images a second by batch, beside torch in float32 and the card's own rate.

A batch goes from the host's memory to numbers in the host's memory, two under way as in the server.

Shape suffixes: B images, C channels, H x W pixels.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_run.models import CNN, MODELS, VGG, model_folder
from benchmarks.gpu_run.results import Results
from vision.errors import DeviceMemoryError
from vision.inference.cuda_encoder import CudaEncoder
from vision.inference.encoder import Encoding
from vision.inference.torch_encoder import TorchEncoder
from vision.networks.network import build_network

BATCHES = (1, 8, 32, 64, 128, 256)
REACH = {VGG: "9,000 at the best batch; 0.45 of the card's bf16 rate"}
BEST = "best batch, images/s"


def measure_encoders(results: Results, folder: Path, *, dry: bool) -> None:
    """Measure both models on the GPU, or on the CPU for a dry run."""
    card = matmul_rate(256 if dry else 8192, "cpu" if dry else "cuda")
    results.add("card", "matrix product in bf16", card / 1e12, "TFLOP/s")
    for name in (CNN, VGG):
        measure_encoder(results, name, model_folder(folder, name), card, dry=dry)


def measure_encoder(results: Results, name: str, model: Path, card: float, *, dry: bool) -> None:
    """Measure one model: loading, float32 in torch, and every batch."""
    section, seconds = f"encoder {name}", 0.1 if dry else 1.5
    device = "cpu" if dry else "cuda"
    exact = TorchEncoder.load(model, device=device)
    started = time.perf_counter()
    ours = TorchEncoder.load(model, device=device) if dry else CudaEncoder.load(model)
    results.add(section, "load", time.perf_counter() - started, "s")
    started = time.perf_counter()
    batches = BATCHES[:1] if dry else BATCHES
    ours.warm_up((1, batches[-1]))
    results.add(section, "warm-up before the first request", time.perf_counter() - started, "s")
    if isinstance(ours, CudaEncoder):
        ours.finish_warm_up()
        took = time.perf_counter() - started
        results.add(section, "all graphs", took, "s", note=f"of {sorted(ours.recorded)}")
    compared = images(name, batches[-1])[:32]
    cosine = least_cosine(exact.encode(compared), ours.encode(compared))
    results.add(section, "least cosine to float32", cosine, note=ours.runtime.precision)
    baseline = images(name, 1 if dry else 32)
    rate = images_per_second(exact, baseline, seconds)
    results.add(section, f"torch in float32, batch {len(baseline)}", rate, "images/s")
    rates = {}
    for batch in batches:
        rates[batch] = images_per_second(ours, images(name, batch), seconds)
        results.add(section, f"batch {batch}", rates[batch], "images/s")
    best = max(rates, key=lambda batch: rates[batch])
    share = rates[best] * flops(name) / card
    results.add(
        section,
        BEST,
        rates[best],
        reach=REACH.get(name, ""),
        note=f"batch {best}, {share:.2f} of the card's bf16 rate",
    )


def images(name: str, count: int) -> NDArray[np.uint8]:
    """Return noise (B, C, H, W)."""
    shape = MODELS[name][1].batch_shape(count)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def least_cosine(exact: Encoding, ours: Encoding) -> float:
    """Return the lowest cosine of an image's two vectors."""
    return float(np.einsum("bd,bd->b", exact.vectors_BD, ours.vectors_BD).min())


def flops(name: str) -> int:
    """Return the floating-point operations for one image, two for a multiplication and addition."""
    with torch.device("meta"):
        network = build_network(*MODELS[name]).eval()
        images_BCHW = torch.empty(MODELS[name][1].batch_shape(1))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.features(images_BCHW)
    return int(counter.get_total_flops())


def images_per_second(
    encoder: TorchEncoder | CudaEncoder, pixels_BCHW: NDArray[np.uint8], seconds: float
) -> float:
    """Encode the batch again and again for ``seconds``."""
    pipelined = isinstance(encoder, CudaEncoder) and len(pixels_BCHW) <= encoder.batch_size
    under_way: deque[Callable[[], Encoding]] = deque()
    batches = 0
    encoder.encode(pixels_BCHW)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        if not pipelined:
            encoder.encode(pixels_BCHW)
        else:
            under_way.append(encoder.start(pixels_BCHW))
            if len(under_way) > 1:
                under_way.popleft()()
        batches += 1
    for finish in under_way:
        finish()
    return batches * len(pixels_BCHW) / (time.perf_counter() - started)


@torch.inference_mode()
def matmul_rate(side: int, device: str, *, rounds: int = 5) -> float:
    """Return the operations a second of products of square bf16 matrices, the best round."""
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    best = 0.0
    for _ in range(rounds):
        repeats = 10
        _settle(device)
        started = time.perf_counter()
        for _ in range(repeats):
            a @ b
        _settle(device)
        best = max(best, repeats * 2 * side**3 / (time.perf_counter() - started))
    return best


@torch.inference_mode()
def measure_layouts(results: Results, folder: Path, *, dry: bool) -> None:
    """Compare VGG-19's features in bf16 as torch launches them, by the layout of their memory."""
    del folder
    device, batch, side = ("cpu", 1, 32) if dry else ("cuda", 128, MODELS[VGG][1].size)
    torch.backends.cudnn.benchmark = True
    features = build_network(*MODELS[VGG]).eval().features.to(device).bfloat16()
    pixels_BCHW = torch.randn(batch, 3, side, side, device=device).bfloat16()
    for layout in (torch.channels_last, torch.contiguous_format):
        network = features.to(memory_format=layout)
        laid_BCHW = pixels_BCHW.contiguous(memory_format=layout)
        for _ in range(1 if dry else 3):
            network(laid_BCHW)
        _settle(device)
        repeats = 1 if dry else 20
        started = time.perf_counter()
        for _ in range(repeats):
            network(laid_BCHW)
        _settle(device)
        rate = repeats * batch / (time.perf_counter() - started)
        results.add("layouts", f"vgg19 features, {layout}, batch {batch}", rate, "images/s")


def measure_memory(results: Results, folder: Path, *, dry: bool) -> None:
    """Fill the card, and see that batches go on or are refused, and that all is well afterwards."""
    if dry:
        results.add("memory", "a full card", None, note="wants a GPU")
        return
    ours = CudaEncoder.load(model_folder(folder, VGG))
    expected = ours.encode(images(VGG, 64)).vectors_BD
    hogs = []
    for size in (2**30, 2**26, 2**21):
        try:
            while True:
                hogs.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            continue
    torch.cuda.empty_cache()
    try:
        ours.encode(images(VGG, 64))
        note = "went on in smaller batches"
    except DeviceMemoryError as error:
        note = f"refused: {error}"
    hogs.clear()
    torch.cuda.empty_cache()
    after = ours.encode(images(VGG, 64)).vectors_BD
    cosine = float(np.einsum("bd,bd->b", expected, after).min())
    results.add("memory", "least cosine after a full card", cosine, note=note)


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
