"""A real, tiny file system, to run out of room on."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_filesystem(place: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a tmpfs at ``place`` while the block runs; skip where that is not allowed."""
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root: the full disk was NOT tried")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here: the full disk was NOT tried")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
