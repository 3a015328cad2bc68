"""JSON that cannot be changed unnoticed: fields in, one text with its own SHA-256 out.

Equal fields always give the same text, so that a changed byte anywhere is noticed. Each kind of
document keeps the layout it began with, so that all that were ever written can be read.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

Layout = Callable[[dict[str, Any]], bytes]


def in_order(fields: dict[str, Any]) -> bytes:
    """Return the text of ``fields`` in their own order: manifests of models and exports."""
    text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def by_name(fields: dict[str, Any]) -> bytes:
    """Return the text of ``fields`` sorted by name: checkpoints, generations of a gallery."""
    return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False).encode()


def in_one_line(fields: dict[str, Any]) -> bytes:
    """Return the text of ``fields`` sorted by name, in one line: for a checksum."""
    return json.dumps(fields, sort_keys=True).encode()


def checksum(fields: dict[str, Any], layout: Layout) -> str:
    """Return the SHA-256 (hexadecimal) of the text of ``fields``."""
    return hashlib.sha256(layout(fields)).hexdigest()


def with_checksum(fields: dict[str, Any], layout: Layout, *, name: str) -> bytes:
    """Return the text of ``fields`` and of their checksum, in a field called ``name``."""
    return layout({**fields, name: checksum(fields, layout)})
