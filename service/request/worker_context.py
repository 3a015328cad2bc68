"""What all requests of one worker share: settings, model and gallery, limits, and reporting."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from service.config import ServiceSettings
from service.http.admission import Admission, BodyMemoryBudget
from service.inference.engine import Engine
from service.request.router import Router
from service.security.allowed_hosts import AllowedHosts
from service.security.authorization import Authorizer
from service.security.cors import Cors
from service.security.trusted_proxies import TrustedProxies
from service.server.worker_count import fit_memory, worker_count
from service.telemetry.health import STOPPING, Loading, ServerReadiness, stuck_reason
from service.telemetry.json_log import LogQueue
from service.telemetry.tracing import Tracing
from service.telemetry.watchdog import Watchdog
from service.telemetry.worker_metrics import WorkerMetrics

READS: Final = 256  # requests that only read, under way in one worker
READS_WAIT_S: Final = 1.0  # what the last of them waits at most
BODIES_SHARE: Final = 0.125  # of the memory that the server may take, at most


@dataclass(slots=True, kw_only=True)
class WorkerContext:
    """One worker: made when it starts, ``engine`` once that is loaded."""

    settings: ServiceSettings
    router: Router
    number: int = 1  # among the workers of this server
    engine: Engine | None = None  # None: still loading, failed, or closed
    loading: Loading = field(default_factory=Loading)
    is_stopping: bool = False
    server_readiness: Callable[[], ServerReadiness] = (
        ServerReadiness  # of all workers of this server
    )

    # Who may ask
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    hosts: AllowedHosts | None = None  # None: every Host is taken
    cors: Cors | None = None  # None: pages of other origins may read nothing
    authorizer: Authorizer | None = None  # None: everybody may do everything

    # How much at once
    bodies: BodyMemoryBudget = field(init=False)
    body_turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of large bodies
    reading: Admission = field(default_factory=lambda: Admission(READS, max_wait_s=READS_WAIT_S))

    # What is reported
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    watchdog: Watchdog = field(default_factory=Watchdog)
    log: LogQueue | None = None
    tracing: Tracing | None = None  # None: no traces are asked for
    prometheus_text: Callable[[], bytes] = bytes  # of all workers; may wait for the disk

    def __post_init__(self) -> None:
        settings = self.settings
        fitting = fit_memory(
            settings.max_bodies_bytes, share=BODIES_SHARE, workers=worker_count(settings)
        )
        one = min(
            settings.max_body_bytes, settings.max_bodies_bytes
        )  # fits, however little there is
        self.bodies = BodyMemoryBudget(max(fitting, one))

    @property
    def retry_after_s(self) -> int:
        """When it is worth while to ask again, seconds."""
        return 2 if self.loading.failure is None else 30

    def unready_reason(self) -> str | None:
        """Return why no search should be sent here, a sentence; ``None``: it answers them."""
        if self.is_stopping:
            return STOPPING
        return self.loading.reason or self.network_reason() or self.stuck_reason()

    def network_reason(self) -> str | None:
        """Return why the network cannot be reached, a sentence; ``None``: it can."""
        return None if self.engine is None else self.engine.network.unavailable_reason

    def stuck_reason(self) -> str | None:
        """Return which work on images does not end, a sentence; ``None``: none is known."""
        return stuck_reason(self.watchdog, "network") or stuck_reason(self.watchdog, "decode")
