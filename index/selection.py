"""Items picked out of the database: by one condition of a filter, or for sharing a content.

A condition is answered from an index: ``items_by_label``, or the table ``terms`` for metadata.
Shape suffixes: N keys.
"""

from collections.abc import Sequence
from typing import Final

import apsw
import numpy as np
from numpy.typing import NDArray

from index.filter import LABEL_KEY, OPERATORS, Condition, Filter, Match, Value, filter_sql
from index.terms import TEXT, kind_of

# Reading one item's metadata costs as much as this many entries of an index (measured: 0.33 and
# 0.06 microseconds).
SCAN_COST: Final = 5


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

    Increasing and distinct. A range costs all the index entries within it, whatever their keys; so
    when it turns out to hold more of them than reading the few items above ``after`` would cost,
    those are read instead. It never costs more than twice the better way.
    """
    if isinstance(condition, Match):
        return distinct(_matching(reader, condition, after))
    bounds = [bound for _, bound in condition.bounds]
    entries = _entries(condition.key, kind_of(bounds[0]))
    if entries is None:
        return _numbers(None)
    newest = reader.execute("SELECT max(key) FROM items").get or 0
    limit = SCAN_COST * max(newest - after, 0)
    sql, column, parameters = entries
    tests = " AND ".join([f"{column} {OPERATORS[name]} ?" for name, _ in condition.bounds])
    count, text = reader.execute(
        "SELECT count(*), group_concat(key, ' ') FILTER (WHERE key > ?) "
        f"FROM ({sql} {tests} LIMIT ?)",
        (after, *parameters, *bounds, limit + 1),
    ).get
    if count > limit:
        return scan_keys(reader, condition, after=after)
    return distinct(_numbers(text))


def scan_keys(reader: apsw.Connection, condition: Condition, *, after: int) -> NDArray[np.int64]:
    """Return what ``condition_keys`` does, by reading every item above ``after``."""
    sql, parameters = filter_sql(Filter(must=(condition,)))
    found = keys_of(reader, f"SELECT key FROM items WHERE key > ? AND {sql}", (after, *parameters))
    return distinct(found)


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
        entries = _entries(condition.key, kind)
        if entries is not None:
            sql, column, parameters = entries
            marks = ", ".join("?" * len(values))
            sql = f"{sql} {column} IN ({marks}) AND key > ?"
            found.append(keys_of(reader, sql, (*parameters, *values, after)))
    return np.concatenate(found)


def _entries(key: str, kind: int) -> tuple[str, str, list[Value]] | None:
    """Return the start of a query for index entries, their value's column, and parameters.

    ``None`` when there can be none: a label is text.
    """
    if key != LABEL_KEY:
        return "SELECT key FROM terms WHERE name = ? AND kind = ? AND", "value", [key, kind]
    return ("SELECT key FROM items WHERE", "label", []) if kind == TEXT else None


def _numbers(text: str | None) -> NDArray[np.int64]:
    return np.empty(0, np.int64) if text is None else np.fromstring(text, np.int64, sep=" ")


def distinct(keys_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``keys_N`` increasing and distinct; np.unique would take ten times as long."""
    if np.all(keys_N[1:] > keys_N[:-1]):
        return keys_N
    sorted_N = np.sort(keys_N, kind="stable")  # which makes short work of sorted parts
    first_N = np.ones(len(sorted_N), np.bool_)
    np.not_equal(sorted_N[1:], sorted_N[:-1], out=first_N[1:])
    distinct_N: NDArray[np.int64] = sorted_N[first_N]
    return distinct_N
