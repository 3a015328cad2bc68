"""What a folder lies on: as the kernel tells of it, and on a real overlay, as containers have."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from files.filesystem import _VARIABLES, Mount, mount_of, storage_warning
from tests.support.faults.loop_filesystems import small_filesystem
from tests.support.paths import ROOT
from tests.support.server.servers import clean_environment

DISK = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
OVERLAY = "700 690 0:50 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/a:/b\n"
PROC = "701 700 0:51 / /proc rw - proc proc rw\n"
VOLUME = "710 700 254:0 /var/volumes/x /data rw,relatime - ext4 /dev/vda rw\n"
UNNAMED = VOLUME.replace("/var/volumes/x", f"/var/lib/docker/volumes/{'0af' * 21}b/_data")
MEMORY = "711 700 0:60 / /data rw,nosuid - tmpfs tmpfs rw,size=1024k\n"
SHARE = "712 700 0:61 / /data/my\\040share rw - nfs4 nas:/share rw\n"


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs the tests may be a container itself."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


def shown(root: Path, *mounts: str, marks: tuple[str, ...] = ()) -> Path:
    """Write what the kernel shows, and the files by which a container can be told."""
    for name, text in [("proc/self/mountinfo", "".join(mounts)), *((one, "") for one in marks)]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("mounts", "marks", "said"),
    [
        ((DISK, PROC), (), None),  # a machine
        ((DISK, MEMORY), (), None),
        ((OVERLAY, PROC), (), "inside the container"),
        ((OVERLAY, PROC, VOLUME), (), None),
        ((OVERLAY, PROC, VOLUME), (".dockerenv",), None),
        ((OVERLAY, PROC, UNNAMED), (), "a volume without a name"),
        ((OVERLAY, MEMORY), ("run/.containerenv",), "in memory (tmpfs)"),
        ((DISK,), (".dockerenv",), "inside the container"),  # a driver without layers
        ((DISK, SHARE), (), "another machine (nfs4)"),
        ((), (), None),  # nothing is known
    ],
)
def test_what_threatens_a_gallery_is_told(
    tmp_path: Path, mounts: tuple[str, ...], marks: tuple[str, ...], said: str | None
) -> None:
    warning = storage_warning(Path("/data/my share/gallery"), shown(tmp_path, *mounts, marks=marks))
    assert (warning is None) == (said is None), warning
    assert (said or "") in (warning or "")


def test_a_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    assert mount_of(Path("/proc/self")).kind == "proc"
    root = shown(tmp_path, DISK, VOLUME, MEMORY, SHARE)
    assert mount_of(Path("/data/x"), root) == Mount("/data", "tmpfs"), "the last one mounted there"
    assert mount_of(Path("/data/my share/x"), root) == Mount("/data/my share", "nfs4", "/")
    assert mount_of(Path("/database"), root) == Mount("/", "ext4")
    assert mount_of(Path("/data"), shown(tmp_path, VOLUME)).folder == "/var/volumes/x"


def test_a_real_overlay_as_root_is_told_and_a_volume_on_it_is_not(tmp_path: Path) -> None:
    """The whole machine as the lower layer, in a mount namespace that goes with its process."""
    asked = (
        "from pathlib import Path; from files.filesystem import storage_warning as told\n"
        "print(told(Path('/srv/gallery'))); print(told(Path('/mnt/gallery')))"
    )
    with small_filesystem(tmp_path / "layers", megabytes=8) as layers:
        for name in ("upper", "work", "merged"):
            (layers / name).mkdir()
        merged = layers / "merged"
        inside = f"cd {ROOT} && exec {sys.executable} -c {shlex.quote(asked)}"
        script = (
            f"mount -t overlay overlay -o lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
            f" {merged} && mount -t proc proc {merged}/proc && mount --bind {ROOT} {merged}/mnt"
            f" || exit 77; exec chroot {merged} /bin/sh -c {shlex.quote(inside)}"
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            env=clean_environment() | {"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    if done.returncode == 77:
        pytest.skip(f"no overlay can be mounted here: {done.stderr.strip()}")
    first, second = done.stdout.splitlines()
    assert first.startswith("/srv/gallery lies inside the container and goes with it"), done.stderr
    assert second == "None"
