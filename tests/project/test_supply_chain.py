"""Lock files hold what pyproject.toml asks for; the audit is green only if all was looked up."""

import datetime
import shutil
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from scripts.audit import Accepted, AuditError, all_pins, judge, read_accepted, run_pip_audit
from scripts.locks import ROOT, LockError, faults, read_lock, unmet

LOCKS = (
    "requirements.lock",
    "requirements-cpu.lock",
    "requirements-dev.lock",
    "requirements-audit.lock",
)
DIGEST = f"sha256:{'0' * 64}"
TODAY = datetime.date(2026, 11, 22)
# What pip-audit 2.10.1 wrote, each with the exit code it ended with.
CLEAN = (
    '{"dependencies": [{"name": "jinja2", "version": "3.1.6", "vulns": []},'
    ' {"name": "idna", "version": "3.20", "vulns": []}], "fixes": []}'
)
VULNERABLE = (
    '{"dependencies": [{"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2019-217",'
    ' "fix_versions": ["2.10.1"], "aliases": ["GHSA-462w-v97r-4m45", "CVE-2019-10906"]}]},'
    ' {"name": "idna", "version": "3.20", "vulns": []}], "fixes": []}'
)
SKIPPED = (
    '{"dependencies": [{"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could'
    ' not be audited: jinja2 (3.1.6)"}, {"name": "idna", "version": "3.20", "vulns": []}],'
    ' "fixes": []}'
)
UNREACHABLE = "requests.exceptions.ConnectionError: Failed to establish a new connection"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the lock files are made of and checked against, to be spoilt."""
    for name in ("pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def pip_audit(folder: Path, output: str, exit_code: int, stderr: str = "") -> Path:
    """Return a program that answers as pip-audit once did."""
    (folder / "recorded.json").write_text(output)
    program = folder / "pip-audit"
    program.write_text(
        "#!/bin/sh\n"
        'for argument in "$@"; do\n'
        f'    [ "$before" = --requirement ] && {{ cat "$argument"; echo; }} >> {folder}/asked\n'
        "    before=$argument\n"
        "done\n"
        f'[ -s {folder}/recorded.json ] && cp {folder}/recorded.json "$argument"\n'
        f"echo '{stderr}' >&2\nexit {exit_code}\n"
    )
    program.chmod(0o755)
    return program


def pins(*lines: str) -> list[tuple[str, Version]]:
    return [(line.partition("==")[0], Version(line.partition("==")[2])) for line in lines]


def accepted(**changes: object) -> Accepted:
    fields: dict[str, object] = {
        "id": "CVE-2019-10906",
        "package": "jinja2",
        "reason": "no sandbox is used",
        "expires": TODAY + datetime.timedelta(days=30),
    }
    return Accepted(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_lock_files_hold_what_pyproject_asks_for() -> None:
    assert faults(ROOT) == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_names_no_address_and_no_option(name: str) -> None:
    text = (ROOT / name).read_text()

    assert "://" not in text
    assert {line[:2] for line in text.splitlines() if not line.startswith("    --hash=")} & {
        "--",
        "-e",
        "-r",
    } == set()
    assert len(read_lock(ROOT / name)) > 20


def test_a_dependency_that_is_not_locked_is_a_fault(checkout: Path) -> None:
    replace(checkout / "pyproject.toml", '"torch>=2.11",', '"torch>=2.11",\n    "sortedlist>=1",')

    assert faults(checkout) == [
        f"requirements-dev.lock: sortedlist>=1 is not locked for Python {python}"
        for python in ("3.11", "3.12")
    ]


def test_a_floor_above_the_locked_version_is_a_fault(checkout: Path) -> None:
    replace(checkout / "pyproject.toml", '"pillow>=12.0"', '"pillow>=99"')

    (locked,) = (pin for pin in read_lock(ROOT / "requirements.lock") if pin.name == "pillow")
    assert faults(checkout) == [
        f"{name}: pillow>=99 is locked at {locked.version} for Python {python}"
        for name in ("requirements-dev.lock", "requirements.lock", "requirements-cpu.lock")
        for python in ("3.11", "3.12")
    ]


def test_a_container_with_other_versions_than_the_tests_is_a_fault(checkout: Path) -> None:
    (locked,) = (pin for pin in read_lock(ROOT / "requirements.lock") if pin.name == "yarl")
    replace(checkout / "requirements.lock", f"\nyarl=={locked.version} ", "\nyarl==99.0 ")

    assert faults(checkout) == ["requirements.lock: yarl 99.0 is not what the tests run"]


def test_the_container_for_cpus_holds_no_torch() -> None:
    names = {pin.name for pin in read_lock(ROOT / "requirements-cpu.lock")}

    assert "openvino" in names
    assert {name for name in names if name.startswith(("torch", "triton", "nvidia-"))} == {
        "nvidia-ml-py"  # BentoML's, and small
    }


def test_the_bentos_differ_in_their_name_and_lock_alone() -> None:
    whole, cpu = (
        (ROOT / name).read_text().partition("\nservice:")[2]
        for name in ("bentofile.yaml", "bentofile-cpu.yaml")
    )

    assert cpu == whole.replace('"lookalike"', '"lookalike-cpu"').replace(
        '"requirements.lock"', '"requirements-cpu.lock"'
    )
    assert cpu.count("-cpu") == 2


def test_a_lock_for_another_python_only_is_a_fault() -> None:
    lock = [pin for pin in read_lock(ROOT / "requirements-dev.lock") if pin.name == "scipy"]

    assert unmet([Requirement("scipy>=1")], lock, "3.11") == []
    assert unmet([Requirement("scipy>=1")], lock[1:], "3.11") == [
        "scipy>=1 is not locked for Python 3.11"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "numpy==2.4.6\n",
        "numpy==2.4.6 \\\n",
        "numpy==2.4.6 \\\npillow==13.0.0 \\\n    --hash={DIGEST}\n",
        "numpy==2.4.6 \\\n    --hash=md5:0123456789abcdef0123456789abcdef\n",
        "numpy>=2.4.6 \\\n    --hash={DIGEST}\n",
        "--extra-index-url elsewhere\nnumpy==2.4.6 \\\n    --hash={DIGEST}\n",
        "# from https://elsewhere\nnumpy==2.4.6 \\\n    --hash={DIGEST}\n",
        "numpy @ file:///wheel.whl \\\n    --hash={DIGEST}\n",
        "    --hash={DIGEST}\n",
    ],
)
def test_a_line_without_a_version_and_hashes_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text.replace("{DIGEST}", DIGEST))

    with pytest.raises(LockError):
        read_lock(tmp_path / "lock")


def test_a_pin_keeps_all_of_its_hashes_and_where_it_applies(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(
        f"# made by `make lock`\nnumpy==2.4.6 ; python_full_version < '3.12' \\\n"
        f"    --hash={DIGEST} \\\n    --hash={DIGEST.replace('0', '1')}\n"
    )

    (pin,) = read_lock(tmp_path / "lock")
    assert (pin.name, pin.version, len(pin.hashes)) == ("numpy", Version("2.4.6"), 2)
    assert str(pin.marker) == 'python_full_version < "3.12"'


def test_the_audit_is_green_when_all_was_looked_up(tmp_path: Path) -> None:
    asked = pins("jinja2==3.1.6", "idna==3.20")

    report = run_pip_audit(pip_audit(tmp_path, CLEAN, 0), asked)
    assert judge(asked, report, [], TODAY) == []


def test_the_audit_names_what_is_vulnerable(tmp_path: Path) -> None:
    asked = pins("jinja2==2.10", "idna==3.20")

    report = run_pip_audit(pip_audit(tmp_path, VULNERABLE, 1), asked)
    assert judge(asked, report, [], TODAY) == ["jinja2 2.10: PYSEC-2019-217, mended in 2.10.1"]


def test_the_audit_is_red_when_a_package_was_skipped(tmp_path: Path) -> None:
    """pip-audit itself ends with 0 and "No known vulnerabilities found" here."""
    asked = pins("jinja2==3.1.6", "idna==3.20")

    report = run_pip_audit(pip_audit(tmp_path, SKIPPED, 0), asked)
    assert judge(asked, report, [], TODAY) == [
        "1 of 2 packages were not looked up: jinja2 3.1.6",
    ]


def test_the_audit_is_red_when_a_version_is_missing_from_the_report(tmp_path: Path) -> None:
    asked = pins("idna==3.20", "jinja2==3.1.6", "jinja2==3.1.7")

    report = run_pip_audit(pip_audit(tmp_path, CLEAN, 0), asked)
    assert judge(asked, report, [], TODAY) == [
        "1 of 3 packages were not looked up: jinja2 3.1.7",
    ]


def test_the_audit_is_red_when_the_service_is_unreachable(tmp_path: Path) -> None:
    program = pip_audit(tmp_path, "", 1, UNREACHABLE)

    with pytest.raises(AuditError, match=r"ended with 1 and gave no report.*ConnectionError"):
        run_pip_audit(program, pins("jinja2==3.1.6"))


@pytest.mark.parametrize("output", ["{", "[]", '{"fixes": []}', '{"dependencies": null}'])
def test_the_audit_is_red_when_the_report_is_not_one(tmp_path: Path, output: str) -> None:
    with pytest.raises(AuditError, match="gave no report"):
        run_pip_audit(pip_audit(tmp_path, output, 0), pins("jinja2==3.1.6"))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"id": "PYSEC-2019-217"}, None),
        ({"expires": TODAY}, "PYSEC-2019-217, mended"),
        ({"expires": TODAY}, f"was accepted until {TODAY}"),
        ({"expires": datetime.date(2030, 1, 1)}, "more than half a year"),
        ({"package": "idna"}, "PYSEC-2019-217, mended"),
        ({"package": "idna"}, "does not concern idna"),
        ({"id": "CVE-1999-1"}, "PYSEC-2019-217, mended"),
    ],
)
def test_an_advisory_is_accepted_by_id_for_its_package_until_its_day(
    tmp_path: Path, changes: dict[str, object], fault: str | None
) -> None:
    asked = pins("jinja2==2.10", "idna==3.20")
    report = run_pip_audit(pip_audit(tmp_path, VULNERABLE, 1), asked)
    found = judge(asked, report, [accepted(**changes)], TODAY)

    assert any(fault in line for line in found) if fault else found == []


def test_an_accepted_advisory_that_could_not_be_looked_up_stays_on_the_list(tmp_path: Path) -> None:
    report = run_pip_audit(pip_audit(tmp_path, SKIPPED, 0), pins("jinja2==3.1.6"))

    assert judge([], report, [accepted()], TODAY) == []


@pytest.mark.parametrize(
    "text",
    [
        '[[advisory]]\nid = "A"\npackage = "x"\nreason = "r"\n',
        '[[advisory]]\nid = "A"\npackage = "x"\nreason = " "\nexpires = 2026-12-01\n',
        '[[advisory]]\nid = "A"\npackage = "x"\nreason = "r"\nexpires = "2026-12-01"\n',
        '[[advisory]]\nid = "A"\npackage = "x"\nreason = "r"\nexpires = 2026-12-01\nby = "me"\n',
        "[[advisory]\n",
    ],
)
def test_an_accepted_advisory_has_a_reason_and_a_day(tmp_path: Path, text: str) -> None:
    (tmp_path / "accepted.toml").write_text(text)

    with pytest.raises(AuditError):
        read_accepted(tmp_path / "accepted.toml")


def test_the_list_of_accepted_advisories_can_be_read() -> None:
    path = ROOT / "accepted-advisories.toml"

    assert len(read_accepted(path)) == len(tomllib.loads(path.read_text()).get("advisory", []))


def test_every_pin_is_asked_for_once_whatever_system_it_is_for() -> None:
    asked = all_pins([ROOT / name for name in LOCKS])

    assert len(asked) == len(set(asked)) > 150
    assert len([version for name, version in asked if name == "scipy"]) == 2


def test_each_run_of_pip_audit_is_asked_for_a_name_once(tmp_path: Path) -> None:
    asked = pins("idna==3.20", "numpy==2.4.6", "numpy==2.5.5")
    run_pip_audit(pip_audit(tmp_path, CLEAN, 0), asked)

    assert (tmp_path / "asked").read_text() == "idna==3.20\nnumpy==2.4.6\n\nnumpy==2.5.5\n\n"
