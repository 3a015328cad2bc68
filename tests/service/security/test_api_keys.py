"""Keys and quotas: rotation without a restart, ends, limits over all workers, nothing told."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Scope

from service.api import edits, facets, inference, items, jobs, search, system
from service.errors import (
    ForbiddenError,
    ListTooLongError,
    ServiceConfigError,
    TooManyRequestsError,
    UnauthorizedError,
)
from service.security.api_keys import RIGHTS, KeyFile, NewKey, Right, make_key
from service.security.authorization import Authorizer
from service.security.rate_limits import RateLimiter
from service.security.trusted_proxies import TrustedProxies
from tests.support.galleries.small_galleries import write_gallery
from tests.support.server.servers import ROOT, Server, clean_environment, running_server

MINUTE = 60.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, seconds: float = 1000 * MINUTE) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def request(path: str = "/v1/model", method: str = "GET", address: str = "192.0.2.1") -> Scope:
    return {"type": "http", "path": path, "method": method, "client": (address, 1)}


def bearer(key: NewKey) -> str:
    return f"Bearer {key.token}"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rate_limiter(tmp_path: Path, clock: Clock) -> RateLimiter:
    return RateLimiter(tmp_path / "quotas", secret="s", clock=clock)


@pytest.fixture
def authorizer(
    tmp_path: Path, clock: Clock, rate_limiter: RateLimiter
) -> Callable[..., Authorizer]:
    """Make an authorizer of these keys."""

    def make(*keys: NewKey, wrong: int | None = None) -> Authorizer:
        path = write(tmp_path / "keys.toml", *(key.lines for key in keys))
        return Authorizer(rate_limiter, KeyFile(path, clock=clock), wrong_keys_per_minute=wrong)

    return make


# The file


def test_a_changed_file_counts_from_the_next_second_on(tmp_path: Path, clock: Clock) -> None:
    old, new = make_key("shop", ["read"]), make_key("shop", ["read"])
    path = write(tmp_path / "keys.toml", old.lines)
    keys = KeyFile(path, clock=clock)

    write(path, old.lines, new.lines)
    clock.seconds += 0.5
    assert keys.ring().find(new.token) is None
    clock.seconds += 0.5
    assert keys.ring().find(new.token) is not None
    assert keys.ring().find(old.token) is not None

    replacement = write(tmp_path / "next.toml", new.lines)
    os.replace(replacement, path)
    clock.seconds += 1
    assert keys.ring().find(old.token) is None
    assert keys.ring().find(new.token) is not None


@pytest.mark.parametrize("text", ["", "keys = 1", "[[keys]", "keys = []", None])
def test_a_file_that_cannot_be_used_leaves_the_keys_of_before_and_a_line_in_the_log(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    key = make_key("shop", ["read"])
    path = write(tmp_path / "keys.toml", key.lines)
    keys = KeyFile(path, clock=clock)
    logging.getLogger("lookalike").propagate = True

    path.unlink() if text is None else path.write_text(text)
    for _ in range(3):
        clock.seconds += 1
        assert keys.ring().find(key.token) is not None

    said = [record for record in caplog.records if "the previous keys" in record.getMessage()]
    assert len(said) == 1, "once per change, not once per second"
    assert key.token not in caplog.text
    write(path, make_key("other", ["read"]).lines)
    clock.seconds += 1
    assert keys.ring().find(key.token) is None


def test_a_token_pasted_where_its_digest_belongs_is_not_repeated(tmp_path: Path) -> None:
    token = make_key("shop", ["read"]).token
    path = write(
        tmp_path / "keys.toml", f'[[keys]]\nname = "a"\nsha256 = "{token}"\nrights = ["read"]'
    )

    with pytest.raises(ServiceConfigError) as refused:
        KeyFile(path)

    assert token not in str(refused.value)


# Rights and ends


def test_no_right_implies_another(authorizer: Callable[..., Authorizer]) -> None:
    keys = {right: make_key(right, [right]) for right in RIGHTS}
    one = authorizer(*keys.values())
    may: dict[tuple[str, str], set[Right]] = {
        ("GET", "/v1/model"): {"read"},
        ("POST", "/v1/search"): {"read"},
        ("GET", "/v1/items"): {"read"},
        ("GET", "/openapi.json"): {"read"},
        ("GET", "/nowhere"): {"read"},
        ("GET", "/metrics"): {"read", "metrics"},
        ("POST", "/v1/items"): {"write"},
        ("POST", "/v1/items/"): {"write"},
        ("PUT", "/v1/items/a"): {"write"},
        ("PATCH", "/v1/items/a"): {"write"},
        ("POST", "/v1/items/delete"): {"write"},
        ("POST", "/v1/facets"): {"read"},
        ("DELETE", "/v1/items/a"): {"write"},
        ("GET", "/v1/jobs"): {"admin"},
        ("POST", "/v1/jobs"): {"admin"},
        ("DELETE", "/v1/jobs/a"): {"admin"},
    }
    for (method, path), allowed in may.items():
        for right, key in keys.items():
            if right in allowed:
                assert one.admit(request(path, method), bearer(key)) == right
            else:
                with pytest.raises(ForbiddenError):
                    one.admit(request(path, method), bearer(key))


READING_POSTS = {
    *("/v1/classify", "/v1/embed", "/v1/facets"),
    *("/v1/search", "/v1/search/range", "/v1/search/vote"),
}


def test_every_route_that_writes_needs_the_right_to(authorizer: Callable[..., Authorizer]) -> None:
    """A new POST that stores something is open to keys that may read, unless it is told."""
    reader = make_key("reader", ["read"])
    one = authorizer(reader)
    writing = [
        (method, route.path.replace("{", "").replace("}", ""))
        for module in (edits, facets, inference, items, jobs, search, system)
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if method != "GET" and route.path not in READING_POSTS
    ]

    assert len(writing) >= 6
    for method, path in writing:
        with pytest.raises(ForbiddenError):
            one.admit(request(path, method), bearer(reader))


def test_a_key_ends_when_its_time_is_over(authorizer: Callable[..., Authorizer]) -> None:
    now = datetime.now(UTC)
    over = make_key("over", ["read"], expires=now)
    soon = make_key("soon", ["read"], expires=now + timedelta(hours=1))
    one = authorizer(over, soon)

    assert one.admit(request(), bearer(soon)) == "soon"
    with pytest.raises(UnauthorizedError, match="expired"):
        one.admit(request(), bearer(over))


@pytest.mark.parametrize("expires", ["2027-01-01", '"soon"', "2027-01-01T00:00:00", "true"])
def test_an_end_that_is_no_moment_refuses_the_file(tmp_path: Path, expires: str) -> None:
    path = write(tmp_path / "keys.toml", make_key("a", ["read"]).lines, f"expires = {expires}")

    with pytest.raises(ServiceConfigError, match="expires"):
        KeyFile(path)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer  ", "Basic {}", "{}", "Bearer x{}", "Bearer {}x", "bearer{}"],
)
def test_only_the_key_itself_after_the_word_bearer_is_a_key(
    authorizer: Callable[..., Authorizer], header: str | None
) -> None:
    key = make_key("shop", ["read"])
    one = authorizer(key)

    assert one.admit(request(), f"bearer  {key.token} ") == "shop"
    with pytest.raises(UnauthorizedError):
        one.admit(request(), header and header.format(key.token))


@pytest.mark.parametrize(
    "path", ["/page", "/doc", "/livez/", "//livez", "/v1/../livez", "/metrics", "/openapi.json", ""]
)
def test_only_probes_and_static_files_are_open(
    authorizer: Callable[..., Authorizer], path: str
) -> None:
    one = authorizer(make_key("shop", ["read"]))

    for open_path in ("/", "/livez", "/readyz", "/docs", "/docs/swagger-ui.css", "/page/page.js"):
        assert one.admit(request(open_path), None) is None
    with pytest.raises(UnauthorizedError):
        one.admit(request(path), None)


# RateLimiter


def test_keys_of_one_name_share_its_quota(authorizer: Callable[..., Authorizer]) -> None:
    old, new = make_key("shop", ["read"]), make_key("shop", ["read"])
    limit = "requests_per_minute = 3\n"
    one = authorizer(NewKey(old.token, old.lines + limit), NewKey(new.token, new.lines + limit))

    for key in (old, new, old):
        one.admit(request(), bearer(key))
    with pytest.raises(TooManyRequestsError):
        one.admit(request(), bearer(new))


@given(
    per_minute=st.integers(1, 50),
    steps=st.lists(st.floats(0, 90, allow_subnormal=False), max_size=200),
)
@example(per_minute=1, steps=[0.0, 0.0])  # a window's first instant
def test_waiting_as_long_as_told_is_enough_and_a_minute_never_holds_more(
    tmp_path_factory: pytest.TempPathFactory, per_minute: int, steps: list[float]
) -> None:
    clock = Clock()
    rate_limiter = RateLimiter(tmp_path_factory.mktemp("q") / "quotas", secret="s", clock=clock)
    taken: list[float] = []
    waits: list[int] = []
    for step in steps:
        clock.seconds += step
        try:
            rate_limiter.count("a", per_minute, "enough")
        except TooManyRequestsError as refused:
            waits.append(refused.retry_after_s)
            clock.seconds += refused.retry_after_s
            rate_limiter.count("a", per_minute, "enough")
        taken.append(clock.seconds // MINUTE)

    assert all(1 <= wait <= MINUTE + 1 for wait in waits)
    assert all(taken.count(minute) <= per_minute for minute in taken)


def test_a_quota_comes_back_and_is_nobody_elses(rate_limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(5):
        rate_limiter.count("a", 5, "enough")
    with pytest.raises(TooManyRequestsError, match="enough"):
        rate_limiter.count("a", 5, "enough")
    rate_limiter.count("b", 5, "enough")
    clock.seconds += 2 * MINUTE
    for _ in range(5):
        rate_limiter.count("a", 5, "enough")


def test_processes_at_once_let_through_exactly_what_the_quota_says(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from service.security.rate_limits import RateLimiter\n"
        "from service.errors import TooManyRequestsError\n"
        "limiter, taken = RateLimiter(Path(sys.argv[1]), secret='s', clock=lambda: 60000.0), 0\n"
        "for _ in range(3000):\n"
        "    try: limiter.count('a', 5000, ''); taken += 1\n"
        "    except TooManyRequestsError: pass\n"
        "print(taken)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "quotas")]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=clean_environment())
        for _ in range(3)
    ]

    assert sum(int(one.communicate(timeout=60)[0]) for one in running) == 5000


def test_many_addresses_cost_no_more_memory_than_few(
    rate_limiter: RateLimiter, tmp_path: Path
) -> None:
    before = (tmp_path / "quotas").stat().st_size
    for number in range(20_000):
        rate_limiter.count(f"address {number}", 100, "enough")

    assert (tmp_path / "quotas").stat().st_size == before == 2**20 + 2**16


def test_without_keys_an_address_has_a_quota_and_ipv6_counts_by_network(
    rate_limiter: RateLimiter,
) -> None:
    one = Authorizer(rate_limiter, requests_per_minute=2)
    clients = {
        "192.0.2.1": "192.0.2.1",
        "192.0.2.2": "192.0.2.2",
        "2001:db8::1": "2001:db8::ffff:2",
        "2001:db8:0:1::1": "2001:db8:0:1:ffff::",
        "fe80::1%eth0": "fe80::2%eth1",
    }
    for first, second in clients.items():
        assert one.admit(request(address=first), None) is None
        one.admit(request(address=second), None)
        with pytest.raises(TooManyRequestsError, match="2 requests a minute"):
            one.admit(request(address=first), None)
    one.admit(request("/livez"), None)
    one.admit({**request(), "client": None}, None)


def test_every_image_of_a_request_counts(rate_limiter: RateLimiter) -> None:
    one = Authorizer(rate_limiter, requests_per_minute=10)
    first, second = request(), request()
    one.admit(first, None)
    first["charge"](cost=7)
    one.admit(second, None)

    with pytest.raises(TooManyRequestsError, match="each image of a request is one"):
        second["charge"](cost=2)
    one.admit(request(), None)
    with pytest.raises(ListTooLongError, match="send fewer at once"):  # it never can
        second["charge"](cost=11)


def test_a_key_that_was_shown_to_one_worker_is_known_to_all(tmp_path: Path, clock: Clock) -> None:
    known, unseen = make_key("known", ["read"]), make_key("unseen", ["read"])
    path = write(tmp_path / "keys.toml", known.lines, unseen.lines)
    one, other = (
        Authorizer(
            RateLimiter(tmp_path / "quotas", secret="s", clock=clock),
            KeyFile(path, clock=clock),
            wrong_keys_per_minute=5,
        )
        for _ in range(2)
    )
    one.admit(request(), bearer(known))
    for number in range(5):
        with pytest.raises(UnauthorizedError):
            other.admit(request(), f"Bearer lk_{number}")

    assert other.admit(request(), bearer(known)) == "known"
    with pytest.raises(TooManyRequestsError):
        other.admit(request(), bearer(unseen))


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::/64"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.7:51234"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::7]:443"], "2001:db8::/64"),
        ("10.0.0.1", ["[2001:db8::7]"], "2001:db8::/64"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, \xff"], "10.0.0.1"),
        ("192.0.2.1", ["203.0.113.7"], "192.0.2.1"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
    ],
)
def test_only_a_trusted_proxy_is_believed_about_its_clients(
    rate_limiter: RateLimiter, peer: str, forwarded: list[str], counted: str
) -> None:
    one = Authorizer(
        rate_limiter, requests_per_minute=1, proxies=TrustedProxies([ip_network("10.0.0.0/8")])
    )
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]

    one.admit({**request(address=peer), "headers": headers}, None)

    with pytest.raises(TooManyRequestsError):
        rate_limiter.check(f"address {counted}", 1, "counted")


def test_guessing_is_slowed_and_those_who_work_behind_the_same_address_go_on(
    authorizer: Callable[..., Authorizer], clock: Clock
) -> None:
    known, unseen = make_key("known", ["read"]), make_key("unseen", ["read"])
    one = authorizer(known, unseen, wrong=5)
    one.admit(request(), bearer(known))
    for number in range(5):
        with pytest.raises(UnauthorizedError):
            one.admit(request(), f"Bearer lk_{number}")

    for guess in ("Bearer lk_5", bearer(unseen)):  # right or wrong, the answer is the same
        with pytest.raises(TooManyRequestsError, match="wrong keys") as refused:
            one.admit(request(), guess)
        assert refused.value.retry_after_s >= 1
    with pytest.raises(UnauthorizedError, match="is needed"):
        one.admit(request(), None)
    assert one.admit(request(), bearer(known)) == "known"
    assert one.admit(request(address="192.0.2.9"), bearer(unseen)) == "unseen"
    clock.seconds += 2 * MINUTE
    assert one.admit(request(), bearer(unseen)) == "unseen"


# A real server of two workers


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("keys")
    write_gallery(folder / "gallery", model)
    path = write(folder / "keys.toml", make_key("first", ["read"]).lines)
    options = ("--workers", "2", "--api-keys-file", str(path), "--wrong-keys-per-minute", "40")
    with running_server(model, folder / "gallery", folder / "log", *options) as server:
        yield server, path


def ask(server: Server, key: NewKey, *, times: int = 12) -> set[int]:
    """Return the statuses of requests, each over a connection of its own: both workers answer."""
    headers = {"Authorization": bearer(key)}
    return {
        httpx.get(f"{server.url}/v1/jobs", headers=headers, timeout=30).status_code
        for _ in range(times)
    }


def test_keys_come_and_go_on_every_worker_within_two_seconds(served: tuple[Server, Path]) -> None:
    server, path = served
    old, new = make_key("shop", ["admin"]), make_key("shop", ["admin"])
    wait = 2.0

    write(path, old.lines, new.lines)
    time.sleep(wait)
    assert ask(server, old) == ask(server, new) == {200}
    write(path, new.lines)
    time.sleep(wait)
    assert ask(server, old) == {401}
    assert ask(server, new) == {200}
    path.write_text("no [toml")
    time.sleep(wait)
    assert ask(server, new) == {200}

    write(path, new.lines)
    log = server.log.read_text()
    assert "the previous keys stay valid" in log
    assert old.token not in log
    assert new.token not in log
    assert any(
        json.loads(line).get("key") == "shop" for line in log.splitlines() if line.startswith("{")
    )


def test_a_quota_counts_over_all_workers(served: tuple[Server, Path]) -> None:
    server, path = served
    key = make_key("counted", ["admin"])
    write(path, key.lines + "requests_per_minute = 10")
    time.sleep(2)

    answers = [
        httpx.get(f"{server.url}/v1/jobs", headers={"Authorization": bearer(key)}, timeout=30)
        for _ in range(30)
    ]

    passed = [answer.status_code for answer in answers].count(200)
    assert 10 <= passed <= 20, "10, or as many again when the minute ended meanwhile"
    assert {answer.status_code for answer in answers} == {200, 429}
    waits = [int(one.headers["retry-after"]) for one in answers if one.status_code == 429]
    assert all(1 <= wait <= 61 for wait in waits)


def test_wrong_keys_are_refused_in_bulk_by_address(served: tuple[Server, Path]) -> None:
    server, path = served
    key = make_key("works", ["admin"])
    write(path, key.lines)
    time.sleep(2)
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(base_url=server.url, transport=elsewhere, timeout=30) as client:
        statuses = [
            client.get("/v1/jobs", headers={"Authorization": f"Bearer {number}"}).status_code
            for number in range(90)
        ]
        right = client.get("/v1/jobs", headers={"Authorization": bearer(key)})

    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert right.status_code == 429
    assert ask(server, key) == {200}
