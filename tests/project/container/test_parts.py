"""What the images are made of, without an engine: the context, its parts, the bento's code."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

from scripts.container.build import BENTOFILES, labels, lay_context, version
from scripts.container.engine import CONTAINERFILE, ContainerError, default_base, pick_engine
from scripts.locks import read_lock
from tests.support.images.pngs import png
from tests.support.paths import ROOT
from tests.support.server.servers import Server, clean_environment, free_port
from vision.model.manifest import read_manifest

INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in CONTAINERFILE.read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
# Runs a module of a folder where only the packages of a lock are installed.
ONLY = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
absent = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `bentoml build` makes of bentofile-cpu.yaml, as far as an image needs it."""
    folder = tmp_path_factory.mktemp("bento")
    included = yaml.safe_load((ROOT / "bentofile-cpu.yaml").read_text())["include"]
    for pattern in included:
        for path in ROOT.glob(pattern):
            target = folder / "src" / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    lock = (ROOT / "requirements-cpu.lock").read_text()
    (folder / "env" / "python").mkdir(parents=True)
    (folder / "env" / "python" / "requirements.txt").write_text(f"{lock}bentoml==1.4.39\n")
    described = {"name": "lookalike-cpu", "version": "abc", "labels": {"project": "lookalike"}}
    (folder / "bento.yaml").write_text(yaml.safe_dump(described))
    return folder


def absent_packages() -> set[str]:
    """Return what can be imported here and not where only requirements-cpu.lock is installed."""
    locked = {pin.name for pin in read_lock(ROOT / "requirements-cpu.lock")}
    return {
        package
        for package, names in importlib.metadata.packages_distributions().items()
        if locked.isdisjoint(map(canonicalize_name, names)) and not (ROOT / package).exists()
    }


def run_lean(bento: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module of the bento as in the image for CPUs."""
    absent = ",".join(absent_packages())
    environment = clean_environment()
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-P", "-c", ONLY, absent, str(bento / "src"), *arguments],
        cwd=bento,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", BENTOFILES)
def test_the_context_holds_all_that_is_copied(
    kind: str, bento: Path, model: Path, tmp_path: Path
) -> None:
    lay_context(bento, model, kind, tmp_path / "context")
    there = {path.name for path in (tmp_path / "context").iterdir()}

    for name, rest in INSTRUCTIONS:
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert any(fnmatch(one, source) for one in there), source
    assert ("unused-gpu.txt" in there) == (kind == "gpu")
    lines = (tmp_path / "context" / "requirements.txt").read_text().splitlines()
    assert lines == (ROOT / "requirements-cpu.lock").read_text().splitlines()


def test_the_image_is_one_that_an_operator_expects() -> None:
    said = {name: rest for name, rest in INSTRUCTIONS if name != "RUN"}

    assert said["USER"] == "1034:0"  # a number, as Kubernetes' runAsNonRoot wants it
    assert said["VOLUME"] == "/data"
    assert [rest for name, rest in INSTRUCTIONS if name == "EXPOSE"] == ["3000"]
    assert said["ENTRYPOINT"] == '["lookalike"]'
    assert said["CMD"] == '["serve"]'
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert "health.py" in said["HEALTHCHECK"]
    assert "LOOKALIKE_GALLERY=/data/gallery" in said["ENV"]
    installs = [rest for name, rest in INSTRUCTIONS if name == "RUN" and "pip --python" in rest]
    assert len(installs) == 1
    assert "--require-hashes --only-binary :all:" in installs[0]
    assert re.match(r"\S+/debian:bookworm-slim(@sha256:[0-9a-f]{64})?$", default_base())


def test_the_labels_say_what_it_is(bento: Path, model: Path) -> None:
    found = labels(bento, model, "cpu", f"example/debian:slim@sha256:{'0' * 64}")

    assert found["org.opencontainers.image.version"] == version()
    assert found["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert found["org.opencontainers.image.base.name"] == "example/debian:slim"
    assert found["org.opencontainers.image.base.digest"] == f"sha256:{'0' * 64}"
    assert found["com.bentoml.bento"] == "lookalike-cpu:abc"
    assert found["com.bentoml.label.project"] == "lookalike"
    assert found["lookalike.model"] == read_manifest(model).fingerprint


def test_an_engine_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ContainerError, match="nosuch is not installed"):
        pick_engine("nosuch")


def test_a_model_without_an_export_makes_no_image_for_cpus(model: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "scripts.container.build", "cpu", "--model", str(model)),
            *("--engine", "true"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert re.fullmatch(r"No image: .* has no export.*`lookalike export`.*\n", done.stderr)


def test_health_is_that_of_the_server(server: Server) -> None:
    health = [sys.executable, "-I", str(CONTAINERFILE.parent / "health.py")]
    port = server.url.rpartition(":")[2]

    for asked, code in ((port, 0), (str(free_port()), 1)):
        environment = clean_environment(LOOKALIKE_PORT=asked)
        done = subprocess.run(health, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout
        assert done.stderr == ""


def test_what_is_never_loaded_is_removed_and_a_stale_pattern_is_a_fault(tmp_path: Path) -> None:
    for name in ("one/tests/test_a.py", "one/code.py", "two/tests/test_b.py"):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).touch()
    (tmp_path / "unused.txt").write_text("# a comment\n**/tests  # another\nthree/*.so\n")
    trim = [sys.executable, str(CONTAINERFILE.parent / "trim.py")]
    done = subprocess.run(
        [*trim, str(tmp_path / "site"), str(tmp_path / "unused.txt")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == "three/*.so matches nothing\n"
    left = {path.relative_to(tmp_path / "site") for path in (tmp_path / "site").rglob("*.py")}
    assert left == {Path("one/code.py")}


def test_the_bento_is_enough_for_the_service(bento: Path) -> None:
    done = run_lean(bento, "service.worker")
    assert done.returncode == 0, done.stderr
    done = run_lean(bento, "service.app")
    assert done.returncode == 0, done.stderr


def test_the_bento_is_enough_for_the_commands(bento: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(number))
    gallery, model = str(tmp_path / "gallery"), str(exported)
    for command in (
        ("index", "build", model, "--data", str(tmp_path / "pictures"), "--out", gallery),
        ("index", "backup", gallery, str(tmp_path / "backup")),
        ("index", "restore", str(tmp_path / "backup"), str(tmp_path / "restored")),
        ("index", "verify", str(tmp_path / "restored")),
        ("new-key", "shop"),
    ):
        done = run_lean(bento, "cli.main", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run_lean(
        bento, "cli.main", "classify", model, str(tmp_path / "pictures" / "0.png"), "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_command_that_trains_says_what_it_lacks(bento: Path, tmp_path: Path) -> None:
    done = run_lean(
        bento, "cli.main", "train", "--data", str(tmp_path), "--out", str(tmp_path / "m")
    )

    assert done.returncode == 1
    assert re.fullmatch(
        r"lookalike: this command needs \w+, which is not installed here\n", done.stderr
    )
