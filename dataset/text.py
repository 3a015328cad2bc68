"""Text from names and cells: which characters of it nobody can write down, and a form to show."""

import re
from typing import Final

CONTROL: Final = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # and bytes that are not UTF-8


def printable(text: str) -> str:
    """Return ``text`` with U+FFFD for control characters and bytes that are not UTF-8."""
    return CONTROL.sub("\ufffd", text)
