"""The wall clock jumps by hours, forwards and back, under a running server: nothing comes of it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest

from service.security.api_keys import make_key
from tests.support.faults.shifted_clock import ShiftedClock
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.jobs import ended
from tests.support.server.servers import Server, answered, running_bento_server

PER_MINUTE = 20  # requests of one key
PNG = {"Content-Type": "image/png"}
JUMPS = (5, -5, 0)  # hours off the real time


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> ShiftedClock:
    return ShiftedClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def shifted(
    clock: ShiftedClock,
    model: Path,
    tokens: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server with that clock, and keys: one for all, one with a quota, one that expires."""
    folder = tmp_path_factory.mktemp("shifted")
    write_gallery(folder / "gallery", model)
    keys = {
        "all": make_key("all", ["read", "write", "admin", "metrics"]),
        "few": make_key("few", ["read"]),
        "expires": make_key("expires", ["read"], expires=datetime.now(UTC) + timedelta(hours=1)),
    }
    tokens.update({name: key.token for name, key in keys.items()})
    few = f"{keys['few'].lines}requests_per_minute = {PER_MINUTE}\n"
    (folder / "keys.toml").write_text("\n".join([keys["all"].lines, few, keys["expires"].lines]))
    with running_bento_server(
        folder / "log",
        LOOKALIKE_MODEL=str(model),
        LOOKALIKE_GALLERY=str(folder / "gallery"),
        LOOKALIKE_API_KEYS_FILE=str(folder / "keys.toml"),
        **clock.environment,
    ) as server:
        yield server


def client_of(server: Server, token: str) -> httpx.Client:
    return server.client(headers={"Authorization": f"Bearer {token}"})


def test_requests_writes_and_probes_go_on(
    shifted: Server, clock: ShiftedClock, tokens: dict[str, str]
) -> None:
    seqs = []
    with client_of(shifted, tokens["all"]) as client:
        began = answered(client.get("/v1/gallery"))["seq"]
        for number, hours in zip(count(), JUMPS, strict=False):
            clock.jump_to(hours)
            put = client.put(f"/v1/items/item-{number}", content=png(500 + number), headers=PNG)
            seqs.append(answered(put)["seq"])
            found = answered(client.post("/v1/search?k=1", content=png(500 + number), headers=PNG))
            assert found["hits"][0]["id"] == f"item-{number}"
            assert found["timings_ms"]["total"] < 60_000
            assert client.get("/readyz").status_code == client.get("/livez").status_code == 200
            uptime_s = re.search(r'uptime_seconds\{worker="1"\} (\S+)', client.get("/metrics").text)
            assert uptime_s is not None
            assert 0 < float(uptime_s[1]) < 3600
    assert seqs == [began + 1, began + 2, began + 3]


def test_a_quota_is_neither_given_anew_nor_taken_for_hours(
    shifted: Server, clock: ShiftedClock, tokens: dict[str, str]
) -> None:
    passed = 0
    waits = []
    with client_of(shifted, tokens["few"]) as client:
        for number in range(2 * PER_MINUTE):
            clock.jump_to(JUMPS[number % len(JUMPS)])
            answer = client.get("/v1/model")
            if answer.status_code == 200:
                passed += 1
            else:
                assert answer.status_code == 429
                waits.append(int(answer.headers["retry-after"]))
    clock.jump_to(0)
    assert PER_MINUTE <= passed < 2 * PER_MINUTE  # a minute may have ended meanwhile
    assert waits
    assert 1 <= min(waits) <= max(waits) <= 120


def test_a_key_expires_by_the_wall_clock_of_now(
    shifted: Server, clock: ShiftedClock, tokens: dict[str, str]
) -> None:
    with client_of(shifted, tokens["expires"]) as client:
        statuses = []
        for hours in (0, 5, -5):
            clock.jump_to(hours)
            statuses.append(client.get("/v1/model").status_code)
    clock.jump_to(0)
    assert statuses == [200, 401, 200]


def test_the_newest_job_comes_first_also_after_the_clock_was_set_back(
    shifted: Server, clock: ShiftedClock, tokens: dict[str, str]
) -> None:
    with client_of(shifted, tokens["all"]) as client:
        begun = []
        for hours in JUMPS:
            clock.jump_to(hours)
            job = answered(client.post("/v1/jobs", json={"kind": "duplicates", "min_score": 0.99}))
            begun.append(job["id"])
            assert ended(client, job["id"])["state"] == "done"
        listed = [one["id"] for one in answered(client.get("/v1/jobs"))["jobs"]]
    assert listed == begun[::-1], "what was begun last is the last to be forgotten"
