"""What a picture costs is told by its header, quickly, and what is cheap is proven so."""

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support.images.hostile_images import (
    chunk,
    inflating_texts,
    many_chunks,
    many_segments,
    palette_png,
    repeated_scans,
)
from tests.support.images.pngs import encoded, picture, png
from vision.errors import CorruptImageError, CostlyImageError
from vision.formats.decoding_cost import MAX_COST, MOST_SCANS, decoding_cost, is_cheap
from vision.formats.detect import FORMATS, HEIC
from vision.formats.jpeg import count_scans
from vision.image.decode import decode_image


@pytest.mark.parametrize("image_format", [one.pillow_name for one in FORMATS if one is not HEIC])
def test_the_price_of_each_format_is_the_pixels_that_it_codes(image_format: str) -> None:
    assert decoding_cost(encoded(picture(1, (123, 77)), image_format)) == 123 * 77


@pytest.mark.parametrize("settings", [{"lossless": True}, {"exact": True, "exif": b"Exif\0\0MM"}])
def test_each_kind_of_webp_has_its_price(settings: dict[str, object]) -> None:
    data = encoded(picture(1, (123, 77), "RGBA"), "WEBP", **settings)
    assert decoding_cost(data) == 123 * 77


def test_the_price_counts_scans() -> None:
    data = encoded(picture(1, (100, 100)), "JPEG", progressive=True)
    assert count_scans(data) == 10
    assert decoding_cost(data) == 10 * 100 * 100


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_what_cannot_be_read_costs_next_to_nothing(data: bytes) -> None:
    assert decoding_cost(data) == 1


def test_a_header_that_lies_costs_no_more_than_the_most() -> None:
    data = bytearray(png(1))
    data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    assert decoding_cost(bytes(data)) == MAX_COST
    assert not is_cheap(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        png(1, (28, 28)),
        png(1, (800, 600)),
        encoded(picture(1, (28, 28)), "JPEG"),
        encoded(picture(1, (1600, 1200)), "JPEG"),
        encoded(picture(1, (400, 533)), "JPEG", progressive=True),
        encoded(picture(1, (400, 533)), "PNG", icc_profile=b"profile" * 100),
    ],
    ids=["tiny-png", "png", "tiny-jpeg", "photo", "progressive", "profile"],
)
def test_ordinary_pictures_are_light(data: bytes) -> None:
    assert is_cheap(data)


@pytest.mark.parametrize(
    "data",
    [
        palette_png(),
        repeated_scans(100, (64, 64)),
        repeated_scans(12),
        many_segments(100),
        many_chunks(1_000),
        inflating_texts(10, b"iCCP"),
        png(1)[:33] + chunk(b"zTXt", b"a" * 4000) * 5 + png(1)[33:],
        encoded(picture(1, (2500, 2500)), "JPEG"),
        encoded(picture(1, mode="CMYK"), "JPEG"),
        encoded(picture(1), "WEBP"),
        encoded(picture(1), "GIF"),
        encoded(picture(1), "JPEG").replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"),  # arithmetic
        png(1) + bytes(2**20),
    ],
)
def test_what_may_take_long_is_not_light(data: bytes) -> None:
    assert not is_cheap(data)


def test_a_frame_behind_an_escaped_byte_is_seen() -> None:
    """0xFF00 is no segment to decoders, so that none may hide what follows it."""
    data = repeated_scans(200, (64, 64))
    hidden = data[:2] + b"\xff\0" + struct.pack(">H", len(data) // 2) + data[2:]

    assert not is_cheap(hidden)
    with pytest.raises((CostlyImageError, CorruptImageError)):
        decode_image(hidden)


@pytest.mark.parametrize("scans", [MOST_SCANS - 10, MOST_SCANS + 1])
def test_as_many_scans_as_are_allowed_are_decoded_and_no_more(scans: int) -> None:
    data = repeated_scans(scans - 10, (64, 64))
    if scans > MOST_SCANS:
        with pytest.raises(CostlyImageError, match=f"more than {MOST_SCANS} scans"):
            decode_image(data)
    else:
        assert decode_image(data).size == (64, 64)


def tagged(count: int) -> bytes:
    """Return EXIF of so many tags."""
    tags = Image.Exif()
    for number in range(count):
        tags[0x2000 + number] = number
    return tags.tobytes()


def text_chunk(exif: bytes) -> bytes:
    """Return a chunk of EXIF as ImageMagick writes it into a PNG."""
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    body = b"Raw profile type exif\0\0" + zlib.compress(text)
    return chunk(b"zTXt", body)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize(("count", "cheap"), [(20, True), (200, True), (201, False)])
def test_a_picture_with_many_tags_is_not_light(image_format: str, count: int, cheap: bool) -> None:
    data = encoded(picture(1), image_format, exif=tagged(count))

    assert is_cheap(data) is cheap
    assert decode_image(data).size == picture(1).size


def test_tags_in_other_places_are_not_light_either() -> None:
    jpeg, exif = encoded(picture(1), "JPEG"), tagged(2_000)
    data = encoded(picture(1))
    big = b"II+\0\x08\0\0\0" + bytes(100)

    assert not is_cheap(data[:33] + text_chunk(exif) + data[33:])
    assert not is_cheap(data[:33] + chunk(b"eXIf", tagged(1)[6:]) * 2 + data[33:])
    assert not is_cheap(data[:33] + chunk(b"eXIf", bytes(70_000)) + data[33:])
    assert not is_cheap(segment(jpeg, b"\xe1", b"Exif\0\0" + big))
    assert not is_cheap(segment(jpeg, b"\xe2", b"MPF\0" + exif[6:]))
    assert not is_cheap(segment(encoded(picture(1), "JPEG", exif=tagged(9)), b"\xe1", tagged(9)))
    assert not is_cheap(segment(segment(jpeg, b"\xfe", bytes(40_000)), b"\xfe", bytes(40_000)))


def segment(data: bytes, kind: bytes, content: bytes) -> bytes:
    """Return a JPEG with one more segment at its start."""
    return data[:2] + b"\xff" + kind + struct.pack(">H", len(content) + 2) + content + data[2:]


def test_a_thumbnail_within_the_metadata_costs_an_ordinary_picture_nothing() -> None:
    small = encoded(picture(2, (40, 30)), "JPEG")
    data = encoded(picture(1, (400, 300)), "JPEG", exif=b"Exif\0\0" + small)
    assert is_cheap(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xfe\0\2" * 5_000_000,
        b"\xff\xd8" + b"\xff" * 20_000_000,
        b"\xff\xd8\xff" + bytes(20_000_000),
        b"\xff\xd8\xff\xc2\0\x11\x08\0\x10\0\x10\3" + bytes(9) + b"\xff\xda\3" * 6_000_000,
        b"\x89PNG\r\n\x1a\n" + bytes(20_000_000),
        b"\0\0\0\x18ftypheic" + b"ispe" * 5_000_000,
        b"II*\0\x08\0\0\0\xff\xff" + bytes(20_000_000),
    ],
    ids=["comments", "fill", "no-marker", "scans", "chunks", "boxes", "tags"],
)
def test_looking_at_twenty_megabytes_of_markers_takes_milliseconds(data: bytes) -> None:
    def seconds() -> float:
        started = time.thread_time()
        is_cheap(data)
        decoding_cost(data)
        return time.thread_time() - started

    assert min(seconds() for _ in range(3)) < 0.05  # a machine that is busy is slower by some


def test_scans_are_counted_as_they_stand() -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, 100_000, np.uint8).tobytes() + b"\xff\xda\xff\xff\xda"
    assert count_scans(data) == data.count(b"\xff\xda")
    assert count_scans(b"") == count_scans(b"\xff") == 0
