"""The version of this program: the same wherever it is written."""

import tomllib

from files.version import VERSION
from tests.support.paths import ROOT


def test_it_is_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION
