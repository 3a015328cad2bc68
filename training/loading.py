"""A source's name in, its readable images out: their classes and parts as they came.

Shape suffixes: N images, M readable images, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.findings import Findings
from dataset.listing import Part
from training import fashion_mnist
from training.decoding import Decoded, LoadReport, decode_images, fit_grey_images
from training.errors import DataError
from training.image_folder import list_images
from training.listing import FEWEST_CLASSES, Listing
from training.table import is_table, list_table
from vision.preprocess import Preprocessing

FASHION_MNIST: Final = "fashion-mnist"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """The readable images of a source; each has a place in every array and list of length M."""

    name: str
    source: str  # for sentences
    label_names: tuple[str, ...]
    named_parts: frozenset[Part]  # those that the source has, whether or not they are readable
    decoded: Decoded
    labels_M: NDArray[np.int64]
    parts_M: NDArray[np.int64]
    names: Sequence[str]  # of length M: paths, or ``train[123]`` where there are no files
    findings: Findings = field(default_factory=Findings)  # what the listing skipped or guessed


def load_images(
    source: str,
    preprocessing: Preprocessing,
    *,
    hold_out: Sequence[str],
    cache: Path,
    report: LoadReport,
) -> Loaded:
    """Return the images of ``source``; the arguments are those of ``training.data.load_dataset``.

    Raises:
        DataError: they are missing or damaged, or lack a class of ``hold_out``.
    """
    if source == FASHION_MNIST:
        _check_hold_out(hold_out, fashion_mnist.LABELS, source)
        return _fashion_mnist(preprocessing, cache, report)
    path = Path(source)
    listing = list_table(path) if is_table(path) else list_images(path)
    _check_hold_out(hold_out, listing.label_names, source)
    return _files(listing, preprocessing, report)


def _fashion_mnist(preprocessing: Preprocessing, cache: Path, report: LoadReport) -> Loaded:
    folder = fashion_mnist.find_fashion_mnist(cache / FASHION_MNIST)
    parts = dict(
        zip((Part.TRAIN, Part.TEST), fashion_mnist.read_fashion_mnist(folder), strict=True)
    )
    images_NHW = np.concatenate([images_NHW for images_NHW, _ in parts.values()])
    decoded = fit_grey_images(images_NHW, preprocessing, report)
    return Loaded(
        name=FASHION_MNIST,
        source=FASHION_MNIST,
        label_names=fashion_mnist.LABELS,
        named_parts=frozenset(parts),
        decoded=decoded,
        labels_M=np.concatenate([labels_N for _, labels_N in parts.values()]),
        parts_M=np.repeat(list(parts), [len(labels_N) for _, labels_N in parts.values()]),
        names=[
            f"{part.name.lower()}[{number}]"
            for part, (_, labels_N) in parts.items()
            for number in range(len(labels_N))
        ],
    )


def _files(listing: Listing, preprocessing: Preprocessing, report: LoadReport) -> Loaded:
    parts = np.array(listing.parts, np.int64)
    if Part.TEST not in parts:  # one part to measure with is used for that, whatever its name
        parts[parts == Part.VALIDATION] = Part.TEST
    decoded = decode_images(listing.paths, preprocessing, report)
    return Loaded(
        name=listing.source.resolve().name,
        source=str(listing.source),
        label_names=listing.label_names,
        named_parts=frozenset(map(Part, np.unique(parts))),
        decoded=decoded,
        labels_M=np.array(listing.labels, np.int64)[decoded.readable_M],
        parts_M=parts[decoded.readable_M],
        names=[str(listing.paths[position]) for position in decoded.readable_M.tolist()],
    )


def _check_hold_out(hold_out: Sequence[str], label_names: Sequence[str], source: str) -> None:
    for name in hold_out:
        if name not in label_names:
            raise DataError(f"{source} has no class {name!r} to hold out")
    left = len(label_names) - len(set(hold_out))
    if left < FEWEST_CLASSES:
        raise DataError(
            f"with {len(set(hold_out))} of {len(label_names)} classes of {source} held out "
            f"{left or 'none'} would be left; at least {FEWEST_CLASSES} are needed"
        )
