"""Labels, ids, file names and metadata that try to be more than text, through every command."""

import csv
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
from rich.progress import Progress
from typer.testing import CliRunner, Result

from cli.commands import app
from cli.support.console import PlainConsole, print_info, print_json, progress, stdout
from tests.support.commands.run_command import lookalike
from tests.support.images.pngs import picture
from tests.support.paths import ROOT

LABELS = (
    "coat [/old]",
    "[bold]hat[/bold]",
    "<script>alert(1)</script>",
    "a|b `c` *d* _e_",
    r"back\slash [\/x]",
    ":smile: [link=http://x]y",
    "معطف [/]",
)
MODEL = "model [/x] <b>"  # and so a folder in a folder
GALLERY = "gallery [/g] :boom:"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout, "_width", 400)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of photos whose labels, folders and names are hostile; one is no picture."""
    folder = tmp_path_factory.mktemp("photos") / "[/photos] <i>"
    (folder / "[").mkdir(parents=True)  # a slash in a name makes two of it, and a tag of the path
    rows = [("path", "label")]
    for kind, label in enumerate(LABELS):
        for number in range(6):
            path = folder / f"[/{kind}] {number} :x: `.png"
            picture(100 * kind + number).save(path)
            rows.append((str(path.relative_to(folder)), label))
    (folder / "[/broken].png").write_text("no picture")
    rows.append(("[/broken].png", LABELS[0]))
    path = folder / "[table].csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def model(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / MODEL
    short = ["--recipe", "cnn", "--epochs", 1, "--size", 24, "--batch-size", 16, "--device", "cpu"]
    result = run("train", "--data", table, "--out", out, *short)
    assert "[/broken].png" in result.stderr
    assert f"{out}: test accuracy" in result.stderr
    return out


@pytest.fixture(scope="module")
def gallery(table: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with the hostile labels and ids, made of such files."""
    out = tmp_path_factory.mktemp("galleries") / GALLERY
    images = table.parent.parent / "classes"
    (images / "[c] <b>").mkdir(parents=True, exist_ok=True)
    for number in range(2):
        picture(number).save(images / "[c] <b>" / f"[{number}] :x:.png")
    run("index", "build", model, "--data", images, "--out", out, "--device", "cpu")
    return out


def test_every_label_is_shown_as_it_is_by_evaluate_and_in_its_documents(
    table: Path, model: Path, tmp_path: Path
) -> None:
    result = run(
        "evaluate", model, "--data", table, "--device", "cpu", "--report", tmp_path / "[/r]"
    )
    for label in LABELS:
        assert label in result.stdout
    assert f"report: {tmp_path / '[/r]'}" in result.stderr
    page = (tmp_path / "[/r]" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card
    [row] = [line for line in card.splitlines() if line.startswith(r"| a\|b")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3  # still two cells


def test_compare_and_classify_show_every_name_as_it_is(
    table: Path, model: Path, tmp_path: Path
) -> None:
    compared = run("compare", model, model, "--data", table, "--device", "cpu")
    assert f"{MODEL} against " in re.sub(r"\s+", " ", compared.stdout)
    photo = next(table.parent.rglob("*0 :x: `.png"))
    classified = run("classify", model, photo, "-k", 99, "--device", "cpu", "--runtime", "torch")
    for label in LABELS:
        assert label in classified.stdout


def test_the_commands_of_a_gallery_show_every_name_as_it_is(
    model: Path, gallery: Path, tmp_path: Path
) -> None:
    label = "[/c] <b>"
    photo = tmp_path / "[/p] :x:.png"
    photo.parent.mkdir()
    picture(7).save(photo)
    on_cpu = ["--device", "cpu"]
    item = json.loads(run("search", gallery, photo, "--json", *on_cpu).stdout)["hits"][0]["id"]
    metadata = json.dumps({"[/key]": "[/value]", "<b>": [":smile:"]})
    replaced = run(
        "index", "replace", gallery, item, photo, "--label", label, "--metadata", metadata, *on_cpu
    )
    assert f"{item}: " in replaced.stdout
    edited = run("index", "edit", gallery, item, "--metadata", '{"[/key]": "[/new]"}').stdout
    assert f'label {label}, metadata {{"<b>": [":smile:"], "[/key]": "[/new]"}}' in edited
    run("index", "edit", gallery, item, "--metadata", metadata)
    found = run("search", gallery, photo, "--vote", *on_cpu).stdout
    for text in (item, label, "[/key]: [/value]", "<b>: [':smile:']"):
        assert text in found, text
    assert Path(GALLERY).name in run("index", "info", gallery).stdout
    assert "no faults" in run("index", "verify", gallery).stdout
    assert item in run("index", "duplicates", gallery, "--min-score", "-1").stdout
    run("index", "compact", gallery)
    run("index", "rebuild", gallery)
    for copy in ("[/copy]", "[/again]"):
        source = gallery if copy == "[/copy]" else tmp_path / "[/copy]"
        command = "backup" if copy == "[/copy]" else "restore"
        assert f"{tmp_path / copy}: " in run("index", command, source, tmp_path / copy).stdout
    table = tmp_path / "[/rows].parquet"
    assert f"{table}: " in run("index", "export", gallery, table).stdout
    imported = run("index", "import", tmp_path / "[/again]", table).stdout
    assert "[/again]" in re.sub(r"\s", "", imported)  # the title is folded
    assert "removed 1" in run("index", "remove", gallery, item).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--recipe", "[/x]"],
        ["train", "--recipe", "backbone-frozen", "--backbone", "torchvision:[/x]"],
        ["train", "--metric-loss", "[/x]"],
        ["evaluate", "[/nowhere]"],
        ["classify", "[/nowhere]", "[/x].png"],
        ["search", "[/nowhere]", "[/x].png", "--filter", '{"must": "[/x]"}'],
        ["index", "info", "[/nowhere]"],
        ["[/no-such-command]"],
    ],
    ids=" ".join,
)
def test_an_error_shows_what_was_given_as_it_is(arguments: list[str], tmp_path: Path) -> None:
    if arguments[0] == "train":
        arguments = [*arguments, "--out", str(tmp_path / "m")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert "[/" in f"{result.output}{result.exception}"
    assert "MarkupError" not in f"{result.exception!r}"


@pytest.mark.parametrize("text", [*LABELS, "\u200fمعطف", "[/]", "[red]", "\\[x]", "🙂 :smile:"])
def test_the_terminal_shows_a_text_as_it_is_wherever_it_stands(text: str) -> None:
    with stdout.capture() as printed:
        stdout.print(text)
    assert printed.get() == text + "\n"
    with progress() as display:
        display.add_task(text, total=1, note=text)
        with display.console.capture() as captured:
            display.console.print(display.make_tasks_table(display.tasks), width=400)
    assert captured.get().count(text) == 2


def test_what_steers_a_terminal_is_shown_and_not_sent() -> None:
    with stdout.capture() as printed:
        stdout.print("a\x1b[2Jb\rc\x07d\x9be\nf", os.fsdecode(b"h\xff.jpg"))
    assert printed.get() == "a\\x1b[2Jb\\rc\\x07d\\x9be\\nf h\\udcff.jpg\n"


def test_a_terminal_without_unicode_gets_numbers_in_place_of_letters() -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = PlainConsole()
    console.file = narrow
    console.print("Größe 上衣")
    narrow.flush()
    assert narrow.buffer.getvalue() == b"Gr\\xf6\\xdfe \\u4e0a\\u8863\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_is_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"label": "Größe 上衣", "path": os.fsdecode(b"h\xff.jpg")}
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", written)
    print_json(value)
    written.flush()
    assert json.loads(written.buffer.getvalue().decode(encoding)) == value  # type: ignore[attr-defined]


def test_a_file_name_that_is_no_text_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"h\xff.jpg")
    print_info(f"left out {name}: not an image")
    assert "h\\udcff.jpg: not an image" in capsys.readouterr().err


def test_no_command_prints_past_the_console() -> None:
    """Markup is switched off in one place; what goes around it would read labels as markup."""
    for path in sorted((ROOT / "cli").rglob("*.py")):
        if path.name == "console.py":
            continue
        text = path.read_text(encoding="utf-8")
        for way in (
            "rich.markup",
            "escape(",
            "from_markup",
            "rich.console",
            "rich import print",
            "print(",
        ):
            found = re.search(rf"(?<![\w.]){re.escape(way)}", text)
            assert found is None, f"{path.name}: {way}"
    assert isinstance(progress(), Progress)


def test_a_model_of_a_hostile_name_is_packed(model: Path, tmp_path: Path) -> None:
    packed = lookalike("pack", str(model), "--json", BENTOML_HOME=str(tmp_path / "bentoml"))
    assert packed.returncode == 0, packed.stderr
    assert json.loads(packed.stdout)["fingerprint"]


def test_a_key_for_a_hostile_client_is_refused_with_a_sentence() -> None:
    result = CliRunner().invoke(app, ["new-key", "[/x] :smile:"])
    assert result.exit_code == 2
    assert "a name has 1 to 64 letters" in result.output
