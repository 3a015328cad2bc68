"""The program that builds and runs images: docker, podman or buildah, whichever is there."""

import shutil
import subprocess
from typing import Final

from scripts.locks import ROOT

CONTAINERFILE: Final = ROOT / "container" / "Containerfile"
ENGINES: Final = ("docker", "podman", "buildah")  # the first that is installed, unless one is named


class ContainerError(Exception):
    """An image cannot be made or looked into; the sentence says why."""


def pick_engine(named: str) -> str:
    """Return the engine to use: the one named, or the first that is installed and answers.

    Raises:
        ContainerError: it does not, or none does.
    """
    for engine in (named,) if named else ENGINES:
        if shutil.which(engine):
            answers = subprocess.run([engine, "info"], capture_output=True, check=False)
            if answers.returncode == 0:
                return engine
    raise ContainerError(
        f"{named} is not installed, or does not run"
        if named
        else f"none of {', '.join(ENGINES)} is installed and runs"
    )


def default_base() -> str:
    """Return the base image that the Containerfile names."""
    return CONTAINERFILE.read_text().partition("ARG BASE=")[2].partition("\n")[0]


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
