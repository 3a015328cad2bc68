"""Items picked out of the database: by one condition of a filter, or for sharing a content.

A condition is answered from an index: over ids, over labels, or the table ``terms`` for metadata.
Shape suffixes: N keys.
"""

from collections.abc import Sequence
from typing import Final

import apsw
import numpy as np
from numpy.typing import NDArray

from index.errors import GalleryFolderError
from index.items.filter import (
    OPERATORS,
    Condition,
    Exists,
    IsNull,
    Key,
    Match,
    Range,
    Value,
    holds,
)
from index.items.item import quoted
from index.items.metadata_index import NULL, OTHER, kind_of

METADATA_INDEX_VERSION: Final = 3  # format of the database from which on it has every member

# Reading one item's metadata costs as much as this many entries of an index (measured: 4 and 0.06
# microseconds).
SCAN_COST: Final = 60
SPARSE: Final = 16  # keys for each one that is there, up to which marking them beats sorting


def keys_of(
    reader: apsw.Connection, sql: str, parameters: Sequence[Value] = ()
) -> NDArray[np.int64]:
    """Return the numbers that the query ``sql`` names ``key``: int64 (N,), as they come.

    They leave SQLite as one text, which is twice as quick as row by row, and lets other threads
    run meanwhile: 500,000 in 45 milliseconds.
    """
    text = reader.execute(f"SELECT group_concat(key, ' ') FROM ({sql})", parameters).get
    return _numbers(text)


def condition_keys(
    reader: apsw.Connection, condition: Condition, *, after: int
) -> NDArray[np.int64]:
    """Return the keys above ``after`` of the items for which ``condition`` holds: int64 (N,).

    Increasing and distinct. A match costs what it finds. Anything else costs all the index entries
    that it covers, whatever their keys; so when there turn out to be more of them than reading the
    few items above ``after`` would cost, those are read instead. It never costs more than twice the
    better way. Where the index is of an older format, all items above ``after`` are read.
    """
    if reader.pragma("user_version") < METADATA_INDEX_VERSION:
        return scan_keys(reader, condition, after=after)
    if isinstance(condition, Match):
        return distinct(_matching(reader, condition, after))
    found = _covered(reader, condition, after)
    if found is None:
        return scan_keys(reader, condition, after=after)
    if isinstance(condition, Exists) and not condition.wanted:
        keys = distinct(keys_of(reader, "SELECT key FROM items WHERE key > ?", (after,)))
        return np.setdiff1d(keys, distinct(found), assume_unique=True)
    return distinct(found)


def scan_keys(reader: apsw.Connection, condition: Condition, *, after: int) -> NDArray[np.int64]:
    """Return what ``condition_keys`` does, by reading every item above ``after``.

    Raises:
        GalleryFolderError: the metadata of an item is damaged.
    """
    sql = "SELECT key, id, label, metadata FROM items WHERE key > ? ORDER BY key"
    found = []
    for key, item_id, label, metadata in reader.execute(sql, (after,)):
        try:
            if holds(condition, item_id=item_id, label=label, metadata=metadata):
                found.append(key)
        except ValueError as error:
            sentence = f"the metadata of item {quoted(item_id)} is damaged"
            raise GalleryFolderError(sentence) from error
    return np.array(found, np.int64)


def same_content(reader: apsw.Connection) -> list[list[str]]:
    """Return the ids that share one content, two or more, oldest first; oldest group first."""
    sql = (
        "SELECT content_sha256, id FROM items WHERE content_sha256 IN "
        "(SELECT content_sha256 FROM items GROUP BY content_sha256 HAVING count(*) > 1) "
        "ORDER BY key"
    )
    groups: dict[str, list[str]] = {}
    for content, item_id in reader.execute(sql):
        groups.setdefault(content, []).append(item_id)
    return list(groups.values())


def _matching(reader: apsw.Connection, condition: Match, after: int) -> NDArray[np.int64]:
    kinds: dict[int, list[Value]] = {}
    for value in condition.values:
        kinds.setdefault(kind_of(value), []).append(value)
    found = [_numbers(None)]
    for kind, values in kinds.items():
        sql, column, parameters = _entries(condition.key, kind)
        marks = ", ".join("?" * len(values))
        sql = f"{sql} {column} IN ({marks}) AND key > ?"
        found.append(keys_of(reader, sql, (*parameters, *values, after)))
    return np.concatenate(found)


def _covered(
    reader: apsw.Connection, condition: Range | Exists | IsNull, after: int
) -> NDArray[np.int64] | None:
    """Return the keys above ``after`` among the index entries; ``None`` when there are too many.

    Of ``Exists``, what is there whether or not that is wanted.
    """
    sql, parameters = _covering(condition)
    newest = reader.execute("SELECT max(key) FROM items").get or 0
    limit = SCAN_COST * max(newest - after, 0)
    count, text = reader.execute(
        f"SELECT count(*), group_concat(key, ' ') FILTER (WHERE key > ?) FROM ({sql} LIMIT ?)",
        (after, *parameters, limit + 1),
    ).get
    return None if count > limit else _numbers(text)


def _covering(condition: Range | Exists | IsNull) -> tuple[str, list[Value]]:
    """Return a query for the index entries that the condition covers, and its parameters."""
    key = condition.key
    if isinstance(condition, Range):
        bounds = [bound for _, bound in condition.bounds]
        sql, column, parameters = _entries(key, kind_of(bounds[0]))
        tests = " AND ".join([f"{column} {OPERATORS[name]} ?" for name, _ in condition.bounds])
        return f"{sql} {tests}", [*parameters, *bounds]
    if key.column:
        return "SELECT key FROM items WHERE label IS NOT NULL", []
    sql = "SELECT key FROM terms WHERE name = ?"
    if isinstance(condition, Exists):
        return sql, [key.name]
    if condition.wanted:
        return f"{sql} AND kind = ? AND value = ?", [key.name, OTHER, NULL]
    return f"{sql} AND (kind < ? OR value <> ?)", [key.name, OTHER, NULL]


def _entries(key: Key, kind: int) -> tuple[str, str, list[Value]]:
    """Return the start of a query for index entries, their value's column, and parameters."""
    if key.column:
        return "SELECT key FROM items WHERE", key.name, []
    return "SELECT key FROM terms WHERE name = ? AND kind = ? AND", "value", [key.name, kind]


def _numbers(text: str | None) -> NDArray[np.int64]:
    return np.empty(0, np.int64) if text is None else np.fromstring(text, np.int64, sep=" ")


def distinct(keys_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``keys_N`` increasing and distinct; np.unique would take thirty times as long."""
    if np.all(keys_N[1:] > keys_N[:-1]):
        return keys_N
    lowest = int(keys_N.min())
    width = int(keys_N.max()) - lowest + 1
    if width <= SPARSE * len(keys_N):
        is_there = np.zeros(width, np.bool_)
        is_there[keys_N - lowest] = True
        return np.flatnonzero(is_there) + lowest
    sorted_N = np.sort(keys_N, kind="stable")  # which makes short work of sorted parts
    first_N = np.ones(len(sorted_N), np.bool_)
    np.not_equal(sorted_N[1:], sorted_N[:-1], out=first_N[1:])
    distinct_N: NDArray[np.int64] = sorted_N[first_N]
    return distinct_N
