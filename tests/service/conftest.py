"""What tests of the service share: a client of the server that a test asks for."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.server.servers import Server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of ``server``, the shared one or the file's own."""
    with server.client() as client:
        yield client
