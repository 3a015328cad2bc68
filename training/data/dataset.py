"""A source's name in, its images out: to learn from, to stop with, and to measure with.

Shape suffixes: N images, M loaded images, L labels, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataset.findings import Findings
from dataset.listing import Part
from training.data.images.decode_files import Unreadable
from training.data.images.labelled_images import UNLABELLED, LabelledImages
from training.data.images.leakage import Leak, Twins, find_contradictions, name_leaks
from training.data.images.load import LoadedImages, load_images
from training.data.images.training_record import TrainingRecord
from training.data.measured_images import ImageSelection
from training.data.parts import (
    LEFT_OUT,
    GroupedImages,
    PartSelection,
    arrange_parts,
    assign_parts,
    collect_findings,
    find_groups,
)
from training.errors import DataError
from training.formatting import listed
from training.progress import Progress, ignore
from vision.image.preprocessing import Preprocessing

SEEN: Final = "of a class that is held out, but a copy is in a known class: left out"
NOT_MEASURED: Final = "class with a single photo: learnt from, not measured"

WITHOUT_CLASS: Final = 3  # the part of images to learn from that have no class, beside those of one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Classes that training never sees: what the search for unknown things is measured with."""

    train: LabelledImages  # what is searched
    test: LabelledImages  # what is searched for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images to learn from and, apart from them, images to measure with.

    No photo is in two parts, nor a copy of it. A class may lack test images; never all of them do.
    """

    name: str
    train: LabelledImages
    test: LabelledImages  # never looked at before the training is over
    validation: LabelledImages | None = None  # to stop and calibrate with; None: take some of train
    held_out: HeldOut | None = None
    unreadable: tuple[Unreadable, ...] = ()  # files that were left out
    leaked: tuple[Leak, ...] = ()  # images that were left out
    contradictions: tuple[Twins, ...] = ()
    findings: Findings = field(default_factory=Findings)  # what was skipped, merged or guessed
    predecessor_record: TrainingRecord | None = None  # by the model that a training goes on from
    unlabelled: LabelledImages | None = None  # more to learn from, of no class
    selection: ImageSelection | None = (
        None  # why these images are measured; None: they are a test part
    )

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of the labels."""
        return self.train.label_names

    @property
    def training_parts(self) -> list[LabelledImages]:
        """What a training looks at: to learn from, to stop and calibrate with, without a class."""
        parts = (self.train, self.validation, self.unlabelled)
        return [part for part in parts if part is not None]

    def has_photos_of(self, other: "Dataset") -> bool:
        """Return whether the same files are in the same parts and classes, in the same order."""
        pairs = (
            (self.train, other.train),
            (self.validation, other.validation),
            (self.unlabelled, other.unlabelled),
            (self.test, other.test),
        )
        return all(one is two or (one is not None and one.are_of(two)) for one, two in pairs)

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
            **({"unlabelled_images": len(self.unlabelled)} if self.unlabelled else {}),
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
    unlabelled: bool = False,
    group: str | None = None,
    progress: Progress = ignore,
) -> Dataset:
    """Return the images of ``source`` as ``preprocessing`` makes them.

    Args:
        source: ``fashion-mnist``, or the path of a folder of class folders or of a ``.csv`` or
            ``.parquet`` table.
        preprocessing: the network's; training and evaluation must pass the same.
        hold_out: classes that are kept apart from all parts.
        unlabelled: whether images without a class are learnt from, too. Where there are no two
            classes, all images are without one.
        group: what says which photos show one thing, as in ``dataset.source``.
        progress: told how many images are read.

    Raises:
        DataError: the data are missing, damaged, or not what can be learnt from.
    """
    loaded = load_images(
        source,
        preprocessing,
        hold_out=hold_out,
        unlabelled=unlabelled,
        group=group,
        progress=progress,
    )
    grouped = find_groups(loaded)
    parts_M = assign_parts(grouped)
    leaked = name_leaks(grouped.groups_M, grouped.photos_M, loaded.parts_M, loaded.names)
    held_L = np.array([name in hold_out for name in loaded.label_names], np.bool_)
    held_M = _of_classes(loaded, held_L)
    seen_M = held_M & np.isin(grouped.groups_M, grouped.groups_M[~held_M])  # in a known class, too
    parts_M[seen_M] = LEFT_OUT
    if loaded.label_names:
        unlabelled_M = loaded.labels_M == UNLABELLED
        parts_M[unlabelled_M & (parts_M != Part.TRAIN)] = LEFT_OUT  # nothing to measure there
        parts_M[unlabelled_M & (parts_M == Part.TRAIN)] = WITHOUT_CLASS
    _check_classes(loaded, parts_M, held_L)
    return _dataset(grouped, parts_M, leaked, held_L, seen_M)


def _of_classes(loaded: LoadedImages, chosen_L: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask (M,) of the images of some classes."""
    return np.append(chosen_L, False)[loaded.labels_M]  # UNLABELLED is the last place


def _check_classes(
    loaded: LoadedImages, parts_M: NDArray[np.int64], held_L: NDArray[np.bool_]
) -> None:
    """Check that every class can be learnt, and that something is left to measure with."""
    if not loaded.label_names:
        if not ((parts_M == Part.TRAIN).sum() > 1 and (parts_M == Part.TEST).any()):
            raise DataError(
                f"{loaded.source} has too few different photos: two to learn from and one to "
                "measure with are the least"
            )
        return
    learnt_L, measured_L = (
        np.bincount(loaded.labels_M[parts_M == part], minlength=len(held_L)) > 0
        for part in (Part.TRAIN, Part.TEST)
    )
    lacking_L = ~learnt_L & ~held_L
    if lacking_L.any():
        names = [loaded.label_names[label] for label in np.flatnonzero(lacking_L)]
        those = f"class {names[0]!r}" if len(names) == 1 else f"classes {listed(names)}"
        leaked = (parts_M[_of_classes(loaded, lacking_L)] == LEFT_OUT).any()
        missing = "training image that is in no other part" if leaked else "readable training image"
        raise DataError(
            f"{those} in {loaded.source} {'has' if len(names) == 1 else 'have'} no {missing}; "
            "every class needs at least one to learn from"
        )
    if not (measured_L & ~held_L).any():
        raise DataError(
            f"{loaded.source} has no readable test image of a class that is learnt"
            if Part.TEST in loaded.named_parts
            else f"{loaded.source} leaves nothing to measure with: no class has two different "
            "photos, one to learn from and one to measure with"
        )
    if held_L.any() and not ((learnt_L & held_L).any() and (measured_L & held_L).any()):
        raise DataError(
            f"the classes held out of {loaded.source} have no image to search for and another one "
            "to find"
        )


def _dataset(
    grouped: GroupedImages,
    parts_M: NDArray[np.int64],
    leaked: tuple[Leak, ...],
    held_L: NDArray[np.bool_],
    seen_M: NDArray[np.bool_],
) -> Dataset:
    loaded = grouped.loaded
    held_M = _of_classes(loaded, held_L)
    # The classes that stay and those held out are counted apart, each from 0.
    places_L = np.where(held_L, np.cumsum(held_L), np.cumsum(~held_L)) - 1
    labels_M = np.append(places_L, UNLABELLED)[loaded.labels_M].astype(np.int64)
    names, held_names = (
        tuple(
            name for name, is_held in zip(loaded.label_names, held_L, strict=True) if is_held == h
        )
        for h in (False, True)
    )
    train, unlabelled, validation, test, held_train, held_test = arrange_parts(
        grouped,
        [
            PartSelection(
                np.flatnonzero((parts_M == part) & (held_M == held)),
                labels_M,
                held_names if held else names,
            )
            for part, held in (
                (Part.TRAIN, False),
                (WITHOUT_CLASS, False),
                (Part.VALIDATION, False),
                (Part.TEST, False),
                (Part.TRAIN, True),
                (Part.TEST, True),
            )
        ],
    )
    if Part.VALIDATION in loaded.named_parts and not len(validation):
        raise DataError(
            f"{loaded.source} has a validation part, but no image in it that is readable, in no "
            "test part and of a class that is not held out"
        )
    contradictions = find_contradictions(grouped.photos_M, loaded.labels_M, loaded.names)
    findings = collect_findings(grouped, leaked=leaked, contradictions=contradictions)
    for position in np.flatnonzero(seen_M).tolist():
        findings.add(SEEN, loaded.names[position])
    for label, name in enumerate(names):
        if not (test.labels_N == label).any():
            findings.add(NOT_MEASURED, name)
    return Dataset(
        name=loaded.name,
        train=train,
        validation=validation if len(validation) else None,
        unlabelled=unlabelled if len(unlabelled) else None,
        test=test,
        held_out=HeldOut(train=held_train, test=held_test) if held_names else None,
        unreadable=loaded.decoded.unreadable,
        leaked=leaked,
        findings=findings,
        contradictions=contradictions,
    )
