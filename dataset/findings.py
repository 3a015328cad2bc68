"""What was skipped, merged or guessed in a source: counts by reason, with a few examples."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dataset.text import printable

_NUMBER: Final = re.compile(r"[0-9][0-9,.]*")
EXAMPLES: Final = 3  # kept of each reason; the rest is counted


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason, how often it was met, and the first few that met it."""

    reason: str
    count: int
    examples: tuple[str, ...]


class Findings:
    """A collection of findings by reason, in the order in which the reasons were first met.

    >>> findings = Findings()
    >>> for number in range(4):
    ...     findings.add("hidden", f".{number}")
    >>> list(findings)
    [Finding(reason='hidden', count=4, examples=('.0', '.1', '.2'))]
    """

    def __init__(self) -> None:
        self._by_reason: dict[str, Finding] = {}

    def __iter__(self) -> Iterator[Finding]:
        return iter(tuple(self._by_reason.values()))

    def __len__(self) -> int:
        return len(self._by_reason)

    def add(self, reason: str, example: str) -> None:
        """Count ``example`` under ``reason``, both as they can be shown."""
        self._merge(Finding(printable(reason), 1, (printable(example),)))

    def extend(self, other: Iterable[Finding]) -> None:
        """Count all that ``other`` has found, too."""
        for finding in other:
            self._merge(finding)

    def add_similar(self, reasons: Iterable[tuple[str, str]]) -> None:
        """Count (reason, example); reasons that differ in numbers alone are one, as it came first.

        >>> findings = Findings()
        >>> findings.add_similar([("has 900 pixels", "a.png"), ("has 8,000 pixels", "b.png")])
        >>> list(findings)
        [Finding(reason='has 900 pixels', count=2, examples=('a.png', 'b.png'))]
        """
        first: dict[str, str] = {}
        for reason, example in reasons:
            self.add(first.setdefault(_NUMBER.sub("0", reason), reason), example)

    def in_words(self) -> str:
        """Return the findings as the end of a sentence; empty where there are none.

        >>> findings = Findings()
        >>> findings.add("a hidden file", ".a.png")
        >>> findings.in_words()
        ' (found: a hidden file, 1 time, such as .a.png)'
        """
        sentences = [
            f"{one.reason}, {one.count} {'time' if one.count == 1 else 'times'}, such as "
            f"{one.examples[0]}"
            for one in self.most_frequent_first()
        ]
        return f" (found: {'; '.join(sentences)})" if sentences else ""

    def to_json(self) -> list[dict[str, Any]]:
        """Return the findings as JSON values, those with the most first; ties in order."""
        return [
            {"reason": one.reason, "count": one.count, "examples": list(one.examples)}
            for one in self.most_frequent_first()
        ]

    def most_frequent_first(self) -> list[Finding]:
        """Return the findings, those that were met most often first; ties in order."""
        return sorted(self, key=lambda one: -one.count)

    def _merge(self, new: Finding) -> None:
        old = self._by_reason.get(new.reason, Finding(new.reason, 0, ()))
        self._by_reason[new.reason] = Finding(
            new.reason, old.count + new.count, (old.examples + new.examples)[:EXAMPLES]
        )
