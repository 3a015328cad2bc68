"""Every pin of the lock files in, known vulnerabilities out; green only if each was looked up.

pip-audit by itself says "No known vulnerabilities found" and ends with 0 when it has skipped every
package. Here its report is compared with what it was asked: what it did not look at is a fault.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from scripts.locks import ROOT, Pin, read_lock

ACCEPTED = ROOT / "accepted-advisories.toml"
LONGEST = datetime.timedelta(days=183)  # an advisory is judged anew at least every half year
NAMED = 8  # packages per sentence


class AuditError(Exception):
    """There is nothing to judge: no report, or a list of accepted advisories that is not one."""


@dataclass(frozen=True)
class Accepted:
    """An advisory that is known and does not concern us, until a day."""

    id: str
    package: str
    reason: str
    expires: datetime.date  # the first day on which it counts again


def read_accepted(path: Path) -> list[Accepted]:
    """Return the accepted advisories.

    Raises:
        AuditError: the file is not TOML, or an entry lacks one of the four fields or has others.
    """
    try:
        entries = tomllib.loads(path.read_text()).get("advisory", [])
        accepted = [Accepted(**entry) for entry in entries]
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise AuditError(f"{path.name}: {error}") from error
    for entry in accepted:
        if type(entry.expires) is not datetime.date or not str(entry.reason).strip():
            raise AuditError(f"{path.name}: {entry.id} needs a reason and a day as `expires`")
    return accepted


def run_pip_audit(program: Path, pins: Sequence[tuple[str, Version]]) -> list[dict[str, Any]]:
    """Return what pip-audit reports of ``pins``; it has the network look each of them up.

    Raises:
        AuditError: it gave no report, as when the advisory service cannot be reached.
    """
    # It takes a name once per run; where Python versions differ, a name has several pins.
    runs: list[dict[str, Version]] = []
    for name, version in pins:
        run = next((run for run in runs if name not in run), None)
        if run is None:
            runs.append(run := {})
        run[name] = version
    entries: list[dict[str, Any]] = []
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            asked, report = Path(folder) / "asked.txt", Path(folder) / "report.json"
            asked.write_text("".join(f"{name}=={version}\n" for name, version in run.items()))
            command = [str(program), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
            command += ["--format", "json", "--desc", "off", "--aliases", "on"]
            command += ["--requirement", str(asked), "--output", str(report)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            entries += read_report(report, done.returncode, done.stderr)
    return entries


def read_report(path: Path, exit_code: int, stderr: str) -> list[dict[str, Any]]:
    """Return the packages of the report that pip-audit wrote.

    Raises:
        AuditError: there is none, or it is not one.
    """
    try:
        return list(json.loads(path.read_text())["dependencies"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = stderr.strip().splitlines()[-1:] or ["nothing"]
        raise AuditError(
            f"pip-audit ended with {exit_code} and gave no report; it said: {said[0]}"
        ) from error


def judge(
    pins: Sequence[tuple[str, Version]],
    report: Sequence[dict[str, Any]],
    accepted: Sequence[Accepted],
    today: datetime.date,
) -> list[str]:
    """Return a sentence for each fault; none only if every pin was looked up and none is open."""
    looked_up: set[tuple[str, Version]] = set()
    open_ids: dict[tuple[str, Version, str], str] = {}
    matched: set[Accepted] = set()
    for entry in report:
        if "version" not in entry:
            continue  # skipped
        name, version = entry["name"], Version(entry["version"])
        looked_up.add((name, version))
        for advisory in entry["vulns"]:
            ids = {advisory["id"], *advisory.get("aliases", [])}
            known = [one for one in accepted if one.package == name and one.id in ids]
            matched.update(known)
            if not any(one.expires > today for one in known):
                mended = ", ".join(advisory["fix_versions"]) or "no version yet"
                open_ids[name, version, advisory["id"]] = mended

    faults = [
        f"{name} {version}: {advisory}, mended in {mended}"
        for (name, version, advisory), mended in open_ids.items()
    ]
    missed = [f"{name} {version}" for name, version in pins if (name, version) not in looked_up]
    if missed:
        others = f" and {len(missed) - NAMED} others" if len(missed) > NAMED else ""
        faults.append(
            f"{len(missed)} of {len(pins)} packages were not looked up: "
            f"{', '.join(missed[:NAMED])}{others}"
        )
    names = {name for name, _ in looked_up}
    for one in accepted:
        if one.expires <= today:
            faults.append(f"{one.id} of {one.package} was accepted until {one.expires}")
        elif one.expires - today > LONGEST:
            faults.append(f"{one.id} of {one.package} is accepted for more than half a year")
        if one not in matched and one.package in names:
            faults.append(
                f"{one.id} does not concern {one.package} as locked: take it off the list"
            )
    return faults


def all_pins(locks: Sequence[Path]) -> list[tuple[str, Version]]:
    """Return every version that any of ``locks`` names, for whatever system, each once."""
    pins: list[Pin] = [pin for lock in locks for pin in read_lock(lock)]
    return sorted({(pin.name, pin.version) for pin in pins})


def main() -> int:
    """Audit this checkout's lock files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pip-audit", type=Path, required=True, help="the program")
    given = parser.parse_args()
    pins = all_pins(sorted(ROOT.glob("requirements*.lock")))
    try:
        accepted = read_accepted(ACCEPTED)
        report = run_pip_audit(given.pip_audit, pins)
    except AuditError as error:
        print(f"Not audited: {error}")
        return 1
    faults = judge(pins, report, accepted, datetime.datetime.now(datetime.UTC).date())
    for fault in faults:
        print(fault)
    print(f"{len(pins)} packages, {len(faults)} faults, {len(accepted)} advisories accepted.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
