"""Who may do what: one request in, the name of its key out, or a refusal.

Decided by the path that the router will see, never by a URL built from a ``Host`` header.
"""

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final

from starlette.types import Scope

from service.errors import ForbiddenError, UnauthorizedError
from service.security.api_keys import ApiKey, KeyFile, KeyRing, Right
from service.security.rate_limits import RateLimiter
from service.security.trusted_proxies import TrustedProxies, parse_address

# Probes, and files that are the same everywhere: they tell nothing about what is served here.
_OPEN: Final = frozenset({"/livez", "/readyz", "/", "/docs"})
_OPEN_PREFIXES: Final = ("/page/", "/docs/")
_JOBS: Final = "/v1/jobs"
_STORING: Final = ("/v1/items", "/v1/items/delete")
_IPV6_NETWORK_BITS: Final = 64  # what one customer of a provider has


@dataclass(slots=True)
class Authorizer:
    """Checks API keys and quotas.

    Without keys everybody may do everything, within ``requests_per_minute`` per client address.
    With keys, an address that has sent ``wrong_keys_per_minute`` wrong ones is refused with every
    key except those that it has used before: so guessing is slow, and clients behind the same
    proxy as the guesser are not locked out.
    """

    rate_limiter: RateLimiter
    keys: KeyFile | None = None
    requests_per_minute: int | None = None
    wrong_keys_per_minute: int | None = None
    proxies: TrustedProxies = field(default_factory=TrustedProxies)

    def admit(self, scope: Scope, authorization: str | None) -> str | None:
        """Return the name of the request's key; None: none was needed.

        Raises:
            UnauthorizedError: no key, an unknown one, or one that has expired.
            ForbiddenError: a key without the right to this.
            TooManyRequestsError: the quota of the last minute is used up.
        """
        path = scope["path"]
        if path in _OPEN or path.startswith(_OPEN_PREFIXES):
            return None
        if self.keys is None:
            if self.requests_per_minute is not None:
                name = f"address {self._address(scope)}"
                self._count(scope, name, self.requests_per_minute, client="one address")
            return None
        key = self._identify(self.keys.ring(), _token(authorization), self._address(scope))
        if key.has_expired():
            raise UnauthorizedError(f"the key {key.name!r} has expired")
        needed = _rights(path.rstrip("/"), scope["method"])
        if key.rights.isdisjoint(needed):
            raise ForbiddenError(f"the key {key.name!r} has no right to {needed[0]}")
        if key.requests_per_minute is not None:
            client = f"the key {key.name!r}"
            self._count(scope, f"key {key.name}", key.requests_per_minute, client=client)
        return key.name

    def _count(self, scope: Scope, name: str, per_minute: int, *, client: str) -> None:
        """Count the request, and leave in its scope what counts the images that it brings."""
        sentence = (
            f"{client} may send {per_minute} requests a minute; each image of a request is one"
        )
        scope["charge"] = partial(self.rate_limiter.count, name, per_minute, sentence)
        scope["charge"]()

    def _identify(self, ring: KeyRing, token: str, address: str) -> ApiKey:
        key, limit = ring.find(token), self.wrong_keys_per_minute
        name, sentence = f"wrong keys of {address}", "too many wrong keys came from this address"
        if key is None:
            if limit is not None:
                self.rate_limiter.count(name, limit, sentence)
            raise UnauthorizedError("the API key is not known")
        proof = f"shown {address} {key.sha256}"
        if not self.rate_limiter.is_marked(proof):
            if limit is not None:
                self.rate_limiter.check(name, limit, sentence)
            self.rate_limiter.mark(proof)
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
    address = parse_address(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return host if address is None else str(address)
    return str(ipaddress.ip_network((int(address), _IPV6_NETWORK_BITS), strict=False))
