"""What the service counts, for Prometheus; routes are labelled by template, never by path."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from index.items import GalleryInfo

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class SharedFolder:
    """The folder through which the workers of one server add up their counters.

    BentoML has one such folder for all servers of a user, and empties it whenever one starts; so
    each server gets its own, named by the id that its processes inherit.
    """

    def __init__(self, server_id: str) -> None:
        self.path = Path(tempfile.gettempdir()) / f"lookalike-metrics-{server_id}"

    def use(self) -> None:
        """Make the folder and have prometheus_client write to it; before any counter is made."""
        self.path.mkdir(exist_ok=True)
        for path in self.path.glob("gauge_live*_*.db"):  # of a worker that this one replaces
            pid = int(path.stem.rpartition("_")[2])
            if not Path(f"/proc/{pid}").exists():
                mark_process_dead(pid, str(self.path))  # type: ignore[no-untyped-call]
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.path)

    def remove(self) -> None:
        """Remove the folder, at the end of the server."""
        shutil.rmtree(self.path, ignore_errors=True)


class Metrics:
    """One worker's counters; ``exposition`` adds up those of all workers."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "lookalike_requests_total",
            "Requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "lookalike_request_seconds",
            "From the request's first byte to the answer's last.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_images = Histogram(
            "lookalike_batch_images",
            "Images the network took at once.",
            buckets=_BATCH,
            registry=registry,
        )
        self.gallery_items = _latest("lookalike_gallery_items", "Items in the gallery.", registry)
        self.gallery_seq = _latest(
            "lookalike_gallery_seq", "Newest write that this view of the gallery has.", registry
        )
        self.gallery_recent = _latest(
            "lookalike_gallery_recent_items",
            "Items stored since the search structure was built, which every search looks at.",
            registry,
        )
        self.gallery_generation = _latest(
            "lookalike_gallery_generation",
            "Generation of the search structure in use; 0: none.",
            registry,
        )
        self.gallery_read_only = Gauge(
            "lookalike_gallery_read_only",
            "1 when a worker can write no more, after an I/O error; 0 when all can.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def observe(self, gallery: GalleryInfo) -> None:
        """Set the gauges of this worker's view of the gallery."""
        self.gallery_items.set(gallery.count)
        self.gallery_seq.set(gallery.seq)
        self.gallery_recent.set(gallery.recent)
        self.gallery_generation.set(gallery.generation)
        self.gallery_read_only.set(gallery.state == "read-only")

    def exposition(self) -> bytes:
        """Return the text that Prometheus reads, over all workers where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _latest(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    """Return a gauge of which, over all workers, what was set last is shown."""
    return Gauge(name, text, registry=registry, multiprocess_mode="mostrecent")
