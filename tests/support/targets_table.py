"""Figures that were asked for beside those that were measured, as a table."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine import commit, describe_machine


@dataclass(frozen=True)
class Figure:
    """One figure: what it is, its unit, what is asked and what was measured."""

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
        """Return a row of the table; a figure of which nothing is asked is there to be read."""
        asked = ""
        if self.at_most < math.inf:
            asked = f"≤ {self.at_most:.4g} {self.unit}"
        if self.at_least > -math.inf:
            asked = f"≥ {self.at_least:.4g} {self.unit}"
        mark = "" if self.holds else " **missed**"
        return f"| {self.name} | {asked} | {self.measured:.4g} {self.unit}{mark} |"


def show(title: str, figures: Sequence[Figure]) -> None:
    """Write the table as Markdown, for benchmarks/RESULTS.md; `pytest -rA` shows it."""
    rows = "\n".join(figure.row() for figure in figures)
    sys.stdout.write(
        f"\n{title} ({describe_machine()}; commit {commit()})\n\n"
        f"| figure | asked | measured |\n|---|---|---|\n{rows}\n\n"
    )


def missed(figures: Sequence[Figure]) -> list[str]:
    """Return the rows of the figures that do not hold."""
    return [figure.row() for figure in figures if not figure.holds]
