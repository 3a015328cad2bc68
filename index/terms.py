"""The index over metadata: which texts, numbers and booleans stand under which name of an item.

One row of the table ``terms`` per scalar member, and per scalar element of an array member; null,
objects and what lies deeper have none, since no condition of a filter holds for them. The rows of
an item follow from its metadata alone, so they are worked out anew when it is deleted.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import apsw

Term = tuple[str, int, str | int | float]  # name, kind, value

TERMS_TABLE: Final = """
CREATE TABLE terms (
    name TEXT,                     -- of the metadata member
    kind INTEGER,                  -- 0 boolean, 1 number, 2 text: these never equal one another
    value,                         -- of no type: kept as it came, numbers compared by value
    key INTEGER,
    PRIMARY KEY (name, kind, value, key)
) WITHOUT ROWID;
"""
BOOLEAN: Final = 0
NUMBER: Final = 1
TEXT: Final = 2
_INSERT: Final = "INSERT INTO terms VALUES (?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM terms WHERE name = ? AND kind = ? AND value = ? AND key = ?"


def terms_of(metadata: str) -> set[Term]:
    """Return the terms of metadata given as JSON text; equal ones (1 and 1.0) once.

    Raises:
        ValueError: not JSON, or not an object.
    """
    members = json.loads(metadata)
    if not isinstance(members, dict):
        raise ValueError("metadata must be a JSON object")  # noqa: TRY004 (damage, not a bug)
    return {
        (name, kind_of(value), value)
        for name, member in members.items()
        for value in (member if isinstance(member, list) else (member,))
        if isinstance(value, str | int | float)
    }


def kind_of(value: str | int | float) -> int:
    """Return the kind under which ``value`` is stored, and looked for."""
    if isinstance(value, bool):
        return BOOLEAN
    return TEXT if isinstance(value, str) else NUMBER


def add_terms(cursor: apsw.Cursor, key: int, terms: Iterable[Term]) -> None:
    """Write the terms of the item ``key``, inside the transaction that writes the item."""
    cursor.executemany(_INSERT, [(*term, key) for term in terms])


def remove_terms(cursor: apsw.Cursor, key: int, metadata: str) -> None:
    """Delete the terms of the item ``key``, whose metadata was ``metadata``.

    Costs a look at every term of all items when the metadata is damaged.
    """
    try:
        terms = terms_of(metadata)
    except ValueError:
        cursor.execute("DELETE FROM terms WHERE key = ?", (key,))
        return
    cursor.executemany(_DELETE, [(*term, key) for term in terms])


def fill_terms(writer: apsw.Connection) -> None:
    """Write the terms of all items, inside the caller's transaction."""
    items = writer.execute("SELECT key, metadata FROM items")
    writer.executemany(
        _INSERT, ((*term, key) for key, metadata in items for term in _readable(metadata))
    )


def term_faults(reader: apsw.Connection) -> Iterator[str]:
    """Yield a sentence for every term that is missing, or that no item's metadata explains."""
    explained = 0
    exists = f"SELECT 1 FROM terms{_DELETE.removeprefix('DELETE FROM terms')}"
    for key, item_id, metadata in reader.execute("SELECT key, id, metadata FROM items"):
        for term in _readable(metadata):
            if reader.execute(exists, (*term, key)).get is not None:
                explained += 1
            else:
                yield f"item {item_id!a}: filters do not find it by {term[0]!a}"
    if reader.execute("SELECT count(*) FROM terms").get != explained:
        rows = "SELECT t.name, t.kind, t.value, t.key, i.metadata FROM terms t LEFT JOIN items i"
        for name, kind, value, key, metadata in reader.execute(f"{rows} USING (key)"):
            if (name, kind, value) not in _readable(metadata):
                yield f"key {key}: filters find it by {name!a}, which its metadata lacks"


def _readable(metadata: Any) -> set[Term]:
    try:
        return terms_of(metadata)
    except (ValueError, TypeError):  # damaged, which is another fault; or no such item
        return set()
