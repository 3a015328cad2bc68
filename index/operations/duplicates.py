"""Items that are the same, or nearly: a gallery in, groups of ids out; nothing is changed.

Shape suffixes: N items, U different vectors, B rows of a batch, D vector width.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.gallery import Gallery
from index.operations.connected_components import (
    ConnectedComponents,
    connect_near,
    estimate_all_pairs_s,
)
from index.search.vectors import decode_vector
from index.store.bulk_read import load_vectors
from index.store.condition_queries import same_content
from index.store.schema import DATABASE_NAME
from index.store.sqlite.database import Database
from index.store.transaction import last_seq

PAIRED_ROWS: Final = 150_000  # up to here all pairs are looked at: half a minute on two cores
FIRST_K: Final = 16  # neighbours asked for at first, where not all pairs are looked at
GROWTH: Final = 8
QUERIES: Final = 1_024  # in one search
HITS: Final = 65_536  # in one search
GRACE_S: Final = 2.0  # that asking for neighbours may be behind before all pairs are looked at
SCORED_ROWS: Final = 4_096  # of a group, at a time


@dataclass(frozen=True, slots=True)
class DuplicateItem:
    """One item of a group."""

    id: str
    score: float  # cosine to the group's first


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of two or more, the largest first, then the one with the oldest item.

    The first of a group is its oldest; the others follow by their score to it. Near duplicates are
    linked through one another (A like B, B like C): the end of a long chain may score less to the
    first than what was asked for.
    """

    exact: list[list[DuplicateItem]]  # one content, byte for byte
    near: list[list[DuplicateItem]]  # linked by scores of at least ``min_score``, or identical
    min_score: float
    complete: bool  # whether all pairs were looked at, or what the search structure finds
    seq: int  # as of this operation


def find_duplicates(
    gallery: Gallery, *, min_score: float, on_progress: Callable[[float], None]
) -> Duplicates:
    """Return the items that share a content, and those whose vectors are near one another.

    All pairs are looked at in blocks: nothing is missed, and beside the vectors the memory is
    bounded. In galleries with a search structure and more than 150,000 items each item's neighbours
    are asked for instead, more and more while all of them score enough; then the structure's recall
    is the share of the links that is found. Where items crowd so much that this turns out slower
    than all pairs, all pairs are looked at. Vectors with the same bytes are always linked.

    Args:
        gallery: others may write to it meanwhile.
        min_score: cosine in [-1, 1] from which two items are linked.
        on_progress: called with the share of the work that is done, in [0, 1], several times a
            second; what it raises ends the work.

    Raises:
        ValueError: ``min_score`` is not in [-1, 1].
        StorageError, GalleryFolderError: the database cannot be read, or is damaged.
    """
    if not -1 <= min_score <= 1:
        raise ValueError(f"min_score must be in [-1, 1], got {min_score}")
    info = gallery.info()
    with closing(_Items(gallery)) as items:
        components, done = ConnectedComponents(len(items.ids)), 0.0
        if info.structure != "exact" and info.count > PAIRED_ROWS:
            done = _connect_neighbours(gallery, items, components, min_score, on_progress)
        complete = done < 1
        if complete:
            _connect_all_pairs(
                items, components, min_score, lambda more: on_progress(done + (1 - done) * more)
            )
        found = Duplicates(
            exact=items.groups_of(items.same),
            near=items.groups_of(components.groups()),
            min_score=min_score,
            complete=complete,
            seq=items.seq,
        )
    on_progress(1.0)
    return found


def find_same_content(gallery: Gallery) -> list[list[DuplicateItem]]:
    """Return only what ``Duplicates.exact`` holds, without comparing vectors."""
    with closing(_Items(gallery)) as items:
        return items.groups_of(items.same)


class _Items:
    """The ids of a gallery at one moment, oldest first; their vectors are read when asked for."""

    def __init__(self, gallery: Gallery) -> None:
        self.width = gallery.binding.width
        self._database = Database(gallery.folder / DATABASE_NAME)
        try:
            with self._database.reading() as reader:
                self.seq = last_seq(reader)
                named = reader.execute("SELECT key, id FROM items ORDER BY key").fetchall()
                same = same_content(reader)
        except BaseException:
            self._database.close()
            raise
        self.keys_N = np.array([key for key, _ in named], np.int64)
        self.ids = [str(item_id) for _, item_id in named]
        self.row_of = {item_id: row for row, item_id in enumerate(self.ids)}
        self.same = [np.array([self.row_of[one] for one in group]) for group in same]

    def close(self) -> None:
        self._database.close()

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows that are still stored, and their vectors."""
        with self._database.reading() as reader:
            keys_N, vectors_ND = load_vectors(reader, width=self.width)
        known = np.isin(keys_N, self.keys_N)
        return np.searchsorted(self.keys_N, keys_N[known]), vectors_ND[known]

    def some(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return those of ``rows`` that are still stored, and their vectors."""
        sql = "SELECT data FROM vectors WHERE key = ?"
        with self._database.reading() as reader:
            data = [reader.execute(sql, (key,)).get for key in self.keys_N[rows].tolist()]
        stored = [place for place, one in enumerate(data) if one is not None]
        vectors = [decode_vector(data[place], width=self.width) for place in stored]
        return rows[stored], np.array(vectors, np.float32).reshape(len(stored), self.width)

    def groups_of(self, groups: Sequence[NDArray[np.int64]]) -> list[list[DuplicateItem]]:
        """Return groups of rows as members, in the order that ``Duplicates`` promises."""
        made = [(rows, self._members(rows)) for rows in groups]
        made = [(rows, members) for rows, members in made if len(members) > 1]
        made.sort(key=lambda one: (-len(one[1]), int(one[0][0])))
        return [members for _, members in made]

    def _members(self, rows: NDArray[np.int64]) -> list[DuplicateItem]:
        members: list[DuplicateItem] = []
        first_D: NDArray[np.float64] | None = None
        for start in range(0, len(rows), SCORED_ROWS):
            stored, vectors_ND = self.some(rows[start : start + SCORED_ROWS])
            if not len(stored):
                continue
            if first_D is None:
                first_D = vectors_ND[0].astype(np.float64)
            scores = np.clip((vectors_ND * first_D).sum(axis=1), -1, 1).astype(np.float32)
            pairs = zip(stored.tolist(), scores.tolist(), strict=True)
            members += [DuplicateItem(self.ids[row], score) for row, score in pairs]
        return members[:1] + sorted(members[1:], key=lambda member: -member.score)


def _connect_all_pairs(
    items: _Items,
    components: ConnectedComponents,
    min_score: float,
    on_progress: Callable[[float], None],
) -> None:
    rows_N, vectors_ND = items.load()
    if not len(rows_N):
        return
    as_bytes_N = vectors_ND.view(np.dtype((np.void, vectors_ND.shape[1] * 4))).ravel()
    _, first_U, which_N = np.unique(as_bytes_N, return_index=True, return_inverse=True)
    components.add(rows_N, rows_N[first_U[which_N]])  # the same bytes: compared as one vector
    first_U = np.sort(first_U)
    vectors_UD = vectors_ND if len(first_U) == len(rows_N) else vectors_ND[first_U]
    connect_near(
        vectors_UD, rows_N[first_U], components, min_score=min_score, on_progress=on_progress
    )


def _connect_neighbours(
    gallery: Gallery,
    items: _Items,
    components: ConnectedComponents,
    min_score: float,
    on_progress: Callable[[float], None],
) -> float:
    """Return the share of the items that was asked for: less than 1 when all pairs are quicker."""
    count, began_s = len(items.ids), time.perf_counter()
    limit_s = estimate_all_pairs_s(count, items.width)
    for start in range(0, count, QUERIES):
        stop = min(start + QUERIES, count)
        rows_B, vectors_BD = items.some(np.arange(start, stop))
        k = FIRST_K
        while len(rows_B):
            full = []  # places whose k hits all score enough: there may be more
            at_once = max(1, HITS // k)
            for place in range(0, len(rows_B), at_once):
                on_progress(start / count)
                if time.perf_counter() - began_s > GRACE_S + limit_s * stop / count:
                    return start / count
                queries = slice(place, place + at_once)
                found = gallery.search(vectors_BD[queries], k=k, min_score=min_score).hits
                pairs = [
                    (row, items.row_of[hit.id])
                    for row, hits in zip(rows_B[queries].tolist(), found, strict=True)
                    for hit in hits
                    if hit.id in items.row_of
                ]
                one_P, other_P = np.array(pairs, np.int64).reshape(-1, 2).T
                components.add(one_P, other_P)
                full += [place + at for at, hits in enumerate(found) if len(hits) == k]
            rows_B, vectors_BD = rows_B[full], vectors_BD[full]
            k *= GROWTH
    on_progress(1.0)
    return 1.0
