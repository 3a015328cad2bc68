"""Gray pictures of 16 bits of which a camera used 10, 12 or 14."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.training.bit_depth import with_bit_depth
from tests.support.images.pngs import encoded, picture
from tests.support.images.tiffs import tiff
from training.recipes.from_scratch import cnn_photos
from vision.image.bit_depth import depth_of, is_deep_colour, is_deep_gray, largest_sample
from vision.image.decode import decode_image
from vision.image.preprocessing import Preprocessing

GRAY = np.asarray(picture(1, (64, 48), "L"))
DEEP = Preprocessing(size=48, channels=1, mean=(0.5,), std=(0.5,))


def deep_png(bits: int) -> bytes:
    """Return a gray PNG of 16 bits that uses ``bits`` of them."""
    values = GRAY.astype(np.uint32) * ((1 << bits) - 1) // 255
    return encoded(Image.fromarray(values.astype(np.uint16)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_that_are_used_show_the_picture(bits: int) -> None:
    decoded = np.asarray(decode_image(deep_png(bits), bits=bits))

    assert np.abs(decoded[..., 0].astype(int) - GRAY).max() <= 1


@pytest.mark.parametrize("bits", [10, 12])
def test_as_16_bits_it_would_be_nearly_black(bits: int) -> None:
    assert np.asarray(decode_image(deep_png(bits))).max() < 16


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_picture_that_uses_more_bits_than_others_is_not_white(bits: int) -> None:
    decoded = np.asarray(decode_image(deep_png(16), bits=bits))

    assert np.abs(decoded[..., 0].astype(int) - GRAY).max() <= 1


def test_the_models_preprocessing_says_how_many_bits_count() -> None:
    data = deep_png(12)

    twelve = replace(DEEP, bits=12)
    expected = DEEP.pixels(DEEP.decode(encoded(Image.fromarray(GRAY))))

    assert np.abs(twelve.pixels(twelve.decode(data)).astype(int) - expected).max() <= 2
    assert DEEP.pixels(DEEP.decode(data)).max() < 16


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(0, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (9000, 14), (65_535, 16)],
)
def test_the_largest_sample_tells_the_depth(largest: int, bits: int) -> None:
    assert depth_of(largest) == bits


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_largest_sample_of_a_file_is_found(bits: int) -> None:
    assert depth_of(largest_sample(deep_png(bits))) == bits


def test_files_of_16_bit_gray_are_told_by_their_first_bytes() -> None:
    assert is_deep_gray(deep_png(12)[:26])
    for other in (b"", b"\x89PNG\r\n\x1a\n", encoded(picture(1)), encoded(picture(1), "JPEG")):
        assert not is_deep_gray(other[:26])


def deep_colour_png(bits: int, colour_type: int) -> bytes:
    """Return a PNG of 16 bits with alpha (4), in colour (2) or both (6) that uses ``bits``."""
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    values = np.full((4, 4, channels), (1 << bits) - 1, ">u2")
    if colour_type != 2:
        values[..., -1] = 65_535
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    header = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


@pytest.mark.parametrize("colour_type", [2, 4, 6])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_few_bits_in_colour_are_found_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: int, colour_type: int
) -> None:
    data = deep_colour_png(bits, colour_type)
    assert (is_deep_colour(data[:26]), is_deep_gray(data[:26])) == (True, False)
    assert depth_of(largest_sample(data)) == bits
    (tmp_path / "hat").mkdir()
    (tmp_path / "hat" / "a.png").write_bytes(data)
    recipe = cnn_photos()
    assert with_bit_depth(str(tmp_path), recipe) == recipe
    said = f"use only {bits} of them here, and will be seen as dark ones"
    assert (said in " ".join(capsys.readouterr().err.split())) == (bits < 16)


def test_scans_of_few_bits_are_found_as_tiff(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = GRAY.astype(np.uint32) * 4095 // 255
    gray = tiff(values.astype(np.uint16), photometric=1)
    colour = tiff(np.full((4, 4, 3), 1023, np.uint16), photometric=2)
    (tmp_path / "hat").mkdir()
    (tmp_path / "hat" / "a.tif").write_bytes(gray)
    (tmp_path / "hat" / "b.tif").write_bytes(colour)

    recipe = with_bit_depth(str(tmp_path), cnn_photos())

    assert (is_deep_gray(gray), is_deep_colour(gray)) == (True, False)
    assert (is_deep_gray(colour), is_deep_colour(colour)) == (False, True)
    assert recipe.preprocessing.bits == 12
    said = " ".join(capsys.readouterr().err.split())
    assert "use only 10 of them here, and will be seen as dark ones" in said
    assert "use only 12 of them here, and are read like that" in said
