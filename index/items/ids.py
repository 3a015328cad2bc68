"""What an id may be: any text that an address, a list and a log can carry. Ids in, or a reason."""

import re
from collections.abc import Callable
from typing import Final

from index.errors import InvalidIdError
from index.items.metadata_index import nfc

MAX_ID_BYTES: Final = 256  # as UTF-8; three times as many in an address, which may have 8 KiB
# Names of files and folders of ours, and most ids: looked at first, because it is quick.
NAME_PATTERN: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:-]{1,128}", re.ASCII)
# Control characters, line ends, marks that nobody sees or that turn the text around (but for the
# joiners that scripts and emoji need), and what stands for bytes that are not UTF-8.
_NOT_SHOWN: Final = re.compile(
    "[\0-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufffd\ud800-\udfff]"
)


def check_id(item_id: str) -> None:
    """Accept ids of any script, of 1 to 256 bytes as UTF-8, with the exceptions that have a reason.

    Raises:
        InvalidIdError: it is no text, has a slash, a control character or a line end, is ``.`` or
            ``..``, too long, or not composed (NFC). The sentence says why that cannot be.
    """
    if isinstance(item_id, str) and NAME_PATTERN.fullmatch(item_id):
        return
    for reason, is_so in _FAULTS:
        if is_so(item_id):
            raise InvalidIdError(f"{reason}, got {item_id!a:.60}")


_FAULTS: Final[tuple[tuple[str, Callable[[str], object]], ...]] = (  # each assumes those before
    ("an id is text", lambda item_id: not isinstance(item_id, str)),
    ("an id has at least one character", lambda item_id: not item_id),
    (
        "'.' and '..' are no ids, because in an address they mean another place",
        lambda item_id: item_id in {".", ".."},
    ),
    (
        "an id has no '/', because clients and proxies split addresses there",
        lambda item_id: "/" in item_id,
    ),
    (
        "an id has no control characters, line ends, invisible marks or bytes that are not UTF-8, "
        "because nobody could tell what they see",
        _NOT_SHOWN.search,
    ),
    (
        f"an id has at most {MAX_ID_BYTES} bytes as UTF-8",
        lambda item_id: len(item_id.encode()) > MAX_ID_BYTES,
    ),
    (
        "an id is composed text (Unicode NFC), so that one name is not two ids",
        lambda item_id: nfc(item_id) != item_id,
    ),
)
