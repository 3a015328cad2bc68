"""Every command line of the documents, run in order as a reader would type it, in one folder.

What differs from the text stands in the tables below: options that shorten a training, weights that
are not downloaded, ports. A command line that no table and no rule covers is run as it is.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.project.test_commands import commands
from tests.project.test_docs import bare_items, write_shop
from tests.support.commands.run_command import COMMAND_S, lookalike
from tests.support.images.pngs import encoded, picture
from tests.support.server.servers import (
    ROOT,
    Server,
    clean_environment,
    free_port,
    wait_until_ready,
)

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("lookalike", "bentoml", "torchrun", "make", "pip", "python", "python3", "curl")
PORT = "http://localhost:3000"
NOWHERE = "--weights none"  # random ones, in place of those that would be downloaded
BRIEF = "--epochs 1 --size 64"

# What is typed behind a documented line.
ADDED = {
    "lookalike up photos": "--no-serve --budget 5s",
    "lookalike train --data": "--size 48",
    "lookalike train --backbone torchvision:vgg19": "--size 48",
    "lookalike train --recipe backbone-frozen --backbone torchvision:": f"{NOWHERE} {BRIEF}",
    "lookalike train --recipe backbone-finetune --backbone timm:": BRIEF,
    "lookalike train --recipe backbone-finetune --weights models/frozen": BRIEF,
    "lookalike train --recipe backbone-frozen --backbone timm:vit": f"{NOWHERE} {BRIEF} --size 56",
    "lookalike train --recipe backbone-frozen --backbone timm:": f"{NOWHERE} {BRIEF}",
    "lookalike train --recipe vgg19-frozen": f"{NOWHERE} {BRIEF} --width 16",
    "lookalike train --recipe vgg19-finetune": f"{NOWHERE} {BRIEF}",
    "lookalike train --recipe vgg19-scratch": "--epochs 1 --size 32",
    "lookalike train --recipe cnn": "--epochs 1",
    "torchrun": "--data photos --epochs 1 --size 32",
    "lookalike train --hold-out": "--epochs 1",
    "lookalike export models/photos": "--max-accuracy-loss 100 --min-overlap 0",
}
# Words of documented lines that are others here.
CHANGED = {"--nproc-per-node 4": "--nproc-per-node 2"}
# A gate: a model that is worse is an answer too.
MAY_END_WITH_1 = ("lookalike compare models/frozen models/tuned",)
# Tens of seconds each; only the long form runs them.
LONG = (
    "torchrun",
    "lookalike up photos",  # tests/cli/up/test_up_first.py runs it by default
    "lookalike train --data photos",  # tests/support/commands/newcomer.py, as the export
    "lookalike export models/photos",
    "lookalike index classes photos-lookalike",
    "lookalike serve --model classed",
    "lookalike train --hold-out",
    "lookalike train --backbone torchvision:vgg19",
    "lookalike evaluate models/unseen",
    "lookalike train --recipe vgg19-",
    "lookalike train --recipe cnn",
    "lookalike train --recipe backbone-frozen --backbone timm:",
    "lookalike train --recipe backbone-frozen --backbone torchvision:resnet50",
    "lookalike train --recipe backbone-finetune --weights models/frozen",
    "lookalike compare models/frozen models/tuned --data photos --must-not-lose accuracy --margin",
)
# What is looked at, and not run.
NOT_RUN = {
    "make": "the target is looked up: it would make this very environment and run this test",
    "docker": "`make container-check` types these lines (tests/project/container/test_image.py)",
}


def command_lines(document: Path) -> list[str]:
    """Return the lines of a document's shell examples, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL)
    lines = [
        re.sub(r"(^|\s)# .*", "", line).strip()
        for block in blocks
        for line in block.replace("\\\n", " ").split("\n")
    ]
    return [line for line in lines if line]


def bare_of(line: str) -> str:
    """Return a line without the variables that it sets and without the environment's folder."""
    return re.sub(r"^(\w+=\S+ )+", "", line).replace(".venv/bin/", "")


def commands_in_text(document: Path) -> Iterator[str]:
    """Yield the commands that a document names within its sentences and tables."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for span in re.findall(r"`([^`]+)`", text):
        for part in span.split("&&"):
            words = part.split()
            if len(words) > 1 and Path(words[0]).name in PROGRAMS:
                yield " ".join(words)


@dataclass
class Reader:
    """Who reads the documents and types what is in them."""

    folder: Path
    stack: ExitStack
    url: str = ""
    job_id: str = "none yet"
    failures: list[str] = field(default_factory=list)

    def type(self, line: str) -> None:
        """Run one line; what goes wrong is kept."""
        bare = bare_of(line)
        self._prepare(bare)
        for word, other in CHANGED.items():
            line = line.replace(word, other)
        added = next((more for start, more in ADDED.items() if bare.startswith(start)), "")
        if re.search(r"\b(lookalike|bentoml) serve\b", bare):
            self._serve(line)
        elif bare.startswith("curl"):
            self._ask(line)
        else:
            done = self._run(f"{line} {added}")
            allowed = (0, 1) if bare.startswith(MAY_END_WITH_1) else (0,)
            self._check(line, done, allowed)

    def _run(self, line: str) -> subprocess.CompletedProcess[str]:
        if re.match(r"(\.venv/bin/)?lookalike [^$&|<>;`]*$", line):  # nothing for a shell to do
            return lookalike(*shlex.split(line)[1:], cwd=self.folder, **self.settings())
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S,
        )

    def environment(self) -> dict[str, str]:
        """Return that of a person whose ``PATH`` has the program, and who has an empty store."""
        environment = clean_environment(**self.settings())
        del environment["PYTHONPATH"]
        return {**environment, "PATH": f"{sys.prefix}/bin:{environment['PATH']}"}

    def settings(self) -> dict[str, str]:
        """Return the variables that are set."""
        home = str(self.folder / "bentos")
        return {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True", "COLUMNS": "80"}

    def _check(
        self, line: str, done: subprocess.CompletedProcess[str], allowed: tuple[int, ...] = (0,)
    ) -> None:
        if done.returncode not in allowed or "Traceback" in done.stdout + done.stderr:
            self.failures.append(f"{line}\n{done.returncode}: {done.stdout[-2000:]}{done.stderr}")

    def _serve(self, line: str) -> None:
        port = free_port()
        log = self.folder / f"server-{port}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"{line} --port {port}"],
                cwd=self.folder,
                env=self.environment()
                | {
                    "LOOKALIKE_BACKUPS_DIR": str(self.folder / "stored"),
                    "LOOKALIKE_IMPORTS_DIR": str(self.folder),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        self.stack.callback(server.stop)
        wait_until_ready(server)
        self.url = self.url or server.url  # the first is the one that examples speak to

    def _ask(self, line: str) -> None:
        local = line.replace(PORT, self.url).replace("JOB_ID", self.job_id)
        done = self._run(f"{local} --silent --show-error --fail-with-body --max-time 30")
        self._check(line, done)
        if "--json" in line and line.endswith("/v1/jobs") and done.returncode == 0:
            self.job_id = json.loads(done.stdout)["id"]

    def _prepare(self, bare: str) -> None:
        """Lay out the files that a line names as the reader's own."""
        if "lite0.safetensors" in bare:
            self._write_lite0()
        if "vectors.json" in bare:
            (self.folder / "vectors.json").write_text(bare_items(self._width()))
        if "shop.csv" in bare:
            write_shop(self.folder, self._width())
        if "more.csv" in bare:
            self._write_vectors()

    def _write_lite0(self) -> None:
        import timm  # noqa: PLC0415 - seconds
        from safetensors.torch import save_file  # noqa: PLC0415

        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        save_file(network.state_dict(), self.folder / "lite0.safetensors")

    def _width(self) -> int:
        manifest = json.loads((self.folder / "models" / "photos" / "manifest.json").read_text())
        return int(manifest["architecture"]["width"])

    def _write_vectors(self) -> None:
        width = self._width()
        rng = np.random.default_rng(5)
        vectors_ND = rng.normal(size=(3, width)).astype(np.float32)
        header = ",".join(["id", *(f"v{column}" for column in range(width)), "label"])
        rows = [
            ",".join([f"more-{row}", *map(str, vector_D), "coat"])
            for row, vector_D in enumerate(vectors_ND)
        ]
        (self.folder / "more.csv").write_text("\n".join([header, *rows]) + "\n")
        unit_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        np.save(self.folder / "vectors.npy", unit_ND)
        (self.folder / "ids.txt").write_text("mine-1\nmine-2\nmine-3\n")


@contextmanager
def reader_in(
    folder: Path, demo_folder: Path, photo_folder: Path, *, long: bool
) -> Iterator[Reader]:
    """Yield a reader in a checkout with what the README speaks of: photos, the demo, an image.

    In short form, the photos' model and gallery are there as well.
    """
    for part in ("photos",) if long else ("photos", "models", "galleries"):
        shutil.copytree(photo_folder / part, folder / part)
    for part in ("files", "vision", "dataset", "index", "training", "service", "cli"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("bentofile.yaml", "bentofile-cpu.yaml", "README.md"):
        shutil.copy(ROOT / part, folder)
    for lock in ROOT.glob("requirements*.lock"):
        shutil.copy(lock, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copytree(demo_folder / "demo", folder / "demo")
    (folder / "photo.jpg").write_bytes(encoded(picture(77, (400, 300)), "JPEG"))
    shutil.copy(folder / "photos" / "hat" / "001.jpg", folder / "better.jpg")
    (folder / "stored").mkdir()
    with ExitStack() as stack:
        yield Reader(folder, stack)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_command_line_of_the_documents_works(
    demo_folder: Path, photo_folder: Path, tmp_path: Path, long: bool
) -> None:
    with reader_in(tmp_path, demo_folder, photo_folder, long=long) as reader:
        for document in DOCUMENTS:
            for line in command_lines(document):
                bare = bare_of(line)
                if bare.split()[0] in NOT_RUN or (not long and bare.startswith(LONG)):
                    continue
                reader.type(line)
        failures = reader.failures
    assert not failures, "\n\n".join(failures)


def test_the_tables_of_this_test_speak_of_lines_that_are_there() -> None:
    lines = [bare_of(line) for document in DOCUMENTS for line in command_lines(document)]
    for start in (*ADDED, *MAY_END_WITH_1, *LONG, *NOT_RUN):
        assert any(line.startswith(start) for line in lines), start
    for words in CHANGED:
        assert any(words in line for line in lines), words


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(one.relative_to(ROOT)) for one in DOCUMENTS]
)
def test_every_command_in_the_text_is_one(document: Path) -> None:
    makes = [line for line in command_lines(document) if line.startswith("make ")]
    for command in (*makes, *commands_in_text(document)):
        program, *words = command.split()
        flags = {word for word in words if word.startswith("-")}
        if program == "make":
            assert words[0] in targets(), command
        elif program == "lookalike":
            name = " ".join(words[: 2 if words[0] == "index" else 1])
            of_any = {"--help": {"--help"}, "index": set[str]()}  # of the program, of a group
            assert flags <= {**commands(), **of_any}[name], command
        elif Path(program).name == "pip":
            check_extras(command)
        elif program == "bentoml":
            assert words[0] in ("build", "containerize", "serve"), command
            for file in [word for word in words if word.endswith(".yaml")]:
                assert (ROOT / file).exists(), command
        elif words[0] == "-m" and words[1] not in ("venv", "pytest"):
            module = ROOT / words[1].replace(".", "/")
            assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), command


def check_extras(command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[([\w,-]+)\]", command):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), command
