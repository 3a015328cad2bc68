"""How many images go through the network at once: measured times in, the quickest turns out."""

from collections.abc import Mapping
from typing import Final

SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # batches that may be recorded as graphs
LEAST_MOST: Final = 32  # images that a batch may have, however large or slow they are
HELD_BYTES: Final = 2**26  # of pixels in one batch, at most
TURN_S: Final = 0.05  # that a batch may take: a lone image waits for the one before it
PAYS: Final = (
    1.03  # times the images a second of the next smaller size, or larger ones gain nothing
)


class BatchPlan:
    """Cuts a batch into turns of recorded sizes so that all of them together take least time."""

    def __init__(self, seconds: Mapping[int, float], *, most: int) -> None:
        """Plan for what was measured.

        Args:
            seconds: that a turn of each recorded size takes; empty: nothing is recorded.
            most: images that a turn may have.
        """
        usable = {size: s for size, s in seconds.items() if size <= most}
        self._most = most
        self._best = min(usable, key=lambda size: usable[size] / size, default=most)
        self._first: list[int] = [0]  # the size of the first turn, by images left
        total_s = [0.0]
        for count in range(1, max(usable, default=0) + 1):
            # Of two that are as quick, the larger: it has fewer turns.
            cost_s, size = min(
                (s + total_s[max(0, count - size)], -size) for size, s in usable.items()
            )
            total_s.append(cost_s)
            self._first.append(-size)

    def turn(self, count: int) -> int:
        """Return the size of the first turn for ``count`` images, which may be more than these."""
        if len(self._first) == 1:
            return min(count, self._most)
        return self._first[count] if count < len(self._first) else self._best


def padded(count: int) -> int:
    """Return the least size that holds ``count`` images, or the largest there is."""
    return next((size for size in SIZES if size >= count), SIZES[-1])


def most_in_memory(image_bytes: int) -> int:
    """Return the largest size whose pixels take no more than is held for a batch."""
    fitting = [size for size in SIZES if size * image_bytes <= HELD_BYTES]
    return max(LEAST_MOST, *fitting) if fitting else LEAST_MOST


def most_in_time(seconds: Mapping[int, float], most: int) -> int:
    """Return the largest size, up to ``most``, that should not take longer than a turn may.

    Sizes that were not measured are taken to be as quick for each image as the largest that was.
    """
    if not seconds:
        return most
    largest = max(seconds)
    image_s = seconds[largest] / largest
    fitting = [size for size in SIZES if size <= most and size * image_s <= TURN_S]
    return max(min(LEAST_MOST, most), *fitting, 1)


def pays(seconds: Mapping[int, float], size: int) -> bool:
    """Say whether ``size`` does clearly more images a second than any smaller size measured."""
    rates = [smaller / s for smaller, s in seconds.items() if smaller < size]
    return not rates or size / seconds[size] >= PAYS * max(rates)
