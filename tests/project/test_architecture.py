"""The folders are floors; imports only go down. Kept here so that plain pytest says so too."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MAY_IMPORT: dict[str, set[str]] = {
    "vision": set(),
    "dataset": {"vision"},
    "index": {"vision", "dataset"},
    "training": {"vision", "dataset", "index"},
    "service": {"vision", "dataset", "index"},
    "cli": {"vision", "dataset", "index", "training", "service"},
}
# Whose business a third-party package is; cli/pack.py speaks to BentoML's model store.
OWNERS = {
    "bentoml": {"service", "cli"},
    "fastapi": {"service"},
    "starlette": {"service"},
    "pydantic": {"service"},
    "faiss": {"index"},
    "apsw": {"index"},
    "pytorch_metric_learning": {"training"},
    "scipy": {"index", "training"},
    "sklearn": {"training"},
    "timm": {"vision", "training"},
    "torch": {"vision", "training"},
    "torchvision": {"vision", "training"},
    "typer": {"cli"},
    "watchfiles": {"cli"},
    "rich": {"cli"},
}


def modules(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the first name of every module that ``path`` imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


READS_PYTORCH = (
    ROOT / "training/initialization/pretrained.py",
    ROOT / "training/initialization/packaged_weights.py",
)


@pytest.mark.parametrize("floor", MAY_IMPORT)
def test_a_floor_imports_only_what_lies_below_it(floor: str) -> None:
    assert modules(floor), "the floor is empty: the test would say nothing"
    for path in modules(floor):
        names = imported(path)
        assert names & MAY_IMPORT.keys() <= MAY_IMPORT[floor] | {floor}, path
        assert {name for name in names if floor not in OWNERS.get(name, {floor})} == set(), path


@pytest.mark.parametrize("floor", MAY_IMPORT)
def test_nothing_imports_a_floor_by_its_bare_name_or_the_tests(floor: str) -> None:
    for path in modules(floor):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & MAY_IMPORT.keys(), path
        assert not imported(path) & {"tests", "benchmarks"}, path


@pytest.mark.parametrize("floor", MAY_IMPORT)
def test_nothing_unpickles_or_evaluates(floor: str) -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for path in modules(floor):
        assert not imported(path) & forbidden, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                safely = "weights_only=True" in [ast.unparse(given) for given in node.keywords]
                if called == "torch.load" and safely and path in READS_PYTORCH:
                    continue  # tensors only, and from here only
                assert called not in {"torch.load", "torch.save", "eval", "exec"}, path


def test_the_packages_are_listed_where_they_are_installed_from() -> None:
    import tomllib  # noqa: PLC0415

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == set(MAY_IMPORT)


def test_the_module_that_supervises_the_workers_brings_nothing_heavy() -> None:
    code = (
        "import sys, service.app\n"
        "heavy = {'torch', 'faiss', 'openvino', 'numpy', 'PIL', 'fastapi', 'limits', 'circus'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "LOOKALIKE_WORKERS": "2"},  # as `lookalike serve` sets it
    )
    assert out.stdout.strip() == "[]"


def test_no_file_is_longer_than_one_noun() -> None:
    longest = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for floor in MAY_IMPORT
        for path in modules(floor)
    }
    assert {path: lines for path, lines in longest.items() if lines > 300} == {}
