"""How many workers a server has, and how much memory each of them may fill."""

from pathlib import Path
from typing import Final

from files.resource_limits import usable_cores, usable_memory_bytes
from service.config import ServiceSettings

# By default; each has some 150 MB of its own.
MOST_WORKERS: Final = 8
MOST_FRONTS: Final = 16  # before a GPU, which many more small images could be sent to
# What a worker may need: the network and its libraries, the bodies and the images that it may hold
# at once (``max_bodies_bytes``, ``decode_memory_bytes``); a large gallery needs more.
WORKER_BYTES: Final = 2**29
ENCODER_BYTES: Final = 3 * 2**30  # what the process with the network may need beside them


def worker_count(settings: ServiceSettings, model: Path | None = None) -> int:
    """Return how many workers a server with ``settings`` has.

    By default one per core for an exported network, as far as there is memory: workers share no
    interpreter, so small images are answered twice as often by two. With torch on a CPU it is one,
    which takes 700 MB. Before a GPU they do all but compute: one per core, but for the core of the
    process that has the GPU.

    Args:
        settings: of the service.
        model: the folder of the model to serve, ``None``: that of the settings.

    Raises:
        DeviceError: the runtime does not know the device.
    """
    if settings.workers is not None:
        return settings.workers
    if has_encoder_process(settings):
        return _as_many(usable_cores() - 1, MOST_FRONTS, beside_bytes=ENCODER_BYTES)
    # The supervising process needs it only where nobody counted before.
    from vision.inference.open_encoder import takes_export  # noqa: PLC0415

    model, device, runtime = model or settings.model, settings.device, settings.runtime
    if model is None or not takes_export(model, device=device, runtime=runtime):
        return 1
    return _as_many(usable_cores(), MOST_WORKERS)


def _as_many(cores: int, most: int, *, beside_bytes: int = 0) -> int:
    """Return a worker for each of the cores, as far as other needs leave memory, at least one."""
    memory_bytes = usable_memory_bytes()
    fit = most if memory_bytes is None else (memory_bytes - beside_bytes) // WORKER_BYTES
    return max(1, min(cores, most, fit))


def has_encoder_process(settings: ServiceSettings) -> bool:
    """Say whether one process computes for all workers, as on a GPU, or each for itself.

    Raises:
        DeviceError: the runtime does not know the device.
    """
    from vision.inference.open_encoder import wants_gpu  # noqa: PLC0415

    return wants_gpu(device=settings.device, runtime=settings.runtime)


def fit_memory(wanted: int, *, share: float, workers: int) -> int:
    """Return ``wanted`` bytes, or what is left for each of ``workers`` of a share of all memory.

    Args:
        wanted: by one worker.
        share: of the memory that this server may take, in [0, 1], for all workers together.
        workers: how many there are.
    """
    memory_bytes = usable_memory_bytes()
    return wanted if memory_bytes is None else min(wanted, int(share * memory_bytes / workers))
