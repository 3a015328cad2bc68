"""The server's process: settings in, what can be wrong checked, then BentoML's server in it."""

import os
import sys
import tempfile
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Final

from cli.support.console import print_info, stderr
from files.module_command import ROOT, module_command, module_environment
from service.config import PREFIX, ServiceSettings
from service.errors import ServiceConfigError
from service.inference.preflight import check_settings
from service.security.listening_address import check_port

SERVICE: Final = "service.app:Lookalike"
GRACE_S: Final = 5  # beyond the time that a request in flight may take, after the signal to stop


def start_server(settings: Mapping[str, object], *, host: str, port: int) -> None:
    """Serve until stopped, after checking all that can be checked quickly.

    Raises:
        VisionError, VectorIndexError, ServiceConfigError: something cannot be used.
    """
    prepare_server(settings, host=host, port=port)
    if stderr.is_terminal:  # a file holds the server's own lines alone
        path = settings.get("unix_socket")
        place = f"at http://{browser_host(host)}:{port}/" if path is None else f"behind {path}"
        print_info(f"Starting. The page will be {place} in a few seconds.")
    run_server(host, port)


def server_command(settings: Mapping[str, object], *, host: str, port: int) -> list[str]:
    """Return the command of the server, its settings put into this process's environment.

    Raises:
        VisionError, VectorIndexError, ServiceConfigError: something cannot be used.
    """
    prepare_server(settings, host=host, port=port)
    return module_command("cli.support.bento_process", host, str(port))


def prepare_server(settings: Mapping[str, object], *, host: str, port: int) -> None:
    """Put the settings into this process's environment, and check them with what they name.

    Raises:
        VisionError, VectorIndexError, ServiceConfigError: something cannot be used.
    """
    for name, value in settings.items():
        if value is not None:
            os.environ[PREFIX + name.upper()] = str(value)
    checked = ServiceSettings.from_environment()
    if checked.model is None:
        raise ServiceConfigError("no model folder was named")
    if checked.unix_socket is None:
        check_port(host, port)
    else:
        from service.server.unix_socket import check_path  # noqa: PLC0415 - circus takes long

        check_path(checked.unix_socket)
    check_settings(checked, checked.model)


def run_server(host: str, port: int) -> None:
    """Be BentoML's server, with settings from the environment, until it was stopped."""
    environment = module_environment()  # workers inherit it
    os.environ.clear()
    os.environ.update(environment, BENTOML_DO_NOT_TRACK="True")
    _find_home()
    from _bentoml_impl.loader import load  # noqa: PLC0415 - a second
    from _bentoml_impl.server import serve_http  # noqa: PLC0415

    load(SERVICE, str(ROOT)).inject_config()
    request_s = ServiceSettings.from_environment().request_timeout_s
    serve_http(
        SERVICE,
        working_dir=str(ROOT),
        host=host,
        port=port,
        timeout_graceful_shutdown=ceil(request_s) + GRACE_S,
    )


def _find_home() -> None:
    """Have BentoML keep its own files among the temporary ones where it may write nowhere else."""
    if "BENTOML_HOME" in os.environ:
        return
    home = Path(os.path.expanduser("~")) / "bentoml"
    if not any(os.access(one, os.W_OK | os.X_OK) for one in (home, home.parent)):
        place = Path(tempfile.gettempdir()) / f"lookalike-bentoml-{os.getuid()}"
        os.environ["BENTOML_HOME"] = str(place)


def browser_host(host: str) -> str:
    """Return the name by which a browser on this machine finds what listens on ``host``."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    run_server(sys.argv[1], int(sys.argv[2]))
