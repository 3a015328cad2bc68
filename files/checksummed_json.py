"""JSON that cannot be changed unseen: fields in, one canonical text with its own checksum out.

There is one way to write each document, so that one changed byte anywhere is told.
"""

import hashlib
import json
from typing import Any


def canonical(fields: dict[str, Any]) -> bytes:
    """Return the one text of ``fields``, in their order."""
    text = json.dumps(fields, indent=2, sort_keys=False, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def sealed(fields: dict[str, Any]) -> bytes:
    """Return the text of ``fields`` with its SHA-256 as the last field, ``manifest_sha256``."""
    checksum = hashlib.sha256(canonical(fields)).hexdigest()
    return canonical({**fields, "manifest_sha256": checksum})
