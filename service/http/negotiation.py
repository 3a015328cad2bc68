"""Conditional requests and content negotiation: RFC 9110, sections 12 and 13.

No answer has a date of change, so ``If-Modified-Since`` and ``If-Unmodified-Since`` are ignored
(13.1.3, 13.1.4); a byte range is never served, so ``Range`` and ``If-Range`` are, too (14.2).
"""

import gzip
from typing import Final

from starlette.datastructures import Headers

from index.errors import ChangedItemError

_WEAK: Final = "W/"
GZIP: Final = "gzip"
IDENTITY: Final = "identity"


def is_not_modified(tag: str, headers: Headers) -> bool:
    """Return whether the client has the state that the entity tag ``tag`` names: answer 304.

    ``If-None-Match`` is compared weakly (13.1.2), ``If-Match``, which comes first, strongly
    (13.1.1).

    >>> tags = ('W/"a", "b"', "*", '"aa"', "")
    >>> [is_not_modified('"a"', Headers({"if-none-match": value})) for value in tags]
    [True, True, False, False]

    Raises:
        ChangedItemError: ``If-Match`` names other states alone.
    """
    expected = _listed(headers, "if-match")
    if expected and tag not in expected and "*" not in expected:
        raise ChangedItemError(f"this is {tag} by now, which If-Match does not name")
    known = [one.removeprefix(_WEAK) for one in _listed(headers, "if-none-match")]
    return tag.removeprefix(_WEAK) in known or known == ["*"]


def accepts_gzip(headers: Headers) -> bool:
    """Return whether ``Accept-Encoding`` lets an answer be compressed with gzip (12.5.3).

    Not if the client prefers it uncompressed; a client that accepts neither gets it so (12.1).

    >>> values = ("br, gzip", "gzip;q=0", "*", "gzip;q=0.5, *;q=0", "gzip;q=0.1, identity")
    >>> [accepts_gzip(Headers({"accept-encoding": value})) for value in values]
    [True, False, True, True, False]
    """
    weights = {}
    for part in _listed(headers, "accept-encoding"):
        coding, *parameters = [piece.strip() for piece in part.lower().split(";")]
        weights[coding] = _weight(parameters)
    weight = weights.get(GZIP, weights.get("x-gzip", weights.get("*", 0.0)))
    return weight > 0 and weight >= weights.get(IDENTITY, 0.0)


def compress_gzip(body: bytes) -> bytes:
    """Return ``body`` as gzip, fast rather than small."""
    return gzip.compress(body, compresslevel=1, mtime=0)


def _listed(headers: Headers, name: str) -> list[str]:
    """Return the elements of a header that is a list, over all its lines (5.6.1)."""
    members = [one.strip() for one in ",".join(headers.getlist(name)).split(",")]
    return [one for one in members if one]


def _weight(parameters: list[str]) -> float:
    weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    try:
        return float(weight)
    except ValueError:
        return 0.0
