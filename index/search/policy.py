"""When a gallery's ANN index is used, and when it is built anew: thresholds in one object."""

from dataclasses import dataclass
from typing import Final

from index.search.index_spec import EXACT_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPolicy:
    """How a gallery is searched and kept up. The defaults were measured."""

    # A filtered search scans the rows that pass instead of asking the ANN index when these are at
    # most so many numbers (rows x width, read in about a millisecond), or a smaller share than this
    # of all rows, among which a graph loses its way.
    scan_numbers: int = 5_000_000
    scan_share: float = 0.02
    # The first ANN index is built from so many rows on.
    min_indexed_rows: int = EXACT_ROWS
    # It is built anew when more rows are pending, stored since and scanned, than ``pending_rows``
    # (always quick to scan) and than this share of the indexed ones; or as many were deleted.
    pending_rows: int = 4_096
    pending_share: float = 0.05
    tombstone_share: float = 0.1
    # Seconds between two looks in the background; until the next try while another process
    # rebuilds; and after a rebuild that failed, or a generation that was refused.
    check_period_s: float = 1.0
    busy_retry_s: float = 5.0
    failure_retry_s: float = 60.0


DEFAULT_POLICY: Final = SearchPolicy()
