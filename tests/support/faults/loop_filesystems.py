"""Real, tiny file systems: to run out of room on, to be read-only, to lose their power."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN
NO_LOG_FLUSH: Final = struct.pack("I", 2)  # EXT4_GOING_FLAGS_NOLOGFLUSH: what is not synced is gone


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


def mount_read_only(place: Path) -> None:
    """Make a mounted file system read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


class LoopDisk:
    """An ext4 file system in a file, whose power can be cut: what was not synced is lost.

    An emulation: the file itself is not lost, and no sector is half written.
    """

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def format(self) -> bool:
        """Whether there is a program that could make a file system in the image."""
        program = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
        return program is not None and not subprocess.call([program, "-q", "-F", str(self._image)])

    def mount(self) -> bool:
        """Whether it could be mounted."""
        mount = ["mount", "-t", "ext4", "-o", "loop", str(self._image), str(self.folder)]
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and every call that needs it fails."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def become_read_only(self) -> None:
        """From now on it can only be read, as the kernel decides of a disk that fails."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.folder)], check=True)

    def restart(self) -> None:
        """Mount it again, as after a power cut; nobody may use it any more."""
        deadline = time.monotonic() + 30
        while subprocess.run(
            ["umount", str(self.folder)], stderr=subprocess.DEVNULL, check=False
        ).returncode:
            assert time.monotonic() < deadline, f"{self.folder} is still in use"
            time.sleep(0.01)
        assert self.mount(), "the file system did not survive"

    def free(self) -> None:
        """Unmount it, whoever uses it, and give the loop device back."""
        subprocess.run(
            ["umount", "--lazy", str(self.folder)], stderr=subprocess.DEVNULL, check=False
        )
        listed = subprocess.run(
            ["losetup", "--noheadings", "-O", "NAME", "-j", str(self._image)],
            capture_output=True,
            text=True,
            check=False,
        )
        for device in listed.stdout.split():  # normally none: unmounting frees it
            subprocess.run(["losetup", "--detach", device], stderr=subprocess.DEVNULL, check=False)


@contextmanager
def loop_disk(place: Path, *, megabytes: int) -> Iterator[LoopDisk]:
    """Mount an ext4 file system at ``place`` while the block runs; skip where that cannot be."""
    place.mkdir()
    image = place.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(megabytes * 2**20)
    disk = LoopDisk(place, image)
    try:
        if os.geteuid() != 0 or not disk.format() or not disk.mount():
            pytest.skip("a loop device needs root and mkfs.ext4: the power cut was NOT tried")
        yield disk
    finally:
        disk.free()
        image.unlink()
