"""What a figure was measured on, and how it is summed up."""

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version


def describe_machine() -> str:
    """Return processor, cores, memory, Python and the versions that matter, in one line."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if "model name" in line), "?")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(installed(("torch", "bentoml", "faiss-cpu")))
    cores = len(os.sched_getaffinity(0))
    python = platform.python_version()
    return f"{cores} cores of {model}, {memory_gib:.0f} GiB, Python {python}, {packages}"


def installed(names: Sequence[str]) -> list[str]:
    """Return `name version` of each package that is there."""
    found = []
    for name in names:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return found


def commit() -> str:
    """Return the short hash of the commit that is measured, with `+` when it was changed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return `median (least-most)` of several runs."""
    return (
        f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-"
        f"{max(values):,.{digits}f})"
    )
