"""Lock files in, and what is wrong with them: does each still hold what pyproject.toml asks for?

Needs no network. ``python -m scripts.locks`` prints one line per fault; with any, it ends with 1.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# What is tested and what the container has; the locks may serve more systems than these.
PYTHONS = ("3.11", "3.12")
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)( ; (?P<marker>[^\\]+))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?P<more> \\)?")


class LockError(Exception):
    """A lock file has a line that is neither a pin, nor a hash, nor a comment."""


@dataclass(frozen=True)
class Pin:
    """One version of one package, and the hashes of its files."""

    name: str  # canonical: lower case, hyphens
    version: Version
    marker: Marker | None  # where it is installed; None: everywhere
    hashes: tuple[str, ...]

    def applies(self, environment: dict[str, str]) -> bool:
        """Return whether it is installed in ``environment``."""
        return self.marker is None or self.marker.evaluate(environment)


def read_lock(path: Path) -> list[Pin]:
    """Return the pins of a lock file, in its order.

    The grammar is narrow on purpose: it has no place for options, addresses or missing hashes.

    Raises:
        LockError: a line is of another kind, or a pin has no hash.
    """
    pins: list[Pin] = []
    expects_hash = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := HASH.fullmatch(line) if expects_hash else None:
            digest = line.strip().removesuffix(" \\").removeprefix("--hash=")
            pins[-1] = Pin(**{**vars(pins[-1]), "hashes": (*pins[-1].hashes, digest)})
            expects_hash = found["more"] is not None
        elif not expects_hash and (found := PIN.fullmatch(line)):
            marker = Marker(found["marker"]) if found["marker"] else None
            pins.append(Pin(found["name"], Version(found["version"]), marker, ()))
            expects_hash = True
        elif expects_hash or not line.startswith("#") or "://" in line:
            raise LockError(f"{path.name}, line {number}: neither a pin nor its hash: {line!r}")
    if expects_hash:
        raise LockError(f"{path.name} ends within a pin")
    return pins


def unmet(requirements: Iterable[Requirement], pins: list[Pin], python: str) -> list[str]:
    """Return a sentence for each requirement that ``pins`` do not meet on Linux with ``python``."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    locked = {pin.name: pin for pin in pins if pin.applies(environment)}
    faults: list[str] = []
    for requirement in requirements:
        pin = locked.get(canonicalize_name(requirement.name))
        if pin is None:
            faults.append(f"{requirement} is not locked for Python {python}")
        elif not requirement.specifier.contains(pin.version, prereleases=True):
            faults.append(f"{requirement} is locked at {pin.version} for Python {python}")
    return faults


def wanted(pyproject: dict[str, Any]) -> dict[str, list[Requirement]]:
    """Return what each lock file has to hold, by the file's name."""
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = project["optional-dependencies"]

    def expanded(lines: list[str]) -> list[Requirement]:
        found: list[Requirement] = []
        for requirement in map(Requirement, lines):
            if requirement.name == project["name"]:
                for extra in sorted(requirement.extras):
                    found += expanded(extras[extra])
            else:
                found.append(requirement)
        return found

    def members(group: str) -> list[str]:
        names: list[str] = []
        for member in groups[group]:
            names += [member] if isinstance(member, str) else members(member["include-group"])
        return names

    build = pyproject["build-system"]["requires"]  # the project is installed without isolation
    declared = expanded([*project["dependencies"], *extras["dev"], *build])
    by_name = {requirement.name: requirement for requirement in declared}
    return {
        "requirements-dev.lock": declared,
        "requirements.lock": [by_name[name] for name in members("bento")],
        "requirements-cpu.lock": [by_name[name] for name in members("bento-cpu")],
        "requirements-audit.lock": expanded(groups["audit"]),
    }


def faults(root: Path) -> list[str]:
    """Return a sentence for each fault of the lock files in ``root``; none when all is well."""
    found: list[str] = []
    pins: dict[str, list[Pin]] = {}
    for name, requirements in wanted(tomllib.loads((root / "pyproject.toml").read_text())).items():
        try:
            pins[name] = read_lock(root / name)
        except (LockError, OSError) as error:
            found.append(str(error))
            continue
        for python in PYTHONS:
            found += [f"{name}: {fault}" for fault in unmet(requirements, pins[name], python)]
    tested = {(pin.name, pin.version) for pin in pins.get("requirements-dev.lock", [])}
    for lock in ("requirements.lock", "requirements-cpu.lock"):
        found += [
            f"{lock}: {pin.name} {pin.version} is not what the tests run"
            for pin in pins.get(lock, [])
            if (pin.name, pin.version) not in tested
        ]
    return found


def main() -> int:
    """Print the faults of this checkout's lock files; return the exit code."""
    found = faults(ROOT)
    for fault in found:
        print(fault)
    if found:
        print("Run `make lock`.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
