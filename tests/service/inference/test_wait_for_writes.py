"""Requests that must see a write: they wait on no thread, and hear of it when it arrives."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from index.errors import StorageError
from index.gallery import Gallery
from service.inference.wait_for_writes import WriteWaiter
from tests.support.crashes.crash_worker_main import WIDTH, item_of


def on_a_thread(look: Callable[[], int]) -> Callable[[], Awaitable[int]]:
    return lambda: asyncio.to_thread(look)


def test_waiting_ends_when_the_write_arrives_or_when_time_is_up(tmp_path: Path) -> None:
    async def wait(ours: Gallery, theirs: Gallery) -> None:
        waiter = WriteWaiter(on_a_thread(ours.catch_up))
        assert not await waiter.wait_for(1, timeout_s=0.05)

        waiting = [asyncio.create_task(waiter.wait_for(1, timeout_s=30)) for _ in range(100)]
        never = asyncio.create_task(waiter.wait_for(2, timeout_s=1))
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in waiting)
        theirs.put([item_of("a", 1)])

        assert await asyncio.gather(*waiting) == [True] * 100
        assert ours.count == 1
        assert not await never
        assert await waiter.wait_for(1, timeout_s=30), "it looks again after a pause"

    with (
        Gallery.create(
            tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
        ) as ours,
        Gallery.open(tmp_path / "g", fingerprint=None) as theirs,
    ):
        asyncio.run(wait(ours, theirs))


def test_everybody_who_waits_hears_that_the_log_cannot_be_read() -> None:
    def look() -> int:
        time.sleep(0.05)
        raise StorageError("the disk is gone")

    async def wait() -> list[bool | BaseException]:
        waiter = WriteWaiter(on_a_thread(look))
        asked = [waiter.wait_for(1, timeout_s=30) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    heard = asyncio.run(wait())

    assert [str(one) for one in heard] == ["the disk is gone"] * 3
    with pytest.raises(StorageError):
        raise heard[0]  # type: ignore[misc]
