"""TIFF files for tests, written by their tags (TIFF 6.0): what Pillow reads but does not write."""

import struct
import zlib

import numpy as np

SHORT, LONG = 3, 4
GRAY, WHITE_IS_ZERO, RGB, CMYK = 1, 0, 2, 5  # photometric interpretation
RAW, DEFLATE = 1, 8  # compression
_SIZES = {1: 1, 2: 1, SHORT: 2, LONG: 4}
_LETTERS = {1: "B", 2: "B", SHORT: "H", LONG: "I"}


def tiff(
    samples: np.ndarray,
    *,
    photometric: int,
    order: str = "<",
    compression: int = RAW,
    in_planes: bool = False,
    rows_per_strip: int = 16,
    tile: int | None = None,
    extra: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """Return ``samples`` (H, W) or (H, W, C), of 8, 16 or 32 bits, as a file.

    Args:
        samples: unsigned whole numbers, or floats.
        photometric: what they mean.
        order: ``<`` for little endian, ``>`` for big.
        compression: of each strip or tile.
        in_planes: each colour by itself.
        rows_per_strip: of the strips, where there are no tiles.
        tile: width and height of tiles, pixels.
        extra: further tags, and tags that shall say something else.
    """
    pixels = samples.reshape(*samples.shape[:2], -1)
    height, width, channels = pixels.shape
    planes = [pixels[..., one : one + 1] for one in range(channels)] if in_planes else [pixels]
    parts = [
        part.astype(part.dtype.newbyteorder(order)).tobytes()
        for plane in planes
        for part in _parts(plane, rows_per_strip, tile)
    ]
    if compression == DEFLATE:
        parts = [zlib.compress(part) for part in parts]
    where = (324, 325) if tile else (273, 279)
    at = 8
    offsets = []
    for part in parts:
        offsets.append(at)
        at += len(part)
    bits = 8 * samples.dtype.itemsize
    tags: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (LONG, (width,)),
        257: (LONG, (height,)),
        258: (SHORT, (bits,) * channels),
        259: (SHORT, (compression,)),
        262: (SHORT, (photometric,)),
        277: (SHORT, (channels,)),
        284: (SHORT, (2 if in_planes else 1,)),
        339: (SHORT, (3 if samples.dtype.kind == "f" else 1,) * channels),
        where[0]: (LONG, tuple(offsets)),
        where[1]: (LONG, tuple(len(part) for part in parts)),
        **(
            {322: (LONG, (tile,)), 323: (LONG, (tile,))}
            if tile
            else {278: (LONG, (rows_per_strip,))}
        ),
        **{tag: (LONG, values) for tag, values in (extra or {}).items()},
    }
    at += at % 2
    table, behind = b"", b""
    start = at + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{_LETTERS[kind]}", *values)
        if len(data) > 4:
            table += struct.pack(f"{order}HHII", tag, kind, len(values), start + len(behind))
            behind += data + bytes(len(data) % 2)
        else:
            table += struct.pack(f"{order}HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, at)
    body = head + b"".join(parts)
    count = struct.pack(f"{order}H", len(tags))
    return body.ljust(at, b"\0") + count + table + bytes(4) + behind


def _parts(plane: np.ndarray, rows_per_strip: int, tile: int | None) -> list[np.ndarray]:
    height, width, _ = plane.shape
    if tile is None:
        return [plane[top : top + rows_per_strip] for top in range(0, height, rows_per_strip)]
    whole = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [
        whole[top : top + tile, left : left + tile]
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
