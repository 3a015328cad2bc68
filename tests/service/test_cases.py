"""The table of requests, over real sockets: each with the one status and code that are right.

Behind every request another one is sent at once, which asks for the probe. It is answered when the
first left the connection in order, and never when the server had to give the connection up: so
nothing is taken for a request that was part of a refused one.
"""

import json
import re
import socket
from collections import Counter
from urllib.parse import urlsplit

import pytest

from service.http.problem_details import MEDIA_TYPE
from tests.support.cases import bodies, images, items, parameters, wire
from tests.support.cases.case import Case, get
from tests.support.server.servers import Server, StrictServer

TABLE: list[Case] = [
    *(*bodies.CASES, *images.CASES, *parameters.CASES),
    *(*items.CASES, *wire.CASES),
]
PATIENCE_S = 20.0
NEXT = "the-next-request"
PROBE = get("/livez", f"X-Request-ID: {NEXT}".encode(), b"Connection: close")
MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def exchange(url: str, sent: bytes) -> bytes:
    """Return all that a server says to ``sent`` until it closes the connection."""
    where = urlsplit(url)
    said = b""
    with socket.create_connection((str(where.hostname), where.port), PATIENCE_S) as connection:
        try:
            connection.sendall(sent)
            while chunk := connection.recv(65536):
                said += chunk
        except ConnectionError:  # closed with our bytes unread; what it said before is here
            pass
    return said


def answers_in(said: bytes, *, is_head: bool) -> list[tuple[int, dict[str, str], bytes]]:
    """Return status, headers and body of each answer; those of 1xx are left out."""
    found = []
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        status = int(first.split(" ")[1])
        if status < 200:
            continue
        size = 0 if is_head and not found else int(headers["content-length"])
        found.append((status, headers, said[:size]))
        said = said[size:]
    return found


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in TABLE])
def test_a_request_gets_its_status_and_code(
    case: Case, server: Server, request: pytest.FixtureRequest
) -> None:
    url, sent = server.url, case.request
    if case.strict:
        strict: StrictServer = request.getfixturevalue("strict_server")
        url = strict.url
        for name, token in strict.tokens.items():
            sent = sent.replace(f"@{name}@".encode(), token.encode())
    is_head = sent.startswith(b"HEAD ")

    (status, headers, body), *behind = answers_in(exchange(url, sent + PROBE), is_head=is_head)

    assert status == case.status, body
    if not is_head:
        assert_code(case, headers, body)
    assert [headers["x-request-id"] for _, headers, _ in behind] == ([] if case.closes else [NEXT])
    assert [status for status, _, _ in behind] == ([] if case.closes else [200])


def assert_code(case: Case, headers: dict[str, str], body: bytes) -> None:
    """Check the one shape that every problem has, or the codes of the items of one request."""
    if case.status < 400:
        answer = json.loads(body) if body else {}
        codes = [result.get("code") for result in answer.get("results", ())]
        assert (",".join(map(str, codes)) if case.status == 207 else None) == case.code, body
        return
    assert headers["content-type"] == MEDIA_TYPE, body
    problem = json.loads(body)
    assert problem["code"] == case.code, body
    assert set(problem) == MEMBERS
    assert problem["status"] == case.status
    assert problem["request_id"] == headers["x-request-id"]
    assert 10 < len(problem["detail"]) < 400
    assert not re.search(r"Traceback|Error\b|0x[0-9a-f]{6}|\.py\b|PIL|pydantic", problem["detail"])


def test_nothing_that_was_refused_was_stored(server: Server) -> None:
    said = exchange(server.url, get("/v1/items/refused", b"Connection: close"))

    assert answers_in(said, is_head=False)[0][0] == 404


def test_no_two_cases_have_the_same_name_or_send_the_same() -> None:
    names, sent = [case.name for case in TABLE], [(case.strict, case.request) for case in TABLE]
    assert [name for name, times in Counter(names).items() if times > 1] == []
    assert [request for request, times in Counter(sent).items() if times > 1] == []


def test_the_table_is_as_long_as_was_promised() -> None:
    assert len(TABLE) >= 120
