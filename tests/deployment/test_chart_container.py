"""The pods of the chart as containers of the image: what Kubernetes would run is run here."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from service.config import PREFIX
from tests.project.container.running import Container, container, said
from tests.support.chart import Object, environment, pods, render, server
from tests.support.images.pngs import png

pytestmark = pytest.mark.container
TEMPORARY = "/tmp"  # which the engine gives by itself
STORED = (200, 201)


def started(
    pod: Object, one: Object, given: dict[str, str], volumes: dict[str, Path]
) -> AbstractContextManager[Container]:
    """Start a container of a pod with what its security context, mounts and variables say."""
    security = pod["spec"]["securityContext"]
    more = []
    for mount in one["volumeMounts"]:
        if mount["mountPath"] != TEMPORARY:
            mode = ":ro" if mount.get("readOnly") else ""
            more += ["--volume", f"{volumes[mount['name']]}:{mount['mountPath']}{mode}"]
    command = [*one.get("command", []), *one.get("args", [])]
    if command:
        more += ["--entrypoint", command[0]]
    return container(
        *command[1:],
        user=f"{security['runAsUser']}:{security['runAsGroup']}",
        environment=given,
        more=more,
    )


def finished(pod: Object, one: Object, volumes: dict[str, Path], **changed: str) -> str:
    """Run a container to its end; return its log."""
    given = {each["name"]: each["value"] for each in one["env"]} | changed
    with started(pod, one, given, volumes) as run:
        code = said("wait", run.id)
        assert code == "0", run.logs()
        return run.logs()


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Path]:
    """Folders in place of volumes, which Kubernetes gives to the group of the pod."""
    made = {name: tmp_path / name for name in ("gallery", "backups")}
    for folder in made.values():
        folder.mkdir()
        folder.chmod(0o777)
    return made


@pytest.fixture
def writer(volumes: dict[str, Path]) -> Iterator[Container]:
    objects = render("default")
    pod = server(objects)["spec"]["template"]
    (one,) = pod["spec"]["containers"]
    with started(pod, one, environment(objects), volumes) as running:
        running.wait_until_ready()
        yield running


def test_one_pod_stores_is_backed_up_meanwhile_and_readers_search_in_the_copy(
    writer: Container, volumes: dict[str, Path]
) -> None:
    assert writer.ask("PUT", "/v1/items/coat-1", png(1))[0] in STORED
    (job,) = [one for kind, one in pods(render("full-values")) if kind == "CronJob"]
    (backup,) = job["spec"]["containers"]
    finished(job, backup, volumes, GALLERY="/data/gallery")
    assert writer.ask("PUT", "/v1/items/coat-2", png(2))[0] in STORED
    assert writer.stop() == 0
    (copy,) = volumes["backups"].iterdir()

    objects = render("readers-values")
    pod = server(objects)["spec"]["template"]
    (restore,), (reader,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    fresh = volumes | {"gallery": volumes["gallery"].with_name("empty")}
    fresh["gallery"].mkdir()
    fresh["gallery"].chmod(0o777)
    finished(pod, restore, fresh, BACKUP=copy.name)
    given = environment(objects)
    del given[f"{PREFIX}API_KEYS_FILE"]
    reader["volumeMounts"] = [one for one in reader["volumeMounts"] if one["name"] != "keys"]
    with started(pod, reader, given, fresh) as running:
        running.wait_until_ready()
        assert running.ask("GET", "/livez")[0] == 200
        status, found = running.ask("POST", "/v1/search", png(1))
        assert (status, [hit["id"] for hit in found["hits"]]) == (200, ["coat-1"])
        status, refused = running.ask("PUT", "/v1/items/coat-3", png(3))
        assert (status, refused["code"]) == (503, "read_only")
