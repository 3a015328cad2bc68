"""Figures that were asked for beside those that were measured, as a table."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine import commit, describe_machine


@dataclass(frozen=True)
class Target:
    """One target: what it is, its unit, what is asked and what was measured."""

    name: str
    unit: str
    measured: float
    at_most: float = math.inf
    at_least: float = -math.inf

    @property
    def holds(self) -> bool:
        """What was measured is a number, and as asked."""
        return self.at_least <= self.measured <= self.at_most

    def row(self) -> str:
        """Return a row of the table; a target of which nothing is asked is there to be read."""
        asked = ""
        if self.at_most < math.inf:
            asked = f"≤ {self.at_most:.4g} {self.unit}"
        if self.at_least > -math.inf:
            asked = f"≥ {self.at_least:.4g} {self.unit}"
        mark = "" if self.holds else " **missed**"
        return f"| {self.name} | {asked} | {self.measured:.4g} {self.unit}{mark} |"


def print_table(title: str, targets: Sequence[Target]) -> None:
    """Write the table as Markdown, for benchmarks/RESULTS.md; `pytest -rA` shows it."""
    rows = "\n".join(target.row() for target in targets)
    sys.stdout.write(
        f"\n{title} ({describe_machine()}; commit {commit()})\n\n"
        f"| figure | asked | measured |\n|---|---|---|\n{rows}\n\n"
    )


def missed(targets: Sequence[Target]) -> list[str]:
    """Return the rows of the targets that do not hold."""
    return [target.row() for target in targets if not target.holds]
