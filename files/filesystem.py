"""What a folder lies on, and what that means for what is stored there."""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path("/")
# File systems of other machines: SQLite's locks do not hold there, and no word comes of changes.
NETWORK: Final = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "virtiofs", "vboxsf"),
        *("ceph", "glusterfs", "lustre", "beegfs", "drvfs", "prl_fs", "davfs", "vmhgfs", "sshfs"),
    )
)
_LAYERED: Final = frozenset(("overlay", "fuse-overlayfs", "aufs"))  # what containers begin on
_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))
# Files and variables by which Docker, Podman, systemd, Kubernetes and BentoML's images can be told.
_MARKS: Final = (".dockerenv", "run/.containerenv", "run/systemd/container")
_VARIABLES: Final = ("container", "KUBERNETES_SERVICE_HOST", "BENTOML_CONTAINERIZED")
# An engine mounts this where the image names a volume and nobody else did.
_UNNAMED_VOLUME: Final = re.compile(r"/volumes/[0-9a-f]{64}/_data$")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")  # of a mount point, see proc(5)


class Mount(NamedTuple):
    """Where a file system is mounted, its kind as the kernel calls it, and which folder of it."""

    point: str
    kind: str
    folder: str = "/"


def mount_of(path: Path, root: Path = ROOT) -> Mount:
    """Return what ``path`` lies on; nothing known: empty texts.

    Args:
        path: that is there, or will be.
        root: where the kernel's files lie, another one in tests.
    """
    best = Mount("", "")
    try:
        lines = (root / "proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
        real = path.resolve()
    except OSError:
        return best
    for line in lines.splitlines():
        before, _, after = line.partition(" - ")
        folder, point = (
            _ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)
            for field in before.split(" ")[3:5]
        )
        if real.is_relative_to(point) and len(point) >= len(best.point):  # of several, the last
            best = Mount(point, after.split(" ")[0].removeprefix("fuse."), folder)
    return best


def is_container(root: Path = ROOT) -> bool:
    """Return whether this process seems to run in a container."""
    return any(map(os.environ.get, _VARIABLES)) or any((root / one).exists() for one in _MARKS)


def storage_warning(folder: Path, root: Path = ROOT) -> str | None:
    """Return what threatens what is stored in ``folder``, a sentence; ``None``: nothing.

    Args:
        folder: that is there, or will be.
        root: where the kernel's files lie, another one in tests.
    """
    point, kind, mounted = mount_of(folder, root)
    in_container = is_container(root)
    if point == "/" and (in_container or kind in _LAYERED):
        return (
            f"{folder} lies inside the container and goes with it, with all that is stored there: "
            "mount a volume, and keep it on that"
        )
    if _UNNAMED_VOLUME.search(mounted):
        return (
            f"{folder} lies on a volume without a name, which goes with the container, with all "
            "that is stored there: mount a volume that has one"
        )
    if kind in _IN_MEMORY and in_container:
        return (
            f"{folder} lies in memory ({kind}) and goes with the container, with all that is "
            "stored there: mount a volume, and keep it on that"
        )
    if kind in NETWORK:
        return (
            f"{folder} is on another machine ({kind}), where the locks of a gallery may not hold: "
            "let one machine alone use it, or keep it on a disk of this one"
        )
    return None
