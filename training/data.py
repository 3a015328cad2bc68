"""Labelled images in memory, ready to be batched: what training and evaluation read.

Shape suffixes: N images, C channels, H x W pixels.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training import fashion_mnist, image_folder
from training.errors import DataError
from training.image_folder import LoadReport, Unreadable
from vision.preprocess import Preprocessing

FASHION_MNIST: Final = "fashion-mnist"

# A folder without a test part is split the same way every time, whatever the training's seed.
SPLIT_SHARE: Final = 0.2
SPLIT_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledImages:
    """Decoded images and the class of each."""

    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]  # positions in label_names
    label_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images_NCHW.ndim != 4 or self.images_NCHW.dtype != np.uint8:  # noqa: PLR2004
            raise ValueError(
                f"images must be uint8 (N, C, H, W), got {self.images_NCHW.dtype} "
                f"{self.images_NCHW.shape}"
            )
        if len(self.images_NCHW) != len(self.labels_N):
            raise ValueError(
                f"{len(self.images_NCHW)} images and {len(self.labels_N)} labels do not match"
            )

    def __len__(self) -> int:
        return len(self.labels_N)

    def only(self, positions: NDArray[np.int64]) -> Self:
        """Return the images at ``positions``, in that order."""
        return type(self)(
            images_NCHW=self.images_NCHW[positions],
            labels_N=self.labels_N[positions],
            label_names=self.label_names,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of every pixel, label and name; about 1 GB/s."""
        digest = hashlib.sha256()
        digest.update(repr((self.images_NCHW.shape, self.label_names)).encode())
        digest.update(np.ascontiguousarray(self.labels_N, "<i8").tobytes())
        digest.update(np.ascontiguousarray(self.images_NCHW).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images to learn from and, apart from them, images to measure with."""

    name: str
    train: LabelledImages
    test: LabelledImages  # never looked at before the training is over
    unreadable: tuple[Unreadable, ...] = ()  # files that were left out

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of the labels."""
        return self.train.label_names

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest keeps of the data."""
        return {
            "name": self.name,
            "train_images": len(self.train),
            "test_images": len(self.test),
            "unreadable": len(self.unreadable),
            "train_fingerprint": self.train.fingerprint,
            "test_fingerprint": self.test.fingerprint,
        }


def load_dataset(
    source: str,
    preprocessing: Preprocessing,
    *,
    cache: Path | None = None,
    report: LoadReport = lambda _done, _all: None,
) -> Dataset:
    """Return the images of ``source`` as ``preprocessing`` makes them.

    Args:
        source: ``fashion-mnist``, or the path of a folder of class folders.
        preprocessing: the network's; training and evaluation must pass the same.
        cache: where downloads are kept; ``None`` is ``~/.cache/lookalike``.
        report: called from this thread as images are decoded.

    Raises:
        DataError: the data are missing, damaged, or not what can be learnt from.
    """
    if source == FASHION_MNIST:
        return _fashion_mnist(preprocessing, cache or default_cache(), report)
    return _folder(Path(source), preprocessing, report)


def default_cache() -> Path:
    """Return the folder for downloads: ``~/.cache/lookalike``."""
    return Path.home() / ".cache" / "lookalike"


def _fashion_mnist(preprocessing: Preprocessing, cache: Path, report: LoadReport) -> Dataset:
    folder = fashion_mnist.find_fashion_mnist(cache / FASHION_MNIST)
    parts = fashion_mnist.read_fashion_mnist(folder)
    total = sum(len(labels_N) for _, labels_N in parts)
    done = 0
    loaded: list[LabelledImages] = []
    for images_NHW, labels_N in parts:
        images_NCHW = _fit(images_NHW, preprocessing)
        loaded.append(
            LabelledImages(
                images_NCHW=images_NCHW, labels_N=labels_N, label_names=fashion_mnist.LABELS
            )
        )
        done += len(labels_N)
        report(done, total)
    return Dataset(name=FASHION_MNIST, train=loaded[0], test=loaded[1])


def _fit(images_NHW: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return grey images as ``preprocessing`` makes them of pictures; unchanged if it would not."""
    if (preprocessing.size, preprocessing.channels) == (fashion_mnist.SIDE, 1):
        return images_NHW[:, None]

    def fit(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return preprocessing.pixels(Image.fromarray(image_HW).convert("RGB"))

    with ThreadPoolExecutor() as pool:  # Pillow resizes without the interpreter's lock
        return np.stack(list(pool.map(fit, images_NHW)))


def _folder(folder: Path, preprocessing: Preprocessing, report: LoadReport) -> Dataset:
    listing = image_folder.list_images(folder)
    decoded = image_folder.decode_images(listing.paths, preprocessing, report)
    labels = np.array(listing.labels, np.int64)[decoded.positions]
    everything = LabelledImages(
        images_NCHW=decoded.images_NCHW, labels_N=labels, label_names=listing.label_names
    )
    in_test = np.array(listing.in_test, np.bool_)[decoded.positions]
    if not in_test.any():
        in_test = stratified_choice(labels, SPLIT_SHARE, seed=SPLIT_SEED)
    dataset = Dataset(
        name=folder.resolve().name,
        train=everything.only(np.flatnonzero(~in_test)),
        test=everything.only(np.flatnonzero(in_test)),
        unreadable=decoded.unreadable,
    )
    for part, images in (("training", dataset.train), ("test", dataset.test)):
        counts = np.bincount(images.labels_N, minlength=len(images.label_names))
        if counts.min() == 0:
            empty = images.label_names[int(counts.argmin())]
            raise DataError(
                f"class {empty!r} in {folder} has no readable {part} image; "
                "every class needs at least one to learn from and one to measure with"
            )
    return dataset


def stratified_choice(labels_N: NDArray[np.int64], share: float, *, seed: int) -> NDArray[np.bool_]:
    """Return a mask that picks ``share`` of every class at random: at least one, and not all.

    A class of a single image keeps it: nothing of it is picked.
    """
    order_N = np.random.default_rng(seed).permutation(len(labels_N))
    chosen_N = np.zeros(len(labels_N), np.bool_)
    chosen_N[order_N] = last_of_each_class(labels_N[order_N], share)
    return chosen_N


def last_of_each_class(labels_N: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return a mask of the last ``share`` of every class: at least one image, and not all."""
    chosen_N = np.zeros(len(labels_N), np.bool_)
    for label in np.unique(labels_N):
        positions = np.flatnonzero(labels_N == label)
        count = min(max(1, round(share * len(positions))), len(positions) - 1)
        chosen_N[positions[len(positions) - count :]] = True
    return chosen_N
