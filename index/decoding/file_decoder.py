"""Files in, their hashes, pixels and thumbnails out: the work of one decoding process.

Processes are those of ``index.decoding.decoder_process``; each slice of files is one question.

Shape suffixes: B images of a slice, C channels, H x W pixels.
"""

import fcntl
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.folders.file_content import read_image_file
from index.decoding.decoder_program import DecoderChannel
from vision.errors import ImageError
from vision.image.decoding_steps import LARGE_BYTES
from vision.image.limits import ImageLimits
from vision.image.preprocessing import Preprocessing
from vision.image.thumbnail import Thumbnail, thumbnail_of


class FileToDecode(NamedTuple):
    """One file to decode."""

    content: bytes | Path  # as encoded, or the file that holds it
    known: tuple[str, ...] = ()  # SHA-256 of contents that need no decoding


class DecodeResult(NamedTuple):
    """What decoding one file gave."""

    content_sha256: str
    row: int | None  # of its pixels among those of the slice
    thumbnail: Thumbnail | None
    problem: str | None  # a sentence, where it cannot be read or decoded


UNREADABLE: Final = "the file cannot be read"  # now; it says nothing about what is in it


@dataclass(frozen=True, slots=True)
class FileDecoder:
    """How files are decoded."""

    preprocessing: Preprocessing
    limits: ImageLimits
    thumbnail_side: int | None  # pixels; ``None``: no thumbnails are made

    def decode(
        self,
        files: Sequence[FileToDecode],
        pixels_BCHW: NDArray[np.uint8],
        *,
        before_pixels: Callable[[int], None] | None = None,
    ) -> list[DecodeResult]:
        """Decode files one after another; write pixels into the first rows of ``pixels_BCHW``.

        ``before_pixels`` is called with the memory that each takes, as by
        ``vision.image.decode.decode_image``.
        """
        row = 0
        results: list[DecodeResult] = []
        for one in files:
            data, problem = read_content(one.content, limits=self.limits)
            digest = hashlib.sha256(data).hexdigest()
            if problem is not None or digest in one.known:
                results.append(DecodeResult(digest, None, None, problem))
                continue
            try:
                image = self.preprocessing.decode(
                    data, limits=self.limits, before_pixels=before_pixels
                )
                pixels_BCHW[row] = self.preprocessing.pixels(image)
                thumbnail = self._thumbnail(data, image)
            except ImageError as error:
                results.append(DecodeResult(digest, None, None, str(error)))
                continue
            results.append(DecodeResult(digest, row, thumbnail, None))
            row += 1
        return results

    def prepare(self) -> None:
        """Do nothing: there is nothing to prepare."""

    def answer(
        self, question: tuple[Sequence[FileToDecode], int], channel: DecoderChannel
    ) -> list[DecodeResult]:
        """Decode a slice of files; their pixels go to memory from the row that is asked for."""
        files, first = question
        shape = self.preprocessing.batch_shape(len(files))
        size = math.prod(shape[1:])
        rows_BCHW = np.frombuffer(channel.memory, np.uint8, len(files) * size, first * size)
        rows_BCHW = rows_BCHW.reshape(shape)
        with _one_large(channel.file) as before_pixels:
            return self.decode(files, rows_BCHW, before_pixels=before_pixels)

    def _thumbnail(self, data: bytes, image: Image.Image) -> Thumbnail | None:
        if self.thumbnail_side is None:
            return None
        return thumbnail_of(
            data, image, self.preprocessing, limits=self.limits, max_side=self.thumbnail_side
        )


def read_content(content: bytes | Path, *, limits: ImageLimits) -> tuple[bytes, str | None]:
    """Return a file's bytes and ``None``, or no bytes and what was in the way, a sentence."""
    if isinstance(content, bytes):
        return content, None
    try:
        return read_image_file(content, limits=limits), None
    except ImageError as error:
        return b"", str(error)
    except OSError as error:
        return b"", f"{UNREADABLE}: {error.strerror or error}"


@contextmanager
def _one_large(file: int) -> Iterator[Callable[[int], None]]:
    """Give a function that lets large pictures of all processes wait for one another, by a lock.

    The kernel gives the lock back, also of a process that is killed.
    """
    holds = False

    def wait(size: int) -> None:
        nonlocal holds
        if holds:
            fcntl.lockf(file, fcntl.LOCK_UN)
        holds = size > LARGE_BYTES
        if holds:
            fcntl.lockf(file, fcntl.LOCK_EX)

    try:
        yield wait
    finally:
        if holds:
            fcntl.lockf(file, fcntl.LOCK_UN)
