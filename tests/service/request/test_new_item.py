"""Vectors to store: only such as the network makes are taken, also where they have two parts."""

import numpy as np
import pytest

from index.errors import BadVectorsError
from service.request.new_item import vector_to_store
from tests.support.models import item_and_kind

SHARE = 0.36
NETWORK = item_and_kind(item_width=4, kind_width=4, kind_share=SHARE)


def parts(item: float, kind: float) -> list[float]:
    """Return a vector whose two parts have these lengths."""
    return [item, 0, 0, 0, 0, kind, 0, 0]


def test_a_vector_whose_parts_have_their_shares_is_stored_as_it_is() -> None:
    vector_D = vector_to_store(parts(0.8, -0.6), NETWORK)

    assert vector_D.dtype == np.float32
    np.testing.assert_array_equal(vector_D, np.float32(parts(0.8, -0.6)))
    half = np.asarray(parts(0.8, 0.6), np.float16).tolist()  # as files of vectors have them
    assert np.linalg.norm(vector_to_store(half, NETWORK)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            parts(1, 0),
            "the first 4 numbers of a vector of this model have the length 0.8000, got 1",
        ),
        (parts(0.6, 0.8), "the first 4 numbers"),
        (parts(1.6, 1.2), "must have the length 1, got 2: divide it by that"),
        (parts(0, 0), "must have the length 1, got 0"),
        (parts(float("nan"), 0.6), "must have the length 1, got nan"),
        ([1.0], "must have 8 numbers, got 1"),
    ],
)
def test_any_other_vector_is_refused_with_what_is_wrong(values: list[float], sentence: str) -> None:
    with pytest.raises(BadVectorsError) as refused:
        vector_to_store(values, NETWORK)

    assert sentence in str(refused.value)
