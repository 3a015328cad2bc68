"""What a model has learnt from: kept in its folder, asked when it is measured.

Some bytes an image, and no picture: the first 8 of the SHA-256 of each file, and the 8 of its
perceptual hash. The manifest holds the SHA-256 of it all.

Shape suffixes: N images, K of them that were learnt from, B of a block.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from training.data.images.labelled_images import LabelledImages
from training.data.images.photo_hashes import NO_PHASH
from vision.errors import ModelFolderError
from vision.model.manifest import Manifest, read_checked

TRAINING_RECORD_NAME: Final = "learnt.safetensors"
TRAINING_RECORD_SHA256: Final = "learnt_sha256"  # in the manifest's data

# Without thumbnails to confirm it, a copy must have a hash that is all but equal. Of 5.8 million
# pairs of photos of clothes 6 are taken for copies so: of new photos, 3 in a thousand are left out
# for nothing beside 3,000 that were learnt. A copy that is missed would flatter the model.
MOST_BITS: Final = 4
BLOCK: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRecord:
    """The images that a training looked at: to learn from, to stop and to calibrate with."""

    contents_K: NDArray[np.uint64]  # ascending
    phashes_K: NDArray[np.uint64]  # of each of them

    @classmethod
    def of(cls, *parts: LabelledImages) -> Self:
        """Return what a training looked at."""
        contents_N = np.concatenate([part.contents_N for part in parts])
        return cls._of_each(contents_N, np.concatenate([part.phashes_N for part in parts]))

    @classmethod
    def empty(cls) -> Self:
        """Return the record of a model of which it is not known what it has learnt from."""
        return cls(contents_K=np.empty(0, np.uint64), phashes_K=np.empty(0, np.uint64))

    def union(self, other: Self) -> Self:
        """Return what either has learnt from."""
        contents_N = np.concatenate([self.contents_K, other.contents_K])
        return self._of_each(contents_N, np.concatenate([self.phashes_K, other.phashes_K]))

    @classmethod
    def _of_each(cls, contents_N: NDArray[np.uint64], phashes_N: NDArray[np.uint64]) -> Self:
        """Return each image once; of equal files the first."""
        contents_K, first_K = np.unique(contents_N, return_index=True)
        return cls(contents_K=contents_K, phashes_K=phashes_N[first_K])

    def to_bytes(self) -> bytes:
        """Return the file's bytes: equal ones for equal images, in whatever order they came."""
        return safetensors.numpy.save({"contents": self.contents_K, "looks": self.phashes_K})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what ``to_bytes`` wrote.

        Raises:
            ModelFolderError: it is something else.
        """
        try:
            arrays = safetensors.numpy.load(data)
            contents_K, phashes_K = arrays["contents"], arrays["looks"]
        except (SafetensorError, KeyError) as error:
            raise ModelFolderError(
                f"{TRAINING_RECORD_NAME} is damaged: no list of contents"
            ) from error
        if {contents_K.dtype, phashes_K.dtype} != {np.dtype(np.uint64)} or (
            contents_K.shape != phashes_K.shape
        ):
            raise ModelFolderError(
                f"{TRAINING_RECORD_NAME} is damaged: pairs of 64 bits were expected"
            )
        return cls(contents_K=contents_K, phashes_K=phashes_K)

    def contains(
        self, contents_N: NDArray[np.uint64], phashes_N: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Return a mask (N,) of the images that were learnt from, or are all but copies of one.

        Hashes are only compared with those of images that are not here themselves: of those that
        are, ``training.data.images.near_duplicates`` knows the copies, and better.
        """
        known_N = np.isin(contents_N, self.contents_K)
        absent_K = ~np.isin(self.contents_K, contents_N) & (self.phashes_K != NO_PHASH)
        phashes_K = self.phashes_K[absent_K]
        for start in range(0, len(phashes_N), BLOCK):
            phashes_B = phashes_N[start : start + BLOCK]
            bits_BK = np.bitwise_count(phashes_B[:, None] ^ phashes_K)
            near_B = (bits_BK <= MOST_BITS).any(axis=1) & (phashes_B != NO_PHASH)
            known_N[start : start + BLOCK] |= near_B
        return known_N


def read_training_record(folder: Path, manifest: Manifest) -> TrainingRecord | None:
    """Return what the model has learnt from; None where its folder does not say (up to 0.4.0).

    Raises:
        ModelFolderError: the file is missing, or not the one that the manifest describes.
    """
    sha256 = manifest.data.get(TRAINING_RECORD_SHA256)
    if sha256 is None:
        return None
    return TrainingRecord.from_bytes(read_checked(folder, TRAINING_RECORD_NAME, sha256))
