"""What docs/container.md tells people to type, typed at the engine that is here."""

import shlex
import uuid

import pytest

from tests.project.container.running import IMAGE, PODMAN, Container, engine, new_volume, run, said
from tests.project.test_commands_documented import command_lines
from tests.support.images.pngs import png
from tests.support.paths import ROOT

pytestmark = pytest.mark.container

LINES = [
    line
    for line in command_lines(ROOT / "docs" / "container.md")
    if line.startswith("docker ") and "lookalike:gpu" not in line
]


def typed(line: str, name: str, volume: str) -> list[str]:
    """Return the words behind ``docker``, for a container and a volume of this test's own."""
    changed = {
        "--volume lookalike:": f"--volume {volume}:",
        "--name lookalike ": f"--name {name} ",
        "--publish 127.0.0.1:3000:3000": "--network none",  # asked from inside
        "exec lookalike ": f"exec {name} ",
        "lookalike:cpu": IMAGE,
    }
    for words, other in changed.items():
        line = line.replace(words, other)
    if line == "docker stop lookalike":
        line = f"docker stop {name}"
    _, verb, *rest = shlex.split(line)
    return [verb, *(PODMAN if verb == "run" and engine() == "podman" else ()), *rest]


def test_the_readme_says_the_same() -> None:
    lines = [one for one in command_lines(ROOT / "README.md") if one.startswith("docker ")]

    assert lines
    assert set(lines) <= set(LINES)


def test_every_line_works_in_order() -> None:
    name = f"lookalike-check-{uuid.uuid4().hex}"
    start, stop, *others = LINES
    assert start.startswith("docker run --detach")
    assert stop == "docker stop lookalike"
    assert len(others) > 4
    with new_volume() as volume:
        try:
            said(*typed(start, name, volume))
            running = Container(name)
            running.wait_until_ready()
            assert running.ask("PUT", "/v1/items/a", png(1))[0] == 201
            said(*typed(stop, name, volume))
            assert running.inspect("{{.State.ExitCode}}") == "0", running.logs()
            said("start", name)
            running.wait_until_ready()
            for line in others:
                said(*typed(line, name, volume))
        finally:
            run("rm", "--force", "--volumes", name)
