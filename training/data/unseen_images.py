"""A source and what models have learnt from in, the images that are left to measure them with out.

Shape suffixes: M loaded images, L labels of the model.
"""

import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.listing import Part
from training.data.dataset import Dataset, HeldOut
from training.data.images.labelled_images import UNLABELLED
from training.data.images.leakage import find_contradictions
from training.data.images.load import FEWEST_CLASSES, LoadedImages, load_images
from training.data.images.training_record import TrainingRecord
from training.data.measured_images import Among, ImageSelection
from training.data.parts import (
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
from vision.model.manifest import Manifest

UNKNOWN: Final = -1  # the label of an image whose class the model does not have


def held_out_classes(manifest: Manifest) -> tuple[str, ...]:
    """Return the classes of its data that the model never saw, in order."""
    return tuple(manifest.data.get("held_out_classes", []))


def load_unseen(
    source: str,
    manifest: Manifest,
    records: Sequence[TrainingRecord | None],
    *,
    group: str | None = None,
    progress: Progress = ignore,
) -> Dataset:
    """Return what ``source`` has to measure a model with, labelled as the model does.

    Of a model without classes, or data without labels, every image counts. The labels are then the
    data's own if all images have one of at least two; else none.

    Measured are the images of the test part or, where the source names none, all; less those that
    one of the models has learnt from, and their copies. Searched are the training part or, where
    there is none, the images that were left out so; if those lack a class, the measured ones.

    Args:
        source: as in ``training.data.dataset.load_dataset``.
        manifest: of the model whose labels and preprocessing are taken.
        learnt: what it and others that are compared with it have learnt from; None: not known.
        group: what says which photos show one thing, as in ``dataset.source``.
        progress: told how many images are read.

    Raises:
        DataError: the data are missing or damaged, or nothing is left to measure.
    """
    loaded = load_images(
        source,
        manifest.preprocessing,
        hold_out=None,
        unlabelled=not manifest.labels,
        group=group,
        progress=progress,
    )
    grouped = find_groups(loaded)
    names, labels_M, counted_M = _labelling(loaded, manifest.labels)
    known_M = _known(grouped, records)
    recorded, has_test_part = None not in records, Part.TEST in loaded.named_parts
    parts_M = assign_parts(grouped)
    candidates_M, searched_M = parts_M == Part.TEST, parts_M == Part.TRAIN
    if recorded and not has_test_part:
        candidates_M, searched_M = np.ones_like(known_M), known_M.copy()
    candidates_M &= counted_M
    measured_M = candidates_M & ~known_M
    if not measured_M.any():
        raise DataError(_nothing_left(loaded, manifest, int(candidates_M.sum())))
    searched_M &= counted_M & ~measured_M
    covered = np.isin(labels_M[measured_M], labels_M[searched_M]).all()

    held_names = tuple(
        name
        for name in held_out_classes(manifest)
        if _plain(name) in map(_plain, loaded.label_names)
    )
    held_M = _labels(loaded, held_names)
    held_parts_M = np.where((held_M == UNKNOWN) | known_M, UNKNOWN, parts_M)
    train, test, held_train, held_test = arrange_parts(
        grouped,
        [
            PartSelection(np.flatnonzero(chosen_M), of_part_M, names)
            for chosen_M, of_part_M, names in (
                (searched_M & covered, labels_M, names),
                (measured_M, labels_M, names),
                (held_parts_M == Part.TRAIN, held_M, held_names),
                (held_parts_M == Part.TEST, held_M, held_names),
            )
        ],
    )
    contradictions = find_contradictions(grouped.photos_M, loaded.labels_M, loaded.names)
    among: Among = "training part" if has_test_part else "learnt images"
    unknown_M = ~counted_M & (held_M == UNKNOWN)
    unknown = np.unique(loaded.labels_M[unknown_M]).tolist()
    return Dataset(
        name=loaded.name,
        train=train if covered else test,
        test=test,
        held_out=HeldOut(train=held_train, test=held_test)
        if len(held_train) and len(held_test)
        else None,
        unreadable=loaded.decoded.unreadable,
        findings=collect_findings(grouped, leaked=(), contradictions=contradictions),
        contradictions=contradictions,
        selection=ImageSelection(
            images=int(candidates_M.sum()),
            known=int((candidates_M & known_M).sum()),
            unknown_classes=tuple(loaded.label_names[label] for label in unknown),
            unknown_images=int(unknown_M.sum()),
            recorded=recorded,
            drawn_of=0 if has_test_part or recorded else int(counted_M.sum()),
            classes=len(np.unique(labels_M[measured_M])) if names else 0,
            among=among if covered else "measured images",
        ),
    )


def _plain(name: str) -> str:
    """Return a class's name as data say it today; older models may hold another form of it."""
    return unicodedata.normalize("NFC", name).strip()


def _labelling(
    loaded: LoadedImages, known: tuple[str, ...]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the classes to measure with, each image's, and a mask of the images that count.

    Args:
        loaded: the data.
        known: the model's classes.
    """
    if known and loaded.label_names:
        labels_M = _labels(loaded, known)
        return known, labels_M, labels_M != UNKNOWN
    all_M = np.ones(len(loaded.labels_M), np.bool_)
    if len(loaded.label_names) < FEWEST_CLASSES or (loaded.labels_M == UNLABELLED).any():
        return (), np.full(len(loaded.labels_M), UNLABELLED), all_M
    return loaded.label_names, loaded.labels_M, all_M


def _labels(loaded: LoadedImages, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the place (M,) of each image's class in ``names``, or ``UNKNOWN``."""
    places = {_plain(name): place for place, name in enumerate(names)}
    of_label = [places.get(_plain(name), UNKNOWN) for name in loaded.label_names]
    return np.array([*of_label, UNKNOWN], np.int64)[loaded.labels_M]  # UNLABELLED is the last


def _known(grouped: GroupedImages, records: Sequence[TrainingRecord | None]) -> NDArray[np.bool_]:
    """Return a mask (M,) of the images that a model has learnt from, and of their copies."""
    hashes = grouped.loaded.decoded.hashes
    known_M = np.zeros(len(hashes.contents_M), np.bool_)
    for record in records:
        if record is not None:
            known_M |= record.contains(hashes.contents_M, hashes.phashes_M)
    return np.isin(grouped.groups_M, grouped.groups_M[known_M])


def _nothing_left(loaded: LoadedImages, manifest: Manifest, candidates: int) -> str:
    """Return in words why there is nothing to measure."""
    if candidates:
        return (
            f"nothing of {loaded.source} is left to measure: the model has learnt from all "
            f"{candidates:,} images of it"
        )
    return (
        f"{loaded.source} holds no image to measure of a class that the model knows: it knows "
        f"{listed(manifest.labels)}; the data have {listed(loaded.label_names)}"
    )
