"""What a request stores under an id: an encoded image or a vector in, a checked item out.

Shape suffix: D vector width.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError
from index.items.ids import check_id
from index.items.item import EncodedMetadata, NewItem, check_label, encode_metadata
from index.search.vectors import UNIT_TOLERANCE, VECTOR_TYPE, Parts
from service.inference.task import Encoded
from vision.model.manifest import Architecture


def check_item(item_id: str, *, label: str | None, metadata: dict[str, Any]) -> EncodedMetadata:
    """Accept what the gallery will accept, before any work is done on the image.

    Returns:
        The metadata as they will be stored.

    Raises:
        InvalidIdError, InvalidMetadataError: one of them cannot be stored.
    """
    check_id(item_id)
    check_label(label)
    return encode_metadata(metadata)


def new_item(
    item_id: str, data: bytes, encoded: Encoded, *, label: str | None, metadata: EncodedMetadata
) -> NewItem:
    """Return what the gallery stores of an encoded image."""
    assert encoded.thumbnail is not None  # the task asked for one
    return NewItem(
        id=item_id,
        vector_D=encoded.vector_D,
        label=label,
        metadata=metadata,
        thumbnail=encoded.thumbnail,
        content_sha256=hashlib.sha256(data).hexdigest(),
    )


def new_bare_item(
    item_id: str, vector_D: NDArray[np.float32], *, label: str | None, metadata: EncodedMetadata
) -> NewItem:
    """Return what the gallery stores of a vector without an image, as an import does."""
    return NewItem(
        id=item_id,
        vector_D=vector_D,
        label=label,
        metadata=metadata,
        thumbnail=None,
        content_sha256=hashlib.sha256(vector_D.astype(VECTOR_TYPE).tobytes()).hexdigest(),
    )


def vector_to_store(values: list[float], architecture: Architecture) -> NDArray[np.float32]:
    """Return ``values`` as a vector (D,) such as the network makes them.

    Nothing is scaled: a vector of another length is most likely one of another model.

    Raises:
        BadVectorsError: of another width or length; of a network whose vectors have two parts, a
            part is not as long as its share has it.
    """
    vector_D = np.asarray(values, np.float64)
    if vector_D.shape != (architecture.width,):
        raise BadVectorsError(f"vector must have {architecture.width} numbers, got {len(values)}")
    length = float(np.linalg.norm(vector_D))
    if not abs(length - 1) <= UNIT_TOLERANCE:  # nor is what is not finite
        raise BadVectorsError(f"vector must have the length 1, got {length:.6g}: divide it by that")
    parts = Parts.of(architecture)
    if parts is not None:
        parts.check(vector_D)
    return vector_D.astype(np.float32)
