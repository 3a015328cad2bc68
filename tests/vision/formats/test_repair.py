"""Files that decoders refuse for what no pixel depends on, and files that miss too much."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support.images.pngs import encoded, picture, png
from tests.support.server.servers import ROOT
from vision.errors import CorruptImageError, ImageError
from vision.formats.jpeg import read_frame, share_missing
from vision.image.decode import decode_image, harden_pillow

PHOTO = picture(1, (640, 480))
PNG = png(1, (64, 48))
AFTER_HEADER = 8 + 25  # signature and IHDR


@pytest.fixture(autouse=True, scope="module")
def _hardened() -> None:
    harden_pillow()


def chunk(kind: bytes, content: bytes, *, damage: int = 0) -> bytes:
    checksum = zlib.crc32(kind + content) ^ damage
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def early(extra: bytes) -> bytes:
    return PNG[:AFTER_HEADER] + extra + PNG[AFTER_HEADER:]


def late(extra: bytes) -> bytes:
    return PNG[:-12] + extra + PNG[-12:]


def error(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean())


ZEROS = zlib.compress(b"\0" * 1_500_000)
METADATA = {
    "a colour profile of 1.5 MB": chunk(b"iCCP", b"name\0\0" + ZEROS),
    "a colour profile of 40 MB": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(40_000_000))),
    "a compressed text of 1.5 MB": chunk(b"zTXt", b"key\0\0" + ZEROS),
    "a compressed text of 40 MB": chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(40_000_000))),
    "an international text of 1.5 MB": chunk(b"iTXt", b"key\0\1\0\0\0" + ZEROS),
    "a plain text of 5 MB": chunk(b"tEXt", b"key\0" + b"x" * 5_000_000),
    "an international text of 5 MB, plain": chunk(b"iTXt", b"key\0\0\0\0\0" + b"x" * 5_000_000),
    "a thousand texts": chunk(b"zTXt", b"key\0\0" + zlib.compress(b"x" * 10_000)) * 1000,
    "XMP of 2 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x>" * 700_000)),
    "EXIF in a text of 2 MB": chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"00" * 1_000_000)
    ),
    "a text with a wrong checksum": chunk(b"tEXt", b"Comment\0hello", damage=1),
    "a private chunk with a wrong checksum": chunk(b"prVt", b"hello", damage=1),
    "a colour profile with a wrong checksum": chunk(b"iCCP", b"name\0\0" + ZEROS, damage=1),
    "sizes with a wrong checksum": chunk(b"pHYs", bytes(9), damage=1),
    "EXIF with a wrong checksum": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0", damage=1),
    "transparency with a wrong checksum": chunk(b"tRNS", bytes(6), damage=1),
    "a colour profile of another compression": chunk(b"iCCP", b"name\0\1abc"),
    "a text of another compression": chunk(b"zTXt", b"key\0\1abc"),
    "a colour profile that ends early": chunk(b"iCCP", b"name\0"),
    "a gamma of one byte": chunk(b"gAMA", b"\0"),
    "a rendering intent of no byte": chunk(b"sRGB", b""),
    "sizes of one byte": chunk(b"pHYs", b"\0"),
    "chromaticities of one byte": chunk(b"cHRM", b"\0"),
    "an animation that ends early": chunk(b"acTL", b"\0"),
    "a frame of nothing": chunk(b"fcTL", bytes(26)) + chunk(b"fcTL", bytes(26)),
}


@pytest.mark.parametrize("extra", METADATA.values(), ids=METADATA)
@pytest.mark.parametrize("place", [early, late])
def test_a_png_is_decoded_without_metadata_that_is_too_large_or_damaged(
    extra: bytes, place: Callable[[bytes], bytes]
) -> None:
    decoded = decode_image(place(extra))

    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(decode_image(PNG)))


def test_what_turns_a_picture_upright_is_kept_when_other_metadata_is_left_out() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    large = METADATA["a colour profile of 1.5 MB"]
    turned = encoded(picture(2, (40, 20)), exif=exif.tobytes())
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    told_by_text = encoded(picture(2, (40, 20)), pnginfo=info)

    for data in (turned, told_by_text):
        decoded = decode_image(data[:AFTER_HEADER] + large + data[AFTER_HEADER:])
        assert decoded.size == (20, 40)
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(decode_image(data)))


def test_a_hostile_text_never_inflates() -> None:
    """In a process of its own: what 300 MB of zeros in one chunk cost at the most."""
    program = """
import resource, zlib
from tests.vision.formats.test_repair import chunk, early, late
from vision.image.decode import decode_image, harden_pillow
harden_pillow()
packed = zlib.compressobj(9)
body = b"".join(packed.compress(bytes(1_000_000)) for _ in range(300)) + packed.flush()
files = [
    place(chunk(kind, head + body))
    for place in (early, late)
    for kind, head in ((b"zTXt", b"k\\0\\0"), (b"iCCP", b"k\\0\\0"), (b"iTXt", b"k\\0\\1\\0\\0\\0"))
]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in files:
    assert decode_image(data).size == (64, 48)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20_000  # KiB


OTHERS = {
    "JPEG with 5 MB of profile": encoded(PHOTO, "JPEG", icc_profile=bytes(5_000_000)),
    "JPEG with 6 MB of EXIF": encoded(PHOTO, "JPEG")[:2]
    + (b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + bytes(65_527)) * 100
    + encoded(PHOTO, "JPEG")[2:],
    "JPEG with 6 MB of comments": encoded(PHOTO, "JPEG")[:2]
    + (b"\xff\xfe" + struct.pack(">H", 65_535) + bytes(65_533)) * 100
    + encoded(PHOTO, "JPEG")[2:],
    "WebP with 5 MB of profile": encoded(PHOTO, "WEBP", icc_profile=bytes(5_000_000)),
    "WebP with 5 MB of EXIF": encoded(PHOTO, "WEBP", exif=b"Exif\0\0" + bytes(5_000_000)),
    "WebP with 5 MB of XMP": encoded(PHOTO, "WEBP", xmp=bytes(5_000_000)),
    "GIF with 2 MB of comments": encoded(PHOTO, "GIF")[:-1]
    + b"!\xfe"
    + (b"\xff" + bytes(255)) * 8000
    + b"\0;",
    "BMP with 5 MB behind it": encoded(PHOTO, "BMP") + bytes(5_000_000),
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_large_metadata_of_other_formats_is_no_harm(data: bytes) -> None:
    assert error(decode_image(data), PHOTO) < 12


@pytest.mark.parametrize("missing", [1, 2, 3, 8, 30])
@pytest.mark.parametrize(
    "settings",
    [{}, {"progressive": True}, {"restart_marker_blocks": 8}, {"subsampling": 0, "optimize": True}],
    ids=["plain", "progressive", "restarts", "optimised"],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_photo_without_its_last_bytes_is_taken(
    mode: str, settings: dict[str, object], missing: int
) -> None:
    inks = Image.merge("CMYK", (*PHOTO.split(), picture(6, PHOTO.size, "L")))
    image = inks if mode == "CMYK" else PHOTO.convert(mode)
    data = encoded(image, "JPEG", quality=90, **settings)

    decoded = decode_image(data[:-missing])

    assert decoded.size == PHOTO.size
    assert error(decoded, decode_image(data)) < 1


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (1, 1), (17, 33)])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_small_jpeg_without_its_end_marker_is_pixel_for_pixel_the_same(
    size: tuple[int, int], progressive: bool
) -> None:
    data = encoded(picture(3, size), "JPEG", progressive=progressive)

    for missing in (1, 2):
        np.testing.assert_array_equal(
            np.asarray(decode_image(data[:-missing])), np.asarray(decode_image(data))
        )


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_a_photo_that_is_really_cut_is_refused(progressive: bool, share: float) -> None:
    data = encoded(PHOTO, "JPEG", progressive=progressive, quality=90)
    if progressive:  # its last scan adds one bit; what is cut before misses more
        share *= data.rindex(b"\xff\xda") / len(data)

    with pytest.raises(CorruptImageError):
        decode_image(data[: int(share * len(data))])


@pytest.mark.parametrize("settings", [{}, {"restart_marker_blocks": 8}, {"subsampling": 0}])
def test_the_share_that_is_missing_is_the_share_of_the_picture_below_the_cut(
    settings: dict[str, object],
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=50, **settings)

    for share in (0.25, 0.5, 0.75, 0.99):
        assert share_missing(data[: int(len(data) * share)]) == pytest.approx(1 - share, abs=0.02)
    assert share_missing(data[:-2]) == 0


def test_an_end_that_is_missing_costs_no_wrong_pixel_of_a_photo_in_full_resolution() -> None:
    data = encoded(PHOTO, "JPEG", quality=90)

    decoded = np.asarray(decode_image(data[:-30]), int)

    unlike = np.abs(decoded - np.asarray(decode_image(data), int)).max(axis=2) > 0
    assert unlike[: 480 - 32].sum() == 0
    assert unlike.mean() < 0.01


OFF = {
    "PNG without its end": encoded(PHOTO)[:-12],
    "PNG without half its end": encoded(PHOTO)[:-7],
    "PNG without the checksums of its pixels": encoded(PHOTO)[:-20],
    "PNG with something behind it": encoded(PHOTO) + b"PK\x03\x04",
    "GIF without its trailer": encoded(PHOTO, "GIF")[:-1],
    "GIF without its last block's end": encoded(PHOTO, "GIF")[:-2],
    "GIF without its end code": encoded(PHOTO, "GIF")[:-3],
    "GIF with something behind it": encoded(PHOTO, "GIF") + b"\0" * 99,
    "JPEG with something behind it": encoded(PHOTO, "JPEG") + b"\0" * 99,
    "JPEG without its end, and zeros": encoded(PHOTO, "JPEG")[:-2] + b"\0" * 99,
    "WebP with something behind it": encoded(PHOTO, "WEBP") + b"\0" * 99,
    "BMP with something behind it": encoded(PHOTO, "BMP") + b"\0" * 99,
    "BMP without its last byte": encoded(PHOTO, "BMP")[:-1],
    "BMP that tells no size": encoded(PHOTO, "BMP")[:2] + bytes(4) + encoded(PHOTO, "BMP")[6:],
    "WebP whose EXIF is cut": encoded(PHOTO, "WEBP", exif=b"Exif\0\0" + bytes(3000))[:-500],
    "WebP whose XMP is cut": encoded(PHOTO, "WEBP", xmp=bytes(3000))[:-500],
}


@pytest.mark.parametrize("data", OFF.values(), ids=OFF)
def test_a_picture_with_all_its_pixels_is_taken_whatever_its_end_is_like(data: bytes) -> None:
    assert error(decode_image(data), PHOTO) < 12


@pytest.mark.parametrize("told", [0, 12, 1000, 2**32 - 1])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_whose_size_is_wrong_is_taken(told: int, lossless: bool) -> None:
    data = encoded(PHOTO, "WEBP", lossless=lossless)

    decoded = decode_image(data[:4] + struct.pack("<I", told) + data[8:])

    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(decode_image(data)))


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "BMP", "PNG"])
def test_what_misses_pixels_is_refused(image_format: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (48, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), image_format)

    for missing in (60, 200, len(data) // 2):
        with pytest.raises(CorruptImageError):
            decode_image(data[:-missing])


def bmp_variants() -> dict[str, bytes]:
    small = picture(4, (31, 20))
    plain = encoded(small, "BMP")
    offset = struct.unpack_from("<I", plain, 10)[0]
    rows = [plain[at : at + 96] for at in range(offset, len(plain), 96)]
    flipped = plain[:22] + struct.pack("<i", -20) + plain[26:offset] + b"".join(rows[::-1])
    os2 = b"BM" + struct.pack("<IHHI", 26 + len(plain) - offset, 0, 0, 26)
    os2 += struct.pack("<IHHHH", 12, 31, 20, 1, 24) + plain[offset:]
    return {"top down": flipped, "of OS/2": os2, "of 24 bits": plain}


@pytest.mark.parametrize("data", bmp_variants().values(), ids=bmp_variants())
def test_every_kind_of_bmp_shows_the_same(data: bytes) -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(data)), np.asarray(picture(4, (31, 20))))


def test_every_cut_of_every_format_is_taken_or_refused_with_an_error_of_ours() -> None:
    for image_format in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        data = encoded(picture(5, (24, 16)), image_format)
        whole = decode_image(data)
        for end in range(1, len(data)):
            try:
                decoded = decode_image(data[:end])
            except ImageError:
                continue
            assert error(decoded, whole) < 3, (image_format, end, len(data))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, 0), ({"progressive": True}, 3), ({"progressive": True, "subsampling": 0}, 6)],
)
def test_a_progressive_jpeg_is_priced_by_all_of_its_samples(
    settings: dict[str, object], kept: int
) -> None:
    frame = read_frame(encoded(PHOTO, "JPEG", **settings))

    assert frame is not None
    assert (frame.width, frame.height) == PHOTO.size
    assert frame.coefficient_bytes == kept * 640 * 480


def test_a_jpeg_header_that_is_cut_has_no_frame() -> None:
    data = encoded(PHOTO, "JPEG")

    assert all(read_frame(data[:end]) is None for end in range(0, 400, 7))
