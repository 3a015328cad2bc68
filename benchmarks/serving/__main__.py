"""Requests per second, latency, processor time and memory beside other servers of the same network.

    python -m benchmarks.serving --model demo/model
    python -m benchmarks.serving --model demo/model --only bentoml mosec --connections 32 --rounds 1
    python -m benchmarks.serving --model build/models/vgg19 --seconds 20 -- --workers 2

Needs wrk. In each round every server is started, put under load by wrk and stopped, one after the
other and in the opposite order in every other round, so that only one runs at a time; `ceiling` is
decoding and network without HTTP. Before anything is timed its answers to some hundred pictures are
compared with torch's. What follows `--` goes to `lookalike serve`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import httpx

from benchmarks.machine import commit, describe_machine
from benchmarks.serving.answers import Reference, ask
from benchmarks.serving.ceiling import WAYS
from benchmarks.serving.load import Upload, put_under_load
from benchmarks.serving.pictures import photo, small
from benchmarks.serving.rivals.environments import FOLDER, ROOT
from benchmarks.serving.rivals.lineup import OURS, RIVALS, Rival
from benchmarks.serving.servers import Server, free_port, running
from benchmarks.serving.tables import (
    MANY,
    PHOTO,
    PNG,
    SMALL_NETWORK,
    VGG,
    Ceiling,
    Measured,
    print_tables,
)
from vision.model.manifest import read_manifest

CEILING = "ceiling"
WARM_UP_S = 2.0
MANY_CONNECTIONS = 4
SMALL_SIDE = 64  # pixels; networks up to here are also asked about small PNGs


def main() -> None:
    """Measure, and print tables as Markdown."""
    names = [OURS.name, *(rival.name for rival in RIVALS), CEILING]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, help="of ours; without it, an empty one")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run of wrk")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, help="of torch, in rivals; without it, its default")
    parser.add_argument("options", nargs="*", help="of `lookalike serve`, after --")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and stop the server, too
    arguments.model = arguments.model.resolve()
    servers = [rival for rival in (OURS, *RIVALS) if rival.name in (OURS.name, *arguments.only)]
    for rival in servers:
        rival.install()
    reference = Reference.of(arguments.model)
    is_small = read_manifest(arguments.model).preprocessing.size <= SMALL_SIDE
    uploads = {PHOTO: photo(0), PNG: small(0)} if is_small else {PHOTO: photo(0)}

    print(f"{describe_machine()}; commit {commit()}; {arguments.model.name}")
    pinned = dict.fromkeys(package for rival in servers for package in rival.packages)
    print(f"rivals: {', '.join(pinned) or 'none'}")
    print(f"{arguments.rounds} rounds of {arguments.seconds:g} s, median (range)\n", flush=True)
    measured = {rival.name: Measured(rival.title) for rival in servers}
    ceilings: dict[tuple[str, str], list[Ceiling]] = defaultdict(list)
    for number in range(arguments.rounds):
        for rival in servers if number % 2 == 0 else reversed(servers):
            print(f"round {number + 1}: {rival.title}", file=sys.stderr)
            measure(rival, measured[rival.name], reference, uploads, arguments)
        if CEILING in arguments.only:
            for name, picture in uploads.items():
                for way in WAYS:
                    ceilings[name, way].append(ceiling(picture, way, arguments))
    print_tables(measured, ceilings, SMALL_NETWORK if is_small else VGG)


def measure(
    rival: Rival,
    measured: Measured,
    reference: Reference,
    uploads: dict[str, bytes],
    arguments: argparse.Namespace,
) -> None:
    """Run one server once, and add what was seen to ``measured``."""
    with tempfile.TemporaryDirectory() as folder:
        gallery = arguments.gallery or Path(folder) / "gallery"
        with start(rival, arguments, gallery=gallery, picture=uploads[PHOTO]) as server:
            if not measured.answers:
                measured.answers = compared(rival, server, reference)
            put_all_under_load(rival, server, measured, uploads, arguments)
            measured.start_s.append(server.start_s)
            measured.memory.append(server.memory())


def compared(rival: Rival, server: Server, reference: Reference) -> str:
    """Return how a server's answers differ from torch's.

    Raises:
        SystemExit: by more than they may.
    """
    url = server.url + rival.path
    differ = reference.compare(url, upload=rival.upload, part=rival.part)
    if rival is not OURS:
        return differ
    return f"{differ}; cosine of vectors {reference.least_cosine(server.url):.4f}"


def put_all_under_load(
    rival: Rival,
    server: Server,
    measured: Measured,
    uploads: dict[str, bytes],
    arguments: argparse.Namespace,
) -> None:
    """Run wrk with every upload and number of connections, each after a warm-up."""
    for name, picture in uploads.items():
        upload = rival.upload_of(picture)
        for connections in arguments.connections:
            load = partial(put_under_load, server, rival.path, upload, connections=connections)
            load(seconds=WARM_UP_S)
            loads = measured.loads.setdefault((name, connections), [])
            loads.append(load(seconds=arguments.seconds))
        if rival is OURS:
            form = Upload.form([picture] * MANY)
            load = partial(put_under_load, server, "/v1/embed", form, connections=MANY_CONNECTIONS)
            load(seconds=WARM_UP_S)
            measured.many.setdefault(name, []).append(load(seconds=arguments.seconds))


def start(
    rival: Rival, arguments: argparse.Namespace, *, gallery: Path, picture: bytes
) -> AbstractContextManager[Server]:
    """Start a server; return it when it has given its first good answer."""

    def answers(url: str) -> bool:
        with suppress(httpx.HTTPError, ValueError), httpx.Client(timeout=60) as client:
            url += rival.path
            return "label" in ask(client, url, picture, upload=rival.upload, part=rival.part)
        return False

    environment, port = rival.install(), free_port()
    threads = {"OMP_NUM_THREADS": str(arguments.threads)} if arguments.threads else {}
    command = rival.command_in(environment, port=port, model=arguments.model, gallery=gallery)
    return running(
        [*command, *(arguments.options if rival is OURS else ())],
        environment={
            **rival.environment,
            **({} if rival is OURS else threads),
            "MODEL": str(arguments.model),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        },
        port=port,
        answers=answers,
        log=FOLDER / f"{rival.name}.log",
    )


def ceiling(picture: bytes, way: str, arguments: argparse.Namespace) -> Ceiling:
    """Measure decoding and network without HTTP, in a process of its own."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(picture)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.serving.ceiling", "--way", way]
        command += ["--model", str(arguments.model), "--picture", file.name]
        command += ["--seconds", str(arguments.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Ceiling(**json.loads(done.stdout))


if __name__ == "__main__":
    main()
