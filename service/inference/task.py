"""One image on its way through the batcher: what is asked, what is decoded, what comes out.

Shape suffixes: C channels, H x W pixels, D vector width, L labels.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vision.formats.decoding_cost import is_cheap
from vision.image.preprocessing import CropBox
from vision.image.thumbnail import Thumbnail


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """One image, ready for the network."""

    pixels_CHW: NDArray[np.uint8]
    thumbnail: Thumbnail | None  # made only when asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What the network says about one image, and where the time went."""

    vector_D: NDArray[np.float32]  # unit length
    probabilities_L: NDArray[np.float32]
    thumbnail: Thumbnail | None
    queue_ms: float  # waiting for a decoder and for the network
    decode_ms: float
    encode_ms: float  # of the whole batch
    batch_images: int

    @property
    def encode_share_ms(self) -> float:
        """This image's share of the batch's time: the shares of a batch add up to it."""
        return self.encode_ms / self.batch_images


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a caller wants done with one image."""

    data: bytes
    is_cheap: bool  # its header proves that it is decoded in some milliseconds
    crop: CropBox | None = None
    with_thumbnail: bool = False

    @classmethod
    def of(cls, data: bytes, *, crop: CropBox | None = None, with_thumbnail: bool = False) -> Self:
        """Return the task, having looked at the header of ``data``."""
        return cls(data=data, is_cheap=is_cheap(data), crop=crop, with_thumbnail=with_thumbnail)


class HeavyImage(Exception):  # noqa: N818 - nothing is wrong with it
    """To decode this image takes long, against what its header says."""
