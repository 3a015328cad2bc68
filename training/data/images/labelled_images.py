"""Images with labels, as far as they have them, ready to be batched.

Shape suffixes: N images, C channels, H x W pixels.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from training.data.images.pixel_buffer import pixel_array
from training.data.images.split import Draw, choose_groups

UNLABELLED: Final = -1  # the label of an image without a class
HASHED_BYTES: Final = 16 * 2**20  # at a time, so that pixels on disk need not fit in memory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledImages:
    """Decoded images, and classes of those that have one; the pixels may be part of an array."""

    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]  # positions in label_names, or UNLABELLED
    label_names: tuple[str, ...]
    contents_N: NDArray[np.uint64]  # of each file; training.data.images.photo_hashes says of what
    phashes_N: NDArray[np.uint64]  # perceptual hashes
    photos_N: NDArray[np.int64]  # equal for copies of one photo
    item_ids_N: NDArray[np.int64]  # equal for photos of one thing, as the data say; -1: they do not
    # Equal for copies, and for photos of one thing; training.data.images.split says what they
    # decide.
    group_keys_N: NDArray[np.uint64]

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

    def are_of(self, other: Self | None) -> bool:
        """Return whether these are the same files in the same classes, in the same order."""
        return (
            other is not None
            and self.label_names == other.label_names
            and np.array_equal(self.contents_N, other.contents_N)
            and np.array_equal(self.labels_N, other.labels_N)
        )

    def take(self, positions: NDArray[np.int64]) -> Self:
        """Return the images at ``positions``, in that order.

        Neighbours in ascending order share these pixels; any others are copied, to a temporary
        file if they are large.

        Raises:
            DataError: there is no room for the copy.
        """
        return type(self)(
            images_NCHW=self._pixels(positions),
            labels_N=self.labels_N[positions],
            label_names=self.label_names,
            contents_N=self.contents_N[positions],
            phashes_N=self.phashes_N[positions],
            photos_N=self.photos_N[positions],
            item_ids_N=self.item_ids_N[positions],
            group_keys_N=self.group_keys_N[positions],
        )

    def split_validation(self, share: float) -> tuple[Self, Self]:
        """Return the images without about ``share`` of every class, and that share.

        Neither has a copy of what the other has, nor a photo of the same thing; a class of one
        photo or thing gives nothing.

        Raises:
            DataError: there is no room for a copy of the pixels.
        """
        apart_N = choose_groups(self.labels_N, self.group_keys_N, share, Draw.VALIDATION)
        return self.take(np.flatnonzero(~apart_N)), self.take(np.flatnonzero(apart_N))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of every pixel, label and name; about 1 GB/s."""
        digest = hashlib.sha256()
        digest.update(repr((self.images_NCHW.shape, self.label_names)).encode())
        digest.update(np.ascontiguousarray(self.labels_N, "<i8").tobytes())
        step = max(1, HASHED_BYTES // max(1, self.images_NCHW[:1].nbytes))
        for start in range(0, len(self), step):
            digest.update(np.ascontiguousarray(self.images_NCHW[start : start + step]).data)
        return digest.hexdigest()

    def _pixels(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        if len(positions) and (np.diff(positions) == 1).all() and positions[0] >= 0:
            return self.images_NCHW[positions[0] : positions[-1] + 1]
        images_NCHW = pixel_array((len(positions), *self.images_NCHW.shape[1:]))
        for place, position in enumerate(positions):
            images_NCHW[place] = self.images_NCHW[position]
        return images_NCHW
