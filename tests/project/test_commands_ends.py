"""However a command ends, a person reads a sentence: what `cli.main` does with all that is raised.

A command that breaks in a chosen way is added to the program, which then runs as it always does.
"""

import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands.run_command import lookalike
from tests.support.server.servers import ROOT, clean_environment

PROGRAM = """
import sys, threading, time
from cli import main
from cli.commands import app
from cli.support.console import print_info, print_json, progress, stdout

@app.command("break")
def break_(argument: str = "") -> None:
{body}

sys.argv[0] = "lookalike"
main.main()
"""
TOKEN = "lk_" + "a1B2-" * 8


def broken(
    body: str, *arguments: str, folder: Path, limit_files: bool = False, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of this body; temporary files go to ``folder``."""
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=indented), "break", *arguments],
        capture_output=True,
        encoding=settings.get("PYTHONIOENCODING", "utf-8"),
        check=False,
        cwd=folder,
        env=clean_environment(TMPDIR=str(folder), **settings),
        timeout=60,
        preexec_fn=_write_nothing if limit_files else None,
    )


def _write_nothing() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def sentence_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of a command that failed."""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lookalike: ")]
    return line


UNFORESEEN = {
    'raise ValueError("array is not writeable")': "ValueError: array is not writeable",
    'raise KeyError("labels")': "KeyError: 'labels'",
    "assert argument": "AssertionError",
    "def deeper(): deeper()\ndeeper()": "RecursionError: maximum recursion depth exceeded",
    'raise OSError("cannot identify image file")': "OSError: cannot identify image file",
    'with progress() as bar:\n    bar.add_task("x", total=9, note="")\n    1 / 0': (
        "ZeroDivisionError: division by zero"
    ),
    "import vision.no_such_module": "ModuleNotFoundError: No module named 'vision.no_such_module'",
    "t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()": (
        "ZeroDivisionError: division by zero"
    ),
    'raise BaseExceptionGroup("two", [ValueError("a"), KeyError("b")])': "two (2 sub-exceptions)",
}


@pytest.mark.parametrize(("body", "said"), UNFORESEEN.items())
def test_an_unforeseen_error_is_told_in_a_sentence_and_reported(
    body: str, said: str, tmp_path: Path
) -> None:
    done = broken(body, "--argument", "", folder=tmp_path)

    assert done.returncode == 1
    assert done.stdout == ""
    sentence = sentence_of(done)
    assert sentence.startswith("lookalike: something went wrong that should not have: ")
    assert said in sentence
    (report,) = tmp_path.iterdir()
    assert f"The full report is in {report}; please attach it when you report this" in sentence
    text = report.read_text()
    assert "Traceback (most recent call last)" in text
    assert "command: 'lookalike' 'break' '--argument' ''" in text
    assert f"python: {sys.version.split()[0]}" in text
    assert "lookalike: " in text
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_a_report_holds_no_secrets(tmp_path: Path) -> None:
    body = f'raise ValueError("key {TOKEN} of https://me:pass-word@example.com: password=hush-1")'
    arguments = ("--argument", f"http://user:hush-2@host/?token=hush-3 Bearer hush-4 {TOKEN}")
    done = broken(body, *arguments, folder=tmp_path, LOOKALIKE_SOMETHING="hush-5")

    (report,) = tmp_path.iterdir()
    # The source of a command is in its traceback; ours holds no secrets, that of this test does.
    for secret in (TOKEN, "pass-word", *(f"hush-{number}" for number in range(1, 6))):
        assert secret not in report.read_text() + done.stderr


def test_where_no_report_can_be_written_the_place_is_said(tmp_path: Path) -> None:
    done = broken("1 / 0", folder=tmp_path, limit_files=True)

    assert done.returncode == 1
    assert "It happened in <string>, line 9; a full report could not be" in sentence_of(done)


FORESEEN = {
    "raise MemoryError": "lookalike: there is not enough memory for this",
    'raise RuntimeError("CUDA error: out of memory")': "there is not enough memory",
    "import torch\ntorch.empty(2**60)": "there is not enough memory for this",
    'raise OSError(28, "No space left on device")': "No space left on device",
    'open("nowhere/x")': "lookalike: nowhere/x: No such file or directory",
    'open("/proc/self/mem", "rb").read(1)': "reading or writing failed: Input/output error",
}


@pytest.mark.parametrize(("body", "said"), FORESEEN.items())
def test_what_a_person_can_mend_needs_no_report(body: str, said: str, tmp_path: Path) -> None:
    done = broken(body, folder=tmp_path)

    assert done.returncode == 1
    assert said in sentence_of(done)
    assert list(tmp_path.iterdir()) == []


INTERRUPTIONS = {
    "in the command": "raise KeyboardInterrupt",
    "under a progress display": "with progress():\n    raise KeyboardInterrupt",
    "while another error is handled": "try:\n    1 / 0\nfinally:\n    raise KeyboardInterrupt",
    "with a thread that goes on": (
        "threading.Thread(target=time.sleep, args=(1,)).start()\nraise KeyboardInterrupt"
    ),
}


@pytest.mark.parametrize("body", INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys())
def test_an_interruption_ends_with_130_and_its_sentence(body: str, tmp_path: Path) -> None:
    done = broken(body, folder=tmp_path)

    assert done.returncode == 130
    assert sentence_of(done) == "lookalike: interrupted; what was finished is kept"


def test_an_interruption_while_the_program_is_being_loaded_is_told_as_well() -> None:
    program = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "cli.search":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
import runpy
sys.argv = ["lookalike", "--help"]
runpy.run_module("cli.main", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=clean_environment(),
    )
    assert done.returncode == 130
    assert sentence_of(done) == "lookalike: interrupted; what was finished is kept"


def test_an_error_in_a_destructor_ends_nothing(tmp_path: Path) -> None:
    body = "class D:\n    def __del__(self):\n        1 / 0\nD()\nprint('done')"
    done = broken(body, folder=tmp_path)

    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "ZeroDivisionError" in sentence_of(done)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_character_is_printed_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    body = "print_json({'label': 'Größe ≥ 42 \\ud800 \\U0001f97f'})"
    done = broken(body, folder=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"label": "Größe ≥ 42 \ud800 \U0001f97f"}

    body = "from rich.table import Table\nt = Table('größe')\nt.add_row('≥ 42 \\ud800')\n"
    plain = broken(f"{body}stdout.print(t)", folder=tmp_path, PYTHONIOENCODING=encoding)
    assert plain.returncode == 0, plain.stderr
    assert "42 \\ud800" in plain.stdout


def test_an_argument_that_no_encoding_has_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "index", "info", b"gal\xfflery", "--json"],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"lookalike: gal")


LINE_BY_LINE = "for n in range(20_000):\n    stdout.print('a line')"
AT_ONCE = "print_json({'lines': ['a line'] * 100_000})"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("body", [LINE_BY_LINE, AT_ONCE], ids=["lines", "at once"])
def test_a_reader_that_has_seen_enough_is_not_told_anything(
    body: str, unbuffered: str, tmp_path: Path
) -> None:
    program = PROGRAM.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    with subprocess.Popen(
        [sys.executable, "-c", program, "break"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(TMPDIR=str(tmp_path), PYTHONUNBUFFERED=unbuffered),
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("what", ["stdout.print('x')", "print_json({'a': 1})", "print('x')"])
def test_a_full_disk_under_the_output_is_told(what: str, tmp_path: Path) -> None:
    program = PROGRAM.format(body=f"    {what}")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "break"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=tmp_path,
            env=clean_environment(),
        )
    assert done.returncode == 1
    assert done.stderr == "lookalike: reading or writing failed: No space left on device\n"


def test_an_error_that_cannot_be_said_still_ends_with_1(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "index", "info", "nowhere"],
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
            cwd=tmp_path,
            env=clean_environment(),
        )
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_with_a_closed_stream_no_file_gets_its_number(closed: int, tmp_path: Path) -> None:
    body = "import os\nopened = os.open('/dev/null', os.O_RDONLY)\nassert opened > 2\nprint(1)"
    program = PROGRAM.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    done = subprocess.run(
        [sys.executable, "-c", program, "break"],
        check=False,
        cwd=tmp_path,
        env=clean_environment(TMPDIR=str(tmp_path)),
        preexec_fn=lambda: os.close(closed),
    )
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_the_help_is_printed(tmp_path: Path) -> None:
    done = lookalike(cwd=tmp_path)

    assert "index" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
