"""How many workers a server has, and how many of the machine's cores each of them counts on."""

import os
from typing import Final

from service.config import ServiceSettings

# By default; each has some 150 MB of its own.
MOST_WORKERS: Final = 8


def worker_count(settings: ServiceSettings) -> int:
    """Return how many workers a server with ``settings`` has.

    By default one per core for an exported network: workers share no interpreter, so small images
    are answered twice as often by two. With torch it is one, which takes 700 MB, and uses a GPU
    best alone. A model packed in a bento is not looked at.

    Raises:
        DeviceError: the runtime does not know the device.
    """
    if settings.workers is not None:
        return settings.workers
    # The supervising process needs it only where nobody counted before.
    from vision.inference.open_encoder import takes_export  # noqa: PLC0415

    model, device, runtime = settings.model, settings.device, settings.runtime
    if model is None or not takes_export(model, device=device, runtime=runtime):
        return 1
    return min(cores(), MOST_WORKERS)


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
