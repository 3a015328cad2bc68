"""What a gallery's items are: counts by label, and by the members of their metadata."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from index.items.metadata_index import OTHER
from index.store.schema import DATABASE_NAME
from index.store.sqlite.database import Database

SHOWN_VALUES: Final = 5  # of a member, the most frequent ones


@dataclass(frozen=True, slots=True)
class MetadataField:
    """One member of metadata; of an object, its path joined with dots."""

    name: str
    items: int  # that have it
    values: int  # distinct texts, numbers and booleans
    most: tuple[tuple[str | int | float, int], ...]  # the most frequent of them, with their counts


@dataclass(frozen=True, slots=True)
class GalleryStatistics:
    """All items of one moment, counted."""

    labels: tuple[tuple[str, int], ...]  # most first, ties by name
    unlabelled: int
    fields: tuple[MetadataField, ...]  # by name


def gallery_statistics(gallery: Path) -> GalleryStatistics:
    """Return the counts of a gallery folder. Reads the label and the metadata's terms of all items.

    Raises:
        StorageError, GalleryFolderError: it cannot be read, or is damaged.
    """
    by_label = "SELECT label, count(*) AS n FROM items GROUP BY label ORDER BY n DESC, label"
    by_name = "SELECT name, count(DISTINCT key) FROM terms GROUP BY name ORDER BY name"
    with closing(Database(gallery / DATABASE_NAME)) as database, database.reading() as reader:
        counts = list(reader.execute(by_label))
        fields = [
            _metadata_field(reader, name, items) for name, items in list(reader.execute(by_name))
        ]
    labels = tuple((label, count) for label, count in counts if label is not None)
    return GalleryStatistics(
        labels, sum(count for label, count in counts if label is None), tuple(fields)
    )


def _metadata_field(reader: apsw.Connection, name: str, items: int) -> MetadataField:
    chosen = "FROM terms WHERE name = ? AND kind <> ? GROUP BY kind, value"
    values = reader.execute(f"SELECT count(*) FROM (SELECT 1 {chosen})", (name, OTHER)).get
    most = reader.execute(
        f"SELECT value, count(*) AS n {chosen} ORDER BY n DESC, kind, value LIMIT ?",
        (name, OTHER, SHOWN_VALUES),
    )
    return MetadataField(name, items, values, tuple((value, count) for value, count in most))
