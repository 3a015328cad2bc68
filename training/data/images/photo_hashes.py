"""A file's bytes and its picture in, hashes that the photo is recognised by out.

Shape suffixes: M images, T bytes of a thumbnail.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMB_SIDE: Final = 16  # pixels
PHASH_SIDE: Final = 64  # pixels that the perceptual hash is taken from; it uses 32 itself
FEWEST_PIXELS: Final = 32  # of the shorter side; smaller pictures have too little detail
LEAST_SPREAD: Final = 4.0  # of 255, of a thumbnail's most varied channel: less is one colour
NO_PHASH: Final = 0  # of small or one-coloured pictures: nothing that another might not have too


class PhotoHashes(NamedTuple):
    """What one photo is recognised by."""

    content: int  # the first 8 bytes of the SHA-256 of its file
    pixels: int  # likewise of its size and pixels, upright: equal where only metadata differ
    phash: int  # perceptual hash: near for copies of other quality or size; NO_PHASH
    thumb: bytes  # 16 x 16 RGB: tells photos that look alike from copies


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhotoHashArrays:
    """What the images of a source are recognised by."""

    contents_M: NDArray[np.uint64]
    pixels_M: NDArray[np.uint64]
    phashes_M: NDArray[np.uint64]
    thumbs_MT: NDArray[np.uint8]

    @classmethod
    def of(cls, hashes: Sequence[PhotoHashes]) -> Self:
        """Return them as arrays."""
        contents, pixels, phashes, thumbs = zip(*hashes, strict=True)
        return cls(
            contents_M=np.array(contents, np.uint64),
            pixels_M=np.array(pixels, np.uint64),
            phashes_M=np.array(phashes, np.uint64),
            thumbs_MT=np.frombuffer(b"".join(thumbs), np.uint8).reshape(len(thumbs), -1),
        )


def hash_photo(data: bytes, picture: Image.Image) -> PhotoHashes:
    """Return what a photo is recognised by; ``picture`` is what ``data`` decode to, RGB."""
    small = picture.resize((PHASH_SIDE, PHASH_SIDE), Image.Resampling.BOX)
    thumb = small.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    spread = np.asarray(thumb).std(axis=(0, 1)).max()
    detailed = min(picture.size) >= FEWEST_PIXELS and spread >= LEAST_SPREAD
    return PhotoHashes(
        content=hash_64(data),
        pixels=hash_64(repr(picture.size).encode() + picture.tobytes()),
        phash=_phash(small) if detailed else NO_PHASH,
        thumb=thumb.tobytes(),
    )


def hash_pixels(image_HW: NDArray[np.uint8]) -> PhotoHashes:
    """Return what an image without a file is recognised by: its pixels."""
    number = hash_64(np.ascontiguousarray(image_HW).data)
    return PhotoHashes(content=number, pixels=number, phash=NO_PHASH, thumb=b"")


def hash_64(data: bytes | memoryview) -> int:
    """Return the first 8 bytes of the SHA-256: of a million files two are equal once in 4 * 10^7.

    >>> hex(hash_64(b""))
    '0xe3b0c44298fc1c14'
    """
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def _phash(picture: Image.Image) -> int:
    """Return the perceptual hash: 64 signs of a cosine transform, against their median."""
    import imagehash  # noqa: PLC0415 - with scipy it takes a second

    bits = imagehash.phash(picture).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
