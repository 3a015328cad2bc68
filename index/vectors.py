"""What counts as a vector: finite float32 of unit length. Checked where vectors come in.

Stored as float32, little-endian, and decoded here.

Shape suffixes: N vectors, D vector width.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError, GalleryFolderError

UNIT_TOLERANCE: Final = 1e-3  # how far a norm may stray from 1; float16 moves it by about 5e-4
VECTOR_TYPE: Final = np.dtype("<f4")  # as stored: float32, little-endian


def check_vectors(vectors_ND: NDArray[np.float32], *, width: int) -> None:
    """Accept finite unit vectors of shape (N, width), N any number.

    Raises:
        BadVectorsError: another shape, a number that is not finite, or a row not of unit length.
    """
    if vectors_ND.shape == (1, width):  # one query: a fifth of the time
        squared = float(vectors_ND[0] @ vectors_ND[0])
        if abs(squared - 1) < UNIT_TOLERANCE:  # no NaN is; a norm strays half as far as its square
            return
    if vectors_ND.ndim != 2 or vectors_ND.shape[1] != width:  # noqa: PLR2004 (two axes)
        raise BadVectorsError(f"expected vectors of {width} numbers, got shape {vectors_ND.shape}")
    norms_N = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64))
    if not np.isfinite(norms_N).all():
        raise BadVectorsError("expected finite numbers in every vector")
    if np.any(np.abs(norms_N - 1) > UNIT_TOLERANCE):
        raise BadVectorsError(
            f"expected unit vectors, got norms from {norms_N.min():.3f} to {norms_N.max():.3f}"
        )


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
