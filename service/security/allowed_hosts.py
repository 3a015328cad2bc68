"""The names under which this server may be asked: a defence against DNS rebinding.

A page on the web can have its own name point to this machine a moment later; a browser then takes
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
from service.security.trusted_proxies import Proxies, header_of, parsed

PROBES: Final = ("/livez", "/readyz")  # which ask under whatever address they were given


class Hosts:
    """Which values of ``Host`` are answered.

    Without a list: any, but on the loopback interface, where nobody needs a key, only addresses,
    names without a dot, names under ``localhost`` and this machine's own. With a list, trusted
    proxies may also ask by these; what they tell that they were asked for is judged as well.
    """

    def __init__(self, allowed: Sequence[str], proxies: Proxies, *, has_keys: bool) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self._proxies = proxies
        self._is_lax = ANY in self._allowed or (has_keys and not self._allowed)  # a page has no key
        own = frozenset((socket.gethostname().lower(), socket.getfqdn().lower()))
        self._is_local = lru_cache(maxsize=1024)(
            lambda host: _is_near(_name(host)) or _name(host) in own
        )

    def check(self, scope: Scope) -> None:
        """Let the request pass, or refuse it.

        Raises:
            HostNotAllowedError: it was sent to a host that is none of these.
        """
        if self._is_lax or scope["path"] in PROBES:
            return
        # What came itself, and not what anybody says of it: a page that had its name point here
        # can set every other header, and may come from the address of a proxy of this machine.
        told = header_of(scope, b"host")
        if not self._allowed:
            is_allowed = self._is_local(told) or not _is_loopback(scope)
        elif self._proxies.have_sent(scope):
            is_allowed = self._is_listed(told) or self._is_local(told)
            if is_allowed:
                told = self._proxies.site(scope).host
                is_allowed = self._is_listed(told) or self._is_local(told)
        else:
            is_allowed = self._is_listed(told)
        if not is_allowed:
            raise HostNotAllowedError(
                f"the request is for the host {told[:100]!r}, which this server does not go by; "
                "if it should, name it in LOOKALIKE_ALLOWED_HOSTS"
            )

    def _is_listed(self, host: str) -> bool:
        return _name(host) in self._allowed


def _name(host: str) -> str:
    """Return the name in a ``Host``, lower case, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _is_near(name: str) -> bool:
    """Return whether no stranger on the web can have ``name`` point anywhere."""
    return "." not in name or name.endswith(".localhost") or parsed(name) is not None


def _is_loopback(scope: Scope) -> bool:
    server = scope.get("server")
    address = parsed(str(server[0])) if server else None
    return address is not None and address.is_loopback
