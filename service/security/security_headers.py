"""The headers that every answer has, as the bytes that are sent."""

from collections.abc import Iterable
from typing import Final

# Answers are for programs: no browser is to show, keep, frame or run them. The page and its files
# set their own policy.
API_CONTENT_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Header = tuple[bytes, bytes]

_ALWAYS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_OWN_PAGES: Final = (b"cross-origin-resource-policy", b"same-origin")
_POLICY: Final = (b"content-security-policy", API_CONTENT_POLICY.encode())
_NOT_KEPT: Final = (b"cache-control", b"no-store")


def with_security_headers(headers: Iterable[Header]) -> list[Header]:
    """Return an answer's headers with ours, which do not replace its own policies and caching."""
    given = [*headers]
    names = [name for name, _ in given]
    if b"content-security-policy" not in names:
        given.append(_POLICY)
    if b"cache-control" not in names:
        given.append(_NOT_KEPT)
    if b"cross-origin-resource-policy" not in names:
        given.append(_OWN_PAGES)
    given.extend(_ALWAYS)
    return given
