"""Texts and settings in, Markdown that shows them as they are out.

Names of classes and data are other people's input: all text is escaped.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from training.formatting import count

# Everything that Markdown may read as more than text, but for what only counts where a line begins.
SPECIAL: Final = re.compile(r"([\\`*_{}\[\]|#~!$@]|(?<=:)//|(?<=www)\.)")


def plain(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, within a line.

    >>> plain("T-shirt/top"), plain("<b>|*x*")
    ('T-shirt/top', '&lt;b&gt;\\\\|\\\\*x\\\\*')
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    entities = printable.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", entities)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table, its cells shown as they are."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(plain(said(cell)) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the settings without nesting: ``preprocessing.size`` instead."""
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def said(value: object) -> str:
    """Return a setting as people write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(said(part) for part in value)
    return str(value)
