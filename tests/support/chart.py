"""The Helm chart as Helm renders it: values in, Kubernetes' objects out."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.paths import ROOT

CHART: Final = ROOT / "deploy" / "helm" / "lookalike"
VALUES: Final = ("default", *sorted(path.stem for path in (CHART / "ci").glob("*-values.yaml")))
_BUILT: Final = ROOT / "build" / "helm" / "helm"  # what `make test` puts there
HELM: Final = str(_BUILT) if _BUILT.exists() else shutil.which("helm")
NAMESPACE: Final = "shop"
RELEASE: Final = "visual-search"

Object = dict[str, Any]


def run_helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm, without a cluster and without a home."""
    if HELM is None:
        pytest.skip("helm is not there: python -m scripts.helm")
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "KUBECONFIG": "/dev/null"}
        command = [HELM, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=60
        )


def values_file(name: str) -> list[str]:
    """Return what tells Helm to take the values ``name`` of ``VALUES``."""
    return [] if name == "default" else ["--values", str(CHART / "ci" / f"{name}.yaml")]


@cache
def render(name: str, *sets: str) -> tuple[Object, ...]:
    """Return the objects of the values ``name`` of ``VALUES``, with ``sets`` (``a.b=c``) on top."""
    given = [word for one in sets for word in ("--set", one)]
    arguments = [RELEASE, CHART, "--namespace", NAMESPACE, *values_file(name), *given]
    done = run_helm("template", *arguments)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def refusal(*sets: str) -> str:
    """Return why Helm does not render the chart with ``sets``."""
    given = [word for one in sets for word in ("--set", one)]
    done = run_helm("template", RELEASE, CHART, "--namespace", NAMESPACE, *given)
    assert done.returncode != 0
    return done.stderr


def of_kind(objects: tuple[Object, ...], kind: str) -> Object:
    """Return the only object of ``kind``."""
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def server(objects: tuple[Object, ...]) -> Object:
    """Return what makes the server's pods."""
    (found,) = [one for one in objects if one["kind"] in ("StatefulSet", "Deployment")]
    return found


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """Yield each pod, its metadata and its specification, with the kind of what makes it."""
    for one in objects:
        if one["kind"] in ("StatefulSet", "Deployment"):
            yield one["kind"], one["spec"]["template"]
        elif one["kind"] == "CronJob":
            yield "CronJob", one["spec"]["jobTemplate"]["spec"]["template"]
        elif one["kind"] == "Pod":
            yield "Pod", one


def environment(objects: tuple[Object, ...]) -> dict[str, str]:
    """Return the variables that the server's container gets."""
    (container,) = server(objects)["spec"]["template"]["spec"]["containers"]
    names = [source["configMapRef"]["name"] for source in container["envFrom"]]
    maps = [one for one in objects if one["kind"] == "ConfigMap"]
    assert [one["metadata"]["name"] for one in maps] == names
    given = {one["name"]: one.get("value", "") for one in container.get("env", [])}
    return {**maps[0]["data"], **given}
