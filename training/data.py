"""A source's name in, its images out: to learn from, to stop with, and to measure with.

Shape suffixes: N images, M loaded images, L labels, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataset.findings import Findings
from dataset.listing import Part
from training.decoding import LoadReport, Unreadable
from training.errors import DataError
from training.images import LabelledImages
from training.leakage import Contradiction, Leak, find_contradictions, find_leaks, name_leaks
from training.loading import FASHION_MNIST, Loaded, load_images
from training.pixels import put_in_order
from training.split import choose_contents, last_of_each_class
from vision.preprocess import Preprocessing

__all__ = [
    "FASHION_MNIST",
    "Contradiction",
    "Dataset",
    "HeldOut",
    "LabelledImages",
    "Leak",
    "Unreadable",
    "default_cache",
    "last_of_each_class",
    "load_dataset",
]

# A source without a test part is split the same way every time, whatever the training's seed.
SPLIT_SHARE: Final = 0.2
SPLIT_SEED: Final = 0

LEFT_OUT: Final = -1  # the part of a training image that another part holds too


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Classes that training never sees: what the search for unknown things is measured with."""

    train: LabelledImages  # what is searched
    test: LabelledImages  # what is searched for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images to learn from and, apart from them, images to measure with.

    No content is in two parts.
    """

    name: str
    train: LabelledImages
    test: LabelledImages  # never looked at before the training is over
    validation: LabelledImages | None = None  # to stop and calibrate with; None: take some of train
    held_out: HeldOut | None = None
    unreadable: tuple[Unreadable, ...] = ()  # files that were left out
    leaked: tuple[Leak, ...] = ()  # images that were left out
    contradictions: tuple[Contradiction, ...] = ()
    findings: Findings = field(default_factory=Findings)  # what was skipped, merged or guessed

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of the labels."""
        return self.train.label_names

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest keeps of the data; hashes every pixel, at about 1 GB/s."""
        return {
            "name": self.name,
            "train_images": len(self.train),
            "validation_images": len(self.validation) if self.validation else 0,
            "test_images": len(self.test),
            "held_out_classes": list(self.held_out.test.label_names) if self.held_out else [],
            "unreadable": len(self.unreadable),
            "leaked": len(self.leaked),
            "contradictions": len(self.contradictions),
            "train_fingerprint": self.train.fingerprint,
            "validation_fingerprint": self.validation.fingerprint if self.validation else None,
            "test_fingerprint": self.test.fingerprint,
        }


def load_dataset(
    source: str,
    preprocessing: Preprocessing,
    *,
    hold_out: Sequence[str] = (),
    cache: Path | None = None,
    report: LoadReport = lambda _done, _all: None,
) -> Dataset:
    """Return the images of ``source`` as ``preprocessing`` makes them.

    Args:
        source: ``fashion-mnist``, or the path of a folder of class folders or of a ``.csv`` or
            ``.parquet`` table.
        preprocessing: the network's; training and evaluation must pass the same.
        hold_out: classes that are kept apart from all parts.
        cache: where downloads are kept; ``None`` is ``~/.cache/lookalike``.
        report: called from this thread as images are decoded.

    Raises:
        DataError: the data are missing, damaged, or not what can be learnt from.
    """
    loaded = load_images(
        source, preprocessing, hold_out=hold_out, cache=cache or default_cache(), report=report
    )
    parts_M, leaked = _assign_parts(loaded)
    _check_classes(loaded, parts_M)
    return _arrange(loaded, parts_M, leaked, hold_out)


def default_cache() -> Path:
    """Return the folder for downloads: ``~/.cache/lookalike``."""
    return Path.home() / ".cache" / "lookalike"


def _assign_parts(loaded: Loaded) -> tuple[NDArray[np.int64], tuple[Leak, ...]]:
    """Return the part of each image, some ``LEFT_OUT`` as leaks; no content is in two parts."""
    if Part.TEST in loaded.named_parts:
        leaked_M = find_leaks(loaded.contents_M, loaded.parts_M)
        leaks = name_leaks(loaded.contents_M, loaded.parts_M, loaded.names)
        return np.where(leaked_M, LEFT_OUT, loaded.parts_M), leaks
    in_test_M = choose_contents(loaded.labels_M, loaded.contents_M, SPLIT_SHARE, seed=SPLIT_SEED)
    return np.where(in_test_M, Part.TEST, Part.TRAIN), ()


def _check_classes(loaded: Loaded, parts_M: NDArray[np.int64]) -> None:
    for part, part_name in ((Part.TRAIN, "training"), (Part.TEST, "test")):
        labels = loaded.labels_M[parts_M == part]
        counts_L = np.bincount(labels, minlength=len(loaded.label_names))
        if counts_L.min() > 0:
            continue
        of_class_M = loaded.labels_M == counts_L.argmin()
        there = f"class {loaded.label_names[counts_L.argmin()]!r} in {loaded.source} has"
        needed = "every class needs at least one to learn from and one to measure with"
        if part == Part.TEST and part not in loaded.named_parts:
            raise DataError(f"{there} {_too_few(loaded.contents_M[of_class_M])}; {needed}")
        if part == Part.TRAIN and LEFT_OUT in parts_M[of_class_M]:
            raise DataError(f"{there} no training image that is in no other part; {needed}")
        raise DataError(f"{there} no readable {part_name} image; {needed}")


def _too_few(contents: NDArray[np.int64]) -> str:
    """Return in words why images of these contents cannot be split."""
    if len(contents) == 1:
        return "only one readable image"
    if len(np.unique(contents)) == 1:
        return f"{len(contents)} readable images, but all of the same content"
    return f"{len(contents)} readable images, but of contents that other classes have too"


def _arrange(
    loaded: Loaded, parts_M: NDArray[np.int64], leaked: tuple[Leak, ...], hold_out: Sequence[str]
) -> Dataset:
    """Return the dataset; its parts are neighbouring stretches of the one array of pixels."""
    held_L = np.array([name in hold_out for name in loaded.label_names])
    held_M = held_L[loaded.labels_M]
    stretches = [
        np.flatnonzero((parts_M == part) & (held_M == held))
        for part, held in (
            (Part.TRAIN, False),
            (Part.VALIDATION, False),
            (Part.TEST, False),
            (Part.TRAIN, True),
            (Part.TEST, True),
        )
    ]
    images_NCHW = put_in_order(
        loaded.decoded.images_NCHW, loaded.decoded.readable_M[np.concatenate(stretches)]
    )
    ends = np.cumsum([len(stretch) for stretch in stretches])
    # The classes that stay and those held out are counted apart, each from 0.
    new_labels_L = np.where(held_L, np.cumsum(held_L), np.cumsum(~held_L)) - 1
    names, held_names = (
        tuple(
            name for name, is_held in zip(loaded.label_names, held_L, strict=True) if is_held == h
        )
        for h in (False, True)
    )
    train, validation, test, held_train, held_test = (
        LabelledImages(
            images_NCHW=part_NCHW,
            labels_N=new_labels_L[loaded.labels_M[stretch]],
            label_names=label_names,
        )
        for part_NCHW, stretch, label_names in zip(
            np.split(images_NCHW, ends[:-1]),
            stretches,
            (names, names, names, held_names, held_names),
            strict=True,
        )
    )
    if Part.VALIDATION in loaded.named_parts and not len(validation):
        raise DataError(
            f"{loaded.source} has a validation part, but no image in it that is readable, in no "
            "test part and of a class that is not held out"
        )
    in_train = np.flatnonzero(parts_M == Part.TRAIN)
    return Dataset(
        name=loaded.name,
        train=train,
        validation=validation if len(validation) else None,
        test=test,
        held_out=HeldOut(train=held_train, test=held_test) if held_names else None,
        unreadable=loaded.decoded.unreadable,
        leaked=leaked,
        findings=loaded.findings,
        contradictions=find_contradictions(
            loaded.contents_M[in_train],
            loaded.labels_M[in_train],
            [loaded.names[position] for position in in_train.tolist()],
        ),
    )
