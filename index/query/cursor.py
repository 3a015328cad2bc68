"""Where a page ended, as opaque text that comes back unchanged or is refused."""

import base64
import binascii
import struct
import zlib
from typing import Final

from index.errors import InvalidCursorError
from index.items.item import quoted

_LAYOUT: Final = struct.Struct(">qI")  # last key, CRC-32 of its eight bytes


def encode_cursor(key: int) -> str:
    """Return the cursor of the page that ended with ``key``."""
    return base64.urlsafe_b64encode(_LAYOUT.pack(key, _checksum(key))).decode()


def decode_cursor(cursor: str) -> int:
    """Return the key that ``encode_cursor`` turned into ``cursor``.

    Raises:
        InvalidCursorError: no page gave out this cursor.
    """
    try:
        key, checksum = _LAYOUT.unpack(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (ValueError, binascii.Error, struct.error) as error:
        raise InvalidCursorError(f"no page gave out the cursor {quoted(cursor)}") from error
    if checksum != _checksum(key) or cursor != encode_cursor(key):
        raise InvalidCursorError(f"no page gave out the cursor {quoted(cursor)}")
    return int(key)


def _checksum(key: int) -> int:
    return zlib.crc32(struct.pack(">q", key))
