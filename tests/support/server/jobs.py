"""Waiting for jobs of a server, and for whatever else is to happen soon."""

import time
from collections.abc import Callable
from typing import Any

import httpx

ENDED = ("done", "failed", "cancelled")


def ended(client: httpx.Client, job_id: str, *, timeout_s: float = 60) -> dict[str, Any]:
    """Wait until the job has ended, and return it."""
    job: dict[str, Any] = {}

    def has_ended() -> bool:
        job.update(client.get(f"/v1/jobs/{job_id}").json())
        return job["state"] in ENDED

    wait_for(has_ended, timeout_s=timeout_s)
    assert job["ended"] is not None
    return job


def wait_for(condition: Callable[[], object], *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
