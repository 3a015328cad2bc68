"""A real nginx in front of a server, as a child process with files and ports of its own."""

import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.server.servers import START_S, free_port

# Debian puts it where only root looks for programs.
NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
DEPLOYED: Final = ROOT / "deploy" / "nginx"
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
        listen 127.0.0.1:{port};
        {server}
    }}
}}
"""


@dataclass(frozen=True)
class DeployedNginx:
    """deploy/nginx, running."""

    url: str  # over TLS
    plain_url: str
    certificate: Path
    log: Path

    @property
    def trust(self) -> ssl.SSLContext:
        """Return a context that takes its certificate."""
        return ssl.create_default_context(cafile=self.certificate)

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """Return a client with this address, one of the loopback interface."""
        transport = httpx.HTTPTransport(verify=self.trust, local_address=address)
        return httpx.Client(base_url=self.url, timeout=30, transport=transport)


@contextmanager
def running_nginx(folder: Path, server: str, *, http: str = "") -> Iterator[str]:
    """Run nginx with these lines in its ``http`` and ``server`` blocks, and give its address."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder.mkdir(parents=True)
    port = free_port()
    file = folder / "nginx.conf"
    blocks = {"folder": folder, "http": http, "server": server, "port": port}
    file.write_text(CONFIGURATION.format(**blocks))
    checked = subprocess.run(
        [NGINX, "-t", "-p", folder, "-c", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([NGINX, "-p", folder, "-c", file])
    url = f"http://127.0.0.1:{port}"
    with _until_the_end(process, url, True, folder / "error.log"):
        yield url


@contextmanager
def deployed_nginx(folder: Path, upstream: str) -> Iterator[DeployedNginx]:
    """Run deploy/nginx as it is, but for where it listens, writes, and finds the service.

    Args:
        folder: for its files; it is made.
        upstream: host and port of the service.
    """
    if NGINX is None:
        pytest.skip("nginx is not installed")
    (folder / "tls").mkdir(parents=True)
    certificate, _ = make_certificate(folder / "tls")
    tls, plain, log = free_port(), free_port(), folder / "log"
    changed = {
        "listen 8443 ": f"listen 127.0.0.1:{tls} ",
        "listen 8080;": f"listen 127.0.0.1:{plain};",
        "server lookalike:3000;": f"server {upstream};",
        " /tmp/": f" {folder}/",
    }
    for file in DEPLOYED.iterdir():
        text = file.read_text()
        for before, after in changed.items() if file.name == "nginx.conf" else ():
            assert before in text, before
            text = text.replace(before, after)
        (folder / file.name).write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""  # the folder is nobody else's
    command = [NGINX, "-p", folder, "-c", folder / "nginx.conf", "-g", f"daemon off; {user}"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr, checked.stderr
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    url, trust = f"https://127.0.0.1:{tls}", ssl.create_default_context(cafile=certificate)
    with _until_the_end(process, f"{url}/metrics", trust, log):
        yield DeployedNginx(url, f"http://127.0.0.1:{plain}", certificate, log)


@contextmanager
def _until_the_end(
    process: subprocess.Popen[bytes], url: str, trust: ssl.SSLContext | bool, log: Path
) -> Iterator[None]:
    try:
        deadline = time.monotonic() + START_S
        while not _listens(url, trust):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        yield
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
