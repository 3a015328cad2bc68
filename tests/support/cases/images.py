"""Cases of images: each fault in all four ways of sending, and odd images that must work."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

from tests.support.cases.case import PICTURE, Case, file, form, four_ways, raw, typed
from tests.support.images.icc_profiles import DISPLAY_P3
from tests.support.images.pngs import bomb_png, encoded, picture
from tests.support.images.tiffs import DEFLATE, GRAY, RGB, tiff
from tests.support.paths import DATA

CLASSIFY = "/v1/classify"
JPEG = encoded(picture(1), "JPEG")
GIF = encoded(picture(1), "GIF")
BMP = encoded(picture(1), "BMP")
WEBP = encoded(picture(1), "WEBP")
AVIF = encoded(picture(1), "AVIF")
TIFF = encoded(picture(1), "TIFF", compression="tiff_lzw")
HEIC = (DATA / "gray.heic").read_bytes()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    return buffer.getvalue()


def _with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(1), "JPEG", exif=exif.tobytes())


def _flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]


def _zeros(mebibytes: int) -> bytes:
    return zlib.compress(b"\0" * (mebibytes * 2**20), 9)


def _with_chunk(kind: bytes, content: bytes, *, damage: int = 0) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content) ^ damage)
    chunk = struct.pack(">I", len(content)) + kind + content + checksum
    return PICTURE[:33] + chunk + PICTURE[33:]


def _declaring(width: int, height: int) -> bytes:
    at = HEIC.index(b"ispe") + 8
    return HEIC[:at] + struct.pack(">II", width, height) + HEIC[at + 8 :]


def _scan(width: int, height: int, *, tile: tuple[int, int] | None = None) -> bytes:
    tags = {256: (width,), 257: (height,)}
    if tile is not None:
        tags |= {322: (tile[0],), 323: (tile[1],)}
    return tiff(np.zeros((9, 9), np.uint8), photometric=GRAY, compression=DEFLATE, extra=tags)


def _wide(width: int, height: int) -> bytes:
    return encoded(Image.new("L", (width, height)), "PNG")


# (name, status, code, image)
FAULTY = (
    ("no bytes", 400, "empty_image", b""),
    *(
        (name, 415, "unsupported_image_type", data)
        for name, data in (
            ("text", b"hello, I am no image"),
            ("one byte", b"\x89"),
            ("NUL bytes", bytes(100)),
            ("SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
            ("HTML", b"<!doctype html><script>alert(1)</script>"),
            ("a raw picture of a camera", b"II*\0\x10\0\0\0CR\2\0" + bytes(50)),
            ("a TIFF of 32 bits", tiff(np.zeros((9, 9), np.float32), photometric=GRAY)),
            ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)),
            ("a video", b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(50)),
            ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50)),
            ("ICO", encoded(picture(1), "ICO")),
            ("PSD", b"8BPS\0\x01" + bytes(60)),
            ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            ("PDF", b"%PDF-1.7\n1 0 obj\n"),
            ("ZIP", _zip()),
            ("a JPEG behind a ZIP", _zip() + JPEG),
            ("TGA", encoded(picture(1), "TGA")),
            ("PPM", encoded(picture(1), "PPM")),
            ("a sound of RIFF", b"RIFF\x24\0\0\0WAVEfmt " + bytes(30)),
            ("a PNG behind a line end", b"\n" + PICTURE),
        )
    ),
    *(
        (name, 422, "corrupt_image", data)
        for name, data in (
            ("a truncated PNG", PICTURE[:-40]),
            ("a PNG's signature", PICTURE[:8]),
            ("a PNG with a wrong checksum", _flipped(PICTURE, 30)),
            ("a PNG with damaged pixels", _flipped(PICTURE, len(PICTURE) // 2)),
            ("a truncated JPEG", JPEG[:-40]),
            ("a JPEG's start", JPEG[:3]),
            ("a JPEG without tables", JPEG[:20] + JPEG[-2:]),
            ("a truncated WebP", WEBP[: len(WEBP) // 2]),
            ("a WebP's start", WEBP[:12]),
            ("a truncated GIF", GIF[: len(GIF) // 2]),
            ("a GIF that is a script", b"GIF89a/*" + bytes(10) + b"*/=1;alert(1)"),
            ("a truncated BMP", BMP[: len(BMP) // 2]),
            ("a BMP's start", BMP[:10]),
            ("two letters of a BMP", b"BM"),
            ("a HEIC's start", HEIC[:28]),
            ("a truncated HEIC", HEIC[: len(HEIC) // 2]),
            ("a truncated AVIF", AVIF[: len(AVIF) // 2]),
            ("a truncated TIFF", TIFF[: len(TIFF) // 2]),
            ("a TIFF's start", TIFF[:8]),
            ("a BMP of no size", BMP[:18] + bytes(8) + BMP[26:]),
        )
    ),
    *(
        (name, 422, "too_many_pixels", data)
        for name, data in (
            ("2.5 gigapixels", bomb_png(50_000, 50_000)),
            ("a PNG 2^31 - 1 wide", bomb_png(2**31 - 1, 1)),
            ("25,010,000 pixels", bomb_png(5000, 5002)),
            ("16,385 pixels wide", _wide(16_385, 1)),
            ("16,385 pixels high", _wide(1, 16_385)),
            ("a HEIC of 25,005,000 pixels", _declaring(5001, 5000)),
            ("a TIFF of 25,005,000 pixels", _scan(5001, 5000)),
            ("a TIFF with a tile of 25,600,000 pixels", _scan(9, 9, tile=(5120, 5000))),
            ("a GIF of 65535 x 65535", GIF[:6] + b"\xff" * 4 + GIF[10:]),
        )
    ),
)

ODD = (
    ("1 x 1", _wide(1, 1)),
    ("16,384 pixels wide", _wide(16_384, 1)),
    ("16,384 pixels high", _wide(1, 16_384)),
    *((f"a PNG of mode {mode}", encoded(picture(1).convert(mode))) for mode in ("1", "L", "P")),
    *((f"a PNG of mode {mode}", encoded(picture(1).convert(mode))) for mode in ("LA", "RGBA")),
    ("a PNG of 16 bits", encoded(Image.new("I;16", (30, 30), 40_000))),
    ("a JPEG in CMYK", encoded(picture(1).convert("CMYK"), "JPEG")),
    ("a gray JPEG", encoded(picture(1).convert("L"), "JPEG")),
    ("a progressive JPEG", encoded(picture(1), "JPEG", progressive=True)),
    ("a JPEG with a broken colour profile", encoded(picture(1), "JPEG", icc_profile=bytes(300))),
    ("a JPEG before a ZIP", JPEG + _zip()),
    ("a JPEG without its end", JPEG[:-2]),
    ("a PNG without its end", PICTURE[:-12]),
    ("a text of 64 MiB in a PNG", _with_chunk(b"zTXt", b"a\0\0" + _zeros(64))),
    ("a colour profile of 2 MiB in a PNG", _with_chunk(b"iCCP", b"a\0\0" + _zeros(2))),
    ("a text with a wrong checksum in a PNG", _with_chunk(b"tEXt", b"a\0b", damage=1)),
    ("a JPEG in Display P3", encoded(picture(1), "JPEG", icc_profile=DISPLAY_P3)),
    ("a JPEG of 48 megapixels", encoded(Image.new("RGB", (8000, 6000)), "JPEG")),
    ("a JPEG 17,000 pixels wide", encoded(Image.new("RGB", (17_000, 900)), "JPEG")),
    *((f"a JPEG of orientation {number}", _with_exif(number)) for number in range(10)),
    ("a WebP", WEBP),
    ("a GIF", GIF),
    ("a BMP", BMP),
    ("a HEIC", HEIC),
    ("an AVIF", AVIF),
    ("a TIFF", TIFF),
    ("a TIFF of 16 bits", tiff(np.zeros((9, 9, 3), np.uint16), photometric=RGB)),
    ("a TIFF in CMYK", encoded(picture(1).convert("CMYK"), "TIFF")),
    ("a moving AVIF", encoded(picture(1), "AVIF", save_all=True, append_images=[picture(2)])),
    ("a TIFF of pages", encoded(picture(1), "TIFF", save_all=True, append_images=[picture(2)])),
    ("a moving GIF", encoded(picture(1), "GIF", save_all=True, append_images=[picture(2)])),
    ("a moving PNG", encoded(picture(1), "PNG", save_all=True, append_images=[picture(2)])),
    ("a moving WebP", encoded(picture(1), "WEBP", save_all=True, append_images=[picture(2)])),
)

FILE_NAMES = {
    "of 300 characters": b"n" * 300 + b".png",
    "with a path": b"../../etc/passwd",
    "with a NUL": b"a\0b.png",
    "in UTF-8": "猫\u202egnp.exe".encode(),
    "that is not UTF-8": b"\xff\xfe\xed\xa0\x80",
    "that is empty": b"",
    "with a quote": b'a\\"b.png',
}

CASES = [
    *(
        Case(f"{name}, {way}", status, code, sent)
        for name, status, code, data in FAULTY
        for way, sent in four_ways(CLASSIFY, data).items()
    ),
    *(Case(name, 200, None, raw(CLASSIFY, data)) for name, data in ODD),
    *(
        Case(f"an image {way}", 200, None, sent)
        for way, sent in four_ways(CLASSIFY, PICTURE).items()
    ),
    *(
        Case(f"a PNG called {kind.decode()}", 200, None, typed(CLASSIFY, PICTURE, kind))
        for kind in (b"image/jpg", b"image/svg+xml", b"IMAGE/GIF; q=1", b"application/octet-stream")
    ),
    *(
        Case(f"a file name {what}", 200, None, form(CLASSIFY, file(PICTURE, file_name=name)))
        for what, name in FILE_NAMES.items()
    ),
    *(
        Case(f"{name}, to be found", status, code, raw("/v1/search", data))
        for name, status, code, data in FAULTY[::7]
    ),
    *(
        Case(f"{name}, to be stored", status, code, raw("/v1/items/x", data, method="PUT"))
        for name, status, code, data in FAULTY[::7]
    ),
]
