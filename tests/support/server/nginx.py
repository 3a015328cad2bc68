"""A real nginx in front of a server, as a child process with files and ports of its own."""

import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.server.servers import START_S, free_port

# Debian puts it where only root looks for programs.
NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIGURATION: Final = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 20m;
    {http}
    server {{
        listen 127.0.0.1:{port}{ssl};
        {server}
    }}
}}
"""


@contextmanager
def running_nginx(
    folder: Path, server: str, *, http: str = "", certificate: Path | None = None
) -> Iterator[str]:
    """Run nginx with these lines in its ``http`` and ``server`` blocks, and give its address."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder.mkdir(parents=True)
    port = free_port()
    file = folder / "nginx.conf"
    blocks = {"folder": folder, "http": http, "server": server, "port": port}
    file.write_text(CONFIGURATION.format(ssl=" ssl" if certificate else "", **blocks))
    checked = subprocess.run(
        [NGINX, "-t", "-p", folder, "-c", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([NGINX, "-p", folder, "-c", file])
    url = f"http{'s' if certificate else ''}://127.0.0.1:{port}"
    trust = ssl.create_default_context(cafile=certificate) if certificate else True
    try:
        deadline = time.monotonic() + START_S
        while not _listens(url, trust):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(url: str, trust: ssl.SSLContext | bool) -> bool:
    try:
        httpx.get(url, timeout=30, verify=trust)
    except httpx.TransportError:
        return False
    return True


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate for 127.0.0.1 and its key, both new; needs the program ``openssl``."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
