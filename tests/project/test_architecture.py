"""The folders are floors; imports only go down. Kept here so that plain pytest says so too."""

import ast
import os
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MAY_IMPORT: dict[str, set[str]] = {
    "files": set(),
    "vision": {"files"},
    "dataset": {"files", "vision"},
    "index": {"files", "vision", "dataset"},
    "training": {"files", "vision", "dataset", "index"},
    "service": {"files", "vision", "dataset", "index"},
    "cli": {"files", "vision", "dataset", "index", "training", "service"},
}
MOST_MODULES = 13  # of one folder, without its __init__.py
MOST_ENTRIES = 16  # of one folder: modules and folders
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
    ROOT / "training/fit/initialization/pretrained.py",
    ROOT / "training/recipes/packaged_weights.py",
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


@pytest.mark.parametrize("floor", [floor for floor in MAY_IMPORT if floor != "files"])
def test_files_are_made_durable_in_one_place(floor: str) -> None:
    for path in modules(floor):
        assert "fsync(" not in path.read_text(), path


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


def test_every_folder_is_a_package_that_is_installed() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(found["packages"]["find"]["include"]) == {f"{floor}*" for floor in MAY_IMPORT}
    for floor in MAY_IMPORT:
        for path in modules(floor):
            assert (path.parent / "__init__.py").exists(), path


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Return which of the modules ``known`` that ``path`` imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                found.add(below if below in known else node.module)
    return found & known


def imports_of_all() -> dict[str, set[str]]:
    """Return what every module of the product imports of the product."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for floor in MAY_IMPORT
        for path in modules(floor)
    }
    return {name: imported_modules(path, set(paths)) for name, path in paths.items()}


def package_of(module: str) -> str:
    """Return the folder of a module; one that lies on a floor itself stands for itself."""
    folder, _, _ = module.rpartition(".")
    return folder if "." in folder else module


def test_no_imports_go_round_in_a_circle() -> None:
    graph = imports_of_all()
    packages: dict[str, set[str]] = {}
    for module, others in graph.items():
        here = package_of(module)
        packages.setdefault(here, set()).update({package_of(other) for other in others} - {here})

    assert len(graph) > 300
    TopologicalSorter(packages).prepare()  # raises CycleError with the circle
    TopologicalSorter(graph).prepare()


def test_no_folder_is_too_full_to_find_something_in() -> None:
    folders = [
        path
        for top in (*MAY_IMPORT, "tests", "benchmarks")
        for path in [ROOT / top, *(ROOT / top).rglob("*")]
        if path.is_dir() and path.name not in ("__pycache__", "page", "templates", "data")
    ]
    for folder in folders:
        inside = [
            path for path in folder.iterdir() if path.name not in ("__pycache__", "__init__.py")
        ]
        files = [path for path in inside if path.suffix == ".py"]
        assert len(files) <= MOST_MODULES, folder
        assert len(inside) <= MOST_ENTRIES, folder


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
