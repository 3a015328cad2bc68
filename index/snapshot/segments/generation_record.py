"""What the database knows of the generations that were made of it: number and operation of each.

A generation counts from the moment the database knows it. One that it does not know was not
finished, or was made of writes which a restored backup has undone: other items may have its keys.
"""

import json
from collections.abc import Collection, Mapping
from typing import Final

from index.store.store import Store

RECORD: Final = "generations"  # the setting: [number, seq] of each


def known_numbers(store: Store) -> list[int]:
    """Return the numbers of the generations that the database knows, the newest last."""
    return [number for number, _ in recorded(store.setting(RECORD))]


def record(
    store: Store, number: int, seq: int, *, there: Collection[int], settings: Mapping[str, str]
) -> None:
    """Let the database know a generation, and forget those that are not ``there`` any more.

    Its number stays known for as long as no newer one is: numbers only grow. ``settings`` are
    remembered in the same transaction.

    Raises:
        ReadOnlyError, DiskFullError, StorageError: nothing was changed.
    """
    known = [pair for pair in recorded(store.setting(RECORD)) if pair[0] in there]
    store.set_settings({RECORD: json.dumps([*known, (number, seq)]), **settings})


def recorded(text: str | None) -> list[tuple[int, int]]:
    """Return number and seq of the generations that the record ``text`` tells of."""
    try:
        return [(int(number), int(seq)) for number, seq in json.loads(text or "[]")]
    except (ValueError, TypeError):  # damaged: all of them are made anew
        return []
