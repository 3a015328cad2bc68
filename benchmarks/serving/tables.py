"""What benchmarks/serving/__main__.py measured, as Markdown, and beside what was asked."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.machine import spread
from benchmarks.serving.load import Load
from benchmarks.serving.servers import Memory

OURS = "lookalike"
PHOTO, PNG = "12 kB JPEG", "28 x 28 PNG"
MANY = 32  # images in one request to /v1/embed
GUIDE = ("bentoml", "bentoml-batched")
OTHERS = ("litserve", "fastapi", "fastapi-async", "ray", "torchserve")
RUST = ("mosec", "mosec-whole")
START_S, RESIDENT_MB = 4.0, 400.0


@dataclass
class Measured:
    """All that was measured of one server; lists have one entry for each round."""

    title: str
    answers: str = ""  # how they differ from torch's
    loads: dict[tuple[str, int], list[Load]] = field(default_factory=dict)  # by upload, connections
    many: dict[str, list[Load]] = field(default_factory=dict)  # by upload; requests of MANY images
    start_s: list[float] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)


@dataclass(frozen=True)
class Ceiling:
    """Decoding and network without HTTP, in one round."""

    rate: float  # images per second
    cpu_ms: float  # per image


# by upload and way, then one for each round
Ceilings = Mapping[tuple[str, str], Sequence[Ceiling]]


@dataclass(frozen=True)
class Asked:
    """What the product's owner asked for a network: ours as a multiple of theirs."""

    photos_of_guide: float
    pngs_of_guide: float
    others: float
    rust: float
    ceiling_one: float
    ceiling_many: float


SMALL_NETWORK = Asked(
    photos_of_guide=2, pngs_of_guide=3, others=1.5, rust=1, ceiling_one=0.4, ceiling_many=0.85
)
VGG = Asked(
    photos_of_guide=4, pngs_of_guide=4, others=4, rust=4, ceiling_one=0.9, ceiling_many=0.85
)


def print_tables(measured: Mapping[str, Measured], ceilings: Ceilings, asked: Asked) -> None:
    """Print what was measured, and what was asked for beside what was reached."""
    _print_loads(measured)
    _print_servers(measured)
    if ceilings:
        _print_ceilings(ceilings)
    print("\n| figure | asked | reached |\n|---|---|---|")
    for figure, wanted, reached in (*_ratios(measured, ceilings, asked), *_of_ours(measured)):
        print(f"| {figure} | {wanted} | {reached} |")


def _print_loads(measured: Mapping[str, Measured]) -> None:
    ours = measured[OURS].loads
    print("| image | connections | server | good answers/s | ours is | p50 ms | p99 ms ", end="")
    print("| CPU ms/request | wrk's | errors |\n|---|---|---|---|---|---|---|---|---|---|")
    for upload, connections in ours:
        for server in measured.values():
            loads = server.loads[upload, connections]
            ratio = spread(_times(ours[upload, connections], loads), 2)
            requests = sum(load.requests for load in loads)
            print(
                f"| {upload} | {connections} | {server.title} | "
                f"{_spread(loads, lambda load: load.rate)} | {ratio} | "
                f"{_spread(loads, lambda load: load.p50_ms, 2)} | "
                f"{_spread(loads, lambda load: load.p99_ms, 1)} | "
                f"{_spread(loads, lambda load: load.cpu_ms, 2)} | "
                f"{_spread(loads, lambda load: load.wrk_cpu_ms, 2)} | "
                f"{sum(load.errors for load in loads):,} of {requests:,} |"
            )


def _print_servers(measured: Mapping[str, Measured]) -> None:
    print("\n| server | start to first answer s | resident MB | shared pages once MB ", end="")
    print("| processes | answers beside torch's |\n|---|---|---|---|---|---|")
    for server in measured.values():
        last = server.memory[-1]
        print(
            f"| {server.title} | {spread(server.start_s, 1)} | "
            f"{spread([memory.resident for memory in server.memory])} | "
            f"{spread([memory.proportional for memory in server.memory])} | "
            f"{last.processes} | {server.answers} |"
        )


def _print_ceilings(ceilings: Ceilings) -> None:
    print("\n| without HTTP | image | images/s | CPU ms/image |\n|---|---|---|---|")
    for (upload, way), rounds in ceilings.items():
        rates = spread([ceiling.rate for ceiling in rounds])
        cpu = spread([ceiling.cpu_ms for ceiling in rounds], 2)
        print(f"| {way} | {upload} | {rates} | {cpu} |")


def _ratios(
    measured: Mapping[str, Measured], ceilings: Ceilings, asked: Asked
) -> Iterator[tuple[str, str, str]]:
    """Yield figure, what was asked and what was reached, of what is measured beside others."""
    ours = measured[OURS]
    groups = (
        ("the best of BentoML's guide", GUIDE),
        ("the best of " + ", ".join(OTHERS), OTHERS),
        ("the best of mosec", RUST),
    )
    for upload, connections in ours.loads:
        for title, names in groups:
            rivals = [measured[name] for name in names if name in measured]
            if not rivals:
                continue
            wanted = {
                GUIDE: asked.photos_of_guide if upload == PHOTO else asked.pngs_of_guide,
                OTHERS: asked.others,
            }.get(names, asked.rust)
            loads = ours.loads[upload, connections]
            theirs = [rival.loads[upload, connections] for rival in rivals]
            if connections > 1:
                best = max(theirs, key=lambda their: _median(their, lambda load: load.rate))
                reached = spread(_times(loads, best), 2)
                yield f"{upload}, {connections} connections, {title}", f"{wanted:g} x", reached
            elif names == OTHERS:
                least = min(_median(their, lambda load: load.p50_ms) for their in theirs)
                own = _median(loads, lambda load: load.p50_ms)
                yield f"{upload}, p50 of 1 connection, {title}", f"{least:.2f} ms", f"{own:.2f} ms"
    for upload in dict.fromkeys(upload for upload, _ in ceilings):
        best = max(
            statistics.median(ceiling.rate for ceiling in rounds)
            for (of, _), rounds in ceilings.items()
            if of == upload
        )
        busiest = max(connections for _, connections in ours.loads)
        one = _median(ours.loads[upload, busiest], lambda load: load.rate) / best
        many = MANY * _median(ours.many[upload], lambda load: load.rate) / best
        yield f"{upload}, one a request, ceiling", f"{asked.ceiling_one:g} x", f"{one:.2f}"
        yield f"{upload}, {MANY} a request, ceiling", f"{asked.ceiling_many:g} x", f"{many:.2f}"


def _of_ours(measured: Mapping[str, Measured]) -> Iterator[tuple[str, str, str]]:
    """Yield figure, what was asked and what was reached, of what stands alone."""
    ours = measured[OURS]
    runs = [load for loads in (*ours.loads.values(), *ours.many.values()) for load in loads]
    yield "errors", "0", f"{sum(load.errors for load in runs)}"
    yield "start to first answer", f"{START_S:g} s", f"{spread(ours.start_s, 1)} s"
    resident = spread([memory.resident for memory in ours.memory])
    yield "resident, all processes", f"{RESIDENT_MB:g} MB", f"{resident} MB"


def _times(ours: Sequence[Load], theirs: Sequence[Load]) -> list[float]:
    """Return, for each round, how many times their good answers ours are; inf beside none."""
    return [
        our.rate / their.rate if their.rate else math.inf
        for our, their in zip(ours, theirs, strict=True)
    ]


def _median(loads: Sequence[Load], of: Callable[[Load], float]) -> float:
    return statistics.median(map(of, loads))


def _spread(loads: Sequence[Load], of: Callable[[Load], float], digits: int = 0) -> str:
    return spread([of(load) for load in loads], digits)
