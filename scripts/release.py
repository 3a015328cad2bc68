"""A release: one version in pyproject.toml, chart and changelog; checked, written and told.

``python -m scripts.release prepare 0.7.0`` writes it everywhere, ``check`` says what does not agree
(with ``--tag`` also what a tag needs), ``notes`` prints the newest section of the changelog.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PYPROJECT: Final = Path("pyproject.toml")
CODE: Final = Path("files/version.py")
CHART: Final = Path("deploy/helm/lookalike/Chart.yaml")
CHANGELOG: Final = Path("CHANGELOG.md")
UNRELEASED: Final = "Unreleased"
# Semantic Versioning 2.0.0 without build metadata, which no image's tag may have.
VERSION: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(rc|alpha|beta)\.\d+)?")


class ReleaseError(Exception):
    """A release cannot be prepared; the sentence says why."""


def sections(root: Path) -> dict[str, str]:
    """Return what the changelog says of each version, the newest first."""
    text = (root / CHANGELOG).read_text("utf-8")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


def version(root: Path) -> str:
    """Return the version in pyproject.toml, of which all others are copies."""
    return str(tomllib.loads((root / PYPROJECT).read_text("utf-8"))["project"]["version"])


def faults(root: Path, *, tag: str | None = None) -> list[str]:
    """Return a sentence for each thing that does not agree; none when all does.

    Args:
        root: the checkout.
        tag: name of the release's tag, which asks for a changelog without an unreleased section.
    """
    now, told = version(root), sections(root)
    released = [name for name in told if name != UNRELEASED]
    found = []
    if not VERSION.fullmatch(now):
        found.append(f"{PYPROJECT}: {now!r} is no version such as 1.2.3 or 1.2.3-rc.1")
    if released[:1] != [now]:
        found.append(f"{CHANGELOG}: its newest version is {released[:1]}, not {now}")
    served = re.findall(
        r'^VERSION: Final = "(.*)"$', (root / CODE).read_text("utf-8"), re.MULTILINE
    )
    if served != [now]:
        found.append(f"{CODE}: it says {', '.join(served) or 'nothing'}, not {now}")
    chart = (root / CHART).read_text("utf-8")
    for field in ("version", "appVersion"):
        stated = re.findall(rf'^{field}: "?([^"\n]+?)"?$', chart, re.MULTILINE)
        if stated != [now]:
            found.append(f"{CHART}: {field} is {', '.join(stated) or 'missing'}, not {now}")
    if tag is not None:
        if tag != f"v{now}":
            found.append(f"the tag is {tag}, the version {now}: the tag has to be v{now}")
        if UNRELEASED in told:
            found.append(f"{CHANGELOG}: there is still a section {UNRELEASED}")
        if not told.get(now):
            found.append(f"{CHANGELOG}: nothing is said of {now}")
    return found


def prepare(root: Path, new: str) -> None:
    """Write the version ``new`` everywhere; what was unreleased becomes its section.

    Raises:
        ReleaseError: ``new`` is no version or is there already, or nothing has been told of it.
            Nothing is written then.
    """
    if not VERSION.fullmatch(new):
        raise ReleaseError(f"{new!r} is no version such as 1.2.3 or 1.2.3-rc.1")
    told = sections(root)
    if new in told:
        raise ReleaseError(f"{CHANGELOG} has a section {new} already")
    if not told.get(UNRELEASED):
        raise ReleaseError(f"{CHANGELOG} has nothing under {UNRELEASED}: what would be released?")
    for path, pattern, replacement in (
        (PYPROJECT, r'^version = ".*"$', f'version = "{new}"'),
        (CODE, r'^VERSION: Final = ".*"$', f'VERSION: Final = "{new}"'),
        (CHART, r"^version: .*$", f"version: {new}"),
        (CHART, r"^appVersion: .*$", f'appVersion: "{new}"'),
        (CHANGELOG, rf"^## {UNRELEASED}$", f"## {new}"),
    ):
        text = (root / path).read_text("utf-8")
        changed, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        if count != 1:
            raise ReleaseError(f"{path}: no line like {pattern}")
        (root / path).write_text(changed, "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("--tag")
    commands.add_parser("prepare").add_argument("version")
    commands.add_parser("notes")
    given = parser.parse_args(arguments)
    if given.command == "notes":
        print(sections(ROOT)[version(ROOT)])
        return 0
    found = []
    if given.command == "prepare":
        try:
            prepare(ROOT, given.version)
        except ReleaseError as error:
            found.append(str(error))
    found = found or faults(ROOT, tag=getattr(given, "tag", None))
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
