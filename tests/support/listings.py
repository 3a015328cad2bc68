"""Folders of small pictures, and what is found in them when they are listed."""

from pathlib import Path

from dataset.listing import Listing
from tests.support.images.pngs import png

PICTURE = png(0, (8, 8))


def write(root: Path, *keys: str) -> Path:
    """Write pictures under these names, and return the folder."""
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(PICTURE)
    return root


def found(listing: Listing) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return what is said of a listing: how often, and of which files."""
    return {one.reason: (one.count, one.examples) for one in listing.findings}
