"""What a change expects to be stored under an id: without that it is not made, so none is lost."""

from dataclasses import dataclass
from typing import Final, Literal

Seqs = frozenset[int] | Literal["any"]


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must be there for a change to be made: RFC 9110, sections 13.1.1 and 13.1.2.

    Looked at inside the transaction that makes the change, so nobody comes between.
    """

    one_of: Seqs | None = None  # the item's seq is one of these; ``None``: whatever is there
    none_of: Seqs | None = None  # it is none of these; "any": there is no item

    def holds(self, seq: int | None) -> bool:
        """Whether the item of this ``seq`` is what was expected; ``None``: there is no item."""
        if self.one_of is not None and not _is_in(seq, self.one_of):
            return False
        return self.none_of is None or not _is_in(seq, self.none_of)


NO_PRECONDITION: Final = Precondition()


def _is_in(seq: int | None, seqs: Seqs) -> bool:
    return seq is not None and (seqs == "any" or seq in seqs)
