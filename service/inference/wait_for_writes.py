"""Waiting for writes: a request that must see one waits here, on no thread and in nobody's way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

POLL_S: Final = 0.005  # between two looks at what was written


class WriteWaiter:
    """Looks at the gallery's newest write while anybody waits for one; used on one event loop."""

    def __init__(self, look: Callable[[], Awaitable[int]]) -> None:
        """``look`` brings the index up to date and returns the number of the newest write."""
        self._look = look
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait_for(self, seq: int, *, timeout_s: float) -> bool:
        """Wait until write ``seq`` can be found; return whether it came in time.

        Raises:
            StorageError, GalleryFolderError: the log cannot be read.
        """
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[came] = seq
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on())
        try:
            async with asyncio.timeout(timeout_s):
                await came
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(came, None)
        return True

    async def _look_on(self) -> None:
        try:
            while self._waiting:
                seq = await self._look()
                for came, wanted in list(self._waiting.items()):
                    if wanted <= seq and not came.done():
                        came.set_result(None)
                await asyncio.sleep(POLL_S)
        except Exception as error:  # everybody who waits hears of it
            for came in self._waiting:
                if not came.done():
                    came.set_exception(error)
        finally:
            self._looking = None
