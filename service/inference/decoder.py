"""One picture in, its pixels and thumbnail out, within bounds of time and memory.

This is what a decoding process of the service runs; it imports neither a network nor HTTP.

Shape suffixes: C channels, H x W pixels.
"""

import ctypes
import math
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import AvifImagePlugin, Image

from index.decoding.decoder_program import DecoderChannel
from vision.errors import CorruptImageError, CostlyImageError
from vision.formats.heic import load_library
from vision.image.limits import ImageLimits
from vision.image.preprocessing import CropBox, Preprocessing
from vision.image.thumbnail import Thumbnail, thumbnail_of

# A hostile picture takes 28 bytes a pixel, one that is turned upright and has alpha 24.
PIXEL_BYTES: Final = 40
BESIDE_BYTES: Final = 2**28  # for the file, its copies, and what libraries keep
_PR_SET_PDEATHSIG: Final = 1  # of prctl(2)


class Question(NamedTuple):
    """A picture, and what is wanted of it."""

    data: bytes
    crop: CropBox | None
    thumbnail_side: int | None  # pixels; ``None``: none is made
    cpu_s: float  # that it may take


@dataclass(frozen=True, slots=True)
class PictureDecoder:
    """How the pictures of requests are decoded, where that may take long."""

    preprocessing: Preprocessing
    limits: ImageLimits

    @property
    def memory_bytes(self) -> int:
        """What decoding may take."""
        return PIXEL_BYTES * self.limits.max_pixels + 2 * self.limits.max_bytes + BESIDE_BYTES

    @property
    def shape(self) -> tuple[int, int, int]:
        """The pixels of one picture, (C, H, W)."""
        side = self.preprocessing.size
        return (self.preprocessing.channels, side, side)

    def prepare(self) -> None:
        """Import all that will be needed, then give up what is not: files, memory, dumps."""
        Image.init()
        load_library()
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # or one for each core, each with its stack
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # also where this one is stopped
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.close(silence)
        used = _address_space()
        resource.setrlimit(resource.RLIMIT_AS, (used + self.memory_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # those that are open stay so

    def answer(self, asked: Question, channel: DecoderChannel) -> Thumbnail | None:
        """Write the picture's pixels into the memory; return its thumbnail, if one is wanted.

        Raises:
            ImageError, CropError: it cannot be used.
            CostlyImageError: it takes too much memory.
        """
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used_s = usage.ru_utime + usage.ru_stime
        most = (math.ceil(used_s + asked.cpu_s), resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_CPU, most)

        def tell(size: int) -> None:
            channel.connection.send(size)
            channel.connection.recv()

        try:
            return self._decoded(asked, channel, tell)
        except MemoryError as error:
            raise self._too_large() from error
        except CorruptImageError as error:
            if _is_of_memory(error):
                raise self._too_large() from error
            raise

    def _decoded(
        self, asked: Question, channel: DecoderChannel, before_pixels: Callable[[int], None]
    ) -> Thumbnail | None:
        image = self.preprocessing.decode(
            asked.data, limits=self.limits, crop=asked.crop, before_pixels=before_pixels
        )
        thumbnail: Thumbnail | None = None
        if asked.thumbnail_side is not None:
            thumbnail = thumbnail_of(
                asked.data,
                image,
                self.preprocessing,
                limits=self.limits,
                max_side=asked.thumbnail_side,
            )
        pixels_CHW = np.frombuffer(channel.memory, np.uint8, math.prod(self.shape))
        pixels_CHW.reshape(self.shape)[...] = self.preprocessing.pixels(image, crop=asked.crop)
        return thumbnail

    def _too_large(self) -> CostlyImageError:
        return CostlyImageError(
            f"decoding the image takes more than {self.memory_bytes // 2**20} MiB of memory, the "
            "most that it may take: send it with fewer pixels, or in another format"
        )


def _is_of_memory(error: BaseException) -> bool:
    """Say whether ``error`` came about because there was no memory."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _address_space() -> int:
    """Return how many bytes of addresses this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
