"""What the chart has run is run here: its backup, its restore, and the query of its autoscaler."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from index.gallery import Gallery
from index.items.item import NewItem
from index.store.store import read_binding
from tests.support.chart import CHART, pods, render, server
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.paths import ROOT
from tests.support.server.servers import Server
from vision.model.manifest import read_manifest

PROMTOOL = shutil.which("promtool")
ADAPTER = CHART.parent / "prometheus-adapter-values.yaml"


@pytest.fixture(scope="module")
def gallery(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "gallery"
    write_gallery(folder, model)
    return folder


def run_container(container: dict[str, Any], folder: Path, **changed: str) -> None:
    """Run what a container would, with ``folder`` in the place of /backups."""
    program, options, script = *container["command"], *container["args"]
    given = {one["name"]: one["value"] for one in container["env"]} | changed
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [program, options, script.replace("/backups/", f"{folder}/")],
        env={**os.environ, "PATH": path, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_backup_is_made_while_others_write_and_old_ones_go(
    gallery: Path, model: Path, tmp_path: Path
) -> None:
    (template,) = [one for kind, one in pods(render("full-values")) if kind == "CronJob"]
    (container,) = template["spec"]["containers"]
    old = [tmp_path / f"2025010{day}T021700Z" for day in (1, 2, 3)]
    for folder in (*old, tmp_path / "by-hand"):
        folder.mkdir()
    stop, written = threading.Event(), 0
    item = NewItem(
        id="written",
        vector_D=np.eye(1, read_manifest(model).architecture.width, dtype=np.float32)[0],
        label=None,
        metadata={},
        thumbnail=None,
        content_sha256="0" * 64,
    )

    def write() -> None:
        nonlocal written
        with Gallery.open(gallery, fingerprint=read_manifest(model).fingerprint) as opened:
            while not stop.is_set():
                opened.put([replace(item, label=f"time {written}")])
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run_container(container, tmp_path, GALLERY=str(gallery), KEEP="2")
    finally:
        stop.set()
        writer.join()

    assert written > 9
    left = sorted(path.name for path in tmp_path.iterdir())
    assert [left[0], left[-1]] == [old[-1].name, "by-hand"]
    assert len(left) == 3
    for values in ("full-values", "readers-values"):
        (init,) = server(render(values))["spec"]["template"]["spec"]["initContainers"]
        restored = tmp_path / values
        for _ in range(2):  # the second time it is there, and stays as it is
            run_container(init, tmp_path, GALLERY=str(restored), BACKUP=left[1])
        assert STORED <= read_binding(restored).count <= STORED + 1
        # Readers could not build one.
        assert (restored / "snapshots").is_dir() == (values == "readers-values")


def adapter_query(matchers: str) -> str:
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    query: str = rule["metricsQuery"]
    return query.replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes() -> None:
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    (scaler,) = [
        one for one in render("readers-values") if one["kind"] == "HorizontalPodAutoscaler"
    ]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def test_the_metric_is_how_many_requests_there_are_at_once(tmp_path: Path) -> None:
    """Ten a second that take 0.5 s each, of which their bodies take 0.1 s, are four at once."""
    if PROMTOOL is None:
        pytest.skip("promtool is not there")
    growth = {
        'request_seconds_sum{namespace="shop",pod="one",route="/v1/search"}': 225,
        'request_seconds_sum{namespace="shop",pod="one",route="/v1/classify"}': 75,
        'stage_seconds_sum{namespace="shop",pod="one",stage="body"}': 60,
        'stage_seconds_sum{namespace="shop",pod="one",stage="queue"}': 99,
        'request_seconds_sum{namespace="shop",pod="two",route="/readyz"}': 3,  # nothing else yet
    }
    series = [
        {"series": f"lookalike_{name}", "values": f"0+{each}x8"} for name, each in growth.items()
    ]
    expected = [
        {"labels": '{pod="one"}', "value": 4},
        {"labels": '{pod="two"}', "value": 0.05},
    ]
    test = {"expr": adapter_query('namespace="shop"'), "eval_time": "5m", "exp_samples": expected}
    file = tmp_path / "test.yml"
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": [test]}]
    file.write_text(yaml.safe_dump({"tests": tests}))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_has_what_the_metric_is_made_of_once_it_was_probed(server: Server) -> None:
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
        text = client.get("/metrics").text
    assert 'lookalike_request_seconds_sum{route="/readyz"}' in text


def test_the_metric_stands_in_the_documents() -> None:
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    assert rule["name"]["as"] in (ROOT / "docs" / "metrics.md").read_text()
