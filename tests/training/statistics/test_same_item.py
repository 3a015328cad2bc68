"""Views of a photo, and how often they find it among others."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.views import VIEWS, draw_views, make_views
from training.statistics.same_item import Searched, choose_photos, find_others, find_views

SIDE = 32


@pytest.fixture(scope="module")
def photos() -> NDArray[np.uint8]:
    """Smooth pictures that differ, as photos do."""
    coarse = np.random.default_rng(0).integers(40, 216, (12, 3, 4, 4), dtype=np.uint8)
    return coarse.repeat(SIDE // 4, axis=2).repeat(SIDE // 4, axis=3)


def flat(pixels_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An encoder that knows pixels by heart and nothing else."""
    rows = pixels_BCHW.reshape(len(pixels_BCHW), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def among(vectors_KD: NDArray[np.float32], photos_K: NDArray[np.int64]) -> Searched:
    return Searched(vectors_KD, photos_K, np.full(len(photos_K), -1))


def test_a_view_depends_on_the_photo_and_the_seed_alone(photos: NDArray[np.uint8]) -> None:
    contents = np.arange(12, dtype=np.uint64) + 2**63
    all_at_once = make_views(photos, contents)
    assert all_at_once.shape == (VIEWS, *photos.shape)
    np.testing.assert_array_equal(make_views(photos[5:6], contents[5:6])[:, 0], all_at_once[:, 5])
    np.testing.assert_array_equal(make_views(photos, contents, views=1), all_at_once[:1])
    assert draw_views(7, seed=1) != draw_views(7)
    assert draw_views(7) != draw_views(8)


def test_a_view_never_looks_beyond_the_edges_of_its_photo() -> None:
    white = np.full((1, 40, 40), 255, np.uint8)
    for content in range(200):
        for view in draw_views(content):
            cut = view._cut(white[0])
            assert cut.min() == 255, view


def test_a_view_is_the_part_of_the_photo_it_says_it_is() -> None:
    ramp = np.tile(np.arange(100, dtype=np.uint8), (100, 1))
    for content in range(20):
        for view in draw_views(content):
            middle = view._cut(ramp)[49:51, 49:51].mean()
            assert middle == pytest.approx(view.left * 100 - 0.5, abs=1)
            across = float(view._cut(ramp)[50].astype(float) @ np.linspace(-1, 1, 100))
            assert (across < 0) == view.mirrored


def test_half_of_the_views_are_mirrored_and_light_changes_all_of_them() -> None:
    views = [view for content in range(50) for view in draw_views(content)]
    assert sum(view.mirrored for view in views) == 50
    gray = np.full((3, 8, 8), 100, np.uint8)
    assert len({view.of(gray).tobytes() for view in views}) > 90
    grey_scale = views[0].of(gray[:1])
    assert grey_scale.shape == (1, 8, 8)
    assert grey_scale[0, 0, 0] == round(100 * views[0].brightness)


def test_each_view_finds_its_photo_where_the_vectors_tell_photos_apart() -> None:
    gallery = np.eye(5, dtype=np.float32)
    photos = np.arange(5)
    found = find_views(np.stack([gallery, gallery]), photos, among(gallery, photos))
    assert (found.r_at_1, found.r_at_10, found.gallery) == (1, 1, 5)
    low, high = found.r_at_1_interval
    assert low < 1 == high


def test_a_query_that_finds_another_photo_counts_as_its_share_of_that_photo() -> None:
    gallery = np.eye(3, dtype=np.float32)
    photos = np.arange(3)
    right, wrong = gallery, gallery[[1, 0, 2]]
    found = find_views(np.stack([right, wrong]), photos, among(gallery, photos))
    assert found.first_N.tolist() == [0.5, 0.5, 1]
    assert found.r_at_1 == pytest.approx(2 / 3)
    assert found.r_at_10 == 1


def test_of_two_equal_scores_the_wrong_photo_counts_as_nearer() -> None:
    gallery = np.ones((2, 1), np.float32)
    photos = np.arange(2)
    assert find_views(gallery[None], photos, among(gallery, photos)).r_at_1 == 0


def test_a_copy_of_a_photo_is_as_good_as_the_photo() -> None:
    gallery = np.eye(3, dtype=np.float32)
    kept = np.array([7, 8, 7])  # the last is a copy of the first
    found = find_views(gallery[None, [2]], np.array([7]), among(gallery, kept))
    assert found.r_at_1 == 1


def test_made_views_are_found_by_an_encoder_that_sees_what_is_in_them(
    photos: NDArray[np.uint8],
) -> None:
    contents = np.arange(12, dtype=np.uint64)
    views = make_views(photos, contents, seed=0)

    def middle(pixels_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Look at the middle, and do not tell left from right."""
        middle_BCHW = pixels_BCHW[:, :, 8:24, 8:24] // 2
        return flat(middle_BCHW + middle_BCHW[..., ::-1])

    def blind(pixels_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.ones((len(pixels_BCHW), 1), np.float32)

    found, by_chance = (
        find_views(
            encode(views.reshape(-1, *photos.shape[1:])).reshape(VIEWS, len(photos), -1),
            contents,
            among(encode(photos), contents),
        )
        for encode in (middle, blind)
    )
    assert found.setup == "made views"
    assert found.r_at_1 > 0.8
    assert by_chance.r_at_1 == 0


def test_photos_of_one_group_find_each_other_without_their_copies() -> None:
    gallery = np.eye(4, dtype=np.float32)
    gallery[3] = gallery[0]
    groups = np.array([0, 0, -1, 0])
    photos = np.array([10, 11, 12, 10])  # the last is a copy of the first
    queries = np.array([[1, 0.5, 0.1, 0]], np.float32)
    searched = Searched(gallery, photos, groups)
    found = find_others(queries, groups[:1], photos[:1], searched)
    assert found is not None
    assert (found.setup, found.r_at_1) == ("groups", 1)
    far = find_others(queries[:, [0, 2, 1, 3]], groups[:1], photos[:1], searched)
    assert far is not None
    assert far.r_at_1 == 0


def test_photos_without_another_of_their_group_are_not_searched_for() -> None:
    gallery = np.eye(3, dtype=np.float32)
    photos = np.arange(3)
    apart, two = np.array([0, 1, -1]), np.array([0, 0, -1])
    assert find_others(gallery, apart, photos, Searched(gallery, photos, apart)) is None
    found = find_others(gallery, two, photos, Searched(gallery, photos, two))
    assert found is not None
    assert len(found.first_N) == 2


def test_the_photos_that_views_are_made_of_do_not_depend_on_their_order() -> None:
    contents = np.random.default_rng(1).integers(0, 2**63, 50).astype(np.uint64)
    order = np.random.default_rng(2).permutation(50)
    chosen = set(contents[choose_photos(contents, most=10)].tolist())
    assert len(chosen) == 10
    assert chosen == set(contents[order][choose_photos(contents[order], most=10)].tolist())
    assert choose_photos(contents).tolist() == list(range(50))
