"""A source's name in, its readable images out: their classes and parts as they came.

Shape suffixes: N images, M readable images, H x W pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.findings import Findings
from dataset.listing import ListedFile, Listing, Part
from dataset.source import list_source
from dataset.tables.table import is_table
from dataset.text import CONTROL
from training.data.images import fashion_mnist
from training.data.images.decode_files import DecodedImages, decode_images, fit_grey_images
from training.data.images.labelled_images import UNLABELLED
from training.data.images.near_duplicates import NO_ITEM, number_groups
from training.errors import DataError
from training.formatting import listed
from training.progress import Progress
from vision.image.preprocessing import Preprocessing

FASHION_MNIST: Final = "fashion-mnist"
FEWEST_CLASSES: Final = 2
SHOWN_NAMES: Final = 10  # classes that a sentence lists


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedImages:
    """The readable images of a source; each has a place in every array and list of length M."""

    name: str
    source: str  # for sentences
    label_names: tuple[str, ...]
    named_parts: frozenset[Part]  # those that the source has, whether or not they are readable
    decoded: DecodedImages
    labels_M: NDArray[np.int64]
    parts_M: NDArray[np.int64]
    item_ids_M: NDArray[np.int64]  # equal for photos of one thing, as the data say; -1: they do not
    names: Sequence[str]  # of length M: paths, or ``train[123]`` where there are no files
    findings: Findings  # what was skipped, merged or guessed when the files were listed


def load_images(
    source: str,
    preprocessing: Preprocessing,
    *,
    hold_out: Sequence[str] | None,
    unlabelled: bool = False,
    group: str | None = None,
    progress: Progress,
) -> LoadedImages:
    """Return the images of ``source``; arguments as of ``training.data.dataset.load_dataset``.

    With a ``hold_out`` of ``None`` nothing is to be learnt: any classes are fine, in any part, or
    none at all.
    Images without a class are left out, but with ``unlabelled`` they stay; where something is to be
    learnt and there are no two classes to tell apart, there is then no class at all.

    Raises:
        DatasetError: they are missing or damaged, or it cannot be told what they are.
        DataError: nothing can be learnt from them, or they lack a class of ``hold_out``.
    """
    if source == FASHION_MNIST:
        if group is not None:
            raise DataError(f"{source} does not say which photos show one thing: no --group")
        if hold_out is not None:
            _check_hold_out(hold_out, fashion_mnist.LABELS, source)
        return _fashion_mnist(preprocessing, progress)
    listing = list_source(Path(source), group=group)
    try:
        bare = hold_out is None and not listing.labels
        files = listing.files if unlabelled or bare else _labelled(listing)
        label_names = _label_names(listing.source, files)
        if unlabelled and hold_out is not None:
            label_names = _enough(listing, label_names)
            _check_hold_out(hold_out, label_names, source)
        elif hold_out is not None:
            _check_learnable(listing.source, files, label_names)
            _check_hold_out(hold_out, label_names, source)
    except DataError as error:  # what was skipped may be why
        raise DataError(f"{error}{listing.findings.in_words()}") from error
    return _files(listing, files, label_names, preprocessing, progress)


def _fashion_mnist(preprocessing: Preprocessing, progress: Progress) -> LoadedImages:
    folder = fashion_mnist.find_fashion_mnist()
    parts = dict(
        zip((Part.TRAIN, Part.TEST), fashion_mnist.read_fashion_mnist(folder), strict=True)
    )
    images_NHW = np.concatenate([images_NHW for images_NHW, _ in parts.values()])
    decoded = fit_grey_images(images_NHW, preprocessing, progress)
    return LoadedImages(
        name=FASHION_MNIST,
        source=FASHION_MNIST,
        label_names=fashion_mnist.LABELS,
        named_parts=frozenset(parts),
        decoded=decoded,
        labels_M=np.concatenate([labels_N for _, labels_N in parts.values()]),
        parts_M=np.repeat(list(parts), [len(labels_N) for _, labels_N in parts.values()]),
        item_ids_M=np.full(len(decoded.images_NCHW), NO_ITEM),
        names=[
            f"{part.name.lower()}[{number}]"
            for part, (_, labels_N) in parts.items()
            for number in range(len(labels_N))
        ],
        findings=Findings(),
    )


def _labelled(listing: Listing) -> list[ListedFile]:
    """Return the files that have a class; what has none is said.

    Raises:
        DataError: none has one.
    """
    files = [file for file in listing.files if file.label is not None]
    if not files:
        raise DataError(f"{listing.source} {_no_classes(listing)}")
    for file in listing.files:
        if file.label is None:
            listing.findings.add("an image without a class: left out", file.key)
    return files


def _enough(listing: Listing, label_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes if there are two or more, else none; what that means is said.

    Raises:
        DataError: there is no file to learn from.
    """
    if not any(not file.part for file in listing.files):
        raise DataError(f"{listing.source} holds nothing to learn from")
    few = len(label_names) < FEWEST_CLASSES
    for file in listing.files:
        if few and file.label is not None:
            listing.findings.add("one class only: nothing to tell it from", file.key)
        if not few and file.label is None:
            listing.findings.add("an image without a class: helps to see, teaches none", file.key)
    return () if few else label_names


def _no_classes(listing: Listing) -> str:
    if is_table(listing.source):
        return "says no label; a column 'label' with the class of each image is needed"
    if listing.parts:
        return (
            "holds images directly in its parts; one folder of images per class is needed inside "
            "each of them (if the parts are the classes, give them other names)"
        )
    return "holds no class folders; one folder of images per class is needed"


def _label_names(source: Path, files: Sequence[ListedFile]) -> tuple[str, ...]:
    """Return the classes, sorted.

    Raises:
        DataError: one of them cannot be written down.
    """
    label_names = tuple(sorted({file.label for file in files if file.label is not None}))
    unprintable = [name for name in label_names if CONTROL.search(name)]
    if unprintable:
        names = listed([repr(name) for name in unprintable], most=SHOWN_NAMES)
        raise DataError(f"{source} has classes with unprintable names, {names}; rename them")
    return label_names


def _check_learnable(source: Path, files: Sequence[ListedFile], label_names: Sequence[str]) -> None:
    """Check the classes of what is for training.

    Raises:
        DataError: there are too few, or other parts have other ones.
    """
    learnt = {file.label for file in files if not file.part}  # TRAIN, or no parts at all
    if not learnt:
        parts = sorted({file.part.name.lower() for file in files if file.part})
        raise DataError(
            f"{source} holds nothing to learn from: all its images are for {' and '.join(parts)}"
        )
    counts = Counter(file.label for file in files)
    unknown = [f"{name!r} ({counts[name]})" for name in label_names if name not in learnt]
    if unknown:
        raise DataError(
            f"{source} has classes that no training image is of, with so many other images: "
            f"{listed(unknown, most=SHOWN_NAMES)}; add training images of them, or take them out"
        )
    if len(label_names) < FEWEST_CLASSES:
        raise DataError(
            f"{source} holds one class, {label_names[0]!r}; at least {FEWEST_CLASSES} are needed"
        )


def _files(
    listing: Listing,
    files: Sequence[ListedFile],
    label_names: tuple[str, ...],
    preprocessing: Preprocessing,
    progress: Progress,
) -> LoadedImages:
    label_of: dict[str | None, int] = {name: label for label, name in enumerate(label_names)}
    labels = np.array([label_of.get(file.label, UNLABELLED) for file in files], np.int64)
    parts = np.array([file.part or Part.TRAIN for file in files], np.int64)
    if Part.TEST not in parts:  # one part to measure with is used for that, whatever its name
        parts[parts == Part.VALIDATION] = Part.TEST
    decoded = decode_images([file.path for file in files], preprocessing, progress)
    return LoadedImages(
        name=listing.source.resolve().name,
        source=str(listing.source),
        label_names=label_names,
        named_parts=frozenset(map(Part, np.unique(parts))),
        decoded=decoded,
        labels_M=labels[decoded.readable_M],
        parts_M=parts[decoded.readable_M],
        item_ids_M=number_groups([file.group for file in files])[decoded.readable_M],
        names=[str(files[position].path) for position in decoded.readable_M.tolist()],
        findings=listing.findings,
    )


def _check_hold_out(hold_out: Sequence[str], label_names: Sequence[str], source: str) -> None:
    if not hold_out:
        return
    unknown = [repr(name) for name in hold_out if name not in label_names]
    if unknown:
        raise DataError(f"{source} has no class {listed(unknown, most=SHOWN_NAMES)} to hold out")
    left = len(label_names) - len(set(hold_out))
    if left < FEWEST_CLASSES:
        raise DataError(
            f"with {len(set(hold_out))} of {len(label_names)} classes of {source} held out "
            f"{left or 'none'} would be left; at least {FEWEST_CLASSES} are needed"
        )
