"""Milliseconds per image of torch and of every form of an export, and how far each is from torch.

    python -m benchmarks.runtimes --model demo/model --data fashion-mnist
    python -m benchmarks.runtimes --vgg --data photos --images 100

CPU time per image, of batches of 1 and of 32, median of as many runs as fit into ``--seconds``, the
runtimes in turns. Threads are those of ``--threads``; pin the process with ``taskset``. ``--vgg``
measures VGG-19 at 224 px with random weights and a head for the data's classes: its speed is that
of a trained one, its cosines and accuracies mean nothing for a trained one.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import commit, describe_machine, installed
from cli.export_model import sample_of
from training.data.dataset import Dataset, load_dataset
from vision.export.encoding_comparison import compare_encodings
from vision.export.onnx_export import to_onnx
from vision.export.openvino_export import Graph
from vision.export.variant_selection import ExportImages
from vision.image.preprocessing import Preprocessing
from vision.inference.encoder import Encoding, Runtime
from vision.inference.openvino_encoder import OpenVinoEncoder
from vision.inference.openvino_import import has_bf16
from vision.inference.torch_encoder import TorchEncoder
from vision.model.export_folder import FloatPrecision, Precision, precision_name
from vision.model.manifest import Architecture, Manifest, read_manifest
from vision.networks.network import build_network
from vision.networks.saved_model import load_model, save_model

BATCHES: Final = (1, 32)
MIN_RUNS: Final = 3
Encode = Callable[[NDArray[np.uint8]], Encoding]


@dataclass(frozen=True)
class Contender:
    """A network on a runtime."""

    name: str
    encode: Encode


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--vgg", action="store_true", help="VGG-19 with random weights instead")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=10_000, help="test images, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row and batch size")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.vgg == (arguments.model is not None):
        parser.error("one of --model and --vgg")
    versions = ", ".join(installed(("openvino", "nncf")))
    print(f"{describe_machine()}, {versions}; commit {commit()}; {arguments.threads} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or write_vgg(Path(folder) / "vgg19", arguments.data)
        measure(model, arguments)


def measure(model: Path, arguments: argparse.Namespace) -> None:
    """Print the table of one model."""
    torch.set_num_threads(arguments.threads)
    manifest = read_manifest(model)
    dataset: Dataset = load_dataset(arguments.data, manifest.preprocessing)
    sample = sample_of(dataset, arguments.images)
    contenders = contenders_for(model, sample, threads=arguments.threads)
    batches = {
        size: np.resize(sample.test_NCHW, (size, *sample.test_NCHW.shape[1:])) for size in BATCHES
    }
    took = {
        size: in_turns(contenders, pixels, seconds=arguments.seconds)
        for size, pixels in batches.items()
    }

    print(f"{manifest.name}, {len(sample.test_NCHW):,} test images\n")
    print("| runtime | " + " | ".join(f"CPU ms/image, {size} at once" for size in BATCHES), end="")
    print(" | times torch | mean cosine | lowest | accuracy | nearest kept | r@1 |")
    print("|---|" + "---|" * (len(BATCHES) + 6))
    wanted = answers(contenders[0].encode, sample)
    for row, contender in enumerate(contenders):
        difference = compare_encodings(wanted, answers(contender.encode, sample), sample.labels_N)
        found = difference.neighbours
        times = " / ".join(f"{took[size][0] / took[size][row]:.2f}" for size in BATCHES)
        print(
            f"| {contender.name} | "
            + " | ".join(f"{took[size][row]:.3f}" for size in BATCHES)
            + f" | {times} | {difference.cosine_mean:.5f} | {difference.cosine_min:.5f} "
            f"| {percent(difference.accuracy)} | {percent(found and found.overlap)} "
            f"| {percent(found and found.r_at_1)} |"
        )


def percent(share: float | None) -> str:
    """Return a share in percent; nothing where there is none."""
    return "" if share is None else f"{share:.2%}"


def contenders_for(model: Path, sample: ExportImages, *, threads: int) -> list[Contender]:
    """Return the network on every runtime, torch first."""
    manifest, network = load_model(model)
    graph = Graph(to_onnx(manifest, network))
    exact, integers = graph.files(), graph.quantized_files(sample.calibration_NCHW)
    torchs = TorchEncoder(manifest, network, torch.device("cpu"))
    found = [Contender("torch fp32", torchs.encode)]
    forms: list[tuple[Precision, FloatPrecision, dict[str, bytes]]] = [("fp32", "fp32", exact)]
    if has_bf16():
        forms += [("bf16", "bf16", exact), ("int8", "bf16", integers)]
    forms.append(("int8", "fp32", integers))
    for precision, floats, files in forms:
        encoder = OpenVinoEncoder(
            manifest,
            files,
            runtime=Runtime(name="openvino", precision=precision),
            floats=floats,
            threads=threads,
        )
        found.append(Contender(f"OpenVINO {precision_name(precision, floats)}", encoder.encode))
    return found


def in_turns(
    contenders: list[Contender], pixels_BCHW: NDArray[np.uint8], *, seconds: float
) -> list[float]:
    """Return median CPU milliseconds per image of each, measured in turns."""
    took: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender.encode(pixels_BCHW)
    ends = time.perf_counter() + seconds * len(contenders)
    while time.perf_counter() < ends or len(took[0]) < MIN_RUNS:
        for contender, times in zip(contenders, took, strict=True):
            started = time.process_time()
            contender.encode(pixels_BCHW)
            times.append(1000 * (time.process_time() - started) / len(pixels_BCHW))
    return [statistics.median(times) for times in took]


def answers(encode: Encode, sample: ExportImages) -> Encoding:
    """Return what a network says of all test images."""
    size = BATCHES[-1]
    parts = [
        encode(np.ascontiguousarray(sample.test_NCHW[start : start + size]))
        for start in range(0, len(sample.test_NCHW), size)
    ]
    return Encoding(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def write_vgg(folder: Path, data: str) -> Path:
    """Write a model folder of VGG-19 at 224 px with random weights, and return it."""
    preprocessing = Preprocessing(
        size=224, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    labels = load_dataset(data, preprocessing).label_names
    architecture = Architecture(
        network="torchvision:vgg19",
        embedding_layer="fc7",
        width=256,
        num_labels=len(labels),
        reduction="projection",
    )
    torch.manual_seed(0)
    network = build_network(architecture, preprocessing)
    manifest = Manifest(
        name="vgg19 with random weights",
        architecture=architecture,
        labels=labels,
        preprocessing=preprocessing,
        weights_sha256="",
        created="2026-01-01T00:00:00+00:00",
    )
    save_model(folder, manifest, network.state_dict())
    return folder


if __name__ == "__main__":
    main()
