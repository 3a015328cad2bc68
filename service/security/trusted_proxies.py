"""Proxies that are trusted, and what they tell of the client behind them."""

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
    """What a client calls this server."""

    host: str  # with the port, where the client said one
    scheme: str  # http or https; empty where no trusted proxy told it


class Proxies:
    """The proxies of ``networks``, and whoever may open the Unix socket that this server has."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)

    def client(self, scope: Scope) -> str:
        """Return the client's address: the connection's, or the one that trusted proxies tell.

        Empty where nobody tells one.
        """
        connected = scope.get("client")
        host = str(connected[0]) if connected else ""
        if not self.have_sent(scope):
            return host
        # Each proxy adds its client on the right; further left stands what anybody may claim.
        for part in reversed(header_of(scope, _FOR).split(",")):
            told = _without_port(part.strip())
            if parsed(told) is None:
                break
            host = told
            if not self.are_trusted(host):
                break
        return host

    def site(self, scope: Scope) -> Site:
        """Return what the client calls this server, by ``Host`` or by what a proxy tells."""
        host = scheme = ""
        if self.have_sent(scope):
            host, scheme = _last(scope, _HOST), _last(scope, _PROTO).lower()
        return Site(
            host=host or header_of(scope, b"host"), scheme=scheme if scheme in _SCHEMES else ""
        )

    def prefix(self, scope: Scope) -> str:
        """Return the path under which a proxy says that it has this server; empty: it says none."""
        told = _last(scope, _PREFIX).rstrip("/") if self.have_sent(scope) else ""
        return told if PATH.fullmatch(told) else ""

    def have_sent(self, scope: Scope) -> bool:
        """Return whether one of them has connected."""
        connected = scope.get("client")
        if connected is None:
            return is_unix_socket(scope.get("server"))
        return self.are_trusted(str(connected[0]))

    def are_trusted(self, host: str) -> bool:
        """Return whether ``host``, an address, is one of them."""
        if not self._networks:
            return False
        address = parsed(host)
        return address is not None and any(address in network for network in self._networks)


def is_unix_socket(server: tuple[Any, Any] | None) -> bool:
    """Return whether ``server``, as ASGI has it, is a path: then no client has an address."""
    return server is not None and server[1] is None


@lru_cache(maxsize=4096)
def parsed(host: str) -> Address | None:
    """Return the address that ``host`` is; None: it is a name, or nothing."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])  # without the interface's name
    except ValueError:
        return None
    # A server that listens on `::` sees IPv4 clients so.
    return getattr(address, "ipv4_mapped", None) or address


def header_of(scope: Scope, header: bytes) -> str:
    """Return the values of a header, with commas between them."""
    return b",".join(value for name, value in scope["headers"] if name == header).decode("latin-1")


def _last(scope: Scope, header: bytes) -> str:
    """Return the last value of a header: what the proxy next to us says."""
    return header_of(scope, header).rpartition(",")[2].strip()


def _without_port(host: str) -> str:
    """Return the address of what some proxies tell: ``1.2.3.4:567``, ``[::1]`` or ``[::1]:567``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    address, _, port = host.rpartition(":")
    return address if port.isdecimal() and address.count(".") == _DOTS else host
