"""If-Match and If-None-Match in, what a change expects out; and the tag that names an item's state.

The tag of an item is its ``seq``, which no other state of any item has: a strong validator
(RFC 9110, section 8.8.1).
"""

import re
from typing import Final

from starlette.datastructures import Headers

from index.items.preconditions import Precondition, Seqs
from service.errors import MalformedRequestError

_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')  # RFC 9110, section 8.8.3
_MOST_DIGITS: Final = 19  # of 64 bits
MAX_TAGS: Final = 64  # in one header


def tag_of(seq: int) -> str:
    """Return the entity tag of an item whose seq is ``seq``."""
    return f'"{seq}"'


def expected_of(headers: Headers) -> Precondition:
    """Return what the request expects to be stored under the id that it changes.

    Raises:
        MalformedRequestError: a header that is neither ``*`` nor a list of entity tags.
    """
    # A weak tag promises the same meaning, not the same item: If-Match takes none (13.1.1).
    return Precondition(
        one_of=_seqs(headers.getlist("if-match"), name="If-Match", takes_weak=False),
        none_of=_seqs(headers.getlist("if-none-match"), name="If-None-Match", takes_weak=True),
    )


def _seqs(lines: list[str], *, name: str, takes_weak: bool) -> Seqs | None:
    if not lines:
        return None
    values = [value.strip() for value in ",".join(lines).split(",")]
    if values == ["*"]:
        return "any"
    tags = [_TAG.fullmatch(value) for value in values if value]
    if not tags or None in tags or len(tags) > MAX_TAGS:
        raise MalformedRequestError(
            f'{name} is *, or up to {MAX_TAGS} tags as ETag told them, such as "12", with commas '
            "between them"
        )
    return frozenset(
        int(tag[2])
        for tag in tags
        if tag is not None
        and (takes_weak or not tag[1])
        and tag[2].isascii()
        and tag[2].isdecimal()
        and len(tag[2]) <= _MOST_DIGITS
    )
