"""Splits by lots, leaks, copies and contradictions, on numbers that stand for images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.listing import Part
from training.data.images.leakage import (
    SAME_IMAGE,
    SAME_THING,
    find_contradictions,
    find_copies,
    find_leaks,
    name_leaks,
)
from training.data.images.split import (
    Draw,
    choose_groups,
    group_keys_of_contents,
    group_keys_of_positions,
)

SHARES = st.floats(0.05, 0.9)
DRAWS = st.sampled_from(Draw)
CONTENTS = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2)), max_size=40)


def numbered(values: list[int]) -> np.ndarray:
    """Return a number for each value, equal for equal ones: 0 and up, without gaps."""
    return np.unique(np.array(values, np.uint64), return_inverse=True)[1].astype(np.int64)


def lots_of(contents: list[int]) -> np.ndarray:
    return group_keys_of_contents(np.array(contents, np.uint64), numbered(contents))


# Splitting


@given(CONTENTS, SHARES, DRAWS)
def test_no_lot_is_in_two_parts_and_no_class_is_taken_whole(
    images: list[tuple[int, int]], share: float, draw: Draw
) -> None:
    images += [(content, label) for content, label in images[:9]]  # some twice
    group_keys_N = lots_of([content for content, _ in images])
    labels_N = np.array([label for _, label in images], np.int64)
    chosen_N = choose_groups(labels_N, group_keys_N, share, draw)
    assert not set(group_keys_N[chosen_N]) & set(group_keys_N[~chosen_N])
    for label in set(labels_N):
        of_class_N = labels_N == label
        kept, given_up = (set(group_keys_N[of_class_N & mask]) for mask in (~chosen_N, chosen_N))
        assert kept
        if len(kept) + len(given_up) == 1:
            assert not given_up


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40, unique=True), SHARES, DRAWS)
def test_a_class_of_two_lots_gives_one_and_keeps_one(
    contents: list[int], share: float, draw: Draw
) -> None:
    labels_N = np.array([content % 3 for content in contents], np.int64)
    chosen_N = choose_groups(labels_N, lots_of(contents), share, draw)
    for label in set(labels_N):
        of_class_N = labels_N == label
        assert (0 < chosen_N[of_class_N].sum() < of_class_N.sum()) == (of_class_N.sum() > 1)


@given(st.sets(st.integers(0, 2**64 - 1), min_size=30, max_size=60), st.randoms())
def test_an_image_more_or_another_order_moves_no_other_image(
    contents: set[int], random: "np.random.Generator"
) -> None:
    before = sorted(contents)[1:]
    after = sorted(contents)
    random.shuffle(after)
    chosen = [
        dict(
            zip(
                some,
                choose_groups(
                    np.zeros(len(some), np.int64), lots_of(some), 0.5, Draw.TEST
                ).tolist(),
                strict=True,
            )
        )
        for some in (before, after)
    ]
    assert {content: chosen[1][content] for content in before} == chosen[0]


def test_a_share_is_about_what_was_asked_for_and_the_two_draws_are_independent() -> None:
    contents = np.random.default_rng(0).integers(0, 2**63, 20_000).tolist()
    group_keys_N, labels_N = lots_of(contents), np.zeros(20_000, np.int64)
    test_N, validation_N = (choose_groups(labels_N, group_keys_N, 0.2, draw) for draw in Draw)
    assert test_N.mean() == pytest.approx(0.2, abs=0.01)
    assert validation_N[~test_N].mean() == pytest.approx(0.2, abs=0.01)


@given(st.lists(st.integers(0, 3), max_size=60), SHARES)
def test_published_data_give_the_last_of_each_class(labels: list[int], share: float) -> None:
    labels_N = np.array(labels, np.int64)
    group_keys_N = group_keys_of_positions(labels_N)
    assert len(set(group_keys_N)) == len(labels_N)
    chosen_N = choose_groups(labels_N, group_keys_N, share, Draw.VALIDATION)
    for label in set(labels):
        of_class = chosen_N[labels_N == label].tolist()
        assert of_class == sorted(of_class)
        if len(of_class) > 1:
            wanted = min(max(1, share * len(of_class)), len(of_class) - 1)
            assert abs(sum(of_class) - wanted) <= 0.5 + 1e-9


def test_a_fiftieth_of_six_thousand_a_class_is_the_last_hundred_and_twenty() -> None:
    labels_N = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    chosen_N = choose_groups(labels_N, group_keys_of_positions(labels_N), 0.02, Draw.VALIDATION)
    for label in range(10):
        assert np.flatnonzero(chosen_N[labels_N == label]).tolist() == list(range(5880, 6000))


# Leaks

IMAGES = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(Part)), max_size=40)


def unpacked(images: list[tuple[int, Part]]) -> tuple[np.ndarray, np.ndarray]:
    groups_N = numbered([content for content, _ in images])
    return groups_N, np.array([part for _, part in images], np.int64)


@given(IMAGES)
def test_leaks_are_what_comparing_every_pair_finds(images: list[tuple[int, Part]]) -> None:
    groups_N, parts_N = unpacked(images)
    expected = [
        any(content == other and part < other_part for other, other_part in images)
        for content, part in images
    ]
    assert find_leaks(groups_N, parts_N).tolist() == expected


@given(IMAGES)
def test_every_leak_is_named_with_a_twin_that_stays(images: list[tuple[int, Part]]) -> None:
    groups_N, parts_N = unpacked(images)
    leaked_N = find_leaks(groups_N, parts_N)
    names = [str(position) for position in range(len(images))]
    leaks = name_leaks(groups_N, groups_N, parts_N, names)
    assert [int(leak.name) for leak in leaks] == np.flatnonzero(leaked_N).tolist()
    for leak in leaks:
        name, twin = int(leak.name), int(leak.twin)
        assert groups_N[name] == groups_N[twin]
        assert (leak.part, leak.twin_part) == (
            Part(parts_N[name]).name.lower(),
            Part(parts_N[twin]).name.lower(),
        )
        assert not leaked_N[twin]


def test_the_test_part_keeps_its_images_and_validation_keeps_its_from_training() -> None:
    groups_N = np.array([0, 1, 0, 1, 0, 2])
    parts_N = np.array([0, 0, 1, 1, 2, 0])
    assert name_leaks(groups_N, groups_N, parts_N, list("abcdef")) == (
        ("a", "train", "e", "test", SAME_IMAGE),
        ("b", "train", "d", "validation", SAME_IMAGE),
        ("c", "validation", "e", "test", SAME_IMAGE),
    )


def test_a_photo_of_a_thing_that_is_measured_is_left_out_and_a_copy_is_named_first() -> None:
    groups_N = np.array([0, 0, 0, 0, 1])
    photos_N = np.array([0, 1, 2, 1, 3])
    parts_N = np.array([0, 0, 2, 2, 0])
    assert name_leaks(groups_N, photos_N, parts_N, list("abcde")) == (
        ("a", "train", "c", "test", SAME_THING),
        ("b", "train", "d", "test", SAME_IMAGE),
    )


# Contradictions


def test_one_content_of_two_classes_contradicts_and_of_one_class_does_not() -> None:
    groups_N = np.array([0, 1, 0, 1, 0])
    labels_N = np.array([0, 1, 0, 1, 2])
    assert find_contradictions(groups_N, labels_N, list("abcde")) == (("a", "e"),)
    assert find_contradictions(groups_N[:0], labels_N[:0], []) == ()


# Copies


def test_every_copy_is_named_with_the_first_of_its_kind() -> None:
    groups_N = np.array([0, 1, 0, 2, 0])
    assert find_copies(groups_N, list("abcde")) == (("c", "a"), ("e", "a"))
