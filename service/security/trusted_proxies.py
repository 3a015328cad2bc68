"""Trusted proxies, and what their headers say about the client behind them."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope

from service.config import PATH

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FOR: Final = b"x-forwarded-for"
_HOST: Final = b"x-forwarded-host"
_PROTO: Final = b"x-forwarded-proto"
_PREFIX: Final = b"x-forwarded-prefix"
_SCHEMES: Final = ("http", "https")
_DOTS: Final = 3  # in an address of IPv4


@dataclass(frozen=True, slots=True)
class Site:
    """The host and scheme by which a client addressed this server."""

    host: str  # with the port, if the client named one
    scheme: str  # http or https; empty if no trusted proxy forwarded it


class TrustedProxies:
    """The proxies of ``networks``, and whoever may open the Unix socket that this server has."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)

    def client(self, scope: Scope) -> str:
        """Return the client's address: the connection's, or the one that trusted proxies forward.

        Empty where there is none, as behind a Unix socket.
        """
        connected = scope.get("client")
        host = str(connected[0]) if connected else ""
        if not self.sent(scope):
            return host
        # Each proxy appends its client on the right; further left stands what anybody may claim.
        for part in reversed(header_value(scope, _FOR).split(",")):
            address = _without_port(part.strip())
            if parse_address(address) is None:
                break
            host = address
            if not self.are_trusted(host):
                break
        return host

    def site(self, scope: Scope) -> Site:
        """Return how the client addressed this server, by ``Host`` or as a proxy forwards it."""
        host = scheme = ""
        if self.sent(scope):
            host, scheme = _last(scope, _HOST), _last(scope, _PROTO).lower()
        return Site(
            host=host or header_value(scope, b"host"), scheme=scheme if scheme in _SCHEMES else ""
        )

    def prefix(self, scope: Scope) -> str:
        """Return the path below which a proxy serves this server; empty: it forwards none."""
        prefix = _last(scope, _PREFIX).rstrip("/") if self.sent(scope) else ""
        return prefix if PATH.fullmatch(prefix) else ""

    def sent(self, scope: Scope) -> bool:
        """Return whether the request came from one of them."""
        connected = scope.get("client")
        if connected is None:
            return is_unix_socket(scope.get("server"))
        return self.are_trusted(str(connected[0]))

    def are_trusted(self, host: str) -> bool:
        """Return whether ``host``, an address, is one of them."""
        if not self._networks:
            return False
        address = parse_address(host)
        return address is not None and any(address in network for network in self._networks)


def is_unix_socket(server: tuple[Any, Any] | None) -> bool:
    """Return whether ``server``, as ASGI has it, is a path: then no client has an address."""
    return server is not None and server[1] is None


@lru_cache(maxsize=4096)
def parse_address(host: str) -> Address | None:
    """Return ``host`` as an address; None: it is a name, or empty."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])  # without the interface's name
    except ValueError:
        return None
    # What a server that listens on `::` sees of IPv4 clients.
    return getattr(address, "ipv4_mapped", None) or address


def header_value(scope: Scope, header: bytes) -> str:
    """Return the values of a header, with commas between them."""
    return b",".join(value for name, value in scope["headers"] if name == header).decode("latin-1")


def _last(scope: Scope, header: bytes) -> str:
    """Return the last value of a header: that of the proxy next to us."""
    return header_value(scope, header).rpartition(",")[2].strip()


def _without_port(host: str) -> str:
    """Return the address in what proxies may write: ``1.2.3.4:567``, ``[::1]``, ``[::1]:567``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    address, _, port = host.rpartition(":")
    return address if port.isdecimal() and address.count(".") == _DOTS else host
