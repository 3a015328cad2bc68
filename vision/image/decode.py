"""Untrusted bytes in, an upright RGB picture out, or one of our errors.

The order of the checks is the defence: bytes are counted, then the format is read from the content
(never from a file name or a client's header), then the header's width and height are checked, and
only then is a single pixel decoded.
"""

from collections.abc import Callable

from PIL import Image, PngImagePlugin, TiffImagePlugin

from vision.errors import EmptyImageError, UnsupportedImageError
from vision.formats.detect import sniff_format
from vision.formats.unsupported import unsupported_message
from vision.image.decoding_steps import Decoding
from vision.image.limits import DEFAULT_LIMITS, MOST_PIXELS, ImageLimits, too_many_bytes


def decode_image(
    data: bytes,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    draft_side: int | None = None,
    before_pixels: Callable[[int], None] | None = None,
    before_repair: Callable[[], None] | None = None,
    managed: bool = True,
    bits: int = 16,
) -> Image.Image:
    """Decode ``data`` to an upright RGB image.

    Alpha is composited on white; animations give their first frame, files of several pages their
    first, HEIC its primary picture; it is turned upright as its EXIF block says, or, in HEIC, its
    own properties. Of samples of 16 bits the upper 8 count. A broken EXIF block or colour profile
    is ignored, as is metadata that is too large or has a wrong checksum. An end that is missing is
    no harm where the pixels are there; of a JPEG 1 % of them, the last, may be gray.

    With ``draft_side`` pictures of more than 33 megapixels are made smaller strip by strip, once
    they are decoded, so that memory stays bounded: beside the file and 64 MiB, 4 bytes a pixel for
    PNG, GIF and BMP, 8 for TIFF and what a pixel has in its file, and at most 16 for HEIC, AVIF and
    WebP (HEIC takes 7 and AVIF 9 where samples have 8 bits and colours are subsampled, as is
    usual). JPEG is decoded at a size that is wanted, and keeps 3 bytes a pixel where it is
    progressive. At 200 megapixels that is 0.1 to 3.2 GB.

    Args:
        data: of a format of ``vision.formats.detect``; the content decides, not a name.
        limits: formats, bytes and pixels allowed; pixels are read from the header, before decoding.
        draft_side: let the JPEG decoder shrink by 2, 4 or 8 while both sides stay at least this
            many pixels (ISO/IEC 10918-1 scaled inverse DCT; pixels change slightly, so indexing and
            querying must pass the same value), and further where the limits ask for it; other large
            pictures shrink after it. ``None`` decodes at full size.
        before_pixels: called, before the first pixel is decoded, with the most bytes that decoding
            will hold at once, an estimate from the header; it may wait until there is room. Without
            it pictures of more than 256 MiB wait for one another.
        before_repair: called before a damaged picture is looked at more closely, which may decode
            it eight times; what it raises is raised.
        managed: convert colours to sRGB by the embedded profile; else it stays in ``info``.
        bits: that count of gray samples of 16 bits, 8 to 16.

    Raises:
        EmptyImageError: no bytes.
        TooManyBytesError: more than ``limits.max_bytes`` bytes.
        UnsupportedImageError: of no format that ``limits`` allow, or of a kind that is not read.
        TooManyPixelsError: the header promises more than the limits allow.
        CostlyImageError: it has more scans, segments or chunks than pictures have.
        CorruptImageError: truncated or damaged.
    """
    if not data:
        raise EmptyImageError("the image is empty: 0 bytes")
    if len(data) > limits.max_bytes:
        raise too_many_bytes(len(data), limits)
    image_format = sniff_format(data)
    if image_format is None or image_format not in limits.formats:
        raise UnsupportedImageError(unsupported_message(data, limits.formats))
    notify = None if before_pixels is None else _once(before_pixels)
    decoding = Decoding(image_format, limits, draft_side, notify, before_repair, managed, bits)
    return decoding.picture(data)


def harden_pillow() -> None:
    """Set Pillow's process-wide limits; each entry point (server, command line) calls it once.

    A compressed PNG text chunk may inflate to 1 MiB, all of them to 4 MiB. Pillow's own pixel limit
    stays as a second wall behind ours: it warns at this number and refuses twice as many.
    Large pictures are allocated in blocks that glibc always gives back to the system when they are
    freed (its threshold adapts up to 32 MiB): with blocks of 16 MiB threads kept up to 0.7 GB.
    All TIFFs are read by libtiff: of samples of 16 bits in planes Pillow's own reader makes noise.
    """
    Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]
    PngImagePlugin.MAX_TEXT_CHUNK = 2**20
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * 2**20
    TiffImagePlugin.READ_LIBTIFF = True
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS


def _once(notify: Callable[[int], None]) -> Callable[[int], None]:
    """Return ``notify`` for the first call alone: a picture may be decoded more than once."""
    called = False

    def notify_once(size: int) -> None:
        nonlocal called
        if not called:
            called = True
            notify(size)

    return notify_once
