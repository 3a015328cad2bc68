"""The program that builds and runs images: docker, podman or buildah, whichever is there."""

import shutil
import subprocess
from typing import Final

ENGINES: Final = ("docker", "podman", "buildah")  # the first that is installed, unless one is named


class ContainerError(Exception):
    """An image cannot be made or looked into; the sentence says why."""


def pick_engine(named: str) -> str:
    """Return the engine to use: the one named, or the first that is installed.

    Raises:
        ContainerError: it is not installed, or none is.
    """
    for engine in (named,) if named else ENGINES:
        if shutil.which(engine):
            return engine
    raise ContainerError(
        f"{named} is not installed" if named else f"none of {', '.join(ENGINES)} is installed"
    )


def image_name(kind: str) -> str:
    """Return the name of the image of a kind, ``cpu`` or ``gpu``, as it was last built."""
    return f"lookalike:{kind}"


def run(*command: str) -> str:
    """Run a command; return what it printed, without the end of the last line.

    Raises:
        ContainerError: it failed; with the last lines that it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-20:])
        raise ContainerError(f"`{' '.join(command[:3])} …` ended with {done.returncode}:\n{said}")
    return done.stdout.strip()
