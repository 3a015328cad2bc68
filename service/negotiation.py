"""What a client says it has, and in which form it takes an answer: RFC 9110, sections 12 and 13."""

import gzip
from typing import Final

_WEAK: Final = "W/"
GZIP: Final = "gzip"


def has_it(tag: str, if_none_match: str | None) -> bool:
    """Return whether ``If-None-Match`` names the entity tag ``tag``, compared weakly (13.1.2).

    >>> has_it('"a"', 'W/"a", "b"'), has_it('"a"', "*"), has_it('"a"', '"aa"'), has_it('"a"', None)
    (True, True, False, False)
    """
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    told = [one.strip().removeprefix(_WEAK) for one in if_none_match.split(",")]
    return tag.removeprefix(_WEAK) in told


def takes_gzip(accept_encoding: str | None) -> bool:
    """Return whether ``Accept-Encoding`` lets an answer be packed with gzip (12.5.3).

    >>> [takes_gzip(value) for value in ("br, gzip", "gzip;q=0", "*", "gzip;q=0.5, *;q=0", None)]
    [True, False, True, True, False]
    """
    weights = {}
    for part in (accept_encoding or "").lower().split(","):
        coding, *parameters = [piece.strip() for piece in part.split(";")]
        weights[coding] = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    weight = weights.get(GZIP, weights.get("x-gzip", weights.get("*", "0")))
    try:
        return float(weight) > 0
    except ValueError:
        return False


def packed(body: bytes) -> bytes:
    """Return ``body`` as gzip, quickly rather than small."""
    return gzip.compress(body, compresslevel=1, mtime=0)
