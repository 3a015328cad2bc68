"""What a build or an import did: counts of items by what became of them, and what was refused."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from dataset.findings import Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did."""

    added: int
    replaced: int
    unchanged: int  # stored already as they should be, edits included
    refused: list[tuple[str, str]]  # (id, why), in the order of the entries
    count: int  # images in the gallery now
    seconds: float
    kept: int = 0  # of all entries: whose edits were kept
    stale: int = 0  # built from this source before, no longer in it, and still stored
    pruned: int = 0  # likewise, and deleted
    # Of how many stored items an import did not have a part, which stayed as it was.
    left_as_stored: dict[str, int] = field(default_factory=dict)
    refused_rows: list[int] = field(default_factory=list)  # of an import: the row of each refused

    @classmethod
    def from_outcomes(
        cls,
        outcomes: Counter[str],
        refused: list[tuple[str, str]],
        *,
        count: int,
        started: float,
    ) -> Self:
        """Return the report of a build or an import that is done.

        Args:
            outcomes: how many items had which outcome.
            refused: id and reason, in the order of the entries.
            count: images in the gallery now.
            started: when the work began, by ``time.perf_counter``.
        """
        return cls(
            added=outcomes["created"],
            replaced=outcomes["replaced"],
            unchanged=outcomes["unchanged"],
            refused=refused,
            count=count,
            seconds=time.perf_counter() - started,
            kept=outcomes["kept"],
            stale=outcomes["stale"],
            pruned=outcomes["pruned"],
        )

    @property
    def images_per_second(self) -> float:
        """Images dealt with, refused and unchanged ones included."""
        done = self.added + self.replaced + self.unchanged + len(self.refused)
        return done / self.seconds if self.seconds else 0.0

    @property
    def reasons(self) -> Findings:
        """Why images were refused, each reason once: those that differ in numbers alone are one."""
        findings = Findings()
        findings.add_similar((reason, item_id) for item_id, reason in self.refused)
        return findings
