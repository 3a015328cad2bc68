"""The program of the process that has the network: it loads it, and encodes for all workers.

Run as ``python -m service.encoding.program SOCKET MODEL_FOLDER`` by the supervisor, which holds the
socket open: workers that connect while there is no such process wait for the next one.
"""

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from files.processes import end_with_parent
from files.resource_limits import usable_cores
from service.config import ServiceSettings
from service.encoding.client import LANES
from service.encoding.messages import Greeting, failure
from service.encoding.server import EncoderServer, NetworkFailedError
from service.server.ready_workers import ENCODER, ReadyWorkers
from service.telemetry.json_log import configure_logging
from service.telemetry.metrics import NO_LABELS
from service.telemetry.shared_metrics import SharedMetrics, shared_folder
from service.telemetry.worker_metrics import WorkerMetrics
from vision.errors import VisionError
from vision.inference.encoder import ImageEncoder
from vision.inference.open_encoder import open_encoder

PERIOD_S: Final = 1.0  # between two reports
LEAST_IMAGES: Final = 16  # that a worker may send at once
REFUSING_S: Final = 10.0  # that those who connect are told why it cannot be loaded, before it ends
AHEAD: Final = 4  # batches that all workers together may have under way, computed or waiting
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
logger = logging.getLogger("lookalike.service")


def main(descriptor: int, model_folder: Path) -> int:
    """Load the network of a model and serve; return the exit status."""
    settings = ServiceSettings.from_environment()
    load = partial(
        open_encoder,
        model_folder,
        device=settings.device,
        runtime=settings.runtime,
        threads=max(1, usable_cores() // 2),
    )
    return run(descriptor, load, settings)


def run(descriptor: int, load: Callable[[], ImageEncoder], settings: ServiceSettings) -> int:
    """Load an encoder and serve at a socket that listens; return the exit status.

    Should it not load, those who connect are told why; then it ends, for another to try again.
    """
    end_with_parent(int(os.environ["LOOKALIKE_SUPERVISOR"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the supervisor says when to end
    log = configure_logging(settings.log_level)
    listener = socket.socket(fileno=descriptor)
    server_id = os.environ["LOOKALIKE_SERVER_ID"]
    told = ReadyWorkers(shared_folder(server_id) / ENCODER, size=1)  # to the supervisor
    try:
        encoder = load()
        encoder.warm_up((1, settings.max_batch or encoder.batch_size))
        # It may have found out only now what it is quickest with.
        most = min(settings.max_batch or encoder.batch_size, encoder.batch_size)
        greeting = _greeting(encoder, most, workers=settings.workers or 1)
    except Exception as error:
        if isinstance(error, VisionError):
            logger.error("the network cannot be loaded: %s", error)  # noqa: TRY400 - a sentence
        else:
            logger.exception("the network cannot be loaded")
        told.fail(str(error) or type(error).__name__)
        _refuse(listener, failure(error))
        log.flush()
        return 1
    told.add()
    gc.collect()
    gc.freeze()  # to walk what stays would hold everybody up
    reports = _Reports(server_id)
    server = EncoderServer(
        listener, encoder, most=most, greeting=greeting, on_batch=reports.metrics.count_batch
    )
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    reports.start()
    logger.info("the network is ready: %s, batches of up to %d images", encoder.device_name, most)
    try:
        server.run()
    except NetworkFailedError:
        logger.exception("the network is given up")
        return 1
    finally:
        reports.share()
        log.flush()
    return 0


def _greeting(encoder: ImageEncoder, most: int, *, workers: int) -> Greeting:
    vectors_BD, probabilities_BL = encoder.encode(
        np.zeros(encoder.manifest.preprocessing.batch_shape(1), np.uint8)
    )
    share = -(-AHEAD * most // (LANES * workers))
    return Greeting(
        fingerprint=encoder.manifest.fingerprint,
        device=encoder.device_name,
        runtime=encoder.runtime,
        images=min(most, max(LEAST_IMAGES, share)),
        width=vectors_BD.shape[1],
        labels=probabilities_BL.shape[1],
    )


def _refuse(listener: socket.socket, reason: bytes) -> None:
    """Tell everybody who connects why there is no network, until it is time to try again."""
    ends = time.monotonic() + REFUSING_S
    while (left := ends - time.monotonic()) > 0:
        listener.settimeout(left)
        with suppress(OSError):  # nobody came, or he has gone
            connection, _ = listener.accept()
            with connection:
                connection.send(reason)


class _Reports:
    """What this process adds to the server's metrics, once a second."""

    def __init__(self, server_id: str) -> None:
        self._shared = SharedMetrics(server_id, "encoder")
        self.metrics = WorkerMetrics(self._shared.predecessor())
        self._started = time.time()
        self._lock = threading.Lock()  # one file, and two threads that share

    def start(self) -> None:
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def share(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        gauges = {
            "lookalike_encoders": 1.0,
            "lookalike_encoder_start_timestamp_seconds": self._started,
            "lookalike_encoder_resident_bytes": float(pages * _PAGE_BYTES),
        }
        ours = {name: {NO_LABELS: [value]} for name, value in gauges.items()}
        with self._lock:
            self._shared.write(self.metrics.snapshot() | ours)

    def _run(self) -> None:
        while True:
            self.share()
            time.sleep(PERIOD_S)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
