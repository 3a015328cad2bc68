"""Rows on a device are the rows in memory, wherever they lie."""

import numpy as np
import pytest
import torch

from training.fit.device_rows import DeviceRows

ROWS = np.arange(60, dtype=np.uint8).reshape(10, 1, 2, 3)
PLACES = [torch.tensor([7, 0, 3]), torch.tensor([9, 9])]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fits", [True, False])
def test_rows_are_those_in_memory(device: str, fits: bool) -> None:
    rows_N = ROWS.copy()
    rows_N.flags.writeable = fits  # on a CPU what may not be written is copied batch by batch
    place = torch.device(device)
    rows = DeviceRows(rows_N, place, of_bytes=None if fits else 2**60)
    places = [one.to(place) for one in PLACES]
    for places_B, picked in zip(PLACES, rows.pick(places), strict=True):
        assert picked.device.type == device
        np.testing.assert_array_equal(picked.cpu().numpy(), ROWS[places_B.numpy()])
    np.testing.assert_array_equal(rows.part(slice(2, 5)).cpu().numpy(), ROWS[2:5])
