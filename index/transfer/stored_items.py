"""Everything a gallery stores, item by item, as of one operation. A folder in, items out.

Shape suffix: D vector width.
"""

import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import apsw
import numpy as np
from numpy.typing import NDArray

from index.errors import GalleryFolderError, SourceError
from index.items.item import quoted
from index.items.prepared_item import NO_THUMBNAIL
from index.search.vectors import decode_vector
from index.store.schema import DATABASE_NAME, check_format, read_meta
from index.store.sqlite.database import Database
from index.store.transaction import last_seq
from vision.image.thumbnail import Thumbnail

_ITEMS: Final = (
    "SELECT i.id, i.label, i.metadata, i.content_sha256, i.created, v.data, v.crc32, {} "
    "FROM items i LEFT JOIN vectors v USING (key) {} ORDER BY i.key"
)
_WITH_THUMBNAIL: Final = _ITEMS.format("t.media_type, t.data", "LEFT JOIN thumbnails t USING (key)")
_WITHOUT: Final = _ITEMS.format("NULL, NULL", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a set of items is: whose vectors, how many, as of when."""

    model_name: str
    fingerprint: str  # of the model
    width: int
    count: int
    seq: int

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the facts that ``to_json`` described.

        Raises:
            SourceError: it describes none.
        """
        kinds = {"model_name": str, "fingerprint": str, "width": int, "count": int, "seq": int}
        if not isinstance(value, dict) or any(
            not isinstance(value.get(name), kind) for name, kind in kinds.items()
        ):
            raise SourceError("the description of the exported items is damaged")
        return cls(**{name: value[name] for name in kinds})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItem:
    """One item with everything that is stored of it."""

    id: str
    label: str | None
    metadata: str  # canonical JSON
    content_sha256: str
    created: str  # ISO 8601, UTC
    vector_D: NDArray[np.float32]
    thumbnail: Thumbnail | None  # ``None`` too when thumbnails were not asked for


@dataclass(frozen=True, slots=True)
class GalleryContents:
    """A gallery at one moment."""

    provenance: Provenance
    _reader: apsw.Connection

    def items(self, *, thumbnails: bool) -> Iterator[StoredItem]:
        """Give every item, oldest first.

        Raises:
            GalleryFolderError: a vector is missing, or is not what was stored.
        """
        for (
            item_id,
            label,
            metadata,
            content,
            created,
            data,
            crc32,
            *picture,
        ) in self._reader.execute(_WITH_THUMBNAIL if thumbnails else _WITHOUT):
            if data is None or zlib.crc32(data) != crc32:
                raise GalleryFolderError(
                    f"the gallery is damaged: the vector of item {quoted(item_id)} is not what was "
                    "stored; verify lists all faults"
                )
            thumbnail = None if picture[1] is None else Thumbnail(*picture)
            yield StoredItem(
                id=item_id,
                label=label,
                metadata=metadata,
                content_sha256=content,
                created=created,
                vector_D=decode_vector(data, width=self.provenance.width),
                thumbnail=None if thumbnail == NO_THUMBNAIL else thumbnail,
            )


@contextmanager
def open_contents(folder: Path) -> Iterator[GalleryContents]:
    """Give the block a gallery that does not change, whoever writes to it meanwhile.

    Raises:
        GalleryFolderError: it is no gallery, or damaged.
        StorageError: it cannot be read.
    """
    path = folder / DATABASE_NAME
    if not path.is_file():
        raise GalleryFolderError(f"{folder} is not a gallery: no {DATABASE_NAME} in it")
    with closing(Database(path)) as database, database.reading() as reader:
        check_format(reader, path)
        binding = read_meta(reader, path)
        provenance = Provenance(
            model_name=binding.model_name,
            fingerprint=binding.fingerprint,
            width=binding.width,
            count=binding.count,
            seq=last_seq(reader),
        )
        yield GalleryContents(provenance, reader)
