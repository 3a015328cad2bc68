"""The operations guide names all there is to set, to watch and to be told; and its drill works."""

import itertools
import re
import shlex
import threading
from pathlib import Path

import httpx
import pytest
import yaml

from service.config import PREFIX, ServiceSettings
from tests.support.commands.run_command import lookalike
from tests.support.images.pngs import png
from tests.support.paths import ROOT
from tests.support.server.jobs import ended
from tests.support.server.servers import answered, running_server

GUIDE = (ROOT / "docs" / "operations.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
STORED = 5  # items before the drill begins
JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


def section(title: str) -> str:
    return GUIDE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_setting_has_a_word_on_when_to_change_it() -> None:
    named = re.findall(rf"`{PREFIX}(\w+)`", section("Settings: when to change them"))

    assert sorted(name.lower() for name in named) == sorted(ServiceSettings.model_fields)


def test_every_metric_is_there_for_something() -> None:
    documented = set(re.findall(r"^\| `(lookalike_\w+)` \|", METRICS, re.M))
    named = re.findall(r"`(lookalike_\w+)`", section("Metrics: what they are for"))

    assert len(documented) > 20
    assert documented - set(named) == set()
    assert set(named) - documented == set()


def test_every_alert_says_what_to_do() -> None:
    told = re.findall(r"^### (\w+)$", section("Alerts: what to do"), re.M)

    assert sorted(told) == sorted(ALERTS)


def commands(block: int) -> list[str]:
    """Return the lines of a block of commands of the section on backups."""
    blocks = re.findall(r"```sh\n(.*?)```", section("Backup and restore"), re.S)
    return str(blocks[block]).strip().splitlines()


class Writer(threading.Thread):
    """Stores one item after another until it is told to stop."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._stop_now = threading.Event()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            for number in itertools.count(STORED):
                if self._stop_now.is_set():
                    return
                answered(put(client, number))
                self.acknowledged.append(f"item-{number}")

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


def put(client: httpx.Client, number: int) -> httpx.Response:
    return client.put(f"/v1/items/item-{number}", content=png(number), headers=PNG)


@pytest.fixture
def desk(model: Path, tmp_path: Path) -> Path:
    """A folder in which the guide's commands can be typed."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "photos").symlink_to(model)
    (tmp_path / "galleries").mkdir()
    (tmp_path / "backups").mkdir()
    return tmp_path


def test_a_backup_made_under_writes_is_restored_and_served(desk: Path, model: Path) -> None:
    copy, ask, back = commands(0), commands(1), commands(2)
    galleries = desk / "galleries"
    with (
        running_server(
            model, galleries / "photos", desk / "log", "--workers", "1", "--backups-dir", "backups"
        ) as server,
        server.client() as client,
    ):
        for number in range(STORED):
            answered(put(client, number))
        writer = Writer(server.url)
        writer.start()
        try:
            for line in copy:
                done = lookalike(*shlex.split(line)[1:], cwd=desk)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
            (line,) = ask
            body = shlex.split(line)[2]
            begun = answered(client.post("/v1/jobs", content=body, headers=JSON))
            job = ended(client, begun["id"])
        finally:
            writer.stop()
        last = answered(client.get("/v1/gallery"))["count"]
    assert job["state"] == "done", job
    assert (desk / "backups" / "today").is_dir()

    for line in back[:-1]:
        done = lookalike(*shlex.split(line)[1:], cwd=desk)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    restored = shlex.split(back[-1])[-1]
    with (
        running_server(model, desk / restored, desk / "log-2", "--workers", "1") as server,
        server.client() as client,
    ):
        count = answered(client.get("/v1/gallery"))["count"]
        hits = answered(client.post("/v1/search?k=1", content=png(1), headers=PNG))["hits"]
        for number in range(STORED):
            answered(client.get(f"/v1/items/item-{number}"))
    assert STORED <= count <= last == STORED + len(writer.acknowledged)
    assert hits[0]["id"] == "item-1"
