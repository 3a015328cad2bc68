"""A virtual environment for each rival, with our torch behind its own packages."""

import hashlib
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build" / "rivals"
# What the networks need, seen by the rivals after their own packages: torch takes 5 GB.
SHARED = (
    *("torch*", "functorch", "nvidia*", "cuda*", "triton*", "numpy*", "PIL", "pillow*"),
    *("safetensors*", "sympy*", "mpmath*", "networkx*", "jinja2*", "markupsafe*", "filelock*"),
    *("fsspec*", "typing_extensions*", "setuptools*", "packaging*"),
)
PINNED = ("numpy", "pillow")  # rivals must not bring others, or the pixels could differ


def install(name: str, packages: tuple[str, ...]) -> Path:
    """Return the environment of a rival, made at the first call and when ``packages`` change."""
    folder = FOLDER / name
    pins = [f"{package}=={version(package)}" for package in PINNED]
    wanted = hashlib.sha256("\n".join([*packages, *pins]).encode()).hexdigest()
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    print(f"installing {' '.join(packages)}", file=sys.stderr)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.pins").write_text("\n".join(pins) + "\n")
    uv = [str(Path(sys.executable).with_name("uv"))]
    python = str(folder / "bin" / "python")
    run = [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
    subprocess.run(run, check=True)
    run = [*uv, "pip", "install", "--quiet", "--python", python, "-c", f"{folder}.pins", *packages]
    subprocess.run(run, check=True)
    (_site_packages(folder) / "shared.pth").write_text(f"{_shared()}\n")
    stamp.write_text(wanted)
    return folder


def _shared() -> Path:
    """Return a folder of links to those packages of our environment that rivals may see."""
    folder = FOLDER / "shared"
    folder.mkdir(exist_ok=True)
    ours = Path(sysconfig.get_path("purelib"))
    for pattern in SHARED:
        for package in ours.glob(pattern):
            link = folder / package.name
            if not link.is_symlink():
                link.symlink_to(package)
    return folder


def _site_packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python3*/site-packages")
    return found
