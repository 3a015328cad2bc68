"""Every item finds itself, and queries from anywhere find what is nearest to them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from files.durable import write_bytes
from index.gallery import Gallery
from index.items.item import NewItem, QueryItem
from index.search.ann_index import AnnIndex
from index.search.index_spec import IndexSpec
from index.search.unindexed_rows import COMPARED_NUMBERS
from index.search.vector_matrix import Matrix
from index.snapshot.segments.immutable_segment import ImmutableSegment, ImmutableSegmentView
from tests.support.fakes import new_item, unit, unit_vectors
from tests.support.galleries.index_worlds import (
    WORLDS,
    Rows,
    homogeneous,
    near_twins,
    one_hot,
    vectors_of,
)
from tests.support.galleries.segments import measured_base, rebuilt, scores_of

ROWS = 400
WIDTHS = [2, 3, 17, 64]

World = Callable[[np.random.Generator, int, int], Rows]


def low_effort(kind: str, width: int) -> IndexSpec:
    """Return a spec that looks at hardly anything."""
    even = f"PCA{width - 1}," if width % 2 else ""
    factory = {
        "lists": "IVF16",
        "graph": "HNSW8",
        "quantized": f"{even}IVF16,PQ{width // 2}x4fsr",
    }[kind]
    search_depth = 16 if kind == "graph" else 1
    return IndexSpec(
        kind=kind,
        factory=factory,
        scalar_quantizer=kind != "quantized",
        construction=20,
        search_depth=search_depth,
        k_factor=2,
    )  # type: ignore[arg-type]


def structured(vectors_ND: NDArray[np.float32], spec: IndexSpec) -> ImmutableSegment:
    """Return a base as a rebuild would make it with this spec, whatever its recall."""
    matrix = Matrix.of(vectors_ND)
    ann_index = AnnIndex.build(matrix, spec, count=len(vectors_ND))
    return ImmutableSegment(
        generation=1,
        seq=0,
        keys_N=np.arange(1, len(vectors_ND) + 1),
        matrix=matrix,
        spec=spec,
        ann_index=ann_index.with_unindexed_rows(),
    )


def not_themselves(
    view: ImmutableSegmentView, rows: NDArray[np.int64], *, at_once: int
) -> list[int]:
    """Return the rows whose own vector finds neither them nor one that scores as much."""
    wrong = []
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        queries_QD = np.ascontiguousarray(view.vectors_ND[some])
        for row, (keys, _) in zip(some, view.search(queries_QD, k=1, allowed=None), strict=True):
            pair_2D = view.vectors_ND[[keys[0] - 1, row]]
            found, own = scores_of(pair_2D, view.vectors_ND[row])
            if found < own:
                wrong.append(int(row))
    return wrong


@pytest.mark.parametrize("kind", ["lists", "graph", "quantized"])
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_every_item_of_every_world_finds_itself(world: World, kind: str) -> None:
    for width in WIDTHS:
        view = ImmutableSegmentView(
            structured(vectors_of(world, ROWS, width, seed=1), low_effort(kind, width))
        )

        assert not_themselves(view, np.arange(ROWS), at_once=ROWS) == [], width
        assert not_themselves(view, np.arange(0, ROWS, 7), at_once=1) == [], width


@pytest.mark.parametrize("width", [161, 784])
def test_every_item_finds_itself_however_wide(width: int) -> None:
    for world in (homogeneous, near_twins):
        view = ImmutableSegmentView(
            structured(vectors_of(world, ROWS, width, seed=1), low_effort("lists", width))
        )

        assert not_themselves(view, np.arange(ROWS), at_once=ROWS) == []


@pytest.mark.parametrize(
    ("world", "kind", "count", "seed", "share"),
    [
        (homogeneous, "quantized", 300, 0, 0.5),  # it meets more rows of the same code
        (one_hot, "graph", 305, 5, 0.5),  # the one twin that it found is gone
        (homogeneous, "graph", 586, 998, 1 / 16),  # a queue of 17 passes by what one of 16 finds
    ],
)
def test_an_item_finds_itself_when_others_are_gone(
    world: World, kind: str, count: int, seed: int, share: float
) -> None:
    base = structured(vectors_of(world, count, 16, seed=seed), low_effort(kind, 16))
    gone = np.random.default_rng(seed).permutation(base.keys_N)[: int(share * count)]
    view = ImmutableSegmentView(base).without(np.sort(gone))

    assert not_themselves(view, view.live_rows(), at_once=1) == []


@pytest.mark.parametrize("kind", ["lists", "graph", "quantized"])
def test_every_item_finds_itself_however_hard_and_for_how_many_hits_it_is_looked_for(
    kind: str,
) -> None:
    base = structured(vectors_of(homogeneous, 300, 16, seed=998), low_effort(kind, 16))
    assert base.ann_index is not None
    queries_QD = base.matrix.rows_ND

    for search_depth in range(1, 40):
        ann_index = base.ann_index.with_spec(replace(base.spec, search_depth=search_depth))
        for k in (1, 2, 15):
            _, rows_QK = ann_index.search(queries_QD, k)
            assert (rows_QK == np.arange(300)[:, np.newaxis]).any(axis=1).all(), (search_depth, k)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_item_that_is_left_finds_itself(data: st.DataObject) -> None:
    world = data.draw(st.sampled_from(WORLDS))
    kind, width = data.draw(st.sampled_from(["lists", "graph", "quantized"])), 16
    seed = data.draw(st.integers(0, 1000))
    vectors_ND = vectors_of(world, data.draw(st.integers(300, 900)), width, seed=seed)
    base = structured(vectors_ND, low_effort(kind, width))
    gone = np.random.default_rng(seed).permutation(base.keys_N)
    view = ImmutableSegmentView(base).without(
        np.sort(gone[: int(data.draw(st.floats(0, 0.9)) * len(gone))])
    )

    rows = view.live_rows()
    assert not_themselves(view, rows, at_once=data.draw(st.sampled_from([1, 7, 1000]))) == []
    k = data.draw(st.integers(1, 30))
    queries_QD = np.ascontiguousarray(vectors_ND[rows[:20]])
    for keys, scores in view.search(queries_QD, k=k, allowed=None):
        assert len(set(keys.tolist())) == len(keys) == min(k, len(view))
        assert np.isin(keys - 1, rows).all()
        assert (np.diff(scores) <= 0).all()
        assert scores[0] == pytest.approx(1, abs=1e-6)


def test_rows_that_are_compared_come_with_their_true_scores_and_only_once() -> None:
    vectors_ND = vectors_of(homogeneous, 3000, 32, seed=0)
    base = structured(vectors_ND, low_effort("lists", 32))
    assert base.ann_index is not None
    assert base.ann_index.unindexed is not None, "the three unlike rows are missed by themselves"
    unlike = np.sort(base.ann_index.unindexed.rows)[:3]
    queries_QD = unit(vectors_ND[unlike] + 0.05 * unit_vectors(3, 32, seed=9))

    for query_D, row in zip(queries_QD, unlike, strict=True):
        ((keys, scores),) = ImmutableSegmentView(base).search(
            query_D[np.newaxis], k=5, allowed=None
        )
        assert keys[0] == row + 1
        assert len(set(keys.tolist())) == 5
        assert scores[0] == pytest.approx(float(vectors_ND[row] @ query_D), abs=1e-6)


def test_more_strays_than_are_compared_are_found_by_what_they_equal() -> None:
    width = 784
    vectors_ND = vectors_of(near_twins, 1500, width, seed=0)
    base = structured(vectors_ND, low_effort("lists", width))
    assert base.ann_index is not None
    assert base.ann_index.unindexed is not None
    assert len(base.ann_index.unindexed.rows) > COMPARED_NUMBERS // width

    assert not_themselves(ImmutableSegmentView(base), np.arange(1500), at_once=100) == []


def item_of(name: str, vector_D: NDArray[np.float32]) -> NewItem:
    thumbnail = new_item("x").thumbnail
    return NewItem(
        id=name,
        vector_D=vector_D,
        label=None,
        metadata={},
        thumbnail=thumbnail,
        content_sha256=f"{int(name):064x}",
    )


def filled(folder: Path, vectors_ND: NDArray[np.float32]) -> Gallery:
    gallery = Gallery.create(
        folder, model_name="fake", fingerprint="a1" * 32, width=vectors_ND.shape[1]
    )
    for start in range(0, len(vectors_ND), 2_000):
        rows = range(start, min(start + 2_000, len(vectors_ND)))
        gallery.put([item_of(str(row), vectors_ND[row]) for row in rows])
    return gallery


def strangers(gallery: Gallery, vectors_ND: NDArray[np.float32], ids: list[int]) -> list[int]:
    """Return those of the ids that are not the first hit of their own vector."""
    wrong = []
    for start in range(0, len(ids), 4_096):
        some = ids[start : start + 4_096]
        found = gallery.search(vectors_ND[some], k=1).hits
        wrong += [one for one, hits in zip(some, found, strict=True) if hits[0].id != str(one)]
    return wrong


LATER = 200  # rows of a large gallery that are not stored when it is made


@dataclass(frozen=True)
class Large:
    """A gallery of rows that are much alike, rebuilt with the default settings.

    Three rows look like nothing else; the last ``LATER`` are not stored yet.
    """

    folder: Path
    vectors_ND: NDArray[np.float32]
    unlike: list[int]

    @property
    def count(self) -> int:
        return len(self.vectors_ND) - LATER


@pytest.fixture(scope="module", params=[21_000, pytest.param(60_000, marks=pytest.mark.slow)])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Large:
    """A large gallery; to be read, not changed."""
    count, width = request.param, 32
    rng = np.random.default_rng(3)
    few_dimensions_ND = rng.normal(size=(count + LATER, 5)) @ rng.normal(size=(5, width))
    vectors_ND = unit(rng.normal(size=width) + 0.1 * few_dimensions_ND)
    unlike = [1, count // 2 | 1, count - 1]
    vectors_ND[unlike] = unit_vectors(3, width, seed=11)
    folder = tmp_path_factory.mktemp("large") / "g"
    with filled(folder, vectors_ND[:count]) as gallery:
        made = rebuilt(gallery.folder)
        assert gallery.adopt_newest_generation()
        info = gallery.info()
        assert info.structure == made.spec.kind != "exact"
        assert info.recall_low is not None
        assert info.recall is not None
        assert info.recall_high is not None
        assert 0.99 <= info.recall_low <= info.recall <= info.recall_high
        assert info.recall_queries == 1_000
    return Large(folder, vectors_ND, unlike)


def test_queries_from_another_world_find_what_a_scan_finds(large: Large) -> None:
    rng = np.random.default_rng(5)
    stored_ND = large.vectors_ND[: large.count]
    rows_QD = stored_ND[rng.integers(0, large.count, 100)]
    elsewhere = {
        "noise": unit_vectors(100, 32, seed=6),
        "positive noise": np.abs(unit_vectors(100, 32, seed=7)),
        "opposite": -rows_QD,
        "one-hot": np.eye(32, dtype=np.float32),
        "shuffled": np.ascontiguousarray(rows_QD[:, rng.permutation(32)]),
        "another gallery": vectors_of(homogeneous, 100, 32, seed=77),
        "much noise": unit(0.4 * rows_QD + 0.9 * unit_vectors(100, 32, seed=8)),
    }

    with Gallery.open(large.folder, fingerprint=None) as gallery:
        for name, queries_QD in elsewhere.items():
            found = gallery.search(queries_QD, k=10).hits
            exact_QK = np.argsort(-queries_QD @ stored_ND.T, axis=1)[:, :10]
            overlap = [
                np.isin([int(hit.id) for hit in hits], rows_K).mean()
                for hits, rows_K in zip(found, exact_QK, strict=True)
            ]
            assert np.mean(overlap) >= 0.95, name


def test_every_item_of_a_large_homogeneous_gallery_finds_itself(
    large: Large, tmp_path: Path
) -> None:
    """Three items look like nothing else, and a fourth comes later."""
    shutil.copytree(large.folder, tmp_path / "g")
    vectors_ND, unlike, count = large.vectors_ND, large.unlike, large.count
    with Gallery.open(tmp_path / "g", fingerprint=None) as gallery:
        assert strangers(gallery, vectors_ND, list(range(count))) == []
        for one in unlike:
            hit = gallery.search(
                vectors_ND[[one]], k=1, query_item=QueryItem(str(one), vectors_ND[one])
            ).hits[0][0]
            assert (hit.id, hit.score) == (str(one), 1)

        gallery.delete([str(one) for one in range(2, count, 5)])
        later = range(count, count + LATER)
        gallery.put([item_of(str(one), vectors_ND[one]) for one in later])
        left = [one for one in range(count + LATER) if one < 2 or one >= count or one % 5 != 2]
        assert strangers(gallery, vectors_ND, left[::7] + unlike) == []
    with Gallery.open(tmp_path / "g", fingerprint=None) as again:
        assert again.info().generation == 1
        assert strangers(again, vectors_ND, left[::11] + unlike) == []


@pytest.mark.slow
def test_every_item_of_a_gallery_of_a_million_finds_itself() -> None:
    vectors_ND = vectors_of(homogeneous, 1_000_000, 64, seed=3)

    view = ImmutableSegmentView(measured_base(vectors_ND))

    assert view.segment.ann_index is not None
    of_key = np.argsort(view.keys_N)
    for start in range(0, len(vectors_ND), 8_192):
        queries_QD = vectors_ND[start : start + 8_192]
        for place, (keys, _) in enumerate(view.search(queries_QD, k=1, allowed=None)):
            row = of_key[start + place]
            assert keys[0] == view.keys_N[row] or np.array_equal(
                vectors_ND[keys[0] - 1], queries_QD[place]
            )


def test_among_equals_an_item_asked_for_by_its_id_comes_first(tmp_path: Path) -> None:
    vectors_ND = np.repeat(unit_vectors(1, 8, seed=0), 50, axis=0)
    with filled(tmp_path / "g", vectors_ND) as gallery:
        for k in (1, 3, 50):
            hits = gallery.search(
                vectors_ND[:1], k=k, query_item=QueryItem("37", vectors_ND[0])
            ).hits[0]

            assert hits[0].id == "37"
            assert len({hit.id for hit in hits}) == len(hits) == k
        oldest = gallery.search(vectors_ND[:1], k=1).hits[0][0]
        assert oldest.id == "0"


def test_only_its_own_vector_puts_an_item_first(tmp_path: Path) -> None:
    vectors_ND = unit_vectors(50, 8, seed=0)
    with filled(tmp_path / "g", vectors_ND) as gallery:
        assert (
            gallery.search(vectors_ND[[5]], k=1, query_item=QueryItem("37", vectors_ND[5]))
            .hits[0][0]
            .id
            == "5"
        )


def test_a_generation_of_a_version_that_did_not_look_for_what_it_misses_is_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from index.snapshot.segments.generation_manifest import decode_manifest, encode_manifest  # noqa: PLC0415
    from index.snapshot.segments.generations import Generations  # noqa: PLC0415
    from tests.support.galleries.segments import small_structures  # noqa: PLC0415

    small_structures(monkeypatch)
    vectors_ND = unit_vectors(300, 8, seed=0)
    with filled(tmp_path / "g", vectors_ND) as gallery:
        rebuilt(gallery.folder)
        path = Generations.of(gallery._store).path(1) / "manifest.json"
    manifest = decode_manifest(path.read_bytes())
    assert manifest["plan"]["kind"] != "exact"
    del manifest["strays"]
    manifest["plan"] = {  # as 0.4.0 wrote it
        name: manifest["plan"][name]
        for name in (
            "kind",
            "factory",
            "construction",
            "effort",
            "k_factor",
            "recall",
            "microseconds",
            "recall_target",
        )
    }
    path.unlink()
    write_bytes(path, [encode_manifest(manifest)])

    with Gallery.open(tmp_path / "g", fingerprint=None) as gallery:
        info = gallery.info()
        assert (info.structure, info.generation, info.recent) == ("exact", 1, 0)
        assert info.note is not None
        assert "older version" in info.note
        assert gallery.is_rebuild_due
        assert strangers(gallery, vectors_ND, list(range(300))) == []
        rebuilt(gallery.folder)
        assert gallery.adopt_newest_generation()
        assert gallery.info().structure != "exact"
        assert gallery.info().note is None
        assert not gallery.is_rebuild_due
