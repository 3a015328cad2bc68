"""Wrong uses of every command: exit codes 1 or 2, a sentence that names the fault, nothing lost."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands.fork_server import drop_privileges
from tests.support.commands.run_command import COMMAND_S, lookalike, start
from tests.support.server.servers import clean_environment

# What is typed, the exit code, and what the sentence says. MODEL and GALLERY are those of photos;
# `other` has another model's, `cut.jpg` is half a picture, `text.txt` and `empty` are a file and a
# folder of the wrong kind.
WRONG = {
    "classify MODEL nowhere.jpg": (2, "'nowhere.jpg' does not exist"),
    "classify MODEL empty": (2, "'empty' is a folder"),
    "classify MODEL empty --out answers.csv": (1, "there are no images in empty"),
    "classify MODEL photo.jpg --out answers.csv": (2, "one image is printed"),
    "classify MODEL photos --out answers.txt": (2, ".csv or .jsonl"),
    "search GALLERY photos --out answers.csv --vote": (2, "votes are written to .jsonl"),
    "classify MODEL cut.jpg": (1, "cut.jpg: the JPEG image is truncated or damaged"),
    "classify MODEL text.txt": (1, "text.txt: this is text, and not a JPEG"),
    "classify MODEL - <text.txt": (1, "standard input: this is text, and not a JPEG"),
    "classify MODEL - <empty.jpg": (1, "standard input: the image is empty"),
    "classify text.txt photo.jpg": (1, "text.txt"),
    "classify GALLERY photo.jpg": (1, "is not a model folder"),
    "classify MODEL photo.jpg --device cuda:99": (1, "cuda:99"),
    "classify MODEL photo.jpg --device banana": (1, "unknown device 'banana'"),
    "search GALLERY cut.jpg": (1, "cut.jpg: the JPEG image is truncated or damaged"),
    "search MODEL photo.jpg": (1, "is not a gallery"),
    "search GALLERY photo.jpg --model demo/model": (1, "holds vectors of model"),
    "search GALLERY photo.jpg --filter nonsense": (2, "not JSON"),
    "search GALLERY photo.jpg --min-score nan": (2, "--min-score"),
    "search GALLERY photo.jpg --all": (2, "--min-score"),
    "index info text.txt": (1, "text.txt is not a gallery"),
    "index verify empty": (1, "empty is not a gallery"),
    "index remove GALLERY nothing": (1, "nothing"),
    "index replace GALLERY nothing photo.jpg": (1, "no item has the id 'nothing'"),
    "index replace GALLERY coat:001.jpg cut.jpg": (1, "cut.jpg: the JPEG image is truncated"),
    "index edit GALLERY nothing --label coat": (1, "no item has the id 'nothing'"),
    "index edit GALLERY coat:001.jpg": (2, "name a --label or --no-label, or --metadata"),
    "index edit GALLERY coat:001.jpg --metadata 7": (2, "not a JSON object"),
    "index add GALLERY --data nowhere": (1, "nowhere"),
    "index add GALLERY --data empty": (1, "there are no images in empty"),
    "index build demo/model --data photos --out GALLERY": (1, "holds vectors of model"),
    "index build MODEL --data photos --out text.txt": (1, "a file is in the way"),
    "index build MODEL --data photos --out text.txt/below": (1, "text.txt/below"),
    "index export GALLERY text.txt": (1, "text.txt: it is there already"),
    "index import GALLERY text.txt": (1, "text.txt is not a gallery"),
    "index import GALLERY photos": (1, "photos is neither a gallery nor an export"),
    "index backup GALLERY photos": (1, "photos: the folder is not empty"),
    "index restore empty made": (1, "empty is not a backup"),
    "index rebuild text.txt": (1, "text.txt is not a gallery"),
    "index tune GALLERY --recall 2": (2, "--recall"),
    "index compact nowhere": (1, "nowhere is not a gallery"),
    "index duplicates MODEL": (1, "is not a gallery"),
    "pack text.txt": (1, "text.txt"),
    "evaluate MODEL --data nowhere": (1, "nowhere"),
    "compare MODEL demo/model --data photos": (1, "different classes"),
    "compare MODEL MODEL --must-not-lose beauty": (2, "'beauty' cannot be tested"),
    "export empty": (1, "empty is not a model folder"),
    "train --data empty --out made": (1, "empty"),
    "train --data photos --out made --batch-size 0": (2, "--batch-size"),
    "demo --no-serve --out text.txt": (1, "text.txt"),
    "serve --model MODEL --gallery text.txt": (1, "text.txt"),
    "serve --model text.txt --gallery GALLERY": (1, "text.txt"),
    "serve --model demo/model --gallery GALLERY": (1, "holds vectors of model"),
    "serve --model MODEL --gallery GALLERY --host nonsense": (2, "cannot listen on nonsense"),
    "serve --model MODEL --gallery GALLERY --api-keys-file text.txt": (1, "text.txt"),
    "new-key shop --expires yesterday": (2, "'yesterday'"),
}


@pytest.fixture(scope="module")
def folder(photo_folder: Path, demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    shutil.copytree(photo_folder, folder, dirs_exist_ok=True)
    (folder / "demo").mkdir()
    (folder / "demo" / "model").symlink_to(demo_folder / "demo" / "model")
    shutil.copy(folder / "photos" / "coat" / "001.jpg", folder / "photo.jpg")
    (folder / "cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:2000])
    (folder / "text.txt").write_text("hello")
    (folder / "empty.jpg").touch()
    (folder / "empty").mkdir()
    return folder


def typed(line: str) -> list[str]:
    words = {"MODEL": "models/photos", "GALLERY": "galleries/photos"}
    return [words.get(word, word) for word in line.split()]


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the sentence on standard error: ours after 1, typer's box after 2."""
    assert "Traceback" not in done.stdout + done.stderr
    assert "something went wrong that should not have" not in done.stderr
    if done.returncode == 2:
        return " ".join(done.stderr.replace("│", " ").split())
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lookalike: ")]
    return line


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_use_is_told_in_a_sentence(line: str, folder: Path) -> None:
    command, _, stdin = line.partition(" <")
    code, part = WRONG[line]
    before = sorted(path for path in folder.rglob("*") if "gallery.sqlite" not in path.name)

    with (folder / (stdin or "empty.jpg")).open("rb") as file:
        done = lookalike(*typed(command), cwd=folder, stdin=file)

    assert done.returncode == code, done.stderr
    assert part in said(done)
    after = sorted(path for path in folder.rglob("*") if "gallery.sqlite" not in path.name)
    assert after == before  # nothing half-made is left


def test_an_image_is_read_from_standard_input(folder: Path) -> None:
    answers = []
    for image in ("-", "photo.jpg"):
        with (folder / "photo.jpg").open("rb") as file:
            done = lookalike(*typed(f"search GALLERY {image} --json"), cwd=folder, stdin=file)
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    assert answers[0] == answers[1]


FORBIDDEN = {
    "classify MODEL closed.jpg": "closed.jpg",
    "classify closed photo.jpg": "closed",
    "search closed photo.jpg": "closed",
    "index info closed": "closed",
    "index add GALLERY --data closed": "closed",
    "index build MODEL --data photos --out closed/gallery": "closed/gallery",
    "index export GALLERY closed/export": "closed/export",
    "index backup GALLERY closed/backup": "closed/backup",
    "evaluate MODEL --data closed": "closed",
    "train --recipe cnn --data photos --out closed/model --epochs 1 --size 32": "closed/model",
    "serve --model MODEL --gallery GALLERY --api-keys-file closed.jpg": "closed.jpg",
}


@pytest.mark.parametrize("line", FORBIDDEN)
def test_what_may_not_be_read_or_written_is_named(line: str, folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o000, exist_ok=True)
    (folder / "closed.jpg").touch(mode=0o000)

    done = lookalike(*typed(line), cwd=folder, privileged=False)

    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert FORBIDDEN[line] in said(done)


HOMES: dict[str, Callable[[Path], dict[str, str]]] = {
    "unset": lambda _: {},
    "not there": lambda folder: {"HOME": str(folder / "nowhere")},
    "a file": lambda folder: {"HOME": str(folder / "text.txt")},
    "not writable": lambda folder: {"HOME": str(folder / "closed-home")},
}


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("line", ["classify MODEL photo.jpg", "index info GALLERY", "pack MODEL"])
def test_no_home_is_needed_or_its_lack_is_told(line: str, home: str, folder: Path) -> None:
    (folder / "closed-home").mkdir(mode=0o500, exist_ok=True)
    environment = clean_environment()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    if home == "unset" and line.startswith("pack"):
        environment["BENTOML_HOME"] = str(folder / "bentos")  # else this person's own would be used
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *typed(line)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment | HOMES[home](folder),
        preexec_fn=drop_privileges,
        timeout=COMMAND_S,
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.returncode == 0 or line.startswith("pack")
    assert done.returncode == 0 or said(done)


# Interrupted when this is seen on the terminal.
INTERRUPTED = {
    "index build demo/model --data fashion-mnist --out made/gallery": "indexing",
    "index duplicates demo/gallery --near": "comparing",
    "index tune demo/gallery": "starting",
    "evaluate demo/model": "reading images",
    "compare demo/model demo/model": "reading images",
    "export demo/model --precision fp32": "reading images",
    "train --out made/model": "reading images",
    "demo --no-serve --out made/demo": "epoch 1/12",
}


@pytest.mark.parametrize("line", INTERRUPTED)
def test_ctrl_c_in_the_middle_ends_with_130_and_a_sentence(line: str, demo_folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = start(line.split(), cwd=demo_folder, stderr=theirs)
    os.close(theirs)
    seen, interrupted = b"", False
    while chunk := read(ours):
        seen += chunk
        if not interrupted and INTERRUPTED[line].encode() in seen:
            command.send_signal(signal.SIGINT)
            interrupted = True
    os.close(ours)
    assert command.wait() == 130, seen.decode()
    assert b"lookalike: interrupted; what was finished is kept" in seen
    assert b"Traceback" not in seen
    shutil.rmtree(demo_folder / "made", ignore_errors=True)


def read(terminal: int) -> bytes:
    """Return what came on a terminal; nothing when the other end has been closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_eighty_columns_are_enough(folder: Path) -> None:
    for line in (
        "index info GALLERY",
        "search GALLERY photo.jpg --vote",
        "classify MODEL photo.jpg",
    ):
        done = lookalike(*typed(line), cwd=folder)
        assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
