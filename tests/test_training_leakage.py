"""Splits by content, leaks and contradictions, on numbers that stand for images."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataset.listing import Part
from tests.pictures import picture
from training.leakage import find_contradictions, find_leaks, name_leaks, number_contents
from training.pixels import content_of
from training.split import choose_contents, last_of_each_class

SHARES = st.floats(0.05, 0.9)
SEEDS = st.integers(0, 5)


def of_one_class_each(contents: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and contents, every content being of one class only."""
    contents_N = number_contents([bytes([content]) for content in contents])
    return np.array([content % 3 for content in contents], np.int64), contents_N


# Splitting


def choose_images(labels_N: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """Return a mask of ``share`` of every class, image by image: the slow twin."""
    order_N = np.random.default_rng(seed).permutation(len(labels_N))
    chosen_N = np.zeros(len(labels_N), np.bool_)
    chosen_N[order_N] = last_of_each_class(labels_N[order_N], share)
    return chosen_N


def test_a_choice_takes_its_share_of_every_class_but_never_all() -> None:
    labels_N = np.array([0] * 50 + [1] * 5 + [2] * 2 + [3])
    contents_N = np.arange(len(labels_N))
    chosen_N = choose_contents(labels_N, contents_N, 0.2, seed=0)
    assert np.bincount(labels_N[chosen_N], minlength=4).tolist() == [10, 1, 1, 0]
    assert not np.array_equal(chosen_N, choose_contents(labels_N, contents_N, 0.2, seed=1))


@given(st.lists(st.integers(0, 3), max_size=60), SHARES, SEEDS)
def test_without_duplicates_whole_contents_are_chosen_as_single_images_are(
    labels: list[int], share: float, seed: int
) -> None:
    labels_N = np.array(labels, np.int64)
    np.testing.assert_array_equal(
        choose_contents(labels_N, np.arange(len(labels_N)), share, seed=seed),
        choose_images(labels_N, share, seed=seed),
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=40), SHARES, SEEDS)
def test_no_content_is_in_two_parts_whatever_its_classes(
    images: list[tuple[int, int]], share: float, seed: int
) -> None:
    contents_N = number_contents([bytes([content]) for content, _ in images])
    labels_N = np.array([label for _, label in images], np.int64)
    chosen_N = choose_contents(labels_N, contents_N, share, seed=seed)
    assert not set(contents_N[chosen_N]) & set(contents_N[~chosen_N])
    for label in set(labels_N[chosen_N]):
        assert not chosen_N[labels_N == label].all()


@given(st.lists(st.integers(0, 14), max_size=40), SHARES, SEEDS)
def test_a_class_of_two_contents_is_in_both_parts_and_keeps_near_its_share(
    contents: list[int], share: float, seed: int
) -> None:
    labels_N, contents_N = of_one_class_each(contents)
    chosen_N = choose_contents(labels_N, contents_N, share, seed=seed)
    for label in set(labels_N):
        of_class_N = labels_N == label
        sizes = np.unique(contents_N[of_class_N], return_counts=True)[1]
        count = np.count_nonzero(chosen_N & of_class_N)
        assert (0 < count < sizes.sum()) == (len(sizes) > 1)
        assert count <= max(1, round(share * sizes.sum()), sizes.min())


def test_a_choice_is_the_same_every_time_and_another_with_another_seed() -> None:
    labels_N, contents_N = of_one_class_each([number // 2 for number in range(200)])
    first, second, other = (
        choose_contents(labels_N, contents_N, 0.2, seed=seed) for seed in (0, 0, 1)
    )
    assert first.tolist() == second.tolist() != other.tolist()


# Leaks

IMAGES = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(Part)), max_size=40)


def unpacked(images: list[tuple[int, Part]]) -> tuple[np.ndarray, np.ndarray]:
    contents_N = number_contents([bytes([content]) for content, _ in images])
    return contents_N, np.array([part for _, part in images], np.int64)


@given(IMAGES)
def test_leaks_are_what_comparing_every_pair_finds(images: list[tuple[int, Part]]) -> None:
    contents_N, parts_N = unpacked(images)
    expected = [
        any(content == other and part < other_part for other, other_part in images)
        for content, part in images
    ]
    assert find_leaks(contents_N, parts_N).tolist() == expected


@given(IMAGES)
def test_every_leak_is_named_with_a_twin_that_stays(images: list[tuple[int, Part]]) -> None:
    contents_N, parts_N = unpacked(images)
    leaked_N = find_leaks(contents_N, parts_N)
    leaks = name_leaks(contents_N, parts_N, [str(position) for position in range(len(images))])
    assert [int(leak.name) for leak in leaks] == np.flatnonzero(leaked_N).tolist()
    for leak in leaks:
        name, twin = int(leak.name), int(leak.twin)
        assert contents_N[name] == contents_N[twin]
        assert (leak.part, leak.twin_part) == (
            Part(parts_N[name]).name.lower(),
            Part(parts_N[twin]).name.lower(),
        )
        assert not leaked_N[twin]


def test_the_test_part_keeps_its_images_and_validation_keeps_its_from_training() -> None:
    contents_N = number_contents([b"x", b"y", b"x", b"y", b"x", b"z"])
    parts_N = np.array([0, 0, 1, 1, 2, 0])
    assert name_leaks(contents_N, parts_N, list("abcdef")) == (
        ("a", "train", "e", "test"),
        ("b", "train", "d", "validation"),
        ("c", "validation", "e", "test"),
    )


# Contradictions


def test_one_content_of_two_classes_contradicts_and_of_one_class_does_not() -> None:
    contents_N = number_contents([b"x", b"y", b"x", b"y", b"x"])
    labels_N = np.array([0, 1, 0, 1, 2])
    assert find_contradictions(contents_N, labels_N, list("abcde")) == (("a", "e"),)
    assert find_contradictions(contents_N[:0], labels_N[:0], []) == ()


# Contents


def test_contents_are_equal_when_and_only_when_all_pixels_are() -> None:
    image_CHW = np.asarray(picture(1)).transpose(2, 0, 1).copy()
    other_CHW = image_CHW.copy()
    assert content_of(image_CHW) == content_of(other_CHW)
    other_CHW[2, 29, 39] ^= 1
    assert content_of(image_CHW) != content_of(other_CHW)
