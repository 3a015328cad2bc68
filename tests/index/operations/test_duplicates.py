"""Duplicates: pairs and groups of like items, and the time that finding them takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.gallery import Gallery
from index.items.item import NewItem
from index.operations import connected_components, duplicates
from index.operations.connected_components import ConnectedComponents, connect_near
from index.operations.duplicates import DuplicateItem, find_duplicates, find_same_content
from tests.support.fakes import new_item, unit, unit_vectors

WIDTH = 8


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        yield gallery


def found(gallery: Gallery, **options: Any) -> duplicates.Duplicates:
    return find_duplicates(gallery, on_progress=lambda _: None, **options)


def score_of(one_D: NDArray[np.float32], other_D: NDArray[np.float32]) -> np.float32:
    return np.float32(np.clip((one_D.astype(np.float64) * other_D).sum(), -1, 1))


def groups_by_hand(vectors_ND: NDArray[np.float32], min_score: float) -> list[list[int]]:
    """Return the groups of rows, by comparing every pair and walking from row to row."""
    left = set(range(len(vectors_ND)))
    groups = []
    while left:
        group, walk = set[int](), [min(left)]
        while walk:
            row = walk.pop()
            if row in group:
                continue
            group.add(row)
            walk += [
                other
                for other in left - group
                if score_of(vectors_ND[row], vectors_ND[other]) >= np.float32(min_score)
                or vectors_ND[row].tobytes() == vectors_ND[other].tobytes()
            ]
        left -= group
        groups.append(sorted(group))
    return sorted([group for group in groups if len(group) > 1], key=lambda one: (-len(one), one))


def crowd(count: int, centres: int, spread: float, seed: int) -> NDArray[np.float32]:
    """Return vectors around a few centres, some of them several times."""
    rng = np.random.default_rng(seed)
    around = unit_vectors(centres, WIDTH, seed)[rng.integers(0, centres, count)]
    vectors = unit(around + rng.normal(scale=spread, size=(count, WIDTH)))
    vectors[rng.integers(0, count, count // 5)] = vectors[rng.integers(0, count, count // 5)]
    return vectors


def put(gallery: Gallery, vectors_ND: NDArray[np.float32]) -> None:
    item = new_item("x")
    gallery.put(
        [
            NewItem(
                id=f"i{row}",
                vector_D=vector_D,
                label=None,
                metadata={},
                thumbnail=item.thumbnail,
                content_sha256=f"{row:064x}",
            )
            for row, vector_D in enumerate(vectors_ND)
        ]
    )


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 120),
    centres=st.integers(1, 20),
    spread=st.sampled_from([0.001, 0.05, 0.2]),
    seed=st.integers(0, 1000),
    min_score=st.sampled_from([-1.0, 0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_links_are_those_of_every_pair_compared(
    count: int, centres: int, spread: float, seed: int, min_score: float
) -> None:
    vectors = crowd(count, centres, spread, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connected_components, "BLOCK_ROWS", 16)
        patch.setattr(connected_components, "BLOCK_COLUMNS", 24)
        patch.setattr(connected_components, "PENDING", 50)
        linked = ConnectedComponents(count)
        rows = np.arange(count)
        for row in rows:  # the same bytes are the caller's to link
            for other in rows:
                if vectors[row].tobytes() == vectors[other].tobytes():
                    linked.add(np.array([row]), np.array([other]))
        connect_near(vectors, rows, linked, min_score=min_score, on_progress=lambda _: None)

    groups = sorted([group.tolist() for group in linked.groups()], key=lambda one: (-len(one), one))
    assert groups == groups_by_hand(vectors, min_score)


@pytest.mark.parametrize("paired_rows", [1000, 0])
def test_groups_are_those_found_by_hand_with_and_without_looking_at_all_pairs(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, paired_rows: int
) -> None:
    """The second way asks the gallery for neighbours, more and more of them."""
    monkeypatch.setattr(duplicates, "PAIRED_ROWS", paired_rows)
    monkeypatch.setattr(duplicates, "FIRST_K", 2)
    monkeypatch.setattr(duplicates, "QUERIES", 50)
    monkeypatch.setattr(duplicates, "HITS", 64)
    if not paired_rows:  # as if it had a structure, which answers exactly
        info = gallery.info
        monkeypatch.setattr(
            gallery, "info", lambda: type("Info", (), {"structure": "graph", "count": info().count})
        )
    vectors = crowd(300, 25, 0.02, seed=3)
    put(gallery, vectors)
    gone = ["i0", "i7", "i299"]
    gallery.delete(gone)
    rows = np.array([row for row in range(300) if f"i{row}" not in gone])
    progress: list[float] = []

    answer = find_duplicates(gallery, min_score=0.98, on_progress=progress.append)

    expected = groups_by_hand(vectors[rows], 0.98)
    assert len(expected) > 5
    assert [{member.id for member in group} for group in answer.near] == [
        {f"i{rows[place]}" for place in group} for group in expected
    ]
    for group in answer.near:
        first = group[0].id
        assert int(first[1:]) == min(int(member.id[1:]) for member in group), "the oldest is first"
        later = [member.score for member in group[1:]]
        assert later == sorted(later, reverse=True)
        for member in group:
            score = score_of(gallery.vector(first), gallery.vector(member.id))
            assert member.score == float(score)
    assert answer.complete == bool(paired_rows)
    assert answer.seq == gallery.seq
    assert progress == sorted(progress)
    assert progress[-1] == 1


def with_a_structure(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gallery say that it is large and has a structure; it answers exactly."""
    monkeypatch.setattr(duplicates, "PAIRED_ROWS", 0)
    info = gallery.info
    monkeypatch.setattr(
        gallery, "info", lambda: type("Info", (), {"structure": "graph", "count": info().count})
    )


def test_where_asking_for_neighbours_is_slower_all_pairs_are_looked_at(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_structure(gallery, monkeypatch)
    monkeypatch.setattr(duplicates, "QUERIES", 50)
    monkeypatch.setattr(duplicates, "GRACE_S", 0.0)
    monkeypatch.setattr(duplicates, "estimate_all_pairs_s", lambda count, width: 1e-9)
    vectors = crowd(300, 3, 0.001, seed=3)  # tight: each asks for a hundred neighbours
    put(gallery, vectors)
    progress: list[float] = []

    answer = find_duplicates(gallery, min_score=0.98, on_progress=progress.append)

    assert answer.complete
    groups = [{int(member.id[1:]) for member in group} for group in answer.near]
    assert groups == [set(group) for group in groups_by_hand(vectors, 0.98)]
    assert progress == sorted(progress)
    assert progress[-1] == 1


@pytest.mark.parametrize("asks", [True, False])
def test_what_progress_raises_ends_the_work_within_a_batch(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    if asks:
        with_a_structure(gallery, monkeypatch)
    monkeypatch.setattr(duplicates, "FIRST_K", 2)
    monkeypatch.setattr(duplicates, "HITS", 2)
    monkeypatch.setattr(connected_components, "BLOCK_COLUMNS", 10)
    put(gallery, crowd(300, 3, 0.001, seed=3))  # one batch, one block of rows
    calls = 0

    def stop(done: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        find_duplicates(gallery, min_score=0.98, on_progress=stop)
    assert calls == 5


def test_the_time_of_all_pairs_grows_with_the_square_of_the_items() -> None:
    few, many = (
        connected_components.estimate_all_pairs_s(10_000, 64),
        connected_components.estimate_all_pairs_s(1_000_000, 64),
    )

    assert 0 < 100 * few < many


def test_a_chain_is_one_group_though_its_ends_are_far_apart(gallery: Gallery) -> None:
    angles = np.arange(5) * 0.1
    put(gallery, unit(np.stack([np.cos(angles), np.sin(angles), *[0 * angles] * 6], axis=1)))

    (group,) = found(gallery, min_score=0.99).near

    assert [member.id for member in group] == ["i0", "i1", "i2", "i3", "i4"]
    assert group[-1].score == pytest.approx(np.cos(0.4))


def test_items_of_one_content_are_exact_duplicates(gallery: Gallery) -> None:
    gallery.put(
        [
            new_item(item_id, seed=seed)
            for item_id, seed in zip("abcdefg", [1, 2, 1, 3, 2, 2, 4], strict=True)
        ]
    )

    exact = found(gallery, min_score=1).exact

    assert [[member.id for member in group] for group in exact] == [["b", "e", "f"], ["a", "c"]]
    assert exact[0][1] == DuplicateItem("e", pytest.approx(1))
    assert find_same_content(gallery) == exact


def test_a_gallery_without_items_or_likenesses_has_no_groups(gallery: Gallery) -> None:
    assert found(gallery, min_score=-1).near == []
    put(gallery, np.eye(WIDTH, dtype=np.float32))

    assert found(gallery, min_score=0.5).near == []
    assert len(found(gallery, min_score=-1).near[0]) == WIDTH


@pytest.mark.parametrize("min_score", [-1.1, 1.01, float("nan")])
def test_a_score_that_is_no_cosine_is_refused(gallery: Gallery, min_score: float) -> None:
    with pytest.raises(ValueError, match="min_score must be in"):
        found(gallery, min_score=min_score)
