"""The server's process: settings in, what can be wrong checked, BentoML's command out."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cli.support.console import print_info, stderr
from cli.support.preflight import check_port, check_settings
from service.config import PREFIX
from service.server.worker_count import worker_count
from vision.model.manifest import read_manifest

SERVICE: Final = "service.app:Lookalike"
GRACE_S: Final = 30  # for requests in flight, after the signal to stop


def start_server(settings: Mapping[str, object], *, host: str, port: int) -> None:
    """Replace this process by the server, after checking all that can be checked quickly.

    Raises:
        VisionError, VectorIndexError, ServiceConfigError: something cannot be used.
    """
    from files.module_command import module_environment  # noqa: PLC0415

    command = server_command(settings, host=host, port=port)
    if stderr.is_terminal:  # a file holds the server's own lines alone
        path = settings.get("unix_socket")
        place = f"at http://{browser_host(host)}:{port}/" if path is None else f"behind {path}"
        print_info(f"Starting. The page will be {place} in a few seconds.")
    sys.stdout.flush()  # what was printed would go with this process
    os.execve(command[0], command, module_environment())  # its workers inherit that


def server_command(settings: Mapping[str, object], *, host: str, port: int) -> list[str]:
    """Return the command of the server, its settings put into this process's environment.

    Raises:
        VisionError, VectorIndexError, ServiceConfigError: something cannot be used.
    """
    from service.inference.open_gallery import make_gallery  # noqa: PLC0415

    for name, value in settings.items():
        if value is not None:
            os.environ[PREFIX + name.upper()] = str(value)
    checked = check_settings()
    os.environ[f"{PREFIX}WORKERS"] = str(worker_count(checked))
    if checked.unix_socket is None:
        check_port(host, port)
    else:
        from service.server.unix_socket import check_path  # noqa: PLC0415 - circus takes long

        check_path(checked.unix_socket)
    if checked.model is not None:
        make_gallery(checked, read_manifest(checked.model), model_folder=checked.model)
    os.environ[f"{PREFIX}CREATE"] = "false"  # a worker that starts later makes no second one
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    root = Path(__file__).resolve().parents[2]
    return [
        *(sys.executable, "-P", "-m", "bentoml", "serve", SERVICE),
        *("--working-dir", str(root), "--host", host, "--port", str(port)),
        *("--timeout-graceful-shutdown", str(GRACE_S)),
    ]


def browser_host(host: str) -> str:
    """Return the name by which a browser on this machine finds what listens on ``host``."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host
