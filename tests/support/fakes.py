"""Stand-ins that behave, so tests need no weights and no mocks."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from index.items.item import NewItem
from vision.image.preprocessing import Preprocessing
from vision.image.thumbnail import Thumbnail
from vision.inference.encoder import Encoding, Runtime
from vision.model.manifest import Architecture, Manifest


class FakeEncoder:
    """Gives every distinct picture its own unit vector, the same on every run and machine."""

    device_name = "cpu"
    runtime = Runtime(name="fake", precision="fp32")
    batch_size = 32

    def __init__(
        self,
        *,
        width: int = 8,
        size: int = 28,
        labels: tuple[str, ...] = ("cat", "dog"),
        name: str = "fake",
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.manifest = Manifest(
            name=name,
            architecture=Architecture(
                network="fake", embedding_layer="embedding", width=width, num_labels=len(labels)
            ),
            labels=labels,
            preprocessing=Preprocessing(size=size, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3),
            weights_sha256=hashlib.sha256(name.encode()).hexdigest(),
            created="2026-01-01T00:00:00+00:00",
        )
        self.encoded = 0  # pictures so far
        self._before = before  # called before every batch, to interrupt or to wait

    @property
    def width(self) -> int:
        return self.manifest.architecture.width

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Do nothing: there is nothing to compile."""

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return one row per picture, seeded by its pixels."""
        self._before()
        self.encoded += len(pixels_BCHW)
        num_labels = len(self.manifest.labels)
        seeds = [list(hashlib.sha256(pixels.tobytes()).digest()) for pixels in pixels_BCHW]
        vectors = [unit(np.random.default_rng(seed).normal(size=self.width)) for seed in seeds]
        chances = [np.random.default_rng(seed).dirichlet(np.ones(num_labels)) for seed in seeds]
        return Encoding(np.stack(vectors), np.stack(chances).astype(np.float32))


def unit(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return ``numbers`` (..., D) scaled to unit length."""
    return (numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)).astype(np.float32)


def unit_vectors(count: int, width: int, seed: int) -> NDArray[np.float32]:
    """Return random unit vectors (count, width)."""
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def clustered_vectors(count: int, width: int, seed: int) -> NDArray[np.float32]:
    """Return unit vectors (count, width) that crowd, as those of pictures do, around 100 places."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(100, width))
    return unit(places[rng.integers(0, 100, count)] + rng.normal(size=(count, width)))


def new_item(
    item_id: str,
    *,
    seed: int = 0,
    width: int = 8,
    label: str | None = None,
    metadata: dict[str, object] | None = None,
) -> NewItem:
    """Return an item whose content, and with it the vector, is decided by ``seed``."""
    content = f"content {seed}".encode()
    return NewItem(
        id=item_id,
        vector_D=unit_vectors(1, width, seed)[0],
        label=label,
        metadata=metadata or {},
        thumbnail=Thumbnail("image/png", content),
        content_sha256=hashlib.sha256(content).hexdigest(),
    )
