"""A real Prometheus with deploy/prometheus, quicker than deployed, as a child process."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.server.jobs import wait_for
from tests.support.server.servers import free_port

PROMETHEUS: Final = shutil.which("prometheus")
PROMTOOL: Final = shutil.which("promtool")
DEPLOYED: Final = ROOT / "deploy" / "prometheus"
START_S: Final = 60.0


@dataclass(frozen=True)
class Prometheus:
    """One that runs, and what it knows."""

    client: httpx.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression, as of now: `metric` and `value` of each."""
        answer = self._get("query", query=expression)
        assert answer["resultType"] == "vector", expression
        return list(answer["result"])

    def label_values(self, label: str, metric: str) -> list[str]:
        return list(self._get(f"label/{label}/values", **{"match[]": metric}))

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        alerts = self._get("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must be content, and return what it says."""
    if PROMTOOL is None:
        pytest.skip("prometheus, whose promtool this is, is not installed")
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def running_prometheus(folder: Path, target: str, key: str) -> Iterator[Prometheus]:
    """Run Prometheus with the deployed configuration, which looks and judges every second.

    Args:
        folder: for its files; it is made.
        target: host and port of the service.
        key: that the service gives metrics for.
    """
    if PROMETHEUS is None:
        pytest.skip("prometheus is not installed")
    folder.mkdir(parents=True)
    (folder / "key").write_text(key)
    configuration = (DEPLOYED / "prometheus.yml").read_text()
    for before, after in {
        "lookalike:3000": target,
        "/run/secrets/prometheus_key": str(folder / "key"),
        "scrape_interval: 15s": "scrape_interval: 1s",
        "scrape_timeout: 10s": "scrape_timeout: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
    }.items():
        assert before in configuration, before
        configuration = configuration.replace(before, after)
    (folder / "prometheus.yml").write_text(configuration)
    rules = re.sub(r"^( +for:) .*$", r"\1 1s", (DEPLOYED / "alerts.yml").read_text(), flags=re.M)
    (folder / "alerts.yml").write_text(rules)
    promtool("check", "config", folder / "prometheus.yml")
    port = free_port()
    command = [PROMETHEUS, "--config.file", folder / "prometheus.yml"]
    command += ["--storage.tsdb.path", folder / "data", "--log.level", "warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_for(lambda: _is_ready(client, process, folder / "log"), timeout_s=START_S)
            yield Prometheus(client)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def dashboard() -> dict[str, Any]:
    """Return Grafana's dashboard."""
    path = ROOT / "deploy" / "grafana" / "dashboards" / "lookalike.json"
    return dict(json.loads(path.read_text()))
