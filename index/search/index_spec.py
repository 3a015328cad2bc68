"""What a search index is made of and how hard it looks: described, saved, and shown.

The ladder, from measurements (docs/decisions/0009-search-ANN indexes.md): exact below some 20,000
rows; then inverted lists of bytes, a graph on bytes where the rows have no clusters, and inverted
lists of 4-bit codes where a million rows and more should take little memory. Each is refined with
exact distances, and which one it is to be is measured.
"""

from dataclasses import asdict, dataclass, replace
from math import log2, sqrt
from typing import Any, Final, Literal, Self

_NOT_STORED: Final = ("scalar_quantizer", "search_depth")  # under these names
_QUANTIZED_PREFIX: Final = "Bytes,"  # of descriptions whose rows become bytes
Kind = Literal["exact", "lists", "graph", "quantized"]

EXACT_ROWS: Final = 20_000  # below it, a scan of everything answers within about a millisecond
LINKS: Final = 24  # per graph node and layer; twice as many on the lowest
CONSTRUCTION: Final = 120  # candidates looked at while a graph is built (efConstruction)
LISTS_PER_ROOT: Final = 2.0  # inverted lists per square root of the rows; the nearest power of two
WIDE: Final = 160  # numbers per vector from which codes of fewer principal components pay
COMPONENTS: Final = 128  # that are kept of wide vectors before they become 4-bit codes
RECALL: Final = 0.99  # what is aimed at when nobody asked for more
EASY_SEARCH_DEPTH: Final = {
    "lists": 32,
    "graph": 128,
    "quantized": 32,
}  # up to it, nothing else is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpec:
    """How an ANN index is built and searched, and how good that was measured to be."""

    kind: Kind
    factory: str = ""  # FAISS's description of what stands before the exact refinement
    scalar_quantizer: bool = False  # whether rows are rotated and become bytes before that
    construction: int = 0  # graph: efConstruction
    search_depth: int = 0  # graph: candidates kept (efSearch); lists visited (nprobe) else
    k_factor: float = 0.0  # candidates per hit that are refined; 0: as measurements say
    recall: float | None = (
        None  # measured recall@10 on held-out rows, as they are or moved a little
    )
    recall_low: float | None = None  # with 95 % confidence it is no lower, and
    recall_high: float | None = None  # with 95 % confidence no higher
    queries: int = 0  # that it was measured with; 0: not measured, or by a version that did not say
    microseconds: float | None = None  # measured per query, one by one, on one thread
    recall_target: float = RECALL
    floors: tuple[float, ...] = ()  # scores of the 1st, 2nd, ... hit below which it looks harder
    note: str = ""  # what a person should know about how it was chosen, a sentence

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON, in the words that stored galleries have used since 0.4."""
        stored = asdict(self) | {"factory": self.description, "effort": self.search_depth}
        return {name: stored[name] for name in stored if name not in _NOT_STORED}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the spec that ``to_json`` described.

        Raises:
            TypeError: unknown members, or none for ``kind``.
        """
        fields = {**value, "floors": tuple(value.get("floors", ()))}
        factory = fields.pop("factory", "")
        search_depth = fields.pop("effort", 0)
        return cls(
            **fields,
            search_depth=search_depth,
            factory=factory.removeprefix(_QUANTIZED_PREFIX),
            scalar_quantizer=factory.startswith(_QUANTIZED_PREFIX),
        )

    @property
    def description(self) -> str:
        """The whole index in one line, as it is stored and shown."""
        return f"{_QUANTIZED_PREFIX if self.scalar_quantizer else ''}{self.factory}"


EXACT: Final = IndexSpec(kind="exact", recall=1.0, recall_low=1.0, recall_high=1.0)
OUTDATED: Final = replace(  # instead of one that was built without looking for what it misses
    EXACT,
    note="every search looks at every item: an older version built the structure, and did not look "
    "for the items that it misses; lookalike index rebuild builds it anew",
)


def candidate_specs(rows: int, width: int) -> list[IndexSpec]:
    """Return the ANN indexes worth trying for so many rows, the likeliest first."""
    if rows < EXACT_ROWS:
        return [EXACT]
    lists = 1 << round(log2(LISTS_PER_ROOT * sqrt(rows)))
    return [
        IndexSpec(kind="lists", factory=f"IVF{lists}", scalar_quantizer=True),
        IndexSpec(
            kind="graph", factory=f"HNSW{LINKS}", scalar_quantizer=True, construction=CONSTRUCTION
        ),
        IndexSpec(kind="quantized", factory=_quantized(lists, width)),
        EXACT,
    ]


def _quantized(lists: int, width: int) -> str:
    """Two numbers to a code of four bits, of an even number of them."""
    if width > WIDE:
        return f"PCA{COMPONENTS},IVF{lists},PQ{COMPONENTS // 2}x4fsr"
    even = f"PCA{width - 1}," if width % 2 else ""
    return f"{even}IVF{lists},PQ{width // 2}x4fsr"
