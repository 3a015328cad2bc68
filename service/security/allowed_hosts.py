"""The host names that requests may be sent to: a defence against DNS rebinding.

A page on the web can make its own name resolve to this machine a moment later; a browser then takes
this server for a part of that page, and lets it read and write here. Its requests name the page's
host, which no honest client of a server on the loopback interface does.
"""

import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from starlette.types import Scope

from service.config import ANY
from service.errors import HostNotAllowedError
from service.security.trusted_proxies import TrustedProxies, header_value, parse_address

PROBES: Final = ("/livez", "/readyz")  # sent to whatever address an orchestrator was given


class AllowedHosts:
    """Which values of ``Host`` are allowed.

    Without a list: any, except that on the loopback interface without keys only addresses, names
    without a dot, names under ``localhost`` and this machine's own are. With a list: those on it,
    and from trusted proxies also the local ones; the host that a proxy forwards is checked too.
    """

    def __init__(self, allowed: Sequence[str], proxies: TrustedProxies, *, has_keys: bool) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self._proxies = proxies
        self._allows_any = ANY in self._allowed or (
            has_keys and not self._allowed
        )  # pages have no key
        own = frozenset((socket.gethostname().lower(), socket.getfqdn().lower()))
        self._is_local = lru_cache(maxsize=1024)(
            lambda host: _is_local_name(_name(host)) or _name(host) in own
        )

    def check(self, scope: Scope) -> None:
        """Check the host that the request was sent to.

        Raises:
            HostNotAllowedError: it is not allowed.
        """
        if self._allows_any or scope["path"] in PROBES:
            return
        # ``Host`` itself, not a forwarded one: a page that made its name resolve to this machine
        # can set every other header, and may come from the address of a local proxy.
        host = header_value(scope, b"host")
        if not self._allowed:
            is_allowed = self._is_local(host) or not _is_loopback(scope)
        elif self._proxies.sent(scope):
            is_allowed = self._is_listed(host) or self._is_local(host)
            if is_allowed:
                host = self._proxies.site(scope).host
                is_allowed = self._is_listed(host) or self._is_local(host)
        else:
            is_allowed = self._is_listed(host)
        if not is_allowed:
            raise HostNotAllowedError(
                f"the request is for the host {host[:100]!r}, which this server does not go by; "
                "if it should, name it in LOOKALIKE_ALLOWED_HOSTS"
            )

    def _is_listed(self, host: str) -> bool:
        return _name(host) in self._allowed


def _name(host: str) -> str:
    """Return the name in a ``Host``, lower case, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _is_local_name(name: str) -> bool:
    """Return whether nobody on the web can choose what ``name`` resolves to."""
    return "." not in name or name.endswith(".localhost") or parse_address(name) is not None


def _is_loopback(scope: Scope) -> bool:
    server = scope.get("server")
    address = parse_address(str(server[0])) if server else None
    return address is not None and address.is_loopback
