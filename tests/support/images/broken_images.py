"""Broken and hostile image files, made by numbers: the same ones for the same seed."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, PngImagePlugin

from tests.support.images.pngs import bomb_png, encoded, picture
from tests.support.paths import DATA

PARTS = 16  # a file is cut after every sixteenth
SIZES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER = 64  # bytes in which the formats keep their sizes and modes
MARKS = (b"\xff\xc0", b"\xff\xc4", b"\xff\xda", b"\xff\xd9", b"IDAT", b"IEND", b"VP8X", b"ANMF")


@dataclass(frozen=True)
class Mutant:
    """One file, and how it was made."""

    name: str
    data: bytes


def originals() -> dict[str, bytes]:
    """Return small sound files of all modes of all formats."""
    sound = {}
    for mode in ("RGB", "L", "CMYK"):
        image = picture(1, mode="RGB").convert(mode)
        sound[f"jpeg-{mode}"] = encoded(image, "JPEG")
        sound[f"jpeg-{mode}-progressive"] = encoded(image, "JPEG", progressive=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif[0x010E] = "a description"
    sound["jpeg-exif"] = encoded(picture(2), "JPEG", exif=exif.tobytes(), icc_profile=bytes(600))
    sound["jpeg-restarts"] = encoded(picture(3), "JPEG", restart_marker_blocks=1)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.new("I;16", (40, 30), 4000) if mode == "I;16" else picture(4).convert(mode)
        sound[f"png-{mode}"] = encoded(image, "PNG")
    sound["png-frames"] = encoded(
        picture(5), "PNG", save_all=True, append_images=[picture(6), picture(7)]
    )
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        sound[f"bmp-{mode}"] = encoded(picture(8).convert(mode), "BMP")
    for mode in ("L", "P", "RGB", "RGBA"):
        sound[f"gif-{mode}"] = encoded(picture(9).convert(mode), "GIF")
    sound["gif-frames"] = encoded(
        picture(10), "GIF", save_all=True, append_images=[picture(11), picture(12)], duration=40
    )
    for mode in ("RGB", "RGBA"):
        image = picture(13).convert(mode)
        sound[f"webp-{mode}"] = encoded(image, "WEBP")
        sound[f"webp-{mode}-lossless"] = encoded(image, "WEBP", lossless=True)
    sound["webp-frames"] = encoded(
        picture(14), "WEBP", save_all=True, append_images=[picture(15)], exif=exif.tobytes()
    )
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
        sound[f"tiff-{mode}"] = encoded(picture(16).convert(mode), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        sound[compression] = encoded(picture(17), "TIFF", compression=compression)
    sound["tiff-pages"] = encoded(picture(18), "TIFF", save_all=True, append_images=[picture(19)])
    for mode in ("RGB", "RGBA"):
        sound[f"avif-{mode}"] = encoded(picture(20).convert(mode), "AVIF")
    sound["avif-frames"] = encoded(picture(21), "AVIF", save_all=True, append_images=[picture(22)])
    for name in ("phone", "mirrored", "gray"):
        sound[f"heic-{name}"] = (DATA / f"{name}.heic").read_bytes()
    return sound


def bombs() -> list[Mutant]:
    """Return small files that claim, or inflate to, very much."""
    return [
        Mutant("png of 2.5 gigapixels", bomb_png(50_000, 50_000)),
        Mutant("png 2^31 - 1 wide", bomb_png(2**31 - 1, 1)),
        Mutant("png just under the limit, without its pixels", bomb_png(5000, 5000)),
        Mutant("text of 64 MiB", _with_chunk(b"zTXt", b"a\0\0" + _inflates_to(64))),
        Mutant("international text of 64 MiB", _with_chunk(b"iTXt", _itxt(64))),
        Mutant("colour profile of 64 MiB", _with_chunk(b"iCCP", b"a\0\0" + _inflates_to(64))),
        Mutant("a thousand texts", _many_texts(1000)),
        Mutant("pixels of 64 MiB in a small png", _long_pixels(64)),
        Mutant("bmp of 2 gigapixels", _edited(encoded(picture(1), "BMP"), 18, "<ii", 46000, 46000)),
        Mutant("gif of 65535 x 65535", _edited(encoded(picture(1), "GIF"), 6, "<HH", 65535, 65535)),
        Mutant("jpeg of 65535 x 65535", _jpeg_of(65535, 65535)),
        Mutant("exif that points to itself", _jpeg_with_exif(_looping_exif())),
        Mutant(
            "exif of 4 billion entries", _jpeg_with_exif(b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 99)
        ),
        Mutant("exif of 64 KiB of noise", _jpeg_with_exif(random.Random(1).randbytes(65_000))),
        Mutant(
            "plain webp at the limit", encoded(Image.new("RGB", (5000, 4999)), "WEBP", method=0)
        ),
        Mutant("plain jpeg at the limit", encoded(Image.new("RGB", (5000, 4999)), "JPEG")),
        Mutant("plain png at the limit", encoded(Image.new("RGBA", (5000, 4999)), "PNG")),
    ]


def mutants(files: Sequence[bytes], count: int, *, seed: int) -> Iterator[Mutant]:
    """Yield ``count`` files: each of ``files`` cut at every sixteenth first, then chance rules."""
    made = 0
    for number, data in enumerate(files):
        for part in range(PARTS):
            if made == count:
                return
            yield Mutant(f"{number} cut to {part}/{PARTS}", data[: len(data) * part // PARTS])
            made += 1
    rng = random.Random(seed)
    for step in range(made, count):
        number = rng.randrange(len(files))
        change = rng.choice(CHANGES)
        name = f"seed {seed} step {step}: {number} {change.__name__.strip('_')}"
        yield Mutant(name, change(files[number], files, rng))


Change = Callable[[bytes, Sequence[bytes], random.Random], bytes]


def _flipped_bits(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _bit in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _edited_header(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _byte in range(rng.randint(1, 4)):
        changed[rng.randrange(min(HEADER, len(changed)))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(changed)


def _changed_size(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Write a size that lies into the header, in either byte order."""
    size, order = rng.choice(SIZES), rng.choice("<>")
    packed = (
        struct.pack(f"{order}I", size)
        if rng.random() < 0.5
        else struct.pack(f"{order}H", size & 0xFFFF)
    )
    where = rng.randrange(min(HEADER, len(data)))
    return data[:where] + packed + data[where + len(packed) :]


def _swapped_pieces(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    first, second, third = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def _swapped_chunks(data: bytes, files: Sequence[bytes], rng: random.Random) -> bytes:
    """Swap two chunks of a PNG, checksums and all; of other formats, two pieces."""
    chunks = _png_chunks(data)
    if len(chunks) < 2:
        return _swapped_pieces(data, files, rng)
    one, other = rng.sample(range(len(chunks)), 2)
    chunks[one], chunks[other] = chunks[other], chunks[one]
    return data[:8] + b"".join(chunks)


def _repaired_chunk(data: bytes, files: Sequence[bytes], rng: random.Random) -> bytes:
    """Change bytes within a chunk of a PNG and mend its checksum; of other formats, flip bits."""
    chunks = _png_chunks(data)
    if not chunks:
        return _flipped_bits(data, files, rng)
    number = rng.randrange(len(chunks))
    kind, content = chunks[number][4:8], bytearray(chunks[number][8:-4])
    for _byte in range(rng.randint(1, 3)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    chunks[number] = _chunk(kind, bytes(content))
    return data[:8] + b"".join(chunks)


def _repeated_piece(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 64)]
    return data[:start] + piece * rng.choice((2, 10, 200)) + data[start:]


def _removed_piece(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def _spliced(data: bytes, files: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(files)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def _planted_mark(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    where, mark = rng.randrange(len(data)), rng.choice(MARKS)
    return data[:where] + mark + data[where + len(mark) :]


def _noise_behind(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    where = rng.randrange(len(data))
    return data[:where] + rng.randbytes(rng.randint(1, 2000))


CHANGES: tuple[Change, ...] = (
    *(_flipped_bits, _edited_header, _changed_size, _swapped_pieces, _swapped_chunks),
    *(_repaired_chunk, _repeated_piece, _removed_piece, _spliced, _planted_mark, _noise_behind),
)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _png_chunks(data: bytes) -> list[bytes]:
    """Return a PNG's chunks, whole; of what is no sound PNG, none."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return []
    chunks, at = [], 8
    while at + 12 <= len(data):
        end = at + 12 + struct.unpack(">I", data[at : at + 4])[0]
        chunks.append(data[at:end])
        at = end
    return chunks


def _with_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG with one chunk more, behind its header."""
    data = encoded(picture(1))
    end = 8 + 25  # signature and IHDR
    return data[:end] + _chunk(kind, content) + data[end:]


def _inflates_to(mebibytes: int) -> bytes:
    return zlib.compress(b"\0" * (mebibytes * 2**20), 9)


def _itxt(mebibytes: int) -> bytes:
    return b"key\0\x01\0\0\0" + _inflates_to(mebibytes)


def _many_texts(count: int) -> bytes:
    info = PngImagePlugin.PngInfo()
    for number in range(count):
        info.add_text(f"key{number}", "x" * 10_000, zip=True)
    return encoded(picture(1), pnginfo=info)


def _long_pixels(mebibytes: int) -> bytes:
    header = struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0)
    pixels = _chunk(b"IDAT", _inflates_to(mebibytes))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + pixels + _chunk(b"IEND", b"")


def _edited(data: bytes, offset: int, layout: str, *values: int) -> bytes:
    packed = struct.pack(layout, *values)
    return data[:offset] + packed + data[offset + len(packed) :]


def _jpeg_of(width: int, height: int) -> bytes:
    data = encoded(picture(1), "JPEG")
    return _edited(data, data.index(b"\xff\xc0") + 5, ">HH", height, width)


def _jpeg_with_exif(block: bytes) -> bytes:
    segment = b"Exif\0\0" + block
    data = encoded(picture(1), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def _looping_exif() -> bytes:
    """Return an EXIF block whose directory names itself as the next, and as its sub-directory."""
    entry = struct.pack(">HHII", 0x8769, 4, 1, 8)
    return b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 1) + entry + struct.pack(">I", 8)
