"""Everything a worker loads, the network and the gallery, and the threads that use them."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import numpy as np

from files.resource_limits import usable_cores
from index.decoding.file_decoder_pool import MAX_PROCESSES
from index.gallery import Gallery
from service.config import ServiceSettings
from service.encoding.network import Network
from service.http.admission import Admission, MemoryLimiter
from service.inference.batcher import Batcher
from service.inference.decoder import PictureDecoder
from service.inference.decoder_pool import DecoderPool
from service.inference.image_decoder import ImageDecoder
from service.inference.open_gallery import open_gallery
from service.inference.task import Task
from service.inference.wait_for_writes import WriteWaiter
from service.jobs.records import JobRecords
from service.jobs.runner import JobRunner
from service.schemas.query_responses import ModelName
from service.server.worker_count import fit_memory, worker_count
from service.telemetry.health import Loading
from service.telemetry.watchdog import Watchdog
from vision.formats.decoding_cost import decoding_cost
from vision.formats.detect import formats_called
from vision.image.decode import harden_pillow
from vision.image.limits import ImageLimits
from vision.inference.encoder import ImageEncoder
from vision.model.open_set import OpenSetDetector, read_detector

logger = logging.getLogger("lookalike.service")
T = TypeVar("T")
LEAST_DECODERS: Final = 2  # processes, where they are needed: one picture does not stop all others
# For one image: what a lone one may keep the event loop for, beside its decoding.
QUICK_S: Final = 0.002
WRITERS: Final = 32  # that wait for the disk together
# A cost of 1 is one usual image: so many pixels, or items that a search has to look at one by one.
COST_PIXELS: Final = 2**20
COST_ITEMS: Final = 10_000
COST_S: Final = 0.02  # of decoding or looking, until some were seen
DECODING_SHARE: Final = 0.25  # of the memory that the server may take, at most
COSTLY_WAITS: Final = 10  # as long as others may wait who ask for more than one usual image


class Engine:
    """The loaded model and gallery of one worker.

    Images go through ``batcher``; gallery reads run on a few threads, and gallery writes on many,
    because writes that wait for the disk at the same time share a commit.
    """

    def __init__(
        self,
        *,
        settings: ServiceSettings,
        network: Network,
        references: OpenSetDetector | None,
        gallery: Gallery,
        batcher: Batcher,
        decoders: DecoderPool,
        watchdog: Watchdog,
    ) -> None:
        self.settings = settings
        self.network = network
        self.manifest = manifest = network.encoder.manifest
        self.device = network.encoder.device_name
        self.runtime = network.encoder.runtime
        self.references = references
        self.gallery = gallery
        self.batcher = batcher
        self.jobs = JobRunner(JobRecords(gallery.folder / "jobs", clock=_now), clock=_now)
        self.quick = Admission(settings.max_queue, max_wait_s=settings.max_wait_s)
        self.costly = Admission(settings.max_queue, max_wait_s=COSTLY_WAITS * settings.max_wait_s)
        self.write_waiter = WriteWaiter(partial(self.read, gallery.catch_up))
        self.model_name = ModelName(name=manifest.name, fingerprint=manifest.fingerprint)
        self._decoders = decoders
        self._watchdog = watchdog
        self._readers = ThreadPoolExecutor(usable_cores(), thread_name_prefix="search")
        self._long = ThreadPoolExecutor(max(1, usable_cores() // 2), thread_name_prefix="length")
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")

    @classmethod
    async def start(
        cls,
        settings: ServiceSettings,
        model_folder: Path,
        *,
        open_network: Callable[[], Network],
        loading: Loading,
        watchdog: Watchdog,
    ) -> Self:
        """Load and warm up model and gallery, while the event loop goes on answering.

        Args:
            settings: of the service.
            model_folder: of the model to serve.
            open_network: loads the network, or finds the process that has it.
            loading: told what begins.
            watchdog: told what the threads are at.

        Raises:
            ModelFolderError, DeviceError, GalleryFolderError: one of them cannot be used.
        """
        harden_pillow()
        loop = asyncio.get_running_loop()
        own_cores = max(1, usable_cores() // worker_count(settings))
        network = await loop.run_in_executor(None, open_network)
        encoder = network.encoder
        manifest = encoder.manifest
        references = await loop.run_in_executor(None, read_detector, model_folder, manifest)
        request_s = await loop.run_in_executor(None, _time_one, encoder)
        loading.begin("gallery")
        gallery = await loop.run_in_executor(
            None,
            partial(open_gallery, settings, manifest, model_folder=model_folder),
        )
        limits = ImageLimits(
            max_bytes=settings.max_body_bytes,
            max_pixels=settings.max_pixels,
            formats=formats_called(settings.formats),
        )
        decoders = DecoderPool(
            PictureDecoder(manifest.preprocessing, limits),
            MemoryLimiter(
                fit_memory(
                    settings.decode_memory_bytes,
                    share=DECODING_SHARE,
                    workers=worker_count(settings),
                )
            ),
            timeout_s=settings.decode_timeout_s,
        )
        batcher = Batcher(
            decode=ImageDecoder(manifest.preprocessing, limits, gallery, decoders).decode,
            lanes=network.lanes,
            watchdog=watchdog,
            decode_threads=own_cores,
            heavy_threads=min(max(own_cores, LEAST_DECODERS), MAX_PROCESSES),
            decodes_itself=own_cores == 1,
            is_quick=request_s < QUICK_S and not network.is_apart,
            max_batch=settings.max_batch or encoder.batch_size,
        )
        engine = cls(
            settings=settings,
            network=network,
            references=references,
            gallery=gallery,
            batcher=batcher,
            decoders=decoders,
            watchdog=watchdog,
        )
        loading.begin("warm_up")
        engine.quick.expect(request_s)
        engine.costly.expect(request_s + COST_S)
        any_vector_1D = np.eye(1, manifest.architecture.width, dtype=np.float32)
        await engine.read(lambda: gallery.search(any_vector_1D, k=1))  # the first takes 0.2 s
        gallery.start_maintenance()
        loading.end()
        logger.info(
            "ready: model %s on %s by %s in %s, gallery %s with %d items",
            manifest.name,
            engine.device,
            engine.runtime.name,
            engine.runtime.precision,
            settings.gallery.name,
            gallery.count,
        )
        return engine

    def admit(
        self, caller: str, tasks: Sequence[Task] = (), *, others: int = 0, scans: int = 0
    ) -> AbstractContextManager[None]:
        """Return a place among the quick requests or among the costly ones, which wait apart.

        Args:
            caller: whose the request is.
            tasks: the images.
            others: how many queries or items there are without an image.
            scans: how many times the request looks at all items one by one.

        Raises:
            OverloadedError: on entering, there is too much of its kind to do already.
        """
        cost = others + scans * (self.gallery.count // COST_ITEMS)
        for task in tasks:
            cost += 1 if task.is_cheap else 2 + decoding_cost(task.data) // COST_PIXELS
        if cost == 1:
            return self.quick.admit(caller)
        # Changes alone, which cost nothing here, wait for the disk and not for the network.
        return self.costly.admit(caller, cost=max(1, cost))

    async def read(self, function: Callable[[], T]) -> T:
        """Run a gallery read on one of the reading threads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function)

    async def at_length(self, function: Callable[[], T]) -> T:
        """Run what may look at all items, or writes a long answer, where nothing quick waits."""
        return await asyncio.get_running_loop().run_in_executor(self._long, function)

    async def write(self, function: Callable[[], T]) -> T:
        """Run a gallery write on one of the writing threads; it ends even if the caller goes away.

        Writes of one request that must keep their order belong in one ``function``.
        """
        work = partial(self._tracked_write, function)
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writers, work))

    def _tracked_write(self, function: Callable[[], T]) -> T:
        with self._watchdog.track("write"):
            return function()

    async def close(self) -> None:
        """Finish what was begun, but for jobs, which are stopped; then close the gallery."""
        await self.batcher.close()
        self.network.close()
        await asyncio.get_running_loop().run_in_executor(None, self._shut_down)

    def _shut_down(self) -> None:
        self._decoders.close()
        self._readers.shutdown()
        self._long.shutdown()
        self._writers.shutdown()
        self.jobs.close()
        self.gallery.close()


def _time_one(encoder: ImageEncoder) -> float:
    """Return how many seconds the network needs for one image."""
    preprocessing = encoder.manifest.preprocessing
    shape = preprocessing.batch_shape(1)
    started = time.perf_counter()
    encoder.encode(np.zeros(shape, np.uint8))
    return time.perf_counter() - started


def _now() -> datetime:
    return datetime.now(UTC)
