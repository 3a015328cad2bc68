"""The manifest of a generation: what it says, sealed with a checksum of its own."""

import hashlib
import json
from typing import Any


def sealed(manifest: dict[str, Any]) -> bytes:
    """Return the file of a manifest."""
    text = json.dumps(manifest, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": seal}, sort_keys=True, indent=1).encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the manifest in a file.

    Raises:
        ValueError, KeyError, TypeError: it is not what was written.
    """
    document = json.loads(data)
    manifest: dict[str, Any] = document["manifest"]
    text = json.dumps(manifest, sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != document["sha256"]:
        raise ValueError("its manifest was changed")
    return manifest
