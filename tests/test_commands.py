"""Every command is run on what `lookalike demo` makes, and on photos; plain and with --json."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from cli.commands import app
from tests.newcomer import lookalike
from tests.pictures import encoded, picture
from tests.servers import running_server


@dataclass(frozen=True)
class Desk:
    """A folder to work in, and what lies in it."""

    folder: Path
    words: dict[str, str]  # what stands for MODEL, GALLERY, DATA, FEW (images) and ID


# What is typed after each command. They run in this order, in one folder.
CASES = {
    "classify": "MODEL photo.jpg -k 3",
    "search": "GALLERY photo.jpg -k 5 --vote",
    "index info": "GALLERY",
    "index verify": "GALLERY",
    "index duplicates": "GALLERY --min-score 0.999",
    "index replace": "GALLERY ID photo.jpg",
    "index add": "GALLERY --data FEW",
    "index build": "MODEL --data FEW --out galleries/few",
    "index export": "GALLERY out/export",
    "index import": "galleries/copy out/export",
    "index backup": "GALLERY out/backup",
    "index restore": "out/backup galleries/restored",
    "index rebuild": "GALLERY",
    "index tune": "galleries/few",
    "index compact": "galleries/few",
    "index remove": "galleries/few coat:new.jpg",
    "pack": "MODEL",
    "new-key": "shop --rights read,write",
    "train": "--data photos --out models/again --epochs 1 --size 32",
    "evaluate": "MODEL --data DATA",
    "compare": "MODEL MODEL --data DATA",
    "export": "MODEL --data DATA --precision fp32 --max-accuracy-loss 100",
    "demo": "--no-serve --out demo",
}
SLOW = {"evaluate", "compare", "export", "train"}  # tens of seconds each on Fashion-MNIST
STARTED = {"serve"}  # it goes on until it is stopped: a test of its own
MAKES = ("out", "galleries/few", "galleries/copy", "galleries/restored", "models/again")


def commands() -> dict[str, set[str]]:
    """Return the options of every command of the program, by the command's name."""

    def walk(command: typer.core.TyperGroup, before: str = "") -> Iterator[tuple[str, set[str]]]:
        for name, one in command.commands.items():
            if isinstance(one, typer.core.TyperGroup):
                yield from walk(one, f"{before}{name} ")
            else:
                yield f"{before}{name}", {flag for given in one.params for flag in given.opts}

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return dict(walk(group))


def test_every_command_has_a_case() -> None:
    assert set(commands()) == set(CASES) | STARTED


@pytest.fixture(scope="module", params=["demo", "photo"])
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A copy, which commands may change."""
    source: Path = request.getfixturevalue(f"{request.param}_desk")
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "few" / "coat").mkdir(parents=True)
    (folder / "photo.jpg").write_bytes(encoded(picture(77, (400, 300)), "JPEG"))
    shutil.copy(folder / "photo.jpg", folder / "few" / "coat" / "new.jpg")
    words = {"FEW": "few"}
    if request.param == "demo":
        words |= {"MODEL": "demo/model", "GALLERY": "demo/gallery", "DATA": "fashion-mnist"}
        words["ID"] = "fashion-mnist:train:00007"
    else:
        words |= {"MODEL": "models/photos", "GALLERY": "galleries/photos", "DATA": "photos"}
        words["ID"] = "coat:001.jpg"
    return Desk(folder, words)


def typed(desk: Desk, command: str) -> list[str]:
    return [desk.words.get(word, word) for word in f"{command} {CASES[command]}".split()]


def cases() -> list[object]:
    return [
        pytest.param(command, as_json, id=f"{command}{' --json' if as_json else ''}")
        for as_json in (False, True)
        for command in CASES
    ]


@pytest.mark.parametrize(("command", "as_json"), cases())
def test_it_works(desk: Desk, command: str, as_json: bool) -> None:
    arguments = typed(desk, command)
    if as_json:
        for made in MAKES if command == "classify" else ():  # the second round begins
            shutil.rmtree(desk.folder / made, ignore_errors=True)
        arguments.append("--json")

    home = str(desk.folder / "bentos")
    done = lookalike(*arguments, cwd=desk.folder, BENTOML_HOME=home)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if as_json:
        assert isinstance(json.loads(done.stdout), dict)


def test_it_is_served(desk: Desk) -> None:
    model, gallery = (desk.folder / desk.words[word] for word in ("MODEL", "GALLERY"))
    with running_server(model, gallery, desk.folder / "log.txt") as server:
        data = (desk.folder / "photo.jpg").read_bytes()
        headers = {"Content-Type": "image/jpeg"}
        with server.client() as client:
            found = client.post("/v1/search", content=data, headers=headers).json()
            said = client.post("/v1/classify", content=data, headers=headers).json()
    assert len(found["hits"]) == 10
    assert said["label"] in {one["label"] for one in said["predictions"]}
    assert "Traceback" not in (desk.folder / "log.txt").read_text()
