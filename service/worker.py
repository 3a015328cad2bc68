"""The life of a worker: from BentoML's start of it to the last report it hands out."""

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, Self

from service.api.application import create_router, load, unload
from service.config import ServiceSettings
from service.request.gateway import Gateway
from service.request.metrics_reporter import MetricsReporter
from service.request.worker_context import WorkerContext
from service.security.allowed_hosts import AllowedHosts
from service.security.api_keys import KeyFile
from service.security.authorization import Authorizer
from service.security.cors import Cors
from service.security.rate_limits import RateLimiter
from service.security.trusted_proxies import TrustedProxies
from service.server.bento_hardening import refuse_pickles
from service.server.connection import WorkerProtocol
from service.server.connection_limits import ConnectionLimits
from service.server.deadlines import DeadlineTimer
from service.server.listening import ProbeListener
from service.server.ready_workers import ReadyWorkers
from service.telemetry.json_log import LogQueue
from service.telemetry.shared_metrics import SharedMetrics, shared_folder
from service.telemetry.tracing import start_tracing
from service.telemetry.worker_metrics import WorkerMetrics

# How long one thread may keep the interpreter while another wants it. The network needs it back
# after every layer, and Python's own 5 ms made photos wait at 32 connections.
SWITCH_INTERVAL_S: Final = 0.001
# glibc gives each of up to 8 threads per core a heap of its own, and none of them what another gave
# back: with 32 threads that write, a worker grew by 1 MB a minute more.
HEAPS: Final = 2
# So many bytes have pages of their own, which the system has back at once; glibc would learn from a
# large body to keep the next in a heap.
APART_BYTES: Final = 2**22
_M_ARENA_MAX: Final = -8  # of glibc's malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1
OTHER_DESCRIPTORS: Final = 512  # files, sockets and threads' pipes beside the connections
START_FAILED: Final = 3  # exit code, as uvicorn's
SETTLE_S: Final = 0.1  # for handshakes to end; a round trip
gateway = Gateway()
logger = logging.getLogger("lookalike.service")


class Connection(WorkerProtocol):
    """A connection of this service: it calls the gateway, past all that BentoML puts around it."""

    application = gateway
    watch = DeadlineTimer()
    neighbours = ConnectionLimits()


class Worker:
    """A process that answers requests. Start one; there is one ``gateway`` per process."""

    def __init__(
        self, context: WorkerContext, reporter: MetricsReporter, loading: "asyncio.Task[None]"
    ) -> None:
        self._context = context
        self._reporter = reporter
        self._loading = loading

    @classmethod
    async def start(
        cls,
        settings: ServiceSettings,
        model_folder: Path,
        *,
        log: LogQueue,
        server_id: str,
        index: int,
        size: int,
        encoder_socket: Path | None,
    ) -> Self:
        """Load the model and the gallery; come back once requests can be answered.

        Where they cannot be loaded, the process ends: the supervisor knows why, and what then.

        Args:
            settings: of the service.
            model_folder: of the model to serve.
            log: what this process logs to.
            server_id: the same for all workers of a server.
            index: of this one among them, from 1.
            size: how many there are to be.
            encoder_socket: of the process that computes for all; None: each does for itself.

        Raises:
            ServiceConfigError: the key file cannot be used.
        """
        refuse_pickles()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        _limit_heaps()
        _allow_descriptors(settings.max_connections)
        shared = shared_folder(server_id)
        shared.mkdir(mode=0o700, exist_ok=True)
        shared_metrics = SharedMetrics(server_id, index)
        predecessor = shared_metrics.predecessor()
        ready_workers = ReadyWorkers(shared, size=size)
        proxies = TrustedProxies(settings.trusted_proxies)
        has_keys = settings.api_keys_file is not None
        context = WorkerContext(
            settings=settings,
            router=create_router(),
            number=index,
            server_readiness=ready_workers.readiness,
            proxies=proxies,
            hosts=AllowedHosts(settings.allowed_hosts, proxies, has_keys=has_keys),
            cors=Cors(settings.cors_origins) if settings.cors_origins else None,
            authorizer=_create_authorizer(settings, proxies, shared / "quotas", secret=server_id),
            metrics=WorkerMetrics(predecessor),
            log=log,
            tracing=start_tracing(settings),
        )
        reporter = MetricsReporter(context, shared_metrics, log=log, predecessor=predecessor)
        context.prometheus_text = reporter.prometheus_text
        gateway.worker = context
        Connection.settings = settings
        Connection.neighbours.most = settings.max_connections
        Connection.neighbours.proxies = proxies
        reporter.start()
        listener = ProbeListener.of_this_process()
        _announce_stop(context, drain_s=settings.drain_s)
        failures: list[str] = []
        loading = asyncio.create_task(
            load(
                context,
                model_folder,
                encoder_socket,
                on_loaded=ready_workers.add,
                on_failed=failures.append,
            )
        )
        await listener.hold(
            ready_workers,
            lambda: context.engine is not None or bool(failures),
        )
        if failures:
            end_failed_start(server_id, log, failures[0])
        return cls(context, reporter, loading)

    async def stop(self) -> None:
        """Close the gallery after the last request."""
        await unload(self._context, self._loading)
        await asyncio.to_thread(self._end_reports)

    def _end_reports(self) -> None:
        """Hand out what was counted, traced and logged, to whoever takes it in time."""
        self._reporter.close()
        if self._context.tracing is not None:
            self._context.tracing.close()
        if self._context.log is not None:
            self._context.log.flush()


def end_failed_start(server_id: str, log: LogQueue, sentence: str) -> NoReturn:
    """End this process, which can never answer, and say why: in the log, and to the supervisor."""
    logger.error("the service cannot start: %s", sentence)
    ReadyWorkers(shared_folder(server_id), size=0).fail(sentence)
    log.flush()
    os._exit(START_FAILED)


def _announce_stop(context: WorkerContext, *, drain_s: float) -> None:
    """Have ``/readyz`` say that the service stops from the signal to do so on.

    The server goes on listening for ``drain_s`` seconds, in which a load balancer can find out, and
    for as long as it takes to accept those who connected before the supervisor let nobody more in.
    A worker that alone is told to end, by SIGHUP, says nothing there: the service goes on.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)  # uvicorn's
    if not callable(stop):  # not under uvicorn
        return

    def announce(number: int, frame: FrameType | None) -> None:
        context.is_stopping = Connection.is_stopping = True
        loop.call_soon_threadsafe(loop.call_later, drain_s + SETTLE_S, stop, number, None)

    def retire(number: int, frame: FrameType | None) -> None:
        Connection.is_stopping = True
        loop.call_soon_threadsafe(loop.call_later, SETTLE_S, stop, signal.SIGTERM, None)

    for number in (signal.SIGTERM, signal.SIGINT):  # Ctrl-C comes to all processes at once
        signal.signal(number, announce)
    signal.signal(signal.SIGHUP, retire)  # another worker has taken this one's place


def _limit_heaps() -> None:
    """Have all threads share two heaps, and large pieces none, where the C library is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, HEAPS)
        mallopt(_M_MMAP_THRESHOLD, APART_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 4 * APART_BYTES)


def _allow_descriptors(connections: int) -> None:
    """Let this process open as many files as that many connections, and what else it does, need.

    Twice the connections, because those past the limit are told so before they are closed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _create_authorizer(
    settings: ServiceSettings, proxies: TrustedProxies, counts: Path, *, secret: str
) -> Authorizer | None:
    """Return what the settings ask of requests; None: nothing. All workers share ``counts``.

    Raises:
        ServiceConfigError: the key file cannot be used.
    """
    if settings.api_keys_file is None and settings.requests_per_minute is None:
        return None
    return Authorizer(
        rate_limiter=RateLimiter(counts, secret=secret),
        keys=None if settings.api_keys_file is None else KeyFile(settings.api_keys_file),
        requests_per_minute=settings.requests_per_minute,
        wrong_keys_per_minute=settings.wrong_keys_per_minute or None,
        proxies=proxies,
    )
