"""The bytes of a HEIC or HEIF picture in, the picture with its pixels still to be decoded out.

libheif checks what it decodes against the sizes that the file declares (``ispe``), and this module
checks those, and how much the file says that it holds, before libheif sees any of it. The boxes are
those of ISO/IEC 23008-12. Nothing is registered with Pillow.
"""

import io
import struct
from typing import Any

from PIL import ImageFile

from vision.errors import CorruptImageError
from vision.formats.iso_boxes import Span, check_held, declared_sizes, items, meta_of


def open_heic(data: bytes) -> ImageFile.ImageFile:
    """Return the primary picture, turned upright by the file's own ``irot`` and ``imir``.

    Its EXIF orientation says the same once more, and is taken back: libheif has applied it. Samples
    of 10 and 12 bits become 8.

    Raises:
        OSError and what else Pillow's decoders raise: ``data`` is damaged.
    """
    image: ImageFile.ImageFile = load_library()(io.BytesIO(data))
    return image


def load_library() -> Any:
    """Return what opens such pictures; it is imported in 25 ms, when it is first wanted.

    What is not read cannot do harm; alpha is decoded all the same.
    """
    from pi_heif import options  # type: ignore[import-untyped] # noqa: PLC0415
    from pi_heif.as_plugin import HeifImageFile  # type: ignore[import-untyped] # noqa: PLC0415

    options.AUX_IMAGES = options.DEPTH_IMAGES = options.THUMBNAILS = False
    return HeifImageFile


def declared_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the largest picture that the file declares, before it is cut.

    A picture may show a small part of a huge one (``clap``), which is decoded all the same.

    Raises:
        CorruptImageError: nothing is declared, or more bytes than the file can hold, or it cannot
            be told.
    """
    try:
        meta = meta_of(data)
        if meta is None or not (sizes := declared_sizes(data, meta)):
            raise CorruptImageError("the HEIC image is truncated or damaged")
        check_held(data, meta)
        _check_words(data, meta)
    except struct.error as error:
        raise CorruptImageError("the HEIC image does not match its boxes") from error
    return max(sizes, key=lambda size: size[0] * size[1])


def _check_words(data: bytes, meta: Span) -> None:
    """Check that the types and names of items are text: of others pi-heif ends the process.

    Raises:
        CorruptImageError: they are not.
    """
    try:
        for _, words in items(data, meta):
            words.decode()
    except UnicodeDecodeError as error:
        raise CorruptImageError("the HEIC image has items whose type is not text") from error
