"""The server with its default settings, beside the bare encoder and BentoML's own guide."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import httpx

from benchmarks.gpu_run.encoder import BEST
from benchmarks.gpu_run.models import CNN, VGG, model_folder
from benchmarks.gpu_run.results import Results
from benchmarks.serving.answers import ask
from benchmarks.serving.load import put_under_load
from benchmarks.serving.pictures import photo, small
from benchmarks.serving.rivals.environments import ROOT
from benchmarks.serving.rivals.lineup import OURS, RIVALS, Rival
from benchmarks.serving.servers import Server, free_port, running

CONNECTIONS = 128
WARM_UP_S = 1.0
REMEMBERED_WITHIN_S = 15.0  # what is quickest is found out after the start
GUIDE = ("bentoml", "bentoml-batched")
PHASES = """
import sys, time
began = time.perf_counter()
def lap(what):
    global began
    print(f"{what}\\t{time.perf_counter() - began:.3f}"); began = time.perf_counter()
import torch; lap("import torch")
from pathlib import Path
from vision.inference.open_encoder import open_encoder
if torch.cuda.is_available(): torch.zeros(1, device="cuda"); lap("context alone")
from vision.networks.saved_model import load_model
load_model(Path(sys.argv[1])); lap("network and weights alone")
ours = open_encoder(Path(sys.argv[1]), device="auto", runtime="torch", threads=4); lap("encoder")
ours.warm_up((1, ours.batch_size)); lap("warm-up")
import os; sys.stdout.flush(); os._exit(0)
"""


def measure_http(results: Results, folder: Path, *, dry: bool) -> None:
    """Put ours, and BentoML's guide, under load of photos for VGG-19 and of PNGs for `cnn`."""
    if shutil.which("wrk") is None:
        results.add("http", "all", None, note="wrk is not on PATH")
        return
    seconds, connections = (1.0, 4) if dry else (8.0, CONNECTIONS)
    tasks = [(VGG, "jpeg", photo(0)), (CNN, "png", small(0)), (CNN, "jpeg", photo(0))]
    for name, kind, picture in tasks[1:] if dry else tasks:  # VGG-19 takes minutes on a CPU
        rivals = () if (name, kind) == (CNN, "jpeg") else GUIDE
        rates: dict[str, float] = {}
        for rival in (OURS, *(one for one in RIVALS if one.name in rivals)):
            with started(rival, model_folder(folder, name), folder, picture) as server:
                upload = rival.upload_of(picture)
                load_with = partial(
                    put_under_load, server, rival.path, upload, connections=connections
                )
                load_with(seconds=WARM_UP_S)
                load = load_with(seconds=seconds)
            rates[rival.name] = load.rate
            results.add(
                f"http {name}",
                f"{rival.title}, {kind}, {connections} connections",
                load.rate,
                "requests/s",
                note=f"p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms, {load.errors} errors",
                reach="20,000" if (rival, name, kind) == (OURS, CNN, "png") else "",
            )
        compare(results, name, kind, rates)


def compare(results: Results, name: str, kind: str, rates: dict[str, float]) -> None:
    """Set ours beside the bare encoder of the same run, and beside the guide's better form."""
    bare = results.value(f"encoder {name}", BEST)
    if bare:
        share = rates[OURS.name] / bare
        reach = "0.8" if name == VGG else ""
        results.add(f"http {name}", f"of the bare encoder, {kind}", share, reach=reach)
    guide = max((rates[rival] for rival in GUIDE if rival in rates), default=0.0)
    if guide:
        times = rates[OURS.name] / guide
        results.add(f"http {name}", f"times BentoML's guide, {kind}", times, reach="3")


def measure_start(results: Results, folder: Path, *, dry: bool) -> None:
    """Measure from the command to the first answer: with nothing remembered, and again."""
    cache = folder / "start-cache"
    os.environ["XDG_CACHE_HOME"] = str(cache)
    for name in (CNN,) if dry else (VGG, CNN):
        shutil.rmtree(cache, ignore_errors=True)
        model = model_folder(folder, name)
        for what in ("first start", "next start"):
            with started(OURS, model, folder, small(0)) as server:
                section = f"start {name}"
                results.add(section, f"{what} to ready", server.start_s, "s", reach="10 s")
                until = time.monotonic() + (0 if dry else REMEMBERED_WITHIN_S)
                while time.monotonic() < until and not any(cache.rglob("*.json")):
                    time.sleep(0.2)
            shutil.rmtree(folder / f"gallery-{model.name}", ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-c", PHASES, str(model)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        for line in done.stdout.splitlines():
            what, took = line.split("\t")
            results.add(f"start {name}", what, float(took), "s", note="in one process, in turns")


def started(
    rival: Rival, model: Path, folder: Path, picture: bytes
) -> AbstractContextManager[Server]:
    """Start a server of this environment; return it when it has given its first good answer."""

    def answers(url: str) -> bool:
        with suppress(httpx.HTTPError, ValueError), httpx.Client(timeout=60) as client:
            address = url + rival.path
            return "label" in ask(client, address, picture, upload=rival.upload, part=rival.part)
        return False

    port = free_port()
    gallery = folder / f"gallery-{model.name}"
    own = Path(sys.prefix)
    return running(
        rival.command_in(own, port=port, model=model, gallery=gallery),
        environment={
            **rival.environment,
            "MODEL": str(model),
            "BENCHMARK_DEVICE": "auto",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{own / 'bin'}:{os.environ['PATH']}",
        },
        port=port,
        answers=answers,
        log=folder / f"{rival.name}-{model.name}.log",
    )
