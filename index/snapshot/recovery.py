"""From the database, and a generation where one fits, to what is searched in memory.

The keys decide: a key stands for one vector for ever, so a base is right when it has every key that
is stored up to its last one. What it has beyond is dead, what is stored beyond its last key is new.

Shape suffixes: N items, D vector width.
"""

import logging
import zlib
from typing import Final

import apsw
import numpy as np
from numpy.typing import NDArray

from index.errors import GenerationError
from index.search.vectors import VECTOR_TYPE
from index.snapshot.segments.base_segment import Base
from index.snapshot.segments.generation_record import RECORD, recorded
from index.snapshot.segments.generations import Generations
from index.snapshot.snapshot import Live
from index.store.bulk_read import load_vectors
from index.store.condition_queries import keys_of
from index.store.schema import read_setting
from index.store.store import Store
from index.store.transaction import last_seq

SAMPLE: Final = 256  # vectors of a base that are compared with the database
SPARE_ROWS: Final = 1024  # room for what is stored next
logger = logging.getLogger("lookalike.index")


def load(store: Store, generations: Generations) -> Live:
    """Return everything stored, on the newest generation that can be used, or on none.

    Raises:
        GalleryFolderError: a vector is missing from the database, or not of the right width.
        StorageError: the database cannot be read.
    """
    for number in generations.known(store):
        try:
            base = generations.load(number, last_seq=store.last_seq())
            return load_on(store, base)
        except GenerationError as error:
            logger.warning("%s", error)
    return load_on(store, None)


def load_on(store: Store, base: Base | None) -> Live:
    """Return everything stored, of which ``base`` holds a part.

    Raises:
        GenerationError: ``base`` is not of what is stored.
        GalleryFolderError, StorageError: as ``load``.
    """
    with store.reading() as reader:
        seq = last_seq(reader)
        width = store.binding.width
        removed = np.empty(0, np.int64) if base is None else _gone(reader, base)
        keys_N, vectors_ND = load_vectors(
            reader, width=width, after=0 if base is None else base.last_key
        )
        live = Live(width, base=base, seq=seq, capacity=len(keys_N) + SPARE_ROWS)
        live.apply(seq=seq, keys_N=keys_N, vectors_ND=vectors_ND, removed=removed)
        return live


def _gone(reader: apsw.Connection, base: Base) -> NDArray[np.int64]:
    """Return the keys of ``base`` that are no longer stored, sorted: int64 (N,).

    Raises:
        GenerationError: the database does not know it, it lacks a key that is stored, or some
            vector of it is another one.
    """
    if (base.generation, base.seq) not in recorded(read_setting(reader, RECORD)):
        raise GenerationError(f"generation {base.generation} was not made of this database")
    stored_N = np.sort(keys_of(reader, "SELECT key FROM items WHERE key <= ?", (base.last_key,)))
    gone_N = np.setdiff1d(base.keys_N, stored_N, assume_unique=True)
    if len(stored_N) + len(gone_N) != len(base):
        raise GenerationError(f"generation {base.generation} lacks items that are stored")
    sample = stored_N[:: max(1, len(stored_N) // SAMPLE)]
    for key in sample.tolist():
        (row,) = base.rows_of(np.array([key]))
        crc32 = reader.execute("SELECT crc32 FROM vectors WHERE key = ?", (key,)).get
        if crc32 != zlib.crc32(base.matrix.rows_ND[row].astype(VECTOR_TYPE).tobytes()):
            raise GenerationError(f"generation {base.generation} holds another vector of {key}")
    return gone_N
