"""Images or features in memory in, batches of them on a device out, without waiting for it.

Shape suffixes: N rows in all, B in a batch; further axes are as they come.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOM_SHARE: Final = 4  # rows lie on a GPU where they fill at most one in so many of its bytes


class DeviceRows:
    """Images or features that are asked for on a device, where they lie if they fit."""

    def __init__(
        self, rows_N: NDArray[Any], device: torch.device, *, of_bytes: int | None = None
    ) -> None:
        """Take the rows to the device, if that has room for ``of_bytes`` (else: for them)."""
        self._device = device
        self._rows_N: Tensor | NDArray[Any] = rows_N
        if device.type == "cpu" and rows_N.flags.writeable:
            self._rows_N = torch.from_numpy(rows_N)
        elif device.type == "cuda":
            room = torch.cuda.get_device_properties(device).total_memory // ROOM_SHARE
            if (of_bytes or rows_N.nbytes) <= room:
                whole_N = np.require(rows_N, requirements=["C", "W"])
                self._rows_N = torch.from_numpy(whole_N).to(device)  # once; not pinned, it is large

    def part(self, part: slice) -> Tensor:
        """Return some rows in order, on the device."""
        rows_B = self._rows_N[part]
        return rows_B if isinstance(rows_B, Tensor) else self._sent(rows_B)

    def pick(self, places: list[Tensor]) -> Iterator[Tensor]:
        """Yield the rows at the places of each batch, on the device."""
        if isinstance(self._rows_N, Tensor):
            for places_B in places:
                yield self._rows_N[places_B]
            return
        sizes = [len(places_B) for places_B in places]
        for places_B in torch.split(torch.cat(places).cpu(), sizes):
            yield self._sent(self._rows_N[places_B.numpy()])

    def _sent(self, rows_B: NDArray[Any]) -> Tensor:
        rows = torch.from_numpy(np.require(rows_B, requirements=["C", "W"]))
        if self._device.type == "cuda":
            rows = rows.pin_memory()  # else the copy waits for all that was asked for before
        return rows.to(self._device, non_blocking=True)
