"""Pictures for tests, drawn by numbers, so that no file needs to be checked in."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """Return a smooth picture of (width, height) that is different for every seed."""
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    coarse = rng.integers(0, 256, (4, 4, channels), np.uint8)
    bands = [
        Image.fromarray(coarse[:, :, band]).resize(size, Image.Resampling.BICUBIC)
        for band in range(channels)
    ]
    return Image.merge(mode, bands) if channels > 1 else bands[0].convert(mode)


def encoded(image: Image.Image, image_format: str = "PNG", **settings: Any) -> bytes:
    """Return ``image`` as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **settings)
    return buffer.getvalue()


def png(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """Return the bytes of a PNG that is different for every seed."""
    return encoded(picture(seed, size))


def exif(orientation: int) -> bytes:
    """Return an EXIF block that says how a picture is to be turned."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def write_photographs(folder: Path, *, classes: int) -> Path:
    """Write twenty pictures of each class, told apart by their colour, with difficulty."""
    for label in range(classes):
        for number in range(20):
            image = np.asarray(picture(100 * label + number, (40, 36))) // 2
            image[:, :, label] += 60
            path = folder / f"kind-{label}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def bomb_png(width: int, height: int) -> bytes:
    """Return a few bytes that claim to be a PNG of ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
