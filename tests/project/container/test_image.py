"""The image for CPUs as it runs; `make container-check` has built it, and has an engine."""

import json
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from scripts.container.build import version
from scripts.locks import read_lock
from tests.project.container.running import (
    GRACE_S,
    IMAGE,
    Container,
    container,
    ends,
    engine,
    new_volume,
    run,
    said,
)
from tests.support.images.pngs import png
from tests.support.paths import ROOT

pytestmark = pytest.mark.container

MOST_BYTES = 700e6  # unpacked
MOST_COMPRESSED = 280e6


@pytest.fixture(scope="module")
def volume() -> Iterator[str]:
    with new_volume() as name:
        yield name


@pytest.fixture(scope="module")
def served(volume: str) -> Iterator[Container]:
    """A hardened container with a volume, ready."""
    with container(volume=volume) as running:
        running.wait_until_ready()
        yield running


def packages_in(running: Container) -> tuple[set[str], set[str]]:
    """Return what Python and Debian say is installed, as name==version."""
    listed = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    python = {
        f"{canonicalize_name(line.split()[0])}=={line.split()[1]}"
        for line in running.says("python", "-c", listed).splitlines()
    }
    debian = running.says("dpkg-query", "--show", "--showformat", "${Package}==${Version}\n")
    return python, set(debian.splitlines())


def test_it_runs_as_nobody_that_may_do_anything(served: Container) -> None:
    status = served.says("cat", "/proc/1/status")

    assert re.search(r"^Uid:\s+1034\s+1034", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


def test_its_code_is_the_superusers_and_not_writable(served: Container) -> None:
    assert served.says("find", "/app", "-not", "-user", "0", "-o", "-writable", "-print") == ""
    assert served.execute("touch", "/app/src/mine").returncode != 0
    assert served.execute("touch", "/usr/mine").returncode != 0


def test_only_its_port_listens_and_is_exposed(served: Container) -> None:
    tables = served.says("cat", "/proc/net/tcp", "/proc/net/tcp6")
    listening = {
        line.split()[1] for line in tables.splitlines() if line.split()[3] == "0A"
    }  # address and port, hexadecimal: see proc_net_tcp in proc(5)

    assert listening == {f"00000000:{3000:04X}"}  # all addresses, since others come from outside
    exposed = said("image", "inspect", "--format", "{{json .Config.ExposedPorts}}", IMAGE)
    assert list(json.loads(exposed)) == ["3000/tcp"]


def test_it_says_what_it_is() -> None:
    labels = json.loads(said("image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE))
    oci = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}

    assert oci["title"] == "lookalike (CPU)"
    assert oci["version"] == version()
    assert oci["licenses"] == "Apache-2.0"
    assert re.match(r"[0-9a-f]{40}", oci["revision"])
    assert re.match(r"\d{4}-\d\d-\d\dT", oci["created"])
    assert "debian:bookworm-slim" in oci["base.name"]
    assert labels["com.bentoml.bento"].startswith("lookalike-cpu:")
    assert labels["com.bentoml.label.project"] == "lookalike"
    assert re.fullmatch(r"[0-9a-f]{64}", labels["lookalike.model"])


def test_its_health_is_that_of_the_server(served: Container) -> None:
    health = json.loads(said("image", "inspect", "--format", "{{json .Config.Healthcheck}}", IMAGE))

    assert health["Test"] == ["CMD", "python", "-I", "/app/health.py"]
    assert served.execute(*health["Test"][1:]).returncode == 0
    if engine() == "podman":
        assert run("healthcheck", "run", served.id).returncode == 0
    else:
        assert served.inspect("{{.State.Health.Status}}") in ("starting", "healthy")


def test_health_is_told_where_hosts_are_restricted_and_on_a_socket(volume: str) -> None:
    for environment in (
        {"LOOKALIKE_ALLOWED_HOSTS": "shop.example"},
        {"LOOKALIKE_PORT": "8080"},
        {"LOOKALIKE_UNIX_SOCKET": "/tmp/lookalike.sock"},
    ):
        with container(volume=volume, environment=environment) as running:
            running.wait_until_ready()


def test_health_is_refused_where_nothing_listens(served: Container) -> None:
    done = served.execute("env", "LOOKALIKE_PORT=3001", "python", "-I", "/app/health.py")

    assert done.returncode == 1
    assert b"refused" in done.stdout


def test_it_is_as_small_as_promised() -> None:
    assert int(said("image", "inspect", "--format", "{{.Size}}", IMAGE)) <= MOST_BYTES
    packed = zlib.compressobj(6)  # as registries have layers
    archive = run("save", IMAGE).stdout
    size = sum(
        len(packed.compress(archive[at : at + 2**24])) for at in range(0, len(archive), 2**24)
    )
    assert size + len(packed.flush()) <= MOST_COMPRESSED


def test_it_holds_what_is_locked_and_its_bill_says_so(served: Container) -> None:
    python, debian = packages_in(served)
    environment = {
        **{"python_version": "3.11", "python_full_version": "3.11.2", "sys_platform": "linux"},
        **{"platform_system": "Linux", "platform_machine": "x86_64", "extra": ""},
        **{"platform_python_implementation": "CPython", "implementation_name": "cpython"},
    }
    locked = read_lock(ROOT / "requirements-cpu.lock")
    bill = json.loads((ROOT / "build" / "sbom-cpu.json").read_text())
    told = {"pypi": set(), "deb": set()}
    for one in bill["components"]:
        if "purl" in one:
            kind = one["purl"].removeprefix("pkg:").partition("/")[0]
            told[kind].add(f"{one['name']}=={one['version']}")

    assert python == {f"{one.name}=={one.version}" for one in locked if one.applies(environment)}
    assert told["pypi"] == python
    assert told["deb"] == debian
    assert bill["metadata"]["component"]["version"] == version()
    assert {"pip", "build-essential", "gcc", "git"}.isdisjoint(
        name.partition("==")[0] for name in python | debian
    )


def test_it_remembers_and_its_stop_is_a_success() -> None:
    with new_volume() as own:
        with container(volume=own) as first:
            first.wait_until_ready()
            status, answer = first.ask("POST", "/v1/classify", png(1))
            assert status == 200, answer
            assert answer["predictions"][0]["label"]
            assert first.ask("PUT", "/v1/items/a?label=boot", png(1))[0] == 201
            assert first.ask("POST", "/v1/search", png(1))[1]["hits"][0]["id"] == "a"
            began = time.monotonic()
            assert first.stop() == 0, first.logs()
            assert time.monotonic() - began < GRACE_S
        with container(volume=own) as second:
            second.wait_until_ready()
            hit = second.ask("POST", "/v1/search", png(1))[1]["hits"][0]
            assert (hit["id"], hit["label"]) == ("a", "boot")
            assert second.stop() == 0, second.logs()


def test_any_user_of_the_group_zero_may_run_it() -> None:
    with new_volume() as own, container(volume=own, user="10001:0") as running:
        running.wait_until_ready()
        assert running.ask("PUT", "/v1/items/a", png(1))[0] == 201
        assert running.says("id", "--user") == "10001"
        assert running.stop() == 0, running.logs()


def test_it_backs_up_and_restores() -> None:
    with new_volume() as own, container(volume=own) as running:
        running.wait_until_ready()
        assert running.ask("PUT", "/v1/items/a", png(1))[0] == 201
        running.says("lookalike", "index", "backup", "/data/gallery", "/data/backup")
        assert running.ask("PUT", "/v1/items/b", png(2))[0] == 201
        assert running.stop() == 0

        code, text = ends("index", "restore", "/data/backup", "/data/restored", volume=own)
        assert code == 0, text
        code, text = ends("index", "verify", "/data/restored", volume=own)
        assert code == 0, text
        with container(volume=own, environment={"LOOKALIKE_GALLERY": "/data/restored"}) as second:
            second.wait_until_ready()
            hits = second.ask("POST", "/v1/search", png(2))[1]["hits"]
            assert [hit["id"] for hit in hits] == ["a"]


def test_the_commands_are_there() -> None:
    with new_volume() as own:
        assert ends("--help")[0] == 0
        code, text = ends("new-key", "shop", "--rights", "read,write", "--json")
        assert code == 0, text
        assert json.loads(text)["lines"].startswith("[[keys]]")
        with container(volume=own) as running:
            running.wait_until_ready()
            running.ask("PUT", "/v1/items/a", png(1))
        for command in (
            ("index", "info", "/data/gallery"),
            ("index", "verify", "/data/gallery"),
            ("index", "duplicates", "/data/gallery"),
            ("index", "export", "/data/gallery", "/data/exported"),
            ("index", "compact", "/data/gallery"),
        ):
            code, text = ends(*command, volume=own)
            assert code == 0, text


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--data", "/data", "--out", "/data/model"),
        ("demo", "--out", "/data/demo"),
    ],
)
def test_a_command_that_trains_says_what_it_lacks(command: tuple[str, ...]) -> None:
    code, text = ends(*command)

    assert code == 1
    assert text == "lookalike: this command needs torch, which is not installed here"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"LOOKALIKE_DEVICE": "cuda"}, r"cuda"),
        ({"LOOKALIKE_RUNTIME": "torch"}, r"torch"),
        ({"LOOKALIKE_MODEL": "/nowhere"}, r"/nowhere"),
        ({"LOOKALIKE_GALLERY": "/nowhere/gallery"}, r"/nowhere"),
        ({"LOOKALIKE_WORKERS": "many"}, r"LOOKALIKE_WORKERS|--workers"),
        ({"LOOKALIKE_HOST": "203.0.113.1"}, r"203\.0\.113\.1"),
        ({"LOOKALIKE_API_KEYS_FILE": "/data/keys.toml"}, r"keys\.toml"),
        ({"LOOKALIKE_CREATE": "false"}, r"/data/gallery"),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_a_sentence(
    environment: dict[str, str], sentence: str
) -> None:
    with new_volume() as own:
        code, text = ends(volume=own, environment=environment)

    assert code not in (0, 125, 126, 127), text
    assert re.search(sentence, text), text
    assert "Traceback" not in text


def test_a_volume_that_is_not_writable_ends_with_a_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    code, text = ends(volume=str(tmp_path))

    assert code == 1
    assert "/data/gallery" in text
    assert "denied" in text
    assert len(text.splitlines()) == 1, text


def test_without_a_volume_there_is_a_warning() -> None:
    with container() as running:
        running.wait_until_ready()
        assert "lies on a volume without a name" in running.logs()


def test_a_gallery_of_another_model_is_refused(
    volume: str, served: Container, exported: Path
) -> None:
    for path in (exported, *exported.rglob("*")):
        path.chmod(path.stat().st_mode | 0o555)
    more = ("--volume", f"{exported}:/model:ro")
    code, text = ends(volume=volume, environment={"LOOKALIKE_MODEL": "/model"}, more=more)

    assert code == 1, text
    assert "model" in text
    assert "Traceback" not in text


def test_two_containers_share_a_gallery(volume: str, served: Container) -> None:
    with container(volume=volume) as second:
        second.wait_until_ready()
        status, answer = served.ask("PUT", "/v1/items/shared", png(7))
        assert status in (200, 201), answer
        found = second.ask("POST", f"/v1/search?min_seq={answer['seq']}&k=1", png(7))
        assert found[1]["hits"][0]["id"] == "shared"
        assert second.stop() == 0


def test_traces_can_be_asked_for(volume: str) -> None:
    environment = {"LOOKALIKE_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    with container(volume=volume, environment=environment) as running:
        running.wait_until_ready()
