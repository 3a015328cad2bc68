"""The log of operations: read after a seq, and cut at its old end. Connections in, lines out.

Seqs have no gaps. The operations up to and including ``log_start`` have been cut; whoever has not
seen them must load the items instead of following the log.
"""

from dataclasses import dataclass
from typing import Final, Literal

import apsw
import numpy as np
from numpy.typing import NDArray

from index.errors import GalleryFolderError, LogCutError
from index.search.vectors import decode_vector
from index.store.transaction import last_seq

KEPT_ROWS: Final = 65_536  # operations; whoever slept through more loads the items anew
CUT_ROWS: Final = 4096  # operations cut in one transaction; writers wait for it for milliseconds


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the log."""

    seq: int
    kind: Literal["put", "delete"]
    key: int
    vector_D: NDArray[np.float32] | None  # of a put whose item is still there


def read_operations(
    reader: apsw.Connection, *, after: int, limit: int, width: int
) -> list[Operation]:
    """Return up to ``limit`` operations with seqs above ``after``, by seq.

    Raises:
        LogCutError: some of them have been cut.
        GalleryFolderError: a vector is not of the gallery's width.
    """
    start = log_start(reader)
    if after < start:
        raise LogCutError(f"the log begins after operation {start}; asked for those after {after}")
    sql = (
        "SELECT o.seq, o.kind, o.key, v.data FROM operations o "
        "LEFT JOIN vectors v ON o.kind = 'put' AND v.key = o.key "
        "WHERE o.seq > ? ORDER BY o.seq LIMIT ?"
    )
    return [
        Operation(seq, kind, key, None if data is None else decode_vector(data, width=width))
        for seq, kind, key, data in reader.execute(sql, (after, limit))
    ]


def log_start(connection: apsw.Connection) -> int:
    """Return the seq up to and including which operations have been cut, 0 before the first cut.

    Raises:
        GalleryFolderError: the database does not say.
    """
    start = connection.execute("SELECT value FROM meta WHERE name = 'log_start'").get
    try:
        return int(start)
    except (TypeError, ValueError) as error:
        raise GalleryFolderError(
            "the gallery is damaged: it does not say where its log begins"
        ) from error


def trim_log(writer: apsw.Connection, *, logged: int) -> None:
    """Cut what is older than the newest 65,536 operations, now and then and a part at a time.

    In the caller's transaction, which ``logged`` so many: more than that are cut.
    """
    keep_from = last_seq(writer) - KEPT_ROWS
    if keep_from - log_start(writer) >= CUT_ROWS:
        cut_operations(writer, up_to=keep_from, at_most=max(CUT_ROWS, 2 * logged))


def cut_operations(
    writer: apsw.Connection, *, up_to: int, at_most: int | None = None
) -> tuple[int, bool]:
    """Cut the oldest operations in the caller's transaction, none above ``up_to``.

    Of many 4096, or ``at_most``. Returns how many were cut, and whether more are left to cut.
    """
    start = log_start(writer)
    wanted = min(up_to, last_seq(writer))
    stop = min(wanted, start + (at_most or CUT_ROWS))
    if stop <= start:
        return 0, False
    writer.execute("DELETE FROM operations WHERE seq <= ?", (stop,))
    cut = writer.changes()
    writer.execute("UPDATE meta SET value = ? WHERE name = 'log_start'", (str(stop),))
    return cut, stop < wanted
