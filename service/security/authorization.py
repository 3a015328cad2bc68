"""Who may do what: one request in, the name of its key out, or a refusal.

Decided by the path that the router will see, never by an address made from a ``Host`` header.
"""

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final

from starlette.types import Scope

from service.errors import ForbiddenError, UnauthorizedError
from service.security.api_keys import ApiKey, KeyRing, Right, WatchedKeys
from service.security.rate_limits import Quotas
from service.security.trusted_proxies import Proxies, parsed

# Probes, and files that are the same for everybody: they tell nothing of what is served here.
_OPEN: Final = frozenset({"/livez", "/readyz", "/", "/docs"})
_OPEN_PREFIXES: Final = ("/page/", "/docs/")
_JOBS: Final = "/v1/jobs"
_STORING: Final = ("/v1/items", "/v1/items/delete")
_IPV6_NETWORK_BITS: Final = 64  # what one customer of a provider has


@dataclass(slots=True)
class Gate:
    """Asks for keys, and counts the requests of those who have a quota.

    Without keys everybody may do everything, within ``requests_per_minute`` per client address.
    With keys, an address that has sent ``wrong_keys_per_minute`` wrong ones is refused with every
    key but those that it has shown before: so guessing is slow, and those who already work behind
    the same proxy as the guesser go on.
    """

    quotas: Quotas
    keys: WatchedKeys | None = None
    requests_per_minute: int | None = None
    wrong_keys_per_minute: int | None = None
    proxies: Proxies = field(default_factory=Proxies)  # whose word on their clients is taken

    def admit(self, scope: Scope, authorization: str | None) -> str | None:
        """Return the name of the request's key; None: none was needed.

        Raises:
            UnauthorizedError: no key, a wrong one, or one whose time is over.
            ForbiddenError: a key without the right to this.
            TooManyRequestsError: the quota of the last minute is used up.
        """
        path = scope["path"]
        if path in _OPEN or path.startswith(_OPEN_PREFIXES):
            return None
        if self.keys is None:
            self._count_address(scope)
            return None
        key = self._identify(self.keys.ring(), _token(authorization), self._address(scope))
        if key.has_expired():
            raise UnauthorizedError(f"the key {key.name!r} has expired")
        needed = _rights(path.rstrip("/"), scope["method"])
        if key.rights.isdisjoint(needed):
            raise ForbiddenError(f"the key {key.name!r} has no right to {needed[0]}")
        if key.requests_per_minute is not None:
            self._count(
                scope,
                f"key {key.name}",
                key.requests_per_minute,
                f"the key {key.name!r} may send {key.requests_per_minute} requests a minute; "
                "each image of a request is one",
            )
        return key.name

    def _count(self, scope: Scope, name: str, per_minute: int, sentence: str) -> None:
        """Count the request, and leave in its scope what counts the images that it brings."""
        self.quotas.count(name, per_minute, sentence)
        scope["charge"] = partial(self.quotas.count, name, per_minute, sentence)

    def _count_address(self, scope: Scope) -> None:
        if self.requests_per_minute is not None:
            self._count(
                scope,
                f"address {self._address(scope)}",
                self.requests_per_minute,
                f"one address may send {self.requests_per_minute} requests a minute; each "
                "image of a request is one",
            )

    def _identify(self, ring: KeyRing, token: str, address: str) -> ApiKey:
        key = ring.find(token)
        proof = "" if key is None else f"shown {address} {key.sha256}"
        if key is not None and self.quotas.is_marked(proof):
            return key
        limit = self.wrong_keys_per_minute
        name, sentence = f"wrong keys of {address}", "too many wrong keys came from this address"
        if key is None:
            if limit is not None:
                self.quotas.count(name, limit, sentence)
            raise UnauthorizedError("the API key is not known")
        if limit is not None:
            self.quotas.check(name, limit, sentence)
        self.quotas.mark(proof)
        return key

    def _address(self, scope: Scope) -> str:
        return network_of(self.proxies.client(scope))


def _token(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError("an API key is needed: Authorization: Bearer KEY")
    return token


def _rights(path: str, method: str) -> tuple[Right, ...]:
    """Return the rights of which a key needs one."""
    if path == _JOBS or path.startswith(f"{_JOBS}/"):
        return ("admin",)
    if path == "/metrics":
        return ("metrics", "read")
    if method in ("PUT", "PATCH", "DELETE") or (path in _STORING and method == "POST"):
        return ("write",)
    return ("read",)


@lru_cache(maxsize=4096)
def network_of(host: str) -> str:
    """Return the client an address stands for: of IPv6, whose clients have many, the network."""
    address = parsed(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return host if address is None else str(address)
    return str(ipaddress.ip_network((int(address), _IPV6_NETWORK_BITS), strict=False))
