"""The manifest of a generation: what it says, with a checksum of its own."""

import json
from dataclasses import dataclass
from typing import Any

from files.checksummed_json import by_name, checksum, in_one_line


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rows a generation holds."""

    database_id: str
    fingerprint: str  # of the model
    width: int


def encode_manifest(manifest: dict[str, Any]) -> bytes:
    """Return the file of a manifest."""
    return by_name({"manifest": manifest, "sha256": checksum(manifest, in_one_line)})


def decode_manifest(data: bytes) -> dict[str, Any]:
    """Return the manifest in a file.

    Raises:
        ValueError, KeyError, TypeError: it is not what was written.
    """
    document = json.loads(data)
    manifest: dict[str, Any] = document["manifest"]
    if checksum(manifest, in_one_line) != document["sha256"]:
        raise ValueError("its manifest was changed")
    return manifest
