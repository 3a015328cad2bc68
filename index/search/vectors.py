"""What counts as a vector: finite float32 of unit length. Checked where vectors come in.

Stored as float32, little-endian, and decoded here.

Shape suffixes: N vectors, D vector width.
"""

from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError, GalleryFolderError
from vision.model.manifest import Architecture

UNIT_TOLERANCE: Final = 1e-3  # how far a norm may stray from 1; float16 moves it by about 5e-4
PART_TOLERANCE: Final = 0.01  # how far the length of a vector's part may stray
EXACTLY_UNIT: Final = 4e-6  # how far the square of a norm in float32 strays by rounding
VECTOR_TYPE: Final = np.dtype("<f4")  # as stored: float32, little-endian


def check_vectors(vectors_ND: NDArray[np.float32], *, width: int) -> None:
    """Accept finite unit vectors of shape (N, width), N any number.

    Raises:
        BadVectorsError: another shape, a number that is not finite, or a row not of unit length.
    """
    if vectors_ND.ndim != 2 or vectors_ND.shape[1] != width:  # noqa: PLR2004 (two axes)
        raise BadVectorsError(f"expected vectors of {width} numbers, got shape {vectors_ND.shape}")
    norms_N = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64))
    if not np.isfinite(norms_N).all():
        raise BadVectorsError("expected finite numbers in every vector")
    if np.any(np.abs(norms_N - 1) > UNIT_TOLERANCE):
        raise BadVectorsError(
            f"expected unit vectors, got norms from {norms_N.min():.3f} to {norms_N.max():.3f}"
        )


class Parts(NamedTuple):
    """The two parts of a model's vectors: what tells things apart, and what tells kinds apart."""

    item_width: int  # numbers of the first
    kind_share: float  # of the second, in the square of a vector's length

    @classmethod
    def of(cls, architecture: Architecture) -> Self | None:
        """Return the parts of a network's vectors; ``None``: they have one."""
        item_width, share = architecture.item_width, architecture.kind_share
        return None if item_width is None or share is None else cls(item_width, share)

    def check(self, vector_D: NDArray[np.floating[Any]]) -> None:
        """Accept a vector (D,) of which each part is as long as its share has it.

        Raises:
            BadVectorsError: a part is not.
        """
        first, last = vector_D[: self.item_width], vector_D[self.item_width :]
        for name, part, share in (
            ("first", first, 1 - self.kind_share),
            ("last", last, self.kind_share),
        ):
            wanted, got = share**0.5, float(np.linalg.norm(part))
            if abs(got - wanted) > PART_TOLERANCE:
                raise BadVectorsError(
                    f"the {name} {len(part)} numbers of a vector of this model have the length "
                    f"{wanted:.4f}, got {got:.4f}: they are a part of their own"
                )


def unit_vectors(vectors_ND: NDArray[np.float32], *, width: int) -> NDArray[np.float32]:
    """Return the same vectors, C-contiguous and exactly of unit length, as near as float32 comes.

    Search structures rank by distance and scans by cosine, which agree on unit vectors only.

    Raises:
        BadVectorsError: as ``check_vectors``.
    """
    if vectors_ND.shape == (1, width) and vectors_ND.dtype == np.float32:
        numbers_D = vectors_ND.ravel()
        squared = float(numbers_D.dot(numbers_D))
        if abs(squared - 1) < EXACTLY_UNIT:  # no NaN is; what one query usually is, and quick
            return np.ascontiguousarray(vectors_ND)
    if vectors_ND.ndim == 2 and vectors_ND.shape[1] == width:  # noqa: PLR2004 (two axes)
        squares_N = np.einsum("nd,nd->n", vectors_ND, vectors_ND)
        if np.count_nonzero(np.abs(squares_N - 1) < EXACTLY_UNIT) == len(vectors_ND):
            return np.ascontiguousarray(vectors_ND, np.float32)
    check_vectors(vectors_ND, width=width)
    norms_N1 = np.linalg.norm(vectors_ND.astype(np.float64), axis=1, keepdims=True)
    astray_N1 = np.abs(norms_N1 - 1) >= EXACTLY_UNIT / 2
    return (vectors_ND / np.where(astray_N1, norms_N1, 1.0)).astype(np.float32)


def decode_vector(data: bytes, *, width: int) -> NDArray[np.float32]:
    """Return a stored vector (width,).

    Raises:
        GalleryFolderError: of another width.
    """
    if len(data) != width * VECTOR_TYPE.itemsize:
        raise damaged_vector(width)
    return np.frombuffer(data, VECTOR_TYPE)


def damaged_vector(width: int) -> GalleryFolderError:
    """Return the error for a stored vector that is not what was stored."""
    return GalleryFolderError(
        f"the gallery is damaged: a vector is missing or does not have {width} numbers; "
        "verify lists which"
    )
