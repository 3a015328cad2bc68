"""A checked item as the database takes it: everything is checked here, once, and trusted inside.

Shape suffix: D vector width.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from index.errors import BadVectorsError
from index.items.ids import check_id
from index.items.item import ItemField, NewItem, check_label, clean_label, encode_metadata
from index.items.metadata_index import MetadataEntry
from index.search.vectors import VECTOR_TYPE, unit_vectors
from vision.image.thumbnail import Thumbnail

# Stored where there is no picture: a row of `thumbnails` that is not there at all is damage.
NO_THUMBNAIL: Final = Thumbnail("", b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedItem:
    """What will be stored: worked out before the transaction, by the caller's own thread."""

    id: str
    label: str | None
    metadata: str  # canonical JSON
    content_sha256: str
    created: str  # ISO 8601, UTC
    entries: frozenset[MetadataEntry]
    vector: bytes
    thumbnail: Thumbnail
    provided: frozenset[ItemField] | None  # the other fields stay as stored; ``None``: all

    @classmethod
    def of(cls, item: NewItem, *, width: int, created: str) -> Self:
        """Return ``item`` as a gallery of this ``width`` stores it.

        Raises:
            InvalidIdError, InvalidMetadataError, BadVectorsError: it is not storable.
        """
        check_id(item.id)
        check_label(item.label)
        if item.vector_D.shape != (width,):
            raise BadVectorsError(
                f"item {item.id}: expected a vector of {width} numbers, "
                f"got shape {item.vector_D.shape}"
            )
        vector_D = unit_vectors(item.vector_D[np.newaxis], width=width)[0]
        metadata = encode_metadata(item.metadata)
        return cls(
            id=item.id,
            label=clean_label(item.label),
            metadata=metadata.text,
            content_sha256=item.content_sha256,
            created=item.created or created,
            entries=metadata.entries,
            vector=vector_D.astype(VECTOR_TYPE).tobytes(),
            thumbnail=item.thumbnail or NO_THUMBNAIL,
            provided=item.provided,
        )
