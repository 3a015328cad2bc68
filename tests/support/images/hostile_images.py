"""Pictures that cost far more to decode than their size says, drawn by numbers."""

import struct
import zlib

from PIL import Image

from tests.support.images.pngs import encoded, picture

MANY_PIXELS = (5000, 5000)


def repeated_scans(times: int, size: tuple[int, int] = (1000, 1000)) -> bytes:
    """Return a progressive JPEG whose last scan, which holds next to nothing, comes again."""
    flat = Image.new("RGB", size, (90, 120, 30))
    data = encoded(flat, "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    tables = data.rfind(b"\xff\xc4", 0, at)
    start = tables if data.find(b"\xff\xda", tables) == at else at
    scan = data[at:-2]
    return data[:start] + data[start:at] + scan * (times + 1) + b"\xff\xd9"


def repeated_baseline_scans(times: int) -> bytes:
    """Return a sequential JPEG whose scans hold one component each; the last comes again."""
    data = encoded(Image.new("L", (1000, 1000), 90), "JPEG")
    frame = data.index(b"\xff\xc0")
    scan = data.index(b"\xff\xda")
    # Three components, of which the scans of only the first are there.
    header = data[:frame] + struct.pack(">HHBHHB", 0xFFC0, 17, 8, 1000, 1000, 3)
    header += b"\1\x11\0\2\x11\0\3\x11\0" + data[frame + 2 + 11 : scan]
    return header + data[scan:-2] * (times + 1) + b"\xff\xd9"


def many_segments(count: int) -> bytes:
    """Return a JPEG with empty comments before its frame."""
    data = encoded(picture(1, (64, 64)), "JPEG")
    return data[:2] + b"\xff\xfe\0\2" * count + data[2:]


def many_chunks(count: int) -> bytes:
    """Return a PNG with private chunks that are empty."""
    data = encoded(picture(1, (64, 64)))
    return data[:33] + chunk(b"prVt", b"") * count + data[33:]


def inflating_texts(count: int, kind: bytes = b"zTXt") -> bytes:
    """Return a PNG of which each chunk of text, or colour profile, inflates to 16 MiB."""
    data = encoded(picture(1, (64, 64)))
    packed = zlib.compress(bytes(2**24), 9)
    body = b"Comment\0" + (b"\0\0\0\0" if kind == b"iTXt" else b"\0") + packed
    if kind == b"iTXt":
        body = b"Comment\0\1\0\0\0" + packed
    return data[:33] + chunk(kind, body) * count + data[33:]


def palette_png() -> bytes:
    """Return a PNG of 3 kB and 25 megapixels."""
    return encoded(Image.new("P", MANY_PIXELS), optimize=True)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def animation(image_format: str, frames: int) -> bytes:
    """Return an animation of small frames, each different."""
    images = [picture(number, (16, 16)) for number in range(frames)]
    return encoded(images[0], image_format, save_all=True, append_images=images[1:])


def interlaced_png(side: int) -> bytes:
    """Return a black PNG of ``side`` x ``side`` whose rows come in seven passes (Adam7)."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    packer, rows = zlib.compressobj(9), b""
    for left, top, right, down in (*passes, (0, 1, 1, 2)):
        width, height = -(-(side - left) // right), -(-(side - top) // down)
        rows += packer.compress(bytes(height * (1 + 3 * width)))  # each row after its filter's byte
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 1)
    data = chunk(b"IDAT", rows + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def arithmetic(data: bytes) -> bytes:
    """Return a JPEG that says its scans are arithmetic-coded: what they hold is noise then."""
    for huffman, coded in (
        (b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11"),
        (b"\xff\xc2\x00\x11", b"\xff\xca\x00\x11"),
    ):
        data = data.replace(huffman, coded, 1)
    return data


def with_exif(entries: int) -> bytes:
    """Return a JPEG whose EXIF fills its segment with tags."""
    tags = b"".join(struct.pack(">HHII", 0x9000 + number, 5, 1, 26) for number in range(entries))
    block = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", entries) + tags + bytes(4)
    data = encoded(picture(1, (64, 64)), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def exif_png(size: int) -> bytes:
    """Return a PNG whose EXIF has so many bytes."""
    data = encoded(picture(1, (64, 64)))
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", 65_000) + b"\x01" * size
    return data[:33] + chunk(b"eXIf", block) + data[33:]


def declaring_heic(data: bytes, width: int, height: int) -> bytes:
    """Return the HEIC ``data`` with another size written into its header."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]
