"""How many requests may be worked on at once; past that, a new one is refused immediately."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import OverloadedError


class Admission:
    """A counter with a ceiling; used on one event loop, so it needs no lock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.admitted = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one place for as long as the block runs.

        Raises:
            OverloadedError: every place is taken.
        """
        if self.admitted >= self.limit:
            raise OverloadedError(f"{self.limit} requests are being worked on; try again shortly")
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1
