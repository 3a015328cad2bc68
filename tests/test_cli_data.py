"""What commands say of the data before they begin."""

import pytest

from cli import data
from dataset.findings import Findings

LONG = "a very/long/path/" * 8 + "image.png"


def said(findings: Findings, capsys: pytest.CaptureFixture[str]) -> str:
    data.say_findings(findings)
    out, err = capsys.readouterr()
    assert out == "", "standard output is for results"
    return err


def test_the_most_frequent_reason_comes_first_with_its_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = Findings()
    findings.add("a rare thing", "rare.png")
    for number in range(1234):
        findings.add("a usual thing", f"usual-{number}.png")
    shown = said(findings, capsys)
    assert shown.index("1,234") < shown.index("a rare thing")
    assert [f"usual-{number}.png" in shown for number in range(4)] == [True, True, True, False]


def test_what_was_found_is_shown_as_it_is_and_fits_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = Findings()
    findings.add("class [/old] and [bold]", "coat [/old]/[red]x[/red].png")
    findings.add("long", LONG)
    findings.add("wide", "帽子" * 60)
    shown = said(findings, capsys)
    assert "[/old]" in shown
    assert "[red]x[/red].png" in "".join(shown.split())
    assert "".join(LONG.split()) in "".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_nothing_is_said_of_data_without_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(Findings(), capsys) == ""
