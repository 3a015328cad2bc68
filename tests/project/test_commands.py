"""Every command is run on what `lookalike demo` makes, and on photos; plain and with --json."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from cli.commands import app
from tests.support.commands.newcomer import run_all
from tests.support.commands.run_command import lookalike
from tests.support.images.pngs import encoded, picture
from tests.support.server.servers import answered, running_server


@dataclass(frozen=True)
class Sandbox:
    """A folder to work in, and what lies in it."""

    folder: Path
    words: dict[str, str]  # what stands for MODEL, GALLERY, DATA, ID and OLD


# What is typed after each command.
CASES = {
    "classify": "MODEL photo.jpg -k 3",
    "search": "GALLERY photo.jpg -k 5 --vote",
    "index info": "GALLERY",
    "index verify": "GALLERY",
    "index classes": "GALLERY --out made/classed",
    "index duplicates": "GALLERY --min-score 0.999",
    "index replace": "GALLERY ID photo.jpg",
    "index edit": "GALLERY ID --label jacket",
    "index add": "GALLERY --data few",
    "index build": "MODEL --data few --out made/gallery",
    "index export": "GALLERY made/export",
    "index import": "made/copy ready/export",
    "index backup": "GALLERY made/backup",
    "index restore": "ready/backup made/restored",
    "index rebuild": "GALLERY",
    "index tune": "ready/gallery",
    "index compact": "GALLERY",
    "index remove": "GALLERY OLD",
    "index purge": "ready/gallery",
    "pack": "MODEL",
    "new-key": "shop --rights read,write",
    "train": "--recipe cnn --data photos --out made/model --epochs 1 --size 32",
    "evaluate": "MODEL --data DATA",
    "compare": "MODEL MODEL --data DATA",
    "export": "MODEL --data DATA --precision fp32 --max-accuracy-loss 100",
    "demo": "--no-serve --out demo",
    "up": "photos --plan",  # the rest of it: tests/cli/up/test_up.py
}
READY = (  # what a case finds there
    "index build MODEL --data few --out ready/gallery",
    "index export ready/gallery ready/export",
    "index backup ready/gallery ready/backup",
)
ONLY = {
    "demo": "demo",
    "train": "photo",
    "up": "photo",
}  # sandboxes; `train` on Fashion-MNIST is what `demo` does
# Those that load torch and all images; in short form they are run by the test of the documents.
LONG = {"train", "evaluate", "compare", "export"}
# Those that go through all 60,000 images of the demo: in short form, `index compact` does.
LONG_FOR_MANY = {"index rebuild", "index duplicates"}
STARTED = {"serve"}  # it goes on until it is stopped: a test of its own
SAYS_ONLY = {
    "pack",
    "train",
    "export",
    "demo",
    "up",
}  # what they make is the result, not what they say


def commands() -> dict[str, set[str]]:
    """Return the options of every command of the program, by the command's name."""

    def walk(command: typer.core.TyperGroup, before: str = "") -> Iterator[tuple[str, set[str]]]:
        for name, one in command.commands.items():
            if isinstance(one, typer.core.TyperGroup):
                yield from walk(one, f"{before}{name} ")
            else:
                options = one.get_params(typer.Context(one))
                yield f"{before}{name}", {flag for given in options for flag in given.opts}

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return dict(walk(group))


def test_every_command_has_a_case() -> None:
    assert set(commands()) == set(CASES) | STARTED


@pytest.fixture(scope="module")
def sandboxes() -> dict[str, Sandbox]:
    """Return those that a test of this module has prepared."""
    return {}


@pytest.fixture
def sandbox(
    request: pytest.FixtureRequest,
    sandboxes: dict[str, Sandbox],
    tmp_path_factory: pytest.TempPathFactory,
) -> Sandbox:
    """A copy, which commands may change."""
    name: str = request.param
    if name not in sandboxes:
        folder = tmp_path_factory.mktemp(name)
        source: Path = request.getfixturevalue(f"{name}_folder")
        sandboxes[name] = prepared(Path(shutil.copytree(source, folder, dirs_exist_ok=True)), name)
    shutil.rmtree(sandboxes[name].folder / "made", ignore_errors=True)
    return sandboxes[name]


def prepared(folder: Path, name: str) -> Sandbox:
    (folder / "few" / "coat").mkdir(parents=True)
    (folder / "photo.jpg").write_bytes(encoded(picture(77, (400, 300)), "JPEG"))
    shutil.copy(folder / "photo.jpg", folder / "few" / "coat" / "new.jpg")
    if name == "demo":
        words = {"MODEL": "demo/model", "GALLERY": "demo/gallery", "DATA": "fashion-mnist"}
        words |= {"ID": "fashion-mnist:train:00007", "OLD": "fashion-mnist:train:0000"}
    else:
        words = {"MODEL": "models/photos", "GALLERY": "galleries/photos", "DATA": "photos"}
        words |= {"ID": "coat:001.jpg", "OLD": "coat:00"}
    sandbox = Sandbox(folder, words)
    for line in READY:
        done = lookalike(*typed(sandbox, line), cwd=folder)
        assert done.returncode == 0, done.stderr
    return sandbox


def typed(sandbox: Sandbox, line: str) -> list[str]:
    return [sandbox.words.get(word, word) for word in line.split()]


def cases() -> list[object]:
    """Return sandboxes, commands and whether --json: by default, each quick one once on each."""

    def marks(sandbox: str, command: str, as_json: bool) -> list[pytest.MarkDecorator]:
        long = LONG | LONG_FOR_MANY if sandbox == "demo" else LONG
        default = as_json == (sandbox == "photo") and command not in long
        return [] if default or command == "demo" else [pytest.mark.slow]

    return [
        pytest.param(
            sandbox,
            command,
            as_json,
            id=f"{sandbox} {command}{' --json' if as_json else ''}",
            marks=marks(sandbox, command, as_json),
        )
        for sandbox in ("demo", "photo")
        for as_json in (False, True)
        for command in CASES
        if ONLY.get(command, sandbox) == sandbox
    ]


@pytest.mark.parametrize(("sandbox", "command", "as_json"), cases(), indirect=["sandbox"])
def test_it_works(sandbox: Sandbox, command: str, as_json: bool) -> None:
    arguments = typed(sandbox, f"{command} {CASES[command]}")
    if command == "index remove":
        arguments[-1] += "2" if as_json else "3"  # ids that end so
        arguments[-1] += ".jpg" if arguments[-1].startswith("coat") else ""
    if as_json:
        arguments.append("--json")

    done = lookalike(*arguments, cwd=sandbox.folder, BENTOML_HOME=str(sandbox.folder / "bentos"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if as_json:
        assert isinstance(json.loads(done.stdout), dict)
    elif command not in SAYS_ONLY:
        assert done.stdout
    assert max(map(len, done.stdout.splitlines()), default=0) <= 80 or as_json  # columns


@pytest.mark.slow
def test_the_demo_is_made_from_nothing(tmp_path: Path) -> None:
    run_all(["demo --no-serve --epochs 1 --out demo", "index info demo/gallery"], tmp_path)


@pytest.mark.parametrize("sandbox", ["demo", "photo"], indirect=True)
def test_it_is_served(sandbox: Sandbox) -> None:
    model, gallery = (sandbox.folder / sandbox.words[word] for word in ("MODEL", "GALLERY"))
    with running_server(model, gallery, sandbox.folder / "log.txt") as server:
        data = (sandbox.folder / "photo.jpg").read_bytes()
        headers = {"Content-Type": "image/jpeg"}
        with server.client() as client:
            found = answered(client.post("/v1/search", content=data, headers=headers))
            said = answered(client.post("/v1/classify", content=data, headers=headers))
    assert len(found["hits"]) == 10
    assert said["label"] in {one["label"] for one in said["predictions"]}
    assert "Traceback" not in (sandbox.folder / "log.txt").read_text()
