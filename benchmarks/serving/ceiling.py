"""What is possible without HTTP: one process that decodes pictures and runs the network on them.

    python -m benchmarks.serving.ceiling --model demo/model --picture photo.jpg --way threaded

Batches of 32, with the runtime that `lookalike serve` uses. `serial` decodes a batch, then runs the
network on all cores; `threaded` decodes the next batch on threads meanwhile, `shared` likewise with
the network on half of the cores. Prints JSON.
"""

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision.image.preprocessing import Preprocessing
from vision.inference.open_encoder import open_encoder

BATCH = 32
AHEAD = 2  # batches decoded ahead of the network
CORES = len(os.sched_getaffinity(0))
WAYS = {"serial": CORES, "threaded": CORES, "shared": max(1, CORES // 2)}  # the network's threads


def main() -> None:
    """Measure, and print images per second and milliseconds of processor time per image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    encoder = open_encoder(
        arguments.model, device="cpu", runtime="auto", threads=WAYS[arguments.way]
    )
    encoder.warm_up((BATCH,))
    data = arguments.picture.read_bytes()
    batches = (serial if arguments.way == "serial" else threaded)(
        encoder.manifest.preprocessing, data
    )
    for _ in range(2):
        encoder.encode(next(batches))
    started, used, images = time.perf_counter(), time.process_time(), 0
    while (took := time.perf_counter() - started) < arguments.seconds:
        images += len(encoder.encode(next(batches)).vectors_BD)
    cpu_ms = (time.process_time() - used) * 1000 / images
    print(json.dumps({"rate": images / took, "cpu_ms": cpu_ms}))
    os._exit(0)  # without waiting for the pictures decoded ahead


def serial(preprocessing: Preprocessing, data: bytes) -> Iterator[NDArray[np.uint8]]:
    """Yield batches (B, C, H, W), each decoded when it is asked for."""
    while True:
        yield np.stack([_pixels(preprocessing, data) for _ in range(BATCH)])


def threaded(preprocessing: Preprocessing, data: bytes) -> Iterator[NDArray[np.uint8]]:
    """Yield batches (B, C, H, W) that were decoded on as many threads as there are cores."""
    with ThreadPoolExecutor(CORES) as pool:
        waiting = deque(
            [pool.submit(_pixels, preprocessing, data) for _ in range(BATCH)] for _ in range(AHEAD)
        )
        for _ in repeat(None):
            batch = np.stack([future.result() for future in waiting.popleft()])
            waiting.append([pool.submit(_pixels, preprocessing, data) for _ in range(BATCH)])
            yield batch


def _pixels(preprocessing: Preprocessing, data: bytes) -> NDArray[np.uint8]:
    return preprocessing.pixels(preprocessing.decode(data))


if __name__ == "__main__":
    main()
