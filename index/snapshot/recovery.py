"""From the database, and a generation where one fits, to what is searched in memory.

The keys decide: a key stands for one vector for ever, so a segment is right when it has every key
that is stored up to its last one. What it has beyond is tombstoned, what is stored beyond its last
key is new.

Shape suffixes: N items, D vector width.
"""

import logging
import zlib
from typing import Final

import apsw
import numpy as np
from numpy.typing import NDArray

from index.errors import GenerationError
from index.search.policy import DEFAULT_POLICY, SearchPolicy
from index.search.vectors import VECTOR_TYPE
from index.snapshot.segments.generation_record import RECORD, recorded
from index.snapshot.segments.generations import Generations
from index.snapshot.segments.immutable_segment import ImmutableSegment
from index.snapshot.snapshot import SnapshotWriter
from index.store.bulk_read import load_vectors
from index.store.condition_queries import keys_of
from index.store.schema import read_setting
from index.store.store import Store
from index.store.transaction import last_seq

SAMPLE: Final = 256  # vectors of a segment that are compared with the database
SPARE_ROWS: Final = 1024  # room for what is stored next
logger = logging.getLogger("lookalike.index")


def load(
    store: Store, generations: Generations, policy: SearchPolicy = DEFAULT_POLICY
) -> SnapshotWriter:
    """Return everything stored, on the newest generation that can be used, or on none.

    Raises:
        GalleryFolderError: a vector is missing from the database, or not of the right width.
        StorageError: the database cannot be read.
    """
    for number in generations.known(store):
        try:
            segment = generations.load(number, last_seq=store.last_seq())
            return load_on(store, segment, policy)
        except GenerationError as error:
            logger.warning("%s", error)
    return load_on(store, None, policy)


def load_on(
    store: Store, segment: ImmutableSegment | None, policy: SearchPolicy = DEFAULT_POLICY
) -> SnapshotWriter:
    """Return everything stored, of which ``segment`` holds a part.

    Raises:
        GenerationError: ``segment`` is not of what is stored.
        GalleryFolderError, StorageError: as ``load``.
    """
    with store.reading() as reader:
        seq = last_seq(reader)
        width = store.binding.width
        removed = np.empty(0, np.int64) if segment is None else _gone(reader, segment)
        keys_N, vectors_ND = load_vectors(
            reader, width=width, after=0 if segment is None else segment.last_key
        )
        writer = SnapshotWriter(
            width, segment=segment, seq=seq, capacity=len(keys_N) + SPARE_ROWS, policy=policy
        )
        writer.apply(seq=seq, keys_N=keys_N, vectors_ND=vectors_ND, removed=removed)
        return writer


def _gone(reader: apsw.Connection, segment: ImmutableSegment) -> NDArray[np.int64]:
    """Return the keys of ``segment`` that are no longer stored, sorted: int64 (N,).

    Raises:
        GenerationError: the database does not know it, it lacks a key that is stored, or some
            vector of it is another one.
    """
    if (segment.generation, segment.seq) not in recorded(read_setting(reader, RECORD)):
        raise GenerationError(f"generation {segment.generation} was not made of this database")
    stored_N = np.sort(keys_of(reader, "SELECT key FROM items WHERE key <= ?", (segment.last_key,)))
    gone_N = np.setdiff1d(segment.keys_N, stored_N, assume_unique=True)
    if len(stored_N) + len(gone_N) != len(segment):
        raise GenerationError(f"generation {segment.generation} lacks items that are stored")
    sample = stored_N[:: max(1, len(stored_N) // SAMPLE)]
    for key in sample.tolist():
        (row,) = segment.rows_of(np.array([key]))
        crc32 = reader.execute("SELECT crc32 FROM vectors WHERE key = ?", (key,)).get
        if crc32 != zlib.crc32(segment.matrix.rows_ND[row].astype(VECTOR_TYPE).tobytes()):
            raise GenerationError(f"generation {segment.generation} holds another vector of {key}")
    return gone_N
