"""Images per second on a GPU: torch in float32 as it comes, beside the encoder that serves.

    python -m benchmarks.gpu

The same weights (random: speed does not depend on them) and the same pixels, in turns; the answers
of both are compared first. A batch goes from the host's memory to numbers in the host's memory.

Shape suffixes: B images, C channels, H x W pixels.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import commit, describe_machine, spread
from vision.image.preprocessing import Preprocessing
from vision.inference.cuda.encoder import CudaEncoder
from vision.inference.encoder import Encoding
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import EMBEDDING_LAYER, Architecture, Manifest
from vision.networks.network import build_network
from vision.networks.precision import MIN_COSINE
from vision.networks.saved_model import save_model

LABELS = tuple(f"label {number}" for number in range(10))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MODELS = {
    "cnn, 28 px": (
        Architecture(
            network="cnn", embedding_layer=EMBEDDING_LAYER, width=128, num_labels=len(LABELS)
        ),
        Preprocessing(size=28, channels=1, mean=(0.286,), std=(0.353,)),
    ),
    "VGG-19, 224 px": (
        Architecture(
            network="torchvision:vgg19",
            embedding_layer="penultimate",
            width=4096,
            num_labels=len(LABELS),
            reduction="none",
        ),
        Preprocessing(size=224, channels=3, **IMAGENET),
    ),
}
BATCHES = (1, 32)


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    print(
        f"{torch.cuda.get_device_name(given.device)}; {describe_machine()}; commit {commit()}; "
        f"{given.rounds} rounds of {given.seconds:g} s in turns, median (range)\n"
    )
    print("| network | batch | float32, images/s | ours, images/s | ratio | least cosine | in |")
    print("|---|---|---|---|---|---|---|")
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder) / "model", name)
            exact = TorchEncoder.load(Path(folder) / "model", device=given.device)
            ours = CudaEncoder.load(Path(folder) / "model", device=given.device)
        exact.warm_up(BATCHES)
        ours.warm_up(BATCHES)
        for batch in BATCHES:
            pixels_BCHW = images(name, batch)
            cosine = least_cosine(exact.encode(pixels_BCHW), ours.encode(pixels_BCHW))
            if cosine < MIN_COSINE:
                raise SystemExit(f"{name}: the vectors of both differ, least cosine {cosine}")
            rates: dict[TorchEncoder | CudaEncoder, list[float]] = {exact: [], ours: []}
            for _ in range(given.rounds):
                for encoder, values in rates.items():
                    values.append(images_per_second(encoder, pixels_BCHW, given.seconds))
            ratios = [mine / other for other, mine in zip(rates[exact], rates[ours], strict=True)]
            print(
                f"| {name} | {batch} | {spread(rates[exact])} | {spread(rates[ours])} | "
                f"{spread(ratios, 2)} | {cosine:.5f} | {ours.runtime.precision} |"
            )


def write_model(folder: Path, name: str) -> None:
    """Write a model folder with random weights."""
    architecture, preprocessing = MODELS[name]
    torch.manual_seed(0)
    network = build_network(architecture, preprocessing)
    unbound = Manifest(
        name=name,
        architecture=architecture,
        labels=LABELS,
        preprocessing=preprocessing,
        weights_sha256="",
        created=datetime.now(UTC).isoformat(),
        recipe={"name": "none: random weights"},
        metrics={},
    )
    save_model(folder, unbound, network.state_dict())


def images(name: str, count: int) -> NDArray[np.uint8]:
    """Return noise (B, C, H, W)."""
    _, preprocessing = MODELS[name]
    shape = preprocessing.batch_shape(count)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def least_cosine(exact: Encoding, ours: Encoding) -> float:
    """Return the lowest cosine of an image's two vectors."""
    return float(np.einsum("bd,bd->b", exact.vectors_BD, ours.vectors_BD).min())


def images_per_second(
    encoder: TorchEncoder | CudaEncoder, pixels_BCHW: NDArray[np.uint8], seconds: float
) -> float:
    """Encode the batch again and again, one at a time, for ``seconds``."""
    batches = 0
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        encoder.encode(pixels_BCHW)
        batches += 1
    return batches * len(pixels_BCHW) / passed


if __name__ == "__main__":
    main()
