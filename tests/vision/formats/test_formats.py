"""Every format that is taken: its pixels are right, its limits hold, and what is not is named."""

import io
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.support.images.icc_profiles import ADOBE_RGB, DISPLAY_P3, cmyk_profile
from tests.support.images.pngs import encoded, exif, picture
from tests.support.images.tiffs import CMYK, DEFLATE, GRAY, RAW, RGB, WHITE_IS_ZERO, tiff
from tests.support.paths import DATA
from vision.errors import (
    CorruptImageError,
    ImageError,
    TooManyPixelsError,
    UnsupportedImageError,
)
from vision.formats.avif import coded_size
from vision.formats.detect import (
    AVIF,
    BMP,
    FORMATS,
    GIF,
    HEIC,
    JPEG,
    PNG,
    TIFF,
    WEBP,
    Format,
    formats_called,
    in_words,
    sniff_format,
)
from vision.image.decode import decode_image, harden_pillow
from vision.image.icc_profile import to_srgb
from vision.image.limits import OWN_FILE_LIMITS, ImageLimits

ORIENTATION = 0x0112  # the EXIF tag
# Made with pillow-heif 1.8.1 and x265, which is not installed here, from `picture` of this seed and
# size, by `pillow_heif.from_pillow(…)` or, of 16 bits, `from_bytes(…)`, and `.save(…)`:
# `phone.heic`: seed 1, 180 x 120: quality 85, 4:4:4, tile_size=64, thumbnails=[60], the profile of
#     Adobe RGB, and EXIF with orientation 6, which also becomes `irot`
# `mirrored.heic`: seed 2, 64 x 48, RGBA: 10 bits, without loss, 4:4:4, orientation 5, which becomes
#     `imir` and `irot`
# `gray.heic`: seed 3, 64 x 48, gray: 12 bits, without loss
PHONE, MIRRORED, GRAY_HEIC = (
    (DATA / f"{name}.heic").read_bytes() for name in ("phone", "mirrored", "gray")
)


@pytest.fixture(autouse=True, scope="module")
def _hardened() -> None:
    harden_pillow()


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean())


def turned(image: Image.Image, orientation: int) -> Image.Image:
    flat = image.copy()
    flat.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(flat)


KEYS = [one.key for one in FORMATS]


def of_each_format() -> dict[Format, bytes]:
    data = {one: encoded(picture(1), one.pillow_name) for one in FORMATS if one is not HEIC}
    return {**data, HEIC: PHONE}


@pytest.mark.parametrize(("image_format", "data"), of_each_format().items(), ids=KEYS)
def test_each_format_is_known_by_its_content_and_decoded(image_format: Format, data: bytes) -> None:
    assert sniff_format(data) is image_format
    assert decode_image(data).mode == "RGB"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf\0\0\0\0", AVIF),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1heicmiaf\0\0\0\0", HEIC),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", HEIC),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", HEIC),
        (b"\0\0\0\x18ftypavis\0\0\0\0avifavis", AVIF),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", None),
        (b"MM\0+\0\x08\0\0", TIFF),
    ],
)
def test_brands_tell_what_a_container_holds(data: bytes, expected: Format | None) -> None:
    assert sniff_format(data) is expected


def test_settings_name_formats_in_any_order_and_case() -> None:
    assert formats_called(["HEIC", " jpeg", "jpeg"]) == (JPEG, HEIC)
    assert in_words([JPEG]) == "JPEG"
    assert in_words([JPEG, PNG, HEIC]) == "JPEG, PNG or HEIC"
    with pytest.raises(
        ValueError, match="'jxl' is not a format that can be read; these are: jpeg,"
    ):
        formats_called(["jxl"])
    with pytest.raises(ValueError, match="no format is named"):
        formats_called([" "])


@pytest.mark.parametrize(("image_format", "data"), of_each_format().items(), ids=KEYS)
def test_only_the_formats_that_are_taken_are_decoded(image_format: Format, data: bytes) -> None:
    others = tuple(one for one in FORMATS if one is not image_format)

    assert decode_image(data, limits=ImageLimits(formats=(image_format,))).mode == "RGB"
    with pytest.raises(
        UnsupportedImageError,
        match=f"^this is an? {image_format.name} picture, which is not accepted here; "
        f"{in_words(others)} is expected: convert it first$",
    ):
        decode_image(data, limits=ImageLimits(formats=others))


@pytest.mark.parametrize("image_format", [PNG, GIF, WEBP, TIFF, AVIF], ids=lambda one: one.key)
def test_of_several_frames_or_pages_the_first_is_shown(image_format: Format) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    data = encoded(frames[0], image_format.pillow_name, save_all=True, append_images=frames[1:])

    red, green, _ = decode_image(data).getpixel((8, 8))

    assert red > 240
    assert green < 15


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", [TIFF, AVIF], ids=lambda one: one.key)
@pytest.mark.parametrize("settings", [{}, {"compression": "tiff_lzw"}])
def test_exif_turns_a_picture_upright_once(
    orientation: int, image_format: Format, settings: dict[str, str]
) -> None:
    image = picture(4, (40, 20))
    kind = image_format.pillow_name
    data = encoded(image, kind, exif=exif(orientation), **settings)

    expected = turned(decode_image(encoded(image, kind)), orientation)

    assert difference(decode_image(data), expected) < 2


@pytest.mark.parametrize("image_format", [TIFF, AVIF], ids=lambda one: one.key)
def test_an_embedded_profile_is_converted_to_srgb(image_format: Format) -> None:
    image = picture(5)
    data = encoded(image, image_format.pillow_name, icc_profile=DISPLAY_P3)

    plain = decode_image(data, managed=False)

    assert plain.info["icc_profile"] == DISPLAY_P3
    assert difference(decode_image(data), to_srgb(plain, DISPLAY_P3)) < 1
    assert difference(decode_image(data), plain) > 1


# HEIC


def test_a_phones_tiles_are_put_together_turned_once_and_converted_to_srgb() -> None:
    upright = turned(picture(1, (180, 120)), 6)

    assert difference(decode_image(PHONE, managed=False), upright) < 4
    assert difference(decode_image(PHONE), to_srgb(upright, ADOBE_RGB)) < 4
    assert difference(to_srgb(upright, ADOBE_RGB), upright) > 4


def test_ten_bits_alpha_and_a_mirror_image_come_out_right() -> None:
    on_white = Image.new("RGBA", (64, 48), "white")
    on_white.alpha_composite(picture(2, (64, 48), "RGBA"))

    assert difference(decode_image(MIRRORED), turned(on_white.convert("RGB"), 5)) < 1.5


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_twelve_bits_of_gray_are_read_as_the_file_says(bits: int) -> None:
    gray = picture(3, (64, 48), "L").convert("RGB")

    assert difference(decode_image(GRAY_HEIC, bits=bits), gray) < 1.5


def test_reading_heic_tells_pillow_nothing() -> None:
    decode_image(PHONE)

    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(PHONE))


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Return a HEIC that declares another size for each of its pictures."""
    return re.sub(
        rb"ispe\0\0\0\0.{8}",
        lambda _: b"ispe\0\0\0\0" + struct.pack(">II", width, height),
        data,
        flags=re.DOTALL,
    )


@pytest.mark.parametrize("size", [(5_001, 5_000), (100_000, 10), (2**32 - 1, 2**32 - 1)])
def test_a_heic_is_refused_by_the_largest_size_that_it_declares(size: tuple[int, int]) -> None:
    with pytest.raises(TooManyPixelsError, match=f"{size[0]} x {size[1]} pixels"):
        decode_image(with_size(PHONE, *size), before_pixels=_never)


@pytest.mark.parametrize("size", [(64, 63), (32, 32), (4_000, 4_000), (1, 1), (0, 0)])
def test_a_heic_of_another_size_than_it_declares_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(CorruptImageError):
        decode_image(with_size(GRAY_HEIC, *size))


def test_a_heic_whose_items_repeat_its_bytes_is_refused_before_they_are_copied() -> None:
    repeated = bytearray(PHONE)
    first = PHONE.index(b"iloc") + 4 + 8
    for item in range(9):  # of 20 bytes each, offset and length behind 12
        struct.pack_into(">II", repeated, first + 20 * item + 12, 0, len(PHONE))

    with pytest.raises(CorruptImageError, match="does not match its boxes"):
        decode_image(bytes(repeated), before_pixels=_never)


@pytest.mark.parametrize("name", [b"hvc1", b"Exif"])
def test_a_heic_whose_items_have_types_that_are_not_text_is_refused(name: bytes) -> None:
    """The library would end the process."""
    for data in (PHONE, MIRRORED):
        odd = data.replace(b"infe\2\0\0\1", b"infe\2\0\0\0").replace(name, name[:3] + b"\xff", 1)
        with pytest.raises(CorruptImageError, match="whose type is not text"):
            decode_image(odd, before_pixels=_never)


def _never(_size: int) -> None:
    raise AssertionError("pixels were about to be decoded")


# AVIF


@pytest.mark.parametrize("is_moving", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_avif_is_refused_by_the_size_that_it_codes_and_not_the_one_it_declares(
    mode: str, is_moving: bool
) -> None:
    frames = [picture(number, (400, 300), mode) for number in (1, 2)]
    data = encoded(frames[0], "AVIF", speed=10, save_all=is_moving, append_images=frames[1:])
    lying = with_size(data, 20, 15)
    limits = ImageLimits(max_pixels=400 * 300 - 1)

    assert coded_size(data) == coded_size(lying) == (400, 300)
    with pytest.raises(TooManyPixelsError, match="has 400 x 300 pixels"):
        decode_image(lying, limits=limits, before_pixels=_never)


def test_an_avif_that_declares_too_much_is_refused_as_well() -> None:
    data = with_size(encoded(picture(1), "AVIF"), 5001, 5000)

    with pytest.raises(TooManyPixelsError, match="has 5001 x 5000 pixels"):
        decode_image(data, before_pixels=_never)


def repeating(data: bytes, times: int) -> bytes:
    """Return an AVIF with one item that holds its data several times over."""
    at = data.index(b"iloc") + 18  # of the only extent
    offset, length = struct.unpack_from(">II", data, at)
    grown = bytearray(data + data[offset : offset + length] * times)
    struct.pack_into(">II", grown, at, len(data), length * times)
    return bytes(grown)


def test_an_avif_that_codes_more_than_it_shows_is_refused() -> None:
    data = encoded(picture(1), "AVIF")

    assert decode_image(repeating(data, 1)).size == (40, 30)
    with pytest.raises(CorruptImageError, match="codes more pixels than it shows"):
        decode_image(repeating(data, 5), before_pixels=_never)


def test_an_avif_is_refused_where_its_boxes_say_two_things() -> None:
    data = encoded(picture(1), "AVIF")
    at = data.index(b"meta") - 4
    meta = data[at : at + int.from_bytes(data[at : at + 4], "big")]

    with pytest.raises(CorruptImageError, match="does not match its boxes"):
        decode_image(data + meta, before_pixels=_never)


# TIFF


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("tile", [None, 32])
@pytest.mark.parametrize("in_planes", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("photometric", "mode"), [(RGB, "RGB"), (CMYK, "CMYK"), (GRAY, "L")])
def test_samples_of_a_tiff_are_right_however_they_lie(
    *,
    order: str,
    compression: int,
    tile: int | None,
    in_planes: bool,
    bits: int,
    photometric: int,
    mode: str,
) -> None:
    image = picture(6, (50, 40), mode)
    samples = np.asarray(image)
    if bits == 16:
        samples = samples.astype(np.uint16) * 256 + 99

    decoded = decode_image(
        tiff(
            samples,
            photometric=photometric,
            order=order,
            compression=compression,
            in_planes=in_planes,
            tile=tile,
        )
    )

    assert difference(decoded, image.convert("RGB")) == 0


def test_white_may_be_zero() -> None:
    image = picture(7, mode="L")
    deep = np.asarray(image).astype(np.uint16) * 257

    for samples in (np.asarray(image), deep):
        decoded = decode_image(tiff(samples, photometric=WHITE_IS_ZERO))
        assert difference(decoded, ImageOps.invert(image).convert("RGB")) == 0


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_scan_that_uses_few_of_its_16_bits_is_read_by_those(bits: int) -> None:
    image = picture(8, mode="L")
    values = np.asarray(image).astype(np.uint32) * ((1 << bits) - 1) // 255

    decoded = decode_image(tiff(values.astype(np.uint16), photometric=GRAY), bits=bits)

    assert difference(decoded, image.convert("RGB")) < 1


@pytest.mark.parametrize(
    "compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd", "lzma"]
)
def test_the_usual_compressions_are_read(compression: str) -> None:
    image = picture(9, (64, 48))

    assert difference(decode_image(encoded(image, "TIFF", compression=compression)), image) < 6


def test_facsimiles_and_palettes_are_read() -> None:
    page = picture(10, (64, 48), "L").convert("1")
    colours = picture(10, (64, 48)).quantize(16)

    np.testing.assert_array_equal(
        np.asarray(decode_image(encoded(page, "TIFF", compression="group4"))),
        np.asarray(page.convert("RGB")),
    )
    assert difference(decode_image(encoded(colours, "TIFF")), colours.convert("RGB")) == 0


def test_a_tiff_for_print_is_converted_by_its_profile() -> None:
    image = picture(11, mode="CMYK")
    profile = cmyk_profile()

    decoded = decode_image(encoded(image, "TIFF", icc_profile=profile))

    assert difference(decoded, to_srgb(image, profile)) == 0


def test_lightness_and_colours_apart_become_srgb() -> None:
    red = Image.new("LAB", (8, 8), (136, 208, 195))  # of sRGB's red, + 128

    pixel = decode_image(encoded(red, "TIFF")).getpixel((4, 4))

    assert pixel == pytest.approx((255, 0, 0), abs=12)


def test_alpha_of_a_tiff_shows_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))

    assert decode_image(encoded(image, "TIFF")).getpixel((0, 0)) == (255, 255, 255)
    assert decode_image(encoded(image.convert("LA"), "TIFF")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("photometric", "channels", "meaning", "shown"),
    [(GRAY, 2, 0, 100), (GRAY, 2, 1, 255), (GRAY, 2, 2, 194), (RGB, 4, 0, 100), (RGB, 4, 1, 255)],
)
def test_what_a_further_sample_means_is_said_by_its_tag(
    photometric: int, channels: int, meaning: int, shown: int
) -> None:
    """0: nothing known, 1: alpha that colours are multiplied with already, 2: alpha beside them."""
    samples = np.full((8, 8, channels), 100, np.uint8)

    decoded = decode_image(tiff(samples, photometric=photometric, extra={338: (meaning,)}))

    assert decoded.getpixel((0, 0)) == (shown, shown, shown)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (tiff(np.zeros((9, 9), np.float32), photometric=GRAY), "of 32 bits a sample, more than 16"),
        (tiff(np.zeros((9, 9), np.uint32), photometric=GRAY), "of 32 bits a sample, more than 16"),
        (
            tiff(np.zeros((9, 9), np.uint8), photometric=GRAY, extra={259: (6,)}),
            r"of a compression that is not read \(6\)",
        ),
        (
            tiff(np.zeros((9, 9, 5), np.uint8), photometric=RGB),
            "of a kind that is not read",
        ),
    ],
)
def test_a_tiff_that_is_not_read_rightly_says_what_it_is(data: bytes, sentence: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"^this is a TIFF picture {sentence}; JPEG"):
        decode_image(data)


@pytest.mark.parametrize(
    ("make", "extra", "name"),
    [
        ("NIKON CORPORATION", {254: (1,), 330: (8,)}, "NEF"),
        ("SONY", {259: (6,), 330: (8,)}, "ARW"),
        ("Canon", {50706: (1,)}, "DNG"),
        ("Nobody", {262: (32803,)}, None),
    ],
)
def test_a_raw_picture_is_no_tiff(
    make: str, extra: dict[int, tuple[int, ...]], name: str | None
) -> None:
    tags = {271: tuple(make.encode()), **extra}
    data = tiff(np.zeros((9, 9, 3), np.uint8), photometric=RGB, extra=tags)
    kind = "a raw picture of a camera" + (rf" \({name}\)" if name else "")

    with pytest.raises(UnsupportedImageError, match=f"^this is {kind}; JPEG, PNG"):
        decode_image(data)


def test_a_raw_picture_of_canon_is_known_by_its_first_bytes() -> None:
    data = b"II*\0\x10\0\0\0CR\2\0" + bytes(40)

    with pytest.raises(UnsupportedImageError, match=r"a raw picture of a camera \(CR2\)"):
        decode_image(data)


def test_a_tile_larger_than_the_picture_counts_before_it_takes_memory() -> None:
    data = tiff(np.zeros((9, 9), np.uint8), photometric=GRAY, compression=DEFLATE, tile=16)
    huge = data.replace(
        struct.pack("<HHII", 322, 4, 1, 16), struct.pack("<HHII", 322, 4, 1, 16_000)
    )
    huge = huge.replace(
        struct.pack("<HHII", 323, 4, 1, 16), struct.pack("<HHII", 323, 4, 1, 16_000)
    )

    assert decode_image(data).size == (9, 9)
    with pytest.raises(TooManyPixelsError, match="16000 x 16000"):
        decode_image(huge, before_pixels=_never)


# What is not taken


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b'<?xml version="1.0"?>\n<!-- a -->\n<svg/>', "an SVG drawing"),
        (b"<!DOCTYPE html><html>", "a page of the web (HTML), and not the picture that it shows"),
        (b"\n<html>", "a page of the web (HTML), and not the picture that it shows"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04" + b"\0" * 40, "a ZIP archive"),
        (b"PK\x03\x04" + b"\0" * 26 + b"word/document.xml", "an Office document"),
        (b"\x1f\x8b\x08\0", "an archive"),
        (b"\0\0\0\x18ftypqt  " + b"\0" * 40, "a QuickTime video (MOV)"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 40, "a video"),
        (b"\0\0\0\x18ftypcrx " + b"\0" * 40, "a raw picture of a camera (CR3)"),
        (b"FUJIFILMCCD-RAW 0201", "a raw picture of a camera (RAF)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b"8BPS\0\x01" + b"\0" * 40, "a Photoshop file (PSD)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript file (EPS)"),
        (b"\0\0\x01\0\x01\0", "a Windows icon (ICO)"),
        (b"P6\n2 2 255\n", "a PPM picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, and not the file"),
        (b'{"id": 3}', "a JSON text"),
        (bytes(200), "nothing but zero bytes"),
    ],
)
def test_what_is_not_taken_is_told_what_it_is(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImageError) as caught:
        decode_image(data)

    sentence = str(caught.value)
    assert sentence.startswith(f"this is {name}")
    assert sentence.endswith(f"; {in_words(FORMATS)} is expected: convert it first")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"hello, I am no image", "text"),
        ("猫の写真".encode() * 200, "text"),
        (b"\x89", "of no kind that is known here"),
        (b"RIFF\0\0\0\0????" + b"\xff" * 9, "of no kind that is known here"),
    ],
)
def test_what_is_of_no_known_kind_is_told_what_is_wanted(data: bytes, name: str) -> None:
    with pytest.raises(
        UnsupportedImageError, match=f"^this is {name}, and not a {in_words(FORMATS)} picture$"
    ):
        decode_image(data)


# Damage


WHOLE = {
    TIFF: encoded(picture(12, (32, 24)), "TIFF", compression="tiff_lzw"),
    AVIF: encoded(picture(12, (32, 24)), "AVIF"),
    HEIC: GRAY_HEIC,
}


@pytest.mark.parametrize(("image_format", "data"), WHOLE.items(), ids=["tiff", "avif", "heic"])
@pytest.mark.parametrize("sixteenth", range(1, 16))
def test_a_truncated_picture_is_refused(image_format: Format, data: bytes, sixteenth: int) -> None:
    with pytest.raises(ImageError):
        decode_image(data[: len(data) * sixteenth // 16])


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(list(WHOLE.values())),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0.05, 1.0),
)
def test_a_mutated_picture_is_decoded_or_refused_but_never_anything_else(
    data: bytes, changes: list[tuple[float, int]], keep: float
) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[int(place * len(data))] = value
    try:
        decoded = decode_image(bytes(mutated[: max(1, int(keep * len(data)))]))
    except ImageError:
        return
    assert decoded.mode == "RGB"


def test_one_list_says_what_ones_own_files_may_be() -> None:
    assert OWN_FILE_LIMITS.formats == FORMATS
    assert [one.key for one in FORMATS] == [
        *("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic")
    ]
    assert BMP.endings == (".bmp", ".dib")
