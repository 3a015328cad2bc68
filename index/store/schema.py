"""The tables of ``gallery.sqlite``, their format version, and the model a gallery is bound to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from index.errors import GalleryFolderError, ModelMismatchError
from index.items.metadata_index import METADATA_INDEX_TABLE
from index.store.sqlite.database import translate_errors

DATABASE_NAME: Final = "gallery.sqlite"
APPLICATION_ID: Final = 0x4C4B474C  # "LKGL", in the file's header: tells our files from others
# 1: without the metadata index, database_id and log_start; 2: an index of scalars at the top alone.
FORMAT_VERSION: Final = 3
OLDEST_VERSION: Final = 1  # that can be migrated to the present one
PAGE_BYTES: Final = 4096
SHOWN_DIGITS: Final = 12  # of a fingerprint's 64
OUR_NAMES: Final = (  # in the table meta; all other names are settings
    *("model_name", "fingerprint", "width", "model_folder"),
    *("database_id", "log_start"),
)

# Keys and seqs are never used twice (AUTOINCREMENT): a key stands for one vector for ever.
# Vectors and thumbnails have tables of their own, so that scans of labels and metadata stay small.
_FIRST_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    label TEXT,
    metadata TEXT NOT NULL,        -- a JSON object, canonical
    content_sha256 TEXT NOT NULL,  -- of the encoded image
    created TEXT NOT NULL,         -- ISO 8601, UTC
    seq INTEGER NOT NULL           -- the operation that wrote it
);
CREATE INDEX items_by_label ON items (label);
CREATE TABLE vectors (
    key INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    data BLOB NOT NULL,            -- float32, little-endian, unit length
    crc32 INTEGER NOT NULL
);
CREATE TABLE thumbnails (
    key INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    media_type TEXT NOT NULL,
    data BLOB NOT NULL,
    crc32 INTEGER NOT NULL
);
CREATE TABLE operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('put', 'delete')),
    key INTEGER NOT NULL
);
"""
TABLES: Final = _FIRST_TABLES + METADATA_INDEX_TABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The model whose vectors a gallery holds."""

    model_name: str
    fingerprint: str  # SHA-256, hexadecimal
    width: int  # numbers in a vector
    model_folder: str | None = None  # where the model was at build time: a hint, not a promise
    database_id: str = ""  # of this one database, random; empty before format version 2
    count: int = 0  # items when this was read

    def check(self, fingerprint: str, folder: Path) -> None:
        """Accept the model that the gallery in ``folder`` was built with.

        Raises:
            ModelMismatchError: another model.
        """
        if self.fingerprint != fingerprint:
            raise ModelMismatchError(
                f"{folder} holds vectors of model {self.model_name!r} "
                f"({self.fingerprint[:SHOWN_DIGITS]}…), not of the model given "
                f"({fingerprint[:SHOWN_DIGITS]}…): use that model, "
                "or build a new gallery with this one"
            )


def write_empty(path: Path, binding: Binding) -> None:
    """Write a new database without items, in WAL mode, whole and synced in the one file ``path``.

    Raises:
        DiskFullError, StorageError: it cannot be written.
    """
    meta = {
        "model_name": binding.model_name,
        "fingerprint": binding.fingerprint,
        "width": str(binding.width),
        "database_id": binding.database_id,
        "log_start": "0",
    }
    if binding.model_folder is not None:
        meta["model_folder"] = binding.model_folder
    with translate_errors(path):
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(path), flags=flags)
        try:
            connection.pragma("page_size", PAGE_BYTES)
            connection.pragma("journal_mode", "wal")
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", FORMAT_VERSION)
            with connection:
                connection.execute(TABLES)
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        finally:
            connection.close()  # empties the write-ahead log into the file, and syncs it


def check_format(connection: apsw.Connection, path: Path) -> int:
    """Return the format version of a database that this program reads, or can migrate.

    Raises:
        GalleryFolderError: another program's database, or of another format version.
    """
    if connection.pragma("application_id") != APPLICATION_ID:
        raise GalleryFolderError(f"{path} is damaged, or not a gallery's database")
    version = connection.pragma("user_version")
    if version > FORMAT_VERSION:
        raise GalleryFolderError(
            f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}: "
            "use a newer one"
        )
    if version < OLDEST_VERSION:
        raise GalleryFolderError(f"{path} has unknown format version {version}")
    return int(version)


def read_meta(connection: apsw.Connection, path: Path) -> Binding:
    """Return the model the gallery is bound to, and the number of its items.

    Raises:
        GalleryFolderError: the binding is incomplete.
    """
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    try:
        return Binding(
            model_name=meta["model_name"],
            fingerprint=meta["fingerprint"],
            width=int(meta["width"]),
            model_folder=meta.get("model_folder"),
            database_id=meta.get("database_id", ""),
            count=connection.execute("SELECT count(*) FROM items").get,
        )
    except (KeyError, ValueError) as error:
        raise GalleryFolderError(f"{path} is damaged: it does not say its model") from error


def read_setting(connection: apsw.Connection, name: str) -> str | None:
    """Return what ``name`` was set to last, ``None`` before that.

    Raises:
        ValueError: not a name for a setting.
    """
    check_setting(name)
    value: str | None = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).get
    return value


def write_setting(writer: apsw.Connection, name: str, value: str) -> None:
    """Set ``name``, which has been checked, to ``value`` in the caller's transaction."""
    writer.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (name, value),
    )


def check_setting(name: str) -> None:
    """Accept names that the gallery itself does not use.

    Raises:
        ValueError: empty, or one of ours.
    """
    if not name or name in OUR_NAMES:
        raise ValueError(f"{name!r} is not a name for a setting")
