"""The vectors of a gallery into one array. A connection in, keys and vectors out.

Shape suffixes: N items, D vector width.
"""

import apsw
import numpy as np
from numpy.typing import NDArray

from index.search.vectors import VECTOR_TYPE, damaged_vector


def load_vectors(
    reader: apsw.Connection, *, width: int, after: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the keys above ``after`` (N,), increasing, and their vectors (N, width).

    Raises:
        GalleryFolderError: a vector is missing, or not of the gallery's width.
    """
    count = reader.execute("SELECT count(*) FROM items WHERE key > ?", (after,)).get
    keys_N = np.empty(count, np.int64)
    vectors_ND = np.empty((count, width), VECTOR_TYPE)
    row_bytes = width * VECTOR_TYPE.itemsize
    room = vectors_ND.reshape(-1).view(np.uint8).data
    row = start = 0
    sql = "SELECT key, data FROM vectors WHERE key > ? ORDER BY key"
    for key, data in reader.execute(sql, (after,)):
        if row == count or len(data) != row_bytes:
            raise damaged_vector(width)
        keys_N[row] = key
        room[start : start + row_bytes] = data
        row += 1
        start += row_bytes
    if row != count:
        raise damaged_vector(width)
    return keys_N, vectors_ND.astype(np.float32, copy=False)
