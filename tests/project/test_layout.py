"""The tests lie as the code does, and never in its place: `tests/index` is not `index`."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.server.servers import clean_environment

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))


@pytest.mark.parametrize(
    "name", sorted(path.name for path in TESTS.iterdir() if (ROOT / path.name).is_dir())
)
def test_a_folder_of_tests_is_not_imported_in_place_of_the_code(name: str) -> None:
    module = importlib.import_module(name)
    assert Path(str(module.__file__)).parent == ROOT / name


def test_no_folder_of_tests_is_looked_through_for_modules(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getoption("importmode") == "importlib"
    assert [Path(path).resolve() for path in pytestconfig.getini("pythonpath")] == [ROOT]
    searched = [*sys.path, *clean_environment()["PYTHONPATH"].split(":")]
    assert not [path for path in searched if Path(path).resolve().is_relative_to(TESTS)]


def test_every_folder_of_tests_is_a_package_below_tests() -> None:
    for folder in {path.parent for path in FILES}:
        assert (folder / "__init__.py").exists(), folder


def test_every_file_says_at_its_top_what_it_is_about() -> None:
    for path in FILES:
        if path.name != "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), path
