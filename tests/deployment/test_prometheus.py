"""A real Prometheus asks the real service: what the dashboard shows is there, and alerts fire."""

import math
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from service.config import PREFIX
from service.security.api_keys import make_key
from service.telemetry.metrics import METRICS
from tests.support.deployment.compose import environment
from tests.support.deployment.prometheus import (
    DEPLOYED,
    Prometheus,
    dashboard,
    promtool,
    running_prometheus,
)
from tests.support.images.pngs import png
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.jobs import ended, wait_for
from tests.support.server.servers import Server, answered

PNG: Final = {"Content-Type": "image/png"}
WATCHED_S: Final = 4.0  # of traffic, some scrapes long
FIRES_S: Final = 20.0  # until an alert does, on a busy machine
# What Grafana puts in.
VARIABLES: Final = {"$__rate_interval": "1m", "$instance": ".*"}
PANELS: Final = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
QUERIES: Final = {
    f"{panel['title']} {target['refId']}": target for panel in PANELS for target in panel["targets"]
}
APART: Final = "lookalike_encoder_"  # begin those of a process that has the network of all workers
JOBS: Final = (
    ({"kind": "rebuild"}, "done"),
    ({"kind": "import", "source": "broken.parquet"}, "failed"),
)
RULES: Final = yaml.safe_load((DEPLOYED / "alerts.yml").read_text())["groups"][0]["rules"]
CASES: Final = yaml.safe_load((DEPLOYED / "alerts_test.yml").read_text())["tests"]


class Traffic(threading.Thread):
    """Sends requests of every kind, sound ones and others, again and again."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        super().__init__(daemon=True)
        self._client, self._url = client, url
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(0.05):
            self.send_one_of_each()

    def send_one_of_each(self) -> None:
        client = self._client
        answered(client.put("/v1/items/seen", content=png(1), headers=PNG))
        answered(client.delete("/v1/items/seen"))
        answered(client.get("/v1/items?limit=3"))
        answered(client.get("/v1/model"))
        answered(client.get("/readyz"))
        for route in ("classify", "search", "search/range?min_score=0.9", "search/vote"):
            answered(client.post(f"/v1/{route}", content=png(2), headers=PNG))
        answered(client.post("/v1/embed", files=[("image", png(n)) for n in range(4)]))
        broken = client.post("/v1/classify", content=png(2)[:99], headers=PNG)
        assert broken.status_code == 422
        assert httpx.get(f"{self._url}/v1/model").status_code == 401

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.toml"


@pytest.fixture(scope="module")
def keys(key_file: Path) -> dict[str, str]:
    """The keys of the file, by name."""
    made = {
        "prometheus": make_key("prometheus", ["metrics"]),
        "all": make_key("all", ["read", "write", "admin"]),
    }
    key_file.write_text("\n".join(key.lines for key in made.values()))
    return {name: key.token for name, key in made.items()}


@pytest.fixture(scope="module")
def server(
    model: Path, key_file: Path, keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Started with what compose.yaml sets, whose key file is ours."""
    assert keys
    folder = tmp_path_factory.mktemp("watched")
    (folder / "imports").mkdir()
    (folder / "imports" / "broken.parquet").write_bytes(b"no parquet")
    told = environment("compose.yaml", site="127.0.0.1")
    told["LOOKALIKE_API_KEYS_FILE"] = str(key_file)  # in place of /run/secrets/api_keys
    told["LOOKALIKE_IMPORTS_DIR"] = str(folder / "imports")
    options = [
        part
        for name, value in told.items()
        for part in (f"--{name.removeprefix(PREFIX).lower().replace('_', '-')}", value)
    ]
    with gallery_server(model, folder, *options) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(
    server: Server, keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """One that has seen some seconds of traffic, a rebuild, and a job that failed."""
    target = server.url.removeprefix("http://")
    folder = tmp_path_factory.mktemp("prometheus") / "p"
    headers = {"Authorization": f"Bearer {keys['all']}"}
    with (
        server.client(headers=headers) as client,
        running_prometheus(folder, target, keys["prometheus"]) as running,
    ):
        wait_for(lambda: running.query("up == 1"), timeout_s=FIRES_S)
        traffic = Traffic(client, server.url)
        traffic.send_one_of_each()  # so that every series has begun before it is watched
        traffic.start()
        try:
            for body, end in JOBS:
                job = ended(client, answered(client.post("/v1/jobs", json=body))["id"])
                assert job["state"] == end, job
            time.sleep(WATCHED_S)
        finally:
            traffic.stop()
        yield running


def test_promtool_is_content(tmp_path: Path) -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", DEPLOYED / "alerts.yml")
    promtool("check", "config", "--syntax-only", DEPLOYED / "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", DEPLOYED / "alerts_test.yml")


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in RULES])
def test_an_alert_fires_and_rests_in_its_unit_tests_and_says_what_to_do(
    rule: dict[str, Any],
) -> None:
    name = rule["alert"]
    tried = [
        bool(one["exp_alerts"])
        for case in CASES
        for one in case["alert_rule_test"]
        if one["alertname"] == name
    ]
    assert set(tried) == {True, False}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression names, without the endings of a histogram."""
    names = set(re.findall(r"\blookalike_\w+", expression))
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    watched = set().union(*(names_in(rule["expr"]) for rule in RULES))
    shown = set().union(*(names_in(target["expr"]) for target in QUERIES.values()))

    assert watched - set(METRICS) == set()
    assert set(METRICS) - shown == set(), "the dashboard shows all of them"
    assert shown - set(METRICS) == set()


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus, name: str) -> None:
    target = QUERIES[name]
    expression = target["expr"]
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression

    samples = prometheus.query(expression)

    if APART in expression and "busy" not in expression:
        return  # where the network is in the worker, as here, there is none
    assert samples, expression
    assert not all(math.isnan(float(sample["value"][1])) for sample in samples), expression
    for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert all(label in sample["metric"] for sample in samples), f"no {label}: {expression}"


def test_the_dashboard_can_choose_an_instance(prometheus: Prometheus, server: Server) -> None:
    (variable,) = [one for one in dashboard()["templating"]["list"] if one["name"] == "instance"]
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
    assert found

    values = prometheus.label_values(found[2], found[1])

    assert values == [server.url.removeprefix("http://")]


def test_prometheus_may_ask_by_the_name_that_it_has_in_compose(
    server: Server, keys: dict[str, str]
) -> None:
    def ask(host: str) -> int:
        headers = {"Host": host, "Authorization": f"Bearer {keys['prometheus']}"}
        return httpx.get(f"{server.url}/metrics", headers=headers).status_code

    assert ask("lookalike:3000") == 200
    assert ask("evil.example") == 403


def test_no_alert_fires_that_has_no_reason(prometheus: Prometheus) -> None:
    """One job failed, and somebody comes without a key; how full the disk is, is not ours."""
    wait_for(lambda: "LookalikeJobsFailing" in prometheus.firing(), timeout_s=FIRES_S)

    firing = {name for name in prometheus.firing() if not name.startswith("LookalikeDisk")}
    assert firing <= {"LookalikeJobsFailing", "LookalikeWrongKeys"}


def test_an_alert_fires_and_is_over_when_its_reason_is(
    prometheus: Prometheus, key_file: Path
) -> None:
    lines = key_file.read_text()
    key_file.write_text("a slip")
    wait_for(lambda: "LookalikeKeyFileFailing" in prometheus.firing(), timeout_s=FIRES_S)
    key_file.write_text(lines)
    wait_for(lambda: "LookalikeKeyFileFailing" not in prometheus.firing(), timeout_s=FIRES_S)


def test_a_server_that_ended_is_told_of(prometheus: Prometheus, server: Server) -> None:
    """The last test of this file: it ends the server."""
    assert "LookalikeDown" not in prometheus.firing()

    server.stop()

    wait_for(lambda: "LookalikeDown" in prometheus.firing(), timeout_s=FIRES_S)
