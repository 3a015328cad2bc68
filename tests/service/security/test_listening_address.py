"""Where a server listens: on this machine alone, unless it was told an address."""

import json
import re
import socket
import time
from pathlib import Path

import pytest

from tests.support.galleries.small_galleries import write_gallery
from tests.support.server.servers import START_S, Server, running_bento_server, running_server


def addresses(server: Server) -> set[str]:
    """Return the IPv4 addresses at which anything listens on the server's port."""
    port = int(server.url.rpartition(":")[2])
    listening = "0A"  # see proc_net_tcp in proc(5)
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    places = [line[1].split(":") for line in lines if line[3] == listening]
    found = {address for address, at in places if int(at, 16) == port}
    return {socket.inet_ntoa(bytes.fromhex(address)[::-1]) for address in found}


def found_addresses(server: Server) -> set[str]:
    """Return them once there are any."""
    deadline = time.monotonic() + START_S
    while not (found := addresses(server)):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    return found


def check_log(log: Path, *, is_open: bool) -> None:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    messages = [line["message"] for line in lines]
    first = next(one for one in messages if not one.startswith("made the new gallery"))
    assert re.fullmatch(r"lookalike \d+\.\d+\.\d+ starts, on \S+ port \d+", first)
    warned = any("without API keys whoever reaches 0.0.0.0 may read" in one for one in messages)
    assert warned == is_open


@pytest.mark.parametrize("host", [None, "0.0.0.0"])
def test_bentomls_command_listens_beyond_this_machine_only_when_told_to(
    model: Path, tmp_path: Path, host: str | None
) -> None:
    write_gallery(tmp_path / "gallery", model)
    told = {} if host is None else {"BENTOML_HOST": host}
    environment = {
        "LOOKALIKE_MODEL": str(model),
        "LOOKALIKE_GALLERY": str(tmp_path / "gallery"),
        "BENTOML_CONTAINERIZED": "true",
        **told,
    }
    log = tmp_path / "log"
    with running_bento_server(log, wait=False, **environment) as server:
        assert found_addresses(server) == {host or "127.0.0.1"}
    check_log(log, is_open=host is not None)


@pytest.mark.parametrize(
    ("options", "environment", "host"),
    [
        ((), {}, "127.0.0.1"),
        (("--host", "0.0.0.0"), {}, "0.0.0.0"),
        ((), {"LOOKALIKE_HOST": "0.0.0.0"}, "0.0.0.0"),
    ],
    ids=["by itself", "option", "variable"],
)
def test_ours_does_too(
    model: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    environment: dict[str, str],
    host: str,
) -> None:
    log = tmp_path / "log"
    with running_server(
        model, tmp_path / "gallery", log, *options, wait=False, **environment
    ) as server:
        assert found_addresses(server) == {host}
    check_log(log, is_open=host == "0.0.0.0")
