"""Which items belong together: a key of label, metadata or content in, a number per item out.

An item's group is the one text, number or boolean that it has under the key. An item without one,
or with a list of several, is a group of its own. Values are distinguished as in filters: text is
never a number, and 1 is 1.0.

Shape suffixes: N items with a group, S items that are asked about.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import apsw
import numpy as np
from numpy.typing import NDArray

from index.errors import GalleryFolderError, GroupKeyError
from index.items.filter import Key, parse_key
from index.items.item import is_text, quoted
from index.items.metadata_index import OTHER, TEXT, metadata_entries
from index.store.condition_queries import METADATA_INDEX_VERSION

GROUP_KEY: Final = "group"  # the metadata member that says which thing a photo shows
CONTENT: Final = Key("content_sha256", column=True)  # copies have it in common
MAX_KEY_CHARS: Final = 1_024
MAX_BYTES: Final = 64 * 2**20  # of remembered groups, over all keys: four keys of a million items
# Up to so many new items are read one by one, 4 microseconds each, instead of a key's whole index.
FEW: Final = 10_000

_Valued = tuple[int, str | int | float, str, int]  # kind, value, keys as text, how many they are


def group_key(name: str) -> Key:
    """Return what ``label``, or the name of a metadata member as filters write it, groups by.

    Raises:
        GroupKeyError: no name, one that is too long, or ``id``, which no two items share.
    """
    if not 1 <= len(name) <= MAX_KEY_CHARS or not is_text(name):
        raise GroupKeyError(f"a key to group by has 1 to {MAX_KEY_CHARS} characters of text")
    key = parse_key(name)
    if key.column and key.name != "label":
        raise GroupKeyError(f"no two items share their {key.name}: it groups nothing")
    return key


class Groups:
    """The group of every item up to a key, as a number. Never changes."""

    def __init__(self, keys_N: NDArray[np.int64], codes_N: NDArray[np.int64], *, to: int) -> None:
        self._keys_N = keys_N  # sorted and distinct; items of a group of their own are missing
        self._codes_N = codes_N  # at least 0
        self.evaluated_to = to

    def __len__(self) -> int:
        return len(self._keys_N)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._keys_N.nbytes + self._codes_N.nbytes

    def of(self, keys_S: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the groups of some keys; below 0 are those of a single item."""
        if not len(self._keys_N):
            return -1 - keys_S
        places = np.minimum(np.searchsorted(self._keys_N, keys_S), len(self._keys_N) - 1)
        codes: NDArray[np.int64] = np.where(
            self._keys_N[places] == keys_S, self._codes_N[places], -1 - keys_S
        )
        return codes

    def extended(self, more: "Groups") -> "Groups":
        """Return these groups and those of later keys."""
        keys_N = np.concatenate([self._keys_N, more._keys_N])
        codes_N = np.concatenate([self._codes_N, more._codes_N])
        return Groups(keys_N, codes_N, to=more.evaluated_to)


class GroupCache:
    """Remembers the groups of the keys that were asked for last, and reads what came since.

    For any number of threads. The first question about a key costs about a second per million items
    that have it, and only that one.
    """

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[apsw.Connection]],
        *,
        stored: Callable[[], int],
    ) -> None:
        self._reading = reading
        self._stored = stored  # how many items there are
        self._lock = threading.Lock()  # so that no two threads read the same
        self._known: OrderedDict[Key, Groups] = OrderedDict()

    def of(self, key: Key, *, up_to: int) -> Groups:
        """Return the groups by ``key`` of all items up to the key ``up_to``.

        Raises:
            StorageError, GalleryFolderError: the database cannot be read, or is damaged.
        """
        known = self._known.get(key)
        if known is not None and known.evaluated_to >= up_to:
            return known
        with self._lock:
            known = self._known.pop(key, None)
            if known is None or len(known) > 2 * self._stored() + FEW:  # most of them are gone
                known = Groups(np.empty(0, np.int64), np.empty(0, np.int64), to=0)
            if known.evaluated_to < up_to:
                with self._reading() as reader:
                    known = known.extended(read_groups(reader, key, after=known.evaluated_to))
            self._known[key] = known  # the latest used comes last
            size = sum(groups.nbytes for groups in self._known.values())
            while len(self._known) > 1 and size > MAX_BYTES:
                size -= self._known.popitem(last=False)[1].nbytes
        return known


def group_code(kind: int, value: str | int | float) -> int:
    """Return the number of a group: 63 bits, another one in every process.

    Python's hash of text is keyed, so that nobody can make two values meet; by chance two of a
    million do so once in 10 million galleries.
    """
    if not isinstance(value, str) and value == int(value):
        value = int(value)  # 1, 1.0 and, as SQLite has it, true
    return hash(f"{kind} {value!r}") & (2**63 - 1)


def read_groups(reader: apsw.Connection, key: Key, *, after: int) -> Groups:
    """Return the groups of all items above the key ``after``."""
    newest = reader.execute("SELECT max(key) FROM items").get or 0
    texts, counts, codes = [], [], []
    for kind, value, text, count in _read_values(reader, key, after, newest):
        texts.append(text)
        counts.append(count)
        codes.append(group_code(kind, value))
    keys_N = np.fromstring(" ".join(texts), np.int64, sep=" ") if texts else np.empty(0, np.int64)
    codes_N = np.repeat(np.array(codes, np.int64), np.array(counts, np.int64))
    order_N = np.argsort(keys_N, kind="stable")
    keys_N, codes_N = keys_N[order_N], codes_N[order_N]
    same_N = keys_N[1:] == keys_N[:-1]
    alone_N = np.ones(len(keys_N), np.bool_)  # has one value only
    alone_N[1:] &= ~same_N
    alone_N[:-1] &= ~same_N
    chosen_N = alone_N & (keys_N > after)
    return Groups(keys_N[chosen_N], codes_N[chosen_N], to=max(newest, after))


def _read_values(reader: apsw.Connection, key: Key, after: int, newest: int) -> Iterable[_Valued]:
    """Return the values under ``key`` and who has them: of items above ``after``, perhaps more."""
    if key == CONTENT:
        sql = "SELECT ?, content_sha256, CAST(key AS TEXT), 1 FROM items WHERE key > ?"
        return reader.execute(sql, (TEXT, after))
    if key.column:
        sql = (
            "SELECT ?, label, group_concat(key, ' '), count(*) FROM items "
            "WHERE label IS NOT NULL AND key > ? GROUP BY label"
        )
        return reader.execute(sql, (TEXT, after))
    if newest - after <= FEW or reader.pragma("user_version") < METADATA_INDEX_VERSION:
        return _read_one_by_one(reader, key, after)
    sql = (
        "SELECT kind, value, group_concat(key, ' '), count(*) FROM terms "
        "WHERE name = ? AND kind < ? GROUP BY kind, value"
    )
    return reader.execute(sql, (key.name, OTHER))


def _read_one_by_one(reader: apsw.Connection, key: Key, after: int) -> Iterator[_Valued]:
    sql = "SELECT key, id, metadata FROM items WHERE key > ?"
    for item_key, item_id, metadata in reader.execute(sql, (after,)):
        try:
            entries = metadata_entries(metadata)
        except ValueError as error:
            sentence = f"the metadata of item {quoted(item_id)} is damaged"
            raise GalleryFolderError(sentence) from error
        for name, kind, value in entries:
            if name == key.name and kind < OTHER:
                yield kind, value, str(item_key), 1
