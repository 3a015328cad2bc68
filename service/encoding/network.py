"""A worker's network: its own, or the lanes to the process that has it for all workers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from files.resource_limits import usable_cores
from service.config import ServiceSettings
from service.encoding.client import EncoderClient
from service.encoding.lane import Lane, OwnNetwork
from service.server.worker_count import worker_count
from vision.inference.encoder import ImageEncoder
from vision.inference.open_encoder import open_encoder


class Network:
    """What a worker encodes with."""

    def __init__(
        self, encoder: ImageEncoder, lanes: Sequence[Lane], *, client: EncoderClient | None = None
    ) -> None:
        self.encoder = encoder
        self.lanes = lanes  # for one batch at a time each
        self._client = client

    @property
    def is_apart(self) -> bool:
        """Whether it is in another process."""
        return self._client is not None

    @property
    def unavailable_reason(self) -> str | None:
        """Why it cannot be reached, a sentence; ``None``: it can."""
        return None if self._client is None else self._client.unavailable_reason

    def close(self) -> None:
        """Leave it; no lane is in use any more."""
        if self._client is not None:
            self._client.close()


def open_network(
    model_folder: Path,
    settings: ServiceSettings,
    encoder_socket: Path | None,
    *,
    on_batch: Callable[[int, float], None],
    gives_up: Callable[[], bool],
) -> Network:
    """Return a network that is warm.

    Args:
        model_folder: of the model.
        settings: of the service.
        encoder_socket: of the process that has the network; None: it is to be loaded here.
        on_batch: told the size of every batch that is computed here, and its seconds.
        gives_up: whether waiting for that process has become pointless.

    Raises:
        ModelFolderError, DeviceError: it cannot be loaded.
        StoppingError: it was given up.
    """
    if encoder_socket is not None:
        client = EncoderClient(encoder_socket, model_folder, gives_up=gives_up)
        return Network(client, client.lanes, client=client)
    encoder = open_encoder(
        model_folder,
        device=settings.device,
        runtime=settings.runtime,
        threads=max(1, usable_cores() // worker_count(settings) // 2),
    )
    encoder.warm_up((1, settings.max_batch or encoder.batch_size))
    return Network(encoder, [OwnNetwork(encoder.encode, on_batch)])
