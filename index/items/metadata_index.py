"""The index over metadata: what stands under which name of an item.

One row of the table ``terms`` per text, number and boolean, elements of arrays each for itself; and
one for a member that holds none of these, so that its presence is known. A member of an object is
named by its path, joined with dots; of several members of one name those count that lie least deep.
The rows of an item follow from its metadata alone, so they are worked out anew when it is deleted.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final

import apsw

MetadataEntry = tuple[str, int, str | int | float]  # name, kind, value

METADATA_INDEX_TABLE: Final = """
CREATE TABLE terms (
    name TEXT,                     -- of the metadata member: its path, joined with dots
    kind INTEGER,                  -- 0 boolean, 1 number, 2 text: never equal; 3 none of these
    value,                         -- of no type: kept as it came, numbers compared by value
    key INTEGER,
    PRIMARY KEY (name, kind, value, key)
) WITHOUT ROWID;
"""
BOOLEAN: Final = 0
NUMBER: Final = 1
TEXT: Final = 2
OTHER: Final = 3
NULL: Final = 0  # values of the kind OTHER
ARRAY: Final = 1  # without a text, number or boolean in it
OBJECT: Final = 2
_INSERT: Final = "INSERT INTO terms VALUES (?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM terms WHERE name = ? AND kind = ? AND value = ? AND key = ?"


def metadata_entries(metadata: str) -> set[MetadataEntry]:
    """Return the index entries of metadata given as JSON text; equal ones (1 and 1.0) once.

    >>> sorted(metadata_entries('{"size": {"eu": 40}, "tags": ["a", "b"], "sold": null}'))
    [('size', 3, 2), ('size.eu', 1, 40), ('sold', 3, 0), ('tags', 2, 'a'), ('tags', 2, 'b')]

    Raises:
        ValueError: not JSON, or not an object.
    """
    members = json.loads(metadata)
    if not isinstance(members, dict):
        raise ValueError("metadata must be a JSON object")  # noqa: TRY004 (damage, not a bug)
    entries: set[MetadataEntry] = set()
    known: set[str] = set()  # names that were met less deep
    level: list[tuple[str, dict[str, Any]]] = [("", members)]
    while level:
        names: set[str] = set()
        deeper: list[tuple[str, dict[str, Any]]] = []
        for prefix, members in level:
            for member_name, member in members.items():
                name = nfc(prefix + member_name)
                if isinstance(member, dict):
                    deeper.append((f"{name}.", member))
                if name not in known:
                    names.add(name)
                    entries |= _member_entries(name, member)
        known |= names
        level = deeper
    return entries


def nfc(text: str) -> str:
    """Return ``text`` composed: accents as a part of their letter."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def kind_of(value: str | int | float) -> int:
    """Return the kind under which ``value`` is stored, and looked for."""
    if isinstance(value, bool):
        return BOOLEAN
    return TEXT if isinstance(value, str) else NUMBER


def add_metadata_entries(cursor: apsw.Cursor, key: int, entries: Iterable[MetadataEntry]) -> None:
    """Write the index entries of the item ``key``, inside the transaction that writes the item."""
    cursor.executemany(_INSERT, [(*entry, key) for entry in entries])


def remove_metadata_entries(cursor: apsw.Cursor, key: int, metadata: str) -> None:
    """Delete the index entries of the item ``key``, whose metadata was ``metadata``.

    Costs a look at every entry of all items when the metadata is damaged.
    """
    try:
        entries = metadata_entries(metadata)
    except ValueError:
        cursor.execute("DELETE FROM terms WHERE key = ?", (key,))
        return
    cursor.executemany(_DELETE, [(*entry, key) for entry in entries])


def fill_metadata_index(writer: apsw.Connection) -> None:
    """Write the index entries of all items, inside the caller's transaction."""
    items = writer.execute("SELECT key, metadata FROM items")
    writer.executemany(
        _INSERT, ((*entry, key) for key, metadata in items for entry in _readable(metadata))
    )


def metadata_index_faults(reader: apsw.Connection) -> Iterator[str]:
    """Yield a sentence for every entry that is missing, or that no item's metadata explains."""
    explained = 0
    exists = f"SELECT 1 FROM terms{_DELETE.removeprefix('DELETE FROM terms')}"
    for key, item_id, metadata in reader.execute("SELECT key, id, metadata FROM items"):
        for entry in _readable(metadata):
            if reader.execute(exists, (*entry, key)).get is not None:
                explained += 1
            else:
                yield f"item {item_id!a}: filters do not find it by {entry[0]!a}"
    if reader.execute("SELECT count(*) FROM terms").get != explained:
        rows = "SELECT t.name, t.kind, t.value, t.key, i.metadata FROM terms t LEFT JOIN items i"
        for name, kind, value, key, metadata in reader.execute(f"{rows} USING (key)"):
            if (name, kind, value) not in _readable(metadata):
                yield f"key {key}: filters find it by {name!a}, which its metadata lacks"


def _member_entries(name: str, member: Any) -> set[MetadataEntry]:
    if member is None:
        return {(name, OTHER, NULL)}
    if isinstance(member, dict):
        return {(name, OTHER, OBJECT)}
    values = member if isinstance(member, list) else [member]
    entries = {
        (name, kind_of(value), nfc(value) if isinstance(value, str) else value)
        for value in values
        if isinstance(value, str | int | float)
    }
    return entries or {(name, OTHER, ARRAY)}


def _readable(metadata: Any) -> set[MetadataEntry]:
    try:
        return metadata_entries(metadata)
    except (ValueError, TypeError):  # damaged, which is another fault; or no such item
        return set()
