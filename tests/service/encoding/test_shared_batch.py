"""Memory of two processes: what one writes the other reads, and neither can pull it away."""

import os

import numpy as np
import pytest

from service.encoding.shared_batch import BatchShape, SharedBatch
from vision.inference.encoder import Encoding

SHAPE = BatchShape(images=3, pixels=(1, 5, 7), width=11, labels=4)


@pytest.mark.parametrize("labels", [4, 0])
def test_what_one_side_writes_the_other_reads(labels: int) -> None:
    shape = BatchShape(3, (1, 5, 7), 11, labels)
    here, file = SharedBatch.make(shape)
    there = SharedBatch(shape, file)
    os.close(file)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 1, 5, 7), np.uint8)
    here.pixels_BCHW[:] = pixels
    np.testing.assert_array_equal(there.pixels_BCHW, pixels)
    said = Encoding(
        rng.random((2, 11)).astype(np.float32), rng.random((2, labels)).astype(np.float32)
    )
    there.write_answer(said)
    answer = here.copy_answer(2)
    there.write_answer(Encoding(*(0 * part for part in said)))  # the next batch
    for given, got in zip(said, answer, strict=True):
        np.testing.assert_array_equal(given, got)


def test_neither_side_can_make_it_smaller_or_larger() -> None:
    _, file = SharedBatch.make(SHAPE)
    size = os.fstat(file).st_size
    for other in (0, size - 1, size + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(file, other)
    os.close(file)


def test_memory_of_another_size_or_without_seals_is_refused() -> None:
    _, file = SharedBatch.make(BatchShape(4, (1, 5, 7), 11, 4))
    with pytest.raises(ValueError, match="shared memory"):
        SharedBatch(SHAPE, file)
    os.close(file)
    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, SHAPE.offsets[-1])
    with pytest.raises(ValueError, match="sealed"):
        SharedBatch(SHAPE, unsealed)
    os.close(unsealed)
