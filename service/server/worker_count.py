"""How many workers a server has, and how many of the machine's cores each of them counts on."""

import os
from typing import Final

from service.config import ServiceSettings

# By default; each has some 150 MB of its own.
MOST_WORKERS: Final = 8
MOST_FRONTS: Final = 16  # before a GPU, which many more small images could be sent to


def worker_count(settings: ServiceSettings) -> int:
    """Return how many workers a server with ``settings`` has.

    By default one per core for an exported network: workers share no interpreter, so small images
    are answered twice as often by two. With torch on a CPU it is one, which takes 700 MB. Before a
    GPU they do all but compute: one per core, but for the core of the process that has the GPU. A
    model packed in a bento is not looked at.

    Raises:
        DeviceError: the runtime does not know the device.
    """
    if settings.workers is not None:
        return settings.workers
    if has_encoder_process(settings):
        return min(max(1, cores() - 1), MOST_FRONTS)
    # The supervising process needs it only where nobody counted before.
    from vision.inference.open_encoder import takes_export  # noqa: PLC0415

    model, device, runtime = settings.model, settings.device, settings.runtime
    if model is None or not takes_export(model, device=device, runtime=runtime):
        return 1
    return min(cores(), MOST_WORKERS)


def has_encoder_process(settings: ServiceSettings) -> bool:
    """Say whether one process computes for all workers, as on a GPU, or each for itself.

    Raises:
        DeviceError: the runtime does not know the device.
    """
    from vision.inference.open_encoder import wants_gpu  # noqa: PLC0415

    return wants_gpu(device=settings.device, runtime=settings.runtime)


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
