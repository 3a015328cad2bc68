"""Connections of a real server: what is not HTTP, too much, too slow, or gone."""

import json
import os
import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from PIL import Image
from uvicorn.config import Config

from service.request.gateway import Gateway
from service.server.connection import LINGER_S, MAX_PIPELINED, WorkerProtocol
from service.server.connection_limits import SHARE
from service.server.request_head import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES
from service.worker import Connection
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import encoded, png
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import Server, running_server
from vision.image.decode import decode_image

HEADER_S, BODY_S, ANSWER_S = 2.0, 2.0, 3.0
SLACK_S = 10.0  # for a machine that has much else to do
CONNECTIONS = 60
SHARED = int(CONNECTIONS * SHARE)  # that one address may have
KEEP_ALIVE_S = 4.0
HALF = b"POST /v1/classify HTTP/1.1\r\nHost:"


@pytest.fixture(scope="module")
def impatient(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with short deadlines, few connections and little room for bodies."""
    options = (
        *("--header-timeout-s", str(HEADER_S), "--body-timeout-s", str(BODY_S)),
        *("--answer-timeout-s", str(ANSWER_S), "--max-connections", str(CONNECTIONS)),
        *("--max-body-bytes", "1000000", "--max-bodies-bytes", "2500000"),
        *("--keep-alive-s", str(KEEP_ALIVE_S)),
    )
    with gallery_server(model, tmp_path_factory.mktemp("impatient"), *options) as running:
        yield running


def connect(server: Server, *, source: str = "127.0.0.1") -> socket.socket:
    """Connect from an address of this machine: all of 127.0.0.0/8 are."""
    port = int(server.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))


def read_all(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def ask(server: Server, *pieces: bytes) -> bytes:
    with connect(server) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return read_all(connection)


def code_of(answer: bytes) -> tuple[int, str]:
    """Return the status and code of a problem, after checking that the answer says it closes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer
    assert b"connection: close" in head
    problem = json.loads(body)
    assert problem["request_id"].encode() in head
    assert f" {problem['status']} ".encode() in head.split(b"\r\n")[0]
    return problem["status"], problem["code"]


def test_a_worker_of_bentoml_uses_our_connections() -> None:
    from service import app  # noqa: PLC0415 - BentoML's own way: the service first, then uvicorn

    config = Config(app.stand_before(Gateway()), log_config=None)
    config.load()

    assert config.http_protocol_class is Connection
    assert issubclass(Connection, WorkerProtocol)


MALFORMED = {
    "no HTTP at all": b"GARBAGE\r\n\r\n",
    "TLS to a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a length and chunks": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Content-Length: 6\r\n\r\nhello!",
    "a length that is no number": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: -5\r\n\r\n",
    "a header without a colon": b"GET /livez HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "a space before the colon": b"GET /livez HTTP/1.1\r\nHost : a\r\n\r\n",
    "a control character in a header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "a bare line feed as the end of a chunk size": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk without an end": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": b"GET /livez HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a path that is not ASCII": b"GET /caf\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_http_is_answered_with_a_problem_and_closed(
    impatient: Server, sent: bytes
) -> None:
    assert code_of(ask(impatient, sent)) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /" + b"a" * MAX_URL_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", (414, "url_too_long")),
        (b"GET /" + b"a" * 2_000_000, (414, "url_too_long")),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * MAX_HEADERS + b"\r\n",
            (431, "headers_too_large"),
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * MAX_HEADER_BYTES + b"\r\n\r\n",
            (431, "headers_too_large"),
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2_000_000, (431, "headers_too_large")),
        (
            b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\n" + b"X: y\r\n" * 1000,
            (431, "headers_too_large"),
        ),
        (
            b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1;" + b"x" * 2_000_000,
            (431, "headers_too_large"),
        ),
    ],
    ids=["url", "endless url", "many", "large", "endless header", "trailers", "endless extension"],
)
def test_heads_that_are_too_large_are_refused(
    impatient: Server, sent: bytes, expected: tuple[int, str]
) -> None:
    assert code_of(ask(impatient, sent)) == expected


def test_a_connection_that_sends_nothing_is_closed_silently(impatient: Server) -> None:
    started = time.monotonic()

    assert ask(impatient) == b""
    assert HEADER_S - 0.5 < time.monotonic() - started < HEADER_S + SLACK_S


def test_headers_that_trickle_are_answered_with_408(impatient: Server) -> None:
    started = time.monotonic()
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        connection.settimeout(0.1)
        answer = b""
        while not answer:
            connection.sendall(b"X")  # of a name that never ends
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                assert time.monotonic() - started < HEADER_S + SLACK_S
        connection.settimeout(30)
        answer += read_all(connection)

    assert code_of(answer) == (408, "request_timeout")


def test_a_second_request_has_as_much_time_as_the_first(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(HEADER_S * 0.75)
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        time.sleep(HEADER_S * 0.75)
        connection.sendall(b"Host: a\r\nConnection: close\r\n\r\n")

        assert read_all(connection).count(b"200 OK") == 2


def test_many_half_open_and_trickling_clients_are_closed_and_cost_others_nothing(
    impatient: Server,
) -> None:
    started = time.monotonic()
    with ExitStack() as stack:
        half = [stack.enter_context(connect(impatient)) for _ in range(CONNECTIONS // 2)]
        for one in half:
            one.sendall(b"POST /v1/classify HTTP/1.1\r\nHost:")
        slow = [stack.enter_context(connect(impatient)) for _ in range(CONNECTIONS // 5)]
        for one in slow:
            one.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n")
        with impatient.client() as client:
            for _ in range(20):
                answer = client.post("/v1/classify", content=png(1))
                assert answer.status_code == 200
        answers = [read_all(one) for one in (*half, *slow)]

    assert {code_of(answer) for answer in answers} == {(408, "request_timeout")}
    assert time.monotonic() - started < 2 * SLACK_S


def test_one_connection_too_many_is_told_so(impatient: Server) -> None:
    with ExitStack() as stack:
        for source in ("127.0.0.2", "127.0.0.3"):
            for _ in range(CONNECTIONS // 2):
                stack.enter_context(connect(impatient, source=source)).sendall(HALF)
        time.sleep(0.5)
        answer = ask(impatient)

    assert code_of(answer) == (503, "overloaded")
    assert b"retry-after: " in answer.lower()
    _until_served(impatient)


def test_one_address_cannot_have_all_connections(impatient: Server) -> None:
    with ExitStack() as stack:
        for _ in range(SHARED):
            stack.enter_context(connect(impatient, source="127.0.0.2")).sendall(HALF)
        time.sleep(0.5)
        with connect(impatient, source="127.0.0.2") as one_more:
            refused = read_all(one_more)
        served = ask(impatient, b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert code_of(refused) == (429, "too_many_requests")
    assert b"retry-after: " in refused.lower()
    assert b"200 OK" in served


def assert_served(connection: socket.socket) -> None:
    """Ask for something on a connection that stays open, and read the whole answer."""
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = b""
    while not answer.endswith(b'"status":"ok"}'):
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_an_idle_connection_gives_way_to_one_that_asks(impatient: Server) -> None:
    with ExitStack() as stack:
        idle = [
            stack.enter_context(connect(impatient, source=f"127.0.0.{2 + number % 2}"))
            for number in range(CONNECTIONS)
        ]
        for one in idle:
            assert_served(one)
        with connect(impatient) as another:
            assert_served(another)
        assert idle[0].recv(100) == b"", "the one that had waited longest was kept"
        assert_served(idle[1])


def test_a_connection_waits_for_its_next_request_as_long_as_the_setting_says(
    impatient: Server,
) -> None:
    with connect(impatient) as connection:
        assert_served(connection)
        started = time.monotonic()
        assert connection.recv(100) == b""

    assert KEEP_ALIVE_S - 0.5 < time.monotonic() - started < KEEP_ALIVE_S + SLACK_S


def _until_served(server: Server, path: str = "/livez", content: bytes | None = None) -> None:
    method = "GET" if content is None else "POST"
    deadline = time.monotonic() + 3 * SLACK_S
    while time.monotonic() < deadline:
        try:
            answer = httpx.request(method, f"{server.url}{path}", content=content, timeout=30)
        except httpx.TransportError:
            continue
        if answer.status_code == 200:
            return
    raise AssertionError("the server does not answer any more")


def test_twice_too_many_connections_are_closed_without_a_word(impatient: Server) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(impatient)) for _ in range(3 * CONNECTIONS)]
        time.sleep(0.5)
        held[-1].settimeout(5)
        try:
            last = held[-1].recv(100)
        except ConnectionResetError:
            last = b""

    assert last == b""
    _until_served(impatient)


def test_requests_sent_at_once_are_answered_in_order(impatient: Server) -> None:
    body = png(1)
    classify = (
        b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nX-Request-ID: %d\r\nContent-Length: "
        + str(len(body)).encode()
        + b"\r\n\r\n"
        + body
    )
    sent = b"".join(classify.replace(b"%d", str(n).encode(), 1) for n in range(8))
    last = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    answer = ask(impatient, sent + last)

    assert answer.count(b"HTTP/1.1 200 OK") == 9
    places = [answer.index(b"x-request-id: %d\r\n" % n) for n in range(8)]
    assert places == sorted(places)


def test_more_requests_at_once_than_are_kept_are_refused(impatient: Server) -> None:
    one = b"GET /v1/gallery HTTP/1.1\r\nHost: a\r\n\r\n"

    answer = ask(impatient, one * (MAX_PIPELINED + 5))

    assert answer.count(b"HTTP/1.1 200 OK") == MAX_PIPELINED + 1
    assert code_of(answer[answer.rindex(b"HTTP/1.1 503") :]) == (503, "overloaded")


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(impatient: Server) -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n"

    answer = ask(impatient, head + b"Expect: 100-continue\r\n\r\n")

    assert b"100 Continue" not in answer
    assert code_of(answer) == (413, "payload_too_large")


def test_a_body_that_is_awaited_is_asked_for(impatient: Server) -> None:
    body = png(1)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: "
    with connect(impatient) as connection:
        connection.sendall(head + str(len(body)).encode() + b"\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)

        assert read_all(connection).startswith(b"HTTP/1.1 200 OK")


def test_who_goes_on_sending_too_large_a_body_can_read_why(impatient: Server) -> None:
    """The answer comes while most of the body is on its way: a reset would destroy it."""
    started = time.monotonic()
    with connect(impatient) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n"
        )
        connection.sendall(b"a" * 3_000_000)
        time.sleep(0.3)

        assert code_of(read_all(connection)) == (413, "payload_too_large")
        for _ in range(100):  # and it is not read for ever
            try:
                connection.sendall(b"a" * 1000)
            except ConnectionError:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the connection was kept")
    assert time.monotonic() - started < LINGER_S + SLACK_S


def test_bodies_of_all_requests_together_are_bounded(impatient: Server) -> None:
    """Room for two and a half bodies: of five that come, three are refused."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    head += bytes(999_000)
    with ExitStack() as stack:
        held = [stack.enter_context(connect(impatient)) for _ in range(5)]
        for one in held:
            one.sendall(head)
        refused = []
        for one in held:
            one.settimeout(0.5)
            try:
                refused.append(one.recv(65536))
            except TimeoutError:
                continue
        with impatient.client() as client:
            small = client.post("/v1/classify", content=png(1))

    assert len(refused) == 3
    for answer in refused:
        assert b"503" in answer.split(b"\r\n")[0]
        assert b'"overloaded"' in answer
        assert b"retry-after: " in answer.lower()
    assert small.status_code == 200


def test_a_body_that_is_only_announced_takes_no_room(impatient: Server) -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(connect(impatient)).sendall(head)
        time.sleep(0.5)
        with impatient.client() as client:
            large = client.post("/v1/classify", content=noise(540))

    assert large.status_code == 200


def noise(side: int) -> bytes:
    """Return a PNG of about three bytes a pixel."""
    pixels = random.Random(0).randbytes(3 * side**2)
    return encoded(Image.frombytes("RGB", (side, side), pixels))


def test_a_body_may_take_long_as_long_as_it_goes_on(impatient: Server) -> None:
    body = noise(100)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    with connect(impatient) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 4_000):
            time.sleep(BODY_S / 4)
            connection.sendall(body[start : start + 4_000])
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 200"), answer


def test_a_body_that_trickles_is_answered_with_408(impatient: Server) -> None:
    started = time.monotonic()
    with connect(impatient) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"
        )
        connection.settimeout(0.1)
        answer = b""
        while not answer:
            connection.sendall(b"x" * 10)
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                assert time.monotonic() - started < BODY_S + SLACK_S
        connection.settimeout(30)
        answer += read_all(connection)

    assert code_of(answer) == (408, "request_timeout")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("pieces", [1, 7])
def test_an_offer_to_speak_another_protocol_is_passed_over(
    impatient: Server, framing: str, pieces: int
) -> None:
    """As `curl --http2` and Java's HttpClient make it; other requests may follow."""
    body = png(1)
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    sent = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n" + offer
    if framing == "length":
        sent += b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        sent += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body
        sent += b"\r\n0\r\n\r\n"
    sent += b"GET /v1/model HTTP/1.1\r\nHost: a\r\n" + offer + b"\r\n"
    sent += b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    size = -(-len(sent) // pieces)

    answer = ask(impatient, *(sent[start : start + size] for start in range(0, len(sent), size)))

    assert answer.count(b"HTTP/1.1 200 OK") == 3
    places = [answer.index(word) for word in (b'"predictions"', b'"architecture"', b'"ok"')]
    assert places == sorted(places)
    assert b" 101 " not in answer


def test_a_trailer_is_no_header(impatient: Server) -> None:
    body = png(1)
    answer = ask(
        impatient,
        b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n"
        % len(body)
        + body
        + b"\r\n0\r\nX-Request-ID: forged\r\nContent-Type: application/json\r\n\r\n",
    )

    assert b"200 OK" in answer
    assert b"forged" not in answer


def test_a_client_of_http_1_0_is_not_told_to_go_on(impatient: Server) -> None:
    body = png(1)
    answer = ask(
        impatient,
        b"POST /v1/classify HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body,
    )

    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_does_not_read_its_answers_is_dropped(impatient: Server) -> None:
    """It asks again and again for the document, and reads nothing."""
    one = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        started = time.monotonic()
        dropped = False
        while not dropped and time.monotonic() - started < ANSWER_S + 2 * SLACK_S:
            try:
                connection.sendall(one)
                time.sleep(0.002)
            except TimeoutError:
                continue
            except ConnectionError:
                dropped = True

    assert dropped
    _until_served(impatient)


LARGE = (4000, 4000)  # pixels; a tenth of a second to decode, few bytes to send


def classify_request(body: bytes) -> bytes:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_work_for_a_client_that_went_away_is_given_up(model: Path, tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery", model)
    body = encoded(Image.new("RGB", LARGE))
    started = time.process_time()
    decode_image(body)
    decode_s = time.process_time() - started
    with running_server(
        model, tmp_path / "gallery", tmp_path / "log", "--max-wait-s", "1000"
    ) as server:
        (worker,) = server.workers()
        before = cpu_s(worker)
        for _ in range(100):
            with connect(server) as connection:
                connection.sendall(classify_request(body))
        _until_served(server, "/v1/classify", content=png(1))
        used_s = cpu_s(worker) - before
    gone = server.log.read_text().count('"status":499')  # written to the end when it stopped

    assert gone > 50
    assert used_s < 100 * decode_s / 2, "the abandoned images were decoded"


def test_work_that_takes_too_long_is_given_up(model: Path, tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery", model)
    request = classify_request(encoded(Image.new("RGB", LARGE)))
    options = ("--request-timeout-s", "1", "--max-wait-s", "1000")
    with running_server(model, tmp_path / "gallery", tmp_path / "log", *options) as server:
        with ExitStack() as stack:
            asked = [stack.enter_context(connect(server)) for _ in range(200)]
            for one in asked:
                one.sendall(request)
            answers = [read_all(one) for one in asked]
        _until_served(server, "/v1/classify", content=png(1))

    late = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200")]
    assert late
    for answer in late:
        assert code_of(answer) == (503, "timed_out")
        assert b"retry-after: " in answer.lower()


def test_a_worker_may_open_as_many_files_as_its_connections_need(
    model: Path, tmp_path: Path
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    options = ("--max-connections", "5000")
    with gallery_server(model, tmp_path, *options) as server:
        (worker,) = server.workers()
        soft, _ = resource.prlimit(worker, resource.RLIMIT_NOFILE)

    assert soft >= min(hard, 10_000)
