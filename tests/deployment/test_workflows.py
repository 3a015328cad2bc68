"""The workflows of the public repository: valid, with few rights, of targets that exist."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTION = re.compile(r"uses: (?!\./)\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def read(path: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text())
    return loaded


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("dependabot", [GITHUB / "dependabot.yml"])],
    ids=["workflows", "dependabot"],
)
def test_it_is_as_github_reads_it(schema: str, files: list[Path]) -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [check, "--builtin-schema", f"vendor.{schema}", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_named_by_its_commit(path: Path) -> None:
    uses = [line.strip(" -") for line in path.read_text().splitlines() if "uses: " in line]
    assert uses
    for line in uses:
        assert ACTION.match(line) or line == "uses: ./.github/workflows/ci.yml"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_rights_are_given_where_they_are_needed_and_time_is_limited(path: Path) -> None:
    workflow = read(path)
    assert set(workflow["permissions"].items()) <= {("contents", "read")}
    assert "pull_request_target" not in workflow[True]  # YAML reads `on` so
    for name, job in workflow["jobs"].items():
        if "uses" in job:
            continue
        assert job["timeout-minutes"] <= 90, name
        given = {right for right, kind in job.get("permissions", {}).items() if kind == "write"}
        assert not given or (path.stem, name) in {("release", "image"), ("release", "publish")}
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            # What others can write (names of branches, titles) is never read as a command.
            assert "${{" not in step.get("run", ""), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_target_and_module_that_is_run_is_there(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = path.read_text()
    targets = re.findall(r"run: make ([a-z-]+)|target: ([a-z-]+)", text)
    assert targets
    for target in (one or other for one, other in targets):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for module in re.findall(r"python3? -m ([\w.]+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
