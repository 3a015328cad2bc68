"""What a search structure is made of and how hard it looks: described, saved, and shown.

The ladder, from measurements (docs/decisions/0008-search-structures.md): exact below some 20,000
rows; a graph on 8-bit codes while it can be built in minutes; inverted lists of 4-bit codes beyond.
"""

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Final, Literal, Self

Kind = Literal["exact", "graph", "quantized"]

EXACT_ROWS: Final = 20_000  # below it, a scan of everything answers within about a millisecond
GRAPH_ROWS: Final = 500_000  # above it, lists are tried first: a graph takes minutes to build
WIDE: Final = 160  # numbers per vector from which fewer principal components pay
COMPONENTS: Final = 128  # principal components kept of wide vectors
LINKS: Final = 24  # per graph node and layer; twice as many on the lowest
CONSTRUCTION: Final = 120  # candidates looked at while a graph is built (efConstruction)
LISTS_PER_ROOT: Final = 1.0  # inverted lists per square root of the rows
RECALL: Final = 0.99  # what is aimed at when nobody asked for more


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a structure is built and searched, and how good that was measured to be."""

    kind: Kind
    factory: str = ""  # FAISS's description of what stands before the exact refinement
    construction: int = 0  # graph: efConstruction
    effort: int = 0  # graph: candidates kept (efSearch); quantized: lists visited (nprobe)
    k_factor: float = 0.0  # candidates per hit that are refined with exact distances
    recall: float | None = None  # measured recall@10 on held-out rows
    microseconds: float | None = None  # measured per query, one by one, on one thread
    recall_target: float = RECALL

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the plan that ``to_json`` described.

        Raises:
            TypeError: unknown members, or none for ``kind``.
        """
        return cls(**value)


EXACT: Final = Plan(kind="exact", recall=1.0)


def candidates(rows: int, width: int) -> list[Plan]:
    """Return the structures worth trying for so many rows, the likeliest first."""
    if rows < EXACT_ROWS:
        return [EXACT]
    graph = _graph(width)
    quantized = _quantized(rows, width)
    return [graph, quantized, EXACT] if rows < GRAPH_ROWS else [quantized, graph, EXACT]


def _graph(width: int) -> Plan:
    components = f"PCA{COMPONENTS}," if width > WIDE else ""
    return Plan(
        kind="graph", factory=f"{components}HNSW{LINKS}_SQ8", construction=CONSTRUCTION, k_factor=4
    )


def _quantized(rows: int, width: int) -> Plan:
    components = f"PCA{COMPONENTS}," if width > WIDE else ""
    coded = (COMPONENTS if components else width) // 2  # two numbers to a code of four bits
    lists = 1 << round(LISTS_PER_ROOT * sqrt(rows)).bit_length() - 1
    padded = "" if components or width % 2 == 0 else f"PCA{width - 1},"
    factory = f"{components}{padded}IVF{lists},PQ{coded}x4fsr"
    return Plan(kind="quantized", factory=factory, k_factor=8)
