"""Images in, a frozen network's features out: computed once, kept until the training has ended.

Features lie on disk in pieces, so that an interrupted training goes on after the last whole one.

Shape suffixes: N images, C channels, H x W pixels, F features.
"""

import hashlib
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from files.durable import replace_file
from training.errors import CheckpointError
from vision.inference.feature_encoder import FeatureEncoder

PIECE: Final = 2048  # images; some minutes of a slow machine
FOLDER: Final = "features"


class FeatureStore:
    """Features of a training's images, by what they are features of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def features(
        self,
        key: str,
        images_NCHW: NDArray[np.uint8],
        encoder: Callable[[], FeatureEncoder],
        report: Callable[[int], None],
    ) -> tuple[NDArray[np.float32], float]:
        """Return features (N, F) of images, and the seconds that it took to compute them.

        Args:
            key: tells these images, seen by this network, from all others of this training.
            images_NCHW: the pixels.
            encoder: makes what computes them; only called where something is left to compute.
            report: told how many images are done.

        Raises:
            CheckpointError: they cannot be kept (for one, a full disk).
        """
        made: FeatureEncoder | None = None
        pieces: list[NDArray[np.float32]] = []
        seconds = 0.0
        for start in range(0, len(images_NCHW), PIECE):
            path = self.folder / f"{hashlib.sha256(f'{key} {start}'.encode()).hexdigest()}.npz"
            kept = _read(path)
            if kept is None:
                began = time.perf_counter()
                made = made or encoder()
                features_NF = made.encode(
                    images_NCHW[start : start + PIECE],
                    lambda done, before=start: report(before + done),  # type: ignore[misc]
                )
                kept = features_NF, time.perf_counter() - began
                _write(path, *kept)
            pieces.append(kept[0])
            seconds += kept[1]
            report(start + len(kept[0]))
        return np.concatenate(pieces), seconds


def _read(path: Path) -> tuple[NDArray[np.float32], float] | None:
    """Return a piece and the seconds that it took; None where there is no whole one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["features"], float(arrays["seconds"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, features_NF: NDArray[np.float32], seconds: float) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, features=features_NF, seconds=np.float64(seconds))
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, buffer.getvalue())
    except OSError as error:
        raise CheckpointError(
            f"cannot keep features in {path.parent}: {error.strerror}; what was kept before is "
            "still there"
        ) from error
