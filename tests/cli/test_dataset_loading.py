"""What commands say of the data before they begin."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from cli.support import dataset_loading
from dataset.findings import Findings
from tests.support.images.pngs import write_photographs
from tests.support.models import write_model

LONG = "a very/long/path/" * 8 + "image.png"


def said(findings: Findings, capsys: pytest.CaptureFixture[str]) -> str:
    dataset_loading.print_findings(findings)
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
    ends = [line.split()[-1] for line in shown.splitlines() if "usual-" in line]
    assert ends == ["usual-0.png", "usual-1.png", "usual-2.png"], "one a line"
    assert "\\n" not in shown


def test_what_was_found_is_shown_as_it_is_and_fits_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = Findings()
    findings.add("class [/old] and [bold]", "coat [/old]/[red]x[/red].png")
    findings.add("long", LONG)
    findings.add("wide", "帽子" * 60)
    findings.add("two", "first.png")
    findings.add("two", "second.png")
    shown = said(findings, capsys)
    assert "[/old]" in shown
    assert "[red]x[/red].png" in "".join(shown.split())
    assert "\\n" not in shown
    assert "".join(LONG.split()) in "".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_nothing_is_said_of_data_without_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(Findings(), capsys) == ""


def test_every_command_tells_what_it_found_in_the_same_data(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos = write_photographs(tmp_path / "photos", classes=2)
    labels = tuple(sorted(path.name for path in photos.iterdir()))
    (photos / labels[0] / "@eaDir").mkdir()
    (photos / labels[1] / "notes.txt").write_text("no photo")
    (photos / "empty").mkdir()
    for name in ("first", "second"):
        write_model(tmp_path / name, labels=labels)
    first = str(tmp_path / "first")
    train = ["train", "--recipe", "cnn", "--out", str(tmp_path / "m")]
    train += ["--epochs", "1", "--size", "24"]
    commands = [
        train,
        ["evaluate", first],
        ["compare", first, str(tmp_path / "second")],
        ["export", first, "--min-overlap", "0", "--max-accuracy-loss", "100"],
        ["index", "build", first, "--out", str(tmp_path / "gallery")],
    ]
    expected = {
        "thumbnails of a Synology (@eaDir)": [f"{labels[0]}/@eaDir"],
        "not a picture, by its content": [f"{labels[1]}/notes.txt"],
        "a folder without pictures": ["empty"],
    }
    for command in commands:
        result = CliRunner().invoke(app, [*command, "--data", str(photos), "--json"])
        assert result.exit_code == 0, (command, result.exception)
        told = {one["reason"]: one["examples"] for one in json.loads(result.stdout)["findings"]}
        assert {reason: told.get(reason) for reason in expected} == expected, command
        for examples in expected.values():
            assert examples[0] in result.stderr, command
