"""Where the server listens, and to whom: on this machine alone, unless an address is named."""

import ipaddress
import logging
import socket
from typing import Final

import click
from click.core import ParameterSource

from service.errors import ServiceConfigError, SettingError

LOOPBACK: Final = "127.0.0.1"
BENTOML_DEFAULT: Final = "0.0.0.0"
_NAMED: Final = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
logger = logging.getLogger("lookalike.service")


def choose_host(host: str) -> str:
    """Return where to listen of ``host``, which BentoML's server was given or chose by itself.

    BentoML listens on all interfaces where nobody named one by ``--host`` or by the variable
    ``BENTOML_HOST``.
    """
    context = click.get_current_context(silent=True)
    if context is None:  # our own command, which always names one
        return host
    was_named = context.get_parameter_source("host") in _NAMED
    return LOOPBACK if host == BENTOML_DEFAULT and not was_named else host


def check_port(host: str, port: int) -> None:
    """Check that a server can listen there.

    Raises:
        SettingError: this is no IP address.
        ServiceConfigError: it cannot, for one because another program does.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError as error:
        raise SettingError(f"cannot listen on {host}: it is no IP address") from error
    family = socket.AF_INET6 if version == 6 else socket.AF_INET  # noqa: PLR2004
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ServiceConfigError(
                f"cannot listen on {host} port {port}: {getattr(error, 'strerror', error)}; "
                "choose another with --port"
            ) from error


def warn_if_open(host: str, *, has_keys: bool) -> None:
    """Log a warning where everybody who reaches this machine may do everything."""
    if not has_keys and not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "without API keys whoever reaches %s may read, change and delete everything: name a "
            "key file with LOOKALIKE_API_KEYS_FILE, or see that only those reach it who may",
            host,
        )
