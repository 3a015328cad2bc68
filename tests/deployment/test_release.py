"""A release says the same version everywhere, and is refused before it does."""

import shutil
from pathlib import Path

import pytest

from scripts.release import (
    CHANGELOG,
    CHART,
    CODE,
    PYPROJECT,
    ReleaseError,
    faults,
    prepare,
    version,
)
from tests.support.paths import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a release changes, at 1.2.3 with something new since."""
    for path in (PYPROJECT, CODE, CHART):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / CHANGELOG).write_text("# Changelog\n\n## Unreleased\n\n- A first version.\n")
    prepare(tmp_path, "1.2.3")
    text = (tmp_path / CHANGELOG).read_text()
    news = text.replace("## 1.2.3", "## Unreleased\n\n- Something new.\n\n## 1.2.3")
    (tmp_path / CHANGELOG).write_text(news)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_this_checkout_has_one_version() -> None:
    assert faults(ROOT) == []


def test_a_release_is_written_everywhere(checkout: Path) -> None:
    assert faults(checkout) == []

    prepare(checkout, "1.3.0-rc.1")

    assert version(checkout) == "1.3.0-rc.1"
    assert faults(checkout, tag="v1.3.0-rc.1") == []
    assert (checkout / CHANGELOG).read_text() == (
        "# Changelog\n\n## 1.3.0-rc.1\n\n- Something new.\n\n## 1.2.3\n\n- A first version.\n"
    )


@pytest.mark.parametrize(
    ("path", "old", "new", "fault"),
    [
        (PYPROJECT, '"1.2.3"', '"1.2.4"', "CHANGELOG.md: its newest version is ['1.2.3']"),
        (PYPROJECT, '"1.2.3"', '"1.2"', "'1.2' is no version"),
        (CODE, '"1.2.3"', '"1.2.2"', "version.py: it says 1.2.2, not 1.2.3"),
        (CHART, "\nversion: 1.2.3", "\nversion: 1.2.2", "version is 1.2.2, not 1.2.3"),
        (CHART, '"1.2.3"', '"1.2.2"', "appVersion is 1.2.2, not 1.2.3"),
        (CHART, "\nappVersion", "\nappVersions", "appVersion is missing, not 1.2.3"),
    ],
)
def test_what_does_not_agree_is_named(
    checkout: Path, path: Path, old: str, new: str, fault: str
) -> None:
    change(checkout / path, old, new)

    assert any(fault in one for one in faults(checkout))


def test_a_tag_needs_its_version_and_a_changelog_that_is_done(checkout: Path) -> None:
    assert faults(checkout, tag="1.2.3") == [
        "the tag is 1.2.3, the version 1.2.3: the tag has to be v1.2.3",
        "CHANGELOG.md: there is still a section Unreleased",
    ]
    change(checkout / CHANGELOG, "- A first version.\n", "")
    assert "CHANGELOG.md: nothing is said of 1.2.3" in faults(checkout, tag="v1.2.3")


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("1.2", "no version"),
        ("v1.3.0", "no version"),
        ("01.2.3", "no version"),
        ("1.3.0+local", "no version"),
        ("1.2.3", "has a section 1.2.3 already"),
    ],
)
def test_a_wrong_version_changes_nothing(checkout: Path, new: str, said: str) -> None:
    before = {path: (checkout / path).read_text() for path in (PYPROJECT, CODE, CHART, CHANGELOG)}

    with pytest.raises(ReleaseError, match=said):
        prepare(checkout, new)
    assert before == {path: (checkout / path).read_text() for path in before}


def test_nothing_is_released_of_which_nothing_is_said(checkout: Path) -> None:
    change(checkout / CHANGELOG, "- Something new.\n", "")

    with pytest.raises(ReleaseError, match="nothing under Unreleased"):
        prepare(checkout, "1.3.0")
