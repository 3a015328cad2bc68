"""When a gallery's ANN index is used, and when it is built anew: thresholds in one object."""

from dataclasses import dataclass

from index.search.index_spec import EXACT_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPolicy:
    """How a gallery is searched and kept up; the defaults are measured, and meant for everybody."""

    # Rows are scanned rather than searched for by the ANN index, when a filter leaves
    scan_numbers: int = 5_000_000  # rows x width or fewer: a scan reads them in a millisecond,
    scan_share: float = 0.02  # or a smaller share of the rows: a graph loses its way among them.
    # A rebuild pays, where there is no ANN index, from
    min_indexed_rows: int = EXACT_ROWS  # on; else, when more rows
    pending_rows: int = 4_096  # than these, which are always quick enough to scan,
    pending_share: float = 0.05  # and than this share of the indexed rows were stored since,
    tombstone_share: float = 0.1  # or more than this share of them were deleted.
    # In the background
    check_period_s: float = 1.0  # passes between two looks,
    busy_retry_s: float = 5.0  # until the next try while another process rebuilds,
    failure_retry_s: float = 60.0  # and after a rebuild that failed, or a generation refused.


DEFAULT_POLICY = SearchPolicy()
