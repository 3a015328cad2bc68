"""Loaded images in, which belong together, and parts of the one array of their pixels out.

Shape suffixes: M loaded images, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.findings import Findings
from dataset.listing import Part
from training.data.images.labelled_images import LabelledImages
from training.data.images.leakage import Leak, Twins, find_copies, find_leaks
from training.data.images.load import FASHION_MNIST, LoadedImages
from training.data.images.near_duplicates import group_near_duplicates, link_groups
from training.data.images.pixel_buffer import put_in_order
from training.data.images.split import (
    Draw,
    choose_groups,
    group_keys_of_contents,
    group_keys_of_positions,
)

LEFT_OUT: Final = -1  # the part of an image that is in none
SPLIT_SHARE: Final = 0.2  # of the images of a source without a test part
MANY: Final = 1000  # different images, from which on less is enough to measure with
SPLIT_SHARE_OF_MANY: Final = 0.1
SAME_PHOTO: Final = "the same photo as another file: kept in one part"
TWO_LABELS: Final = "the same image with two labels: both stay"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedImages:
    """Loaded images, and which of them belong together. Numbers are 0 and up, without gaps."""

    loaded: LoadedImages
    photos_M: NDArray[np.int64]  # equal for copies of one photo
    groups_M: NDArray[np.int64]  # equal for copies, and for photos of one thing
    group_keys_M: NDArray[np.uint64]  # equal within a group: what decides on its part


def find_groups(loaded: LoadedImages) -> GroupedImages:
    """Return which images are of one photo or thing; takes seconds for 40,000 of them."""
    photos_M = group_near_duplicates(loaded.decoded.hashes)
    groups_M = link_groups(photos_M, loaded.item_ids_M)
    if loaded.source == FASHION_MNIST:
        classes_M = loaded.labels_M * len(Part) + loaded.parts_M  # a part's last are held out of it
        group_keys_M = group_keys_of_positions(classes_M)
    else:
        group_keys_M = group_keys_of_contents(loaded.decoded.hashes.contents_M, groups_M)
    return GroupedImages(
        loaded=loaded, photos_M=photos_M, groups_M=groups_M, group_keys_M=group_keys_M
    )


def assign_parts(grouped: GroupedImages) -> NDArray[np.int64]:
    """Return the part of each image, so that no photo is in two: leaks are ``LEFT_OUT``.

    Where the source names no test part, it is drawn from the images' contents.
    """
    loaded = grouped.loaded
    if Part.TEST in loaded.named_parts:
        leaked_M = find_leaks(grouped.groups_M, loaded.parts_M)
        return np.where(leaked_M, LEFT_OUT, loaded.parts_M)
    many = len(np.unique(grouped.group_keys_M)) >= MANY
    share = SPLIT_SHARE_OF_MANY if many else SPLIT_SHARE
    in_test_M = choose_groups(loaded.labels_M, grouped.group_keys_M, share, Draw.TEST)
    return np.where(in_test_M, Part.TEST, Part.TRAIN)


class PartSelection(NamedTuple):
    """Images that become one part."""

    positions: NDArray[np.int64]  # among the loaded ones
    labels_M: NDArray[np.int64]  # of all the loaded ones, as this part counts them
    label_names: tuple[str, ...]


def arrange_parts(
    grouped: GroupedImages, selections: Sequence[PartSelection]
) -> list[LabelledImages]:
    """Return the parts: neighbouring slices of the one array of pixels, which is reordered."""
    decoded = grouped.loaded.decoded
    images_NCHW = put_in_order(
        decoded.images_NCHW,
        decoded.readable_M[np.concatenate([selection.positions for selection in selections])],
    )
    ends = np.cumsum([len(selection.positions) for selection in selections])
    return [
        LabelledImages(
            images_NCHW=part_NCHW,
            labels_N=selection.labels_M[selection.positions],
            label_names=selection.label_names,
            contents_N=decoded.hashes.contents_M[selection.positions],
            phashes_N=decoded.hashes.phashes_M[selection.positions],
            photos_N=grouped.photos_M[selection.positions],
            item_ids_N=grouped.loaded.item_ids_M[selection.positions],
            group_keys_N=grouped.group_keys_M[selection.positions],
        )
        for part_NCHW, selection in zip(np.split(images_NCHW, ends[:-1]), selections, strict=True)
    ]


def collect_findings(
    grouped: GroupedImages, *, leaked: Sequence[Leak], contradictions: Sequence[Twins]
) -> Findings:
    """Return what the listing found, and all that was found in the images themselves."""
    findings = Findings()
    findings.extend(grouped.loaded.findings)
    findings.add_similar(
        (f"left out, because it cannot be read: {reason}", str(path))
        for path, reason in grouped.loaded.decoded.unreadable
    )
    for leak in leaked:
        findings.add(
            f"left out of {leak.part}, since {leak.what} is in {leak.twin_part}",
            f"{leak.name} and {leak.twin}",
        )
    for name, twin in find_copies(grouped.photos_M, grouped.loaded.names):
        findings.add(SAME_PHOTO, f"{name} and {twin}")
    for name, twin in contradictions:
        findings.add(TWO_LABELS, f"{name} and {twin}")
    return findings
