"""Tuning: held-out queries, intervals of the recall, and the structure that follows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.gallery import Gallery
from index.maintenance.compaction import SETTING, TunedSpec, stored_spec
from index.search.ann_index import AnnIndex
from index.search.autotune import (
    OUTSIDE,
    TuningTrial,
    autotune,
    one_thread,
    recall_of,
    shares_found,
)
from index.search.index_spec import EXACT, EXACT_ROWS, RECALL, IndexSpec, candidate_specs
from index.search.recall_confidence import recall_between
from index.search.tuning_sample import MAX_SHARE, Queries, Sample, hold_out, queries_for
from index.search.vector_matrix import Matrix
from index.store.store import Store
from tests.support.fakes import new_item
from tests.support.galleries.segments import (
    GRAPH,
    QUANTIZED,
    SPECS,
    clustered,
    rebuilt,
    scores_of,
    small_structures,
)

ROWS = 12_000
WIDTH = 16
HOPELESS = replace(QUANTIZED, factory="IVF16,PQ1x4fsr", k_factor=1)  # codes of one number


def kind_of(value: object) -> str:
    return str(getattr(value, "kind", value))


@pytest.fixture(scope="module")
def sample() -> Sample:
    keys_N = np.arange(1, ROWS + 1)
    return hold_out(keys_N, clustered(ROWS, WIDTH, seed=1)[0])[1]


def trial_of(spec: IndexSpec, sample: Sample, target: float) -> tuple[TuningTrial, AnnIndex]:
    trial, ann_index = autotune(spec, sample, target=target)
    assert ann_index is not None
    return trial, ann_index


@settings(deadline=None, max_examples=40)
@given(count=st.integers(2, 300), seed=st.integers(0, 5))
def test_rows_that_are_held_out_come_last_and_no_row_is_lost(count: int, seed: int) -> None:
    vectors_ND, _ = clustered(count, 4, seed=seed)
    keys_N = np.arange(1, count + 1) * 7

    keys, sample = hold_out(keys_N, vectors_ND, seed=seed)

    assert sorted(keys.tolist()) == keys_N.tolist()
    np.testing.assert_array_equal(sample.matrix.rows_ND, vectors_ND[keys // 7 - 1])
    held = count - sample.built
    assert held == max(1, min(queries_for(RECALL), int(MAX_SHARE * count)))
    as_they_are, moved = sample.inside
    np.testing.assert_array_equal(as_they_are.queries_QD, sample.matrix.rows_ND[sample.built :])
    assert len(moved.queries_QD) == held
    for asked in (*sample.inside, *sample.outside):
        k = asked.truth_QK.shape[1]
        np.testing.assert_allclose(np.linalg.norm(asked.queries_QD, axis=1), 1, atol=1e-5)
        for query_D, truth_K in zip(asked.queries_QD[:40], asked.truth_QK, strict=False):
            scores = np.sort(scores_of(sample.matrix.rows_ND[: sample.built], query_D))[::-1][:k]
            np.testing.assert_allclose(1 - truth_K / 2, scores, atol=1e-5)


def test_what_is_held_out_is_a_fair_sample(sample: Sample) -> None:
    keys_N = np.arange(ROWS)
    keys, _ = hold_out(keys_N, clustered(ROWS, WIDTH, seed=1)[0])
    held = np.sort(keys[sample.built :])

    assert abs(held.mean() / ROWS - 0.5) < 0.05
    assert held[0] < 0.02 * ROWS
    assert held[-1] > 0.98 * ROWS


@pytest.mark.parametrize("spec", SPECS, ids=kind_of)
def test_rows_that_are_held_out_are_not_in_what_is_measured_but_in_what_is_completed(
    spec: IndexSpec, sample: Sample
) -> None:
    _, ann_index = trial_of(spec, sample, 0.99)
    assert ann_index.index.ntotal == sample.built
    _, rows_QK = ann_index.search(sample.inside[0].queries_QD, 10)
    assert rows_QK.max() < sample.built

    whole = ann_index.completed()

    assert whole.index.ntotal == ROWS
    assert whole.spec == ann_index.spec
    whole = whole.with_unindexed_rows()
    scores_QK, rows_QK = whole.search(sample.inside[0].queries_QD, 1)
    assert rows_QK[:, 0].tolist() == list(range(sample.built, ROWS))
    np.testing.assert_allclose(scores_QK, 1, atol=1e-6)


@pytest.mark.parametrize("target", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("spec", SPECS, ids=kind_of)
def test_the_effort_reaches_the_recall_and_a_little_less_does_not(
    spec: IndexSpec, target: float, sample: Sample
) -> None:
    trial, ann_index = trial_of(spec, sample, target)
    search_depth = trial.spec.search_depth

    assert trial.reached
    assert trial.spec.recall_target == target
    recall = recall_of(ann_index, sample)
    assert (trial.spec.recall, trial.spec.recall_low) == (recall.mean, recall.low)
    assert (trial.spec.recall_high, trial.spec.queries) == (recall.high, ROWS - sample.built)
    assert target <= recall.low <= recall.mean <= recall.high
    assert all(shares_found(ann_index, kind).mean() >= OUTSIDE for kind in sample.outside)
    step = max(1, search_depth // 8)  # it is searched for to a sixteenth
    if search_depth > step:
        less = ann_index.with_spec(replace(ann_index.spec, search_depth=search_depth - step))
        outside = min(shares_found(less, kind).mean() for kind in sample.outside)
        # recall grows, but not strictly
        assert recall_of(less, sample).low < target + 0.005 or outside < OUTSIDE + 0.01


@pytest.mark.parametrize("seed", range(5))
def test_more_queries_than_those_it_was_measured_with_confirm_the_recall(seed: int) -> None:
    vectors_ND, _ = clustered(6_000, WIDTH, seed=seed)
    _, sample = hold_out(np.arange(1, 6_001), vectors_ND, seed=seed)
    trial, ann_index = trial_of(SPECS[2], sample, 0.97)
    queries_QD, _ = clustered(4_000, WIDTH, seed=100 + seed)
    truth_QK, _ = sample.matrix.flat_of(sample.built).search(queries_QD, 10)

    recall = shares_found(ann_index, Queries(queries_QD, truth_QK)).mean()

    assert trial.spec.recall_low is not None
    assert trial.spec.recall_high is not None
    assert trial.spec.recall_low - 0.005 <= recall <= trial.spec.recall_high + 0.005


def test_a_recall_that_the_queries_are_too_few_to_show_is_not_reached() -> None:
    vectors_ND, _ = clustered(1_000, WIDTH, seed=1)
    _, sample = hold_out(np.arange(1, 1_001), vectors_ND, target=0.999)

    trial, _ = trial_of(GRAPH, sample, 0.999)

    assert trial.spec.queries == 100
    assert trial.spec.recall is not None
    assert trial.spec.recall > 0.99
    assert not trial.reached, "100 queries that find all they should do not show 0.999"


@pytest.mark.parametrize(
    ("found", "low", "high"),
    [
        # All or nothing by query: as 100 trials of which 95 succeed (Clopper and Pearson).
        ([1.0] * 95 + [0.0] * 5, 0.8977, 0.9801),
        ([1.0] * 100, 0.9705, 1.0),
        ([0.0] * 100, 0.0, 0.0295),
    ],
)
def test_an_interval_counts_queries_and_not_neighbours(
    found: list[float], low: float, high: float
) -> None:
    recall = recall_between(np.array(found), k=10)

    assert recall.mean == pytest.approx(np.mean(found))
    assert (recall.low, recall.high) == (
        pytest.approx(low, abs=5e-4),
        pytest.approx(high, abs=5e-4),
    )


def test_neighbours_that_are_missed_one_by_one_count_for_more() -> None:
    together = np.array([1.0] * 95 + [0.0] * 5)
    one_by_one = np.array([1.0] * 50 + [0.9] * 50)

    assert together.mean() == pytest.approx(one_by_one.mean())
    assert recall_between(one_by_one, k=10).low > recall_between(together, k=10).low


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    chance = rng.beta(9, 0.5, size=2_000_000)  # that a query finds each of its neighbours
    truth = chance.mean()

    lower = 0
    for _ in range(500):
        some = rng.choice(chance, 400)
        lower += recall_between(rng.binomial(10, some) / 10, k=10).low > truth

    assert lower <= 0.09 * 500  # 5 % are promised; four deviations of 500 trials more


@pytest.mark.parametrize("spec", SPECS, ids=kind_of)
def test_the_recall_of_held_out_rows_is_what_other_queries_get(
    spec: IndexSpec, sample: Sample
) -> None:
    trial, ann_index = trial_of(spec, sample, 0.95)
    queries_QD, _ = clustered(300, WIDTH, seed=77)

    _, rows_QK = ann_index.search(queries_QD, 10)

    found = []
    for query_D, rows_K in zip(queries_QD, rows_QK, strict=True):
        truth = np.argsort(-scores_of(sample.matrix.rows_ND[: sample.built], query_D))[:10]
        found.append(np.isin(truth, rows_K).mean())
    assert trial.spec.recall is not None
    assert np.mean(found) == pytest.approx(trial.spec.recall, abs=0.03)


def test_what_cannot_reach_the_recall_says_so(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.search.autotune._scan_microseconds", lambda _: float("inf"))
    trial, _ = trial_of(HOPELESS, sample, 0.99)

    assert not trial.reached
    assert trial.spec.search_depth == 16, "it gave up before all its lists were visited"
    assert trial.spec.recall is not None
    assert trial.spec.recall < 0.9


def test_an_effort_that_takes_longer_than_a_scan_is_not_raised_further(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.search.autotune._scan_microseconds", lambda _: 0.0)
    monkeypatch.setattr("index.search.autotune.PATIENCE", 4)
    trial, _ = trial_of(HOPELESS, sample, 0.99)

    assert not trial.reached
    assert trial.spec.search_depth == 4


def test_rows_that_tie_with_the_last_of_the_truth_count_as_found() -> None:
    one = clustered(1, 8, seed=0)[0]
    keys_N = np.arange(1, 201)
    _, sample = hold_out(keys_N, np.repeat(one, 200, axis=0))

    ann_index = AnnIndex.build(sample.matrix, replace(GRAPH, search_depth=20), count=sample.built)

    assert recall_of(ann_index, sample).mean == 1


def test_nothing_found_is_no_recall(sample: Sample) -> None:
    few = Matrix.of(sample.matrix.rows_ND)
    nothing = AnnIndex.build(few, GRAPH, count=sample.built)
    nothing.search = lambda queries_QD, k, **_: (  # type: ignore[method-assign,assignment,misc]
        np.full((len(queries_QD), k), 1, np.float32),
        np.full((len(queries_QD), k), -1),
    )
    assert recall_of(nothing, sample).mean == 0


def test_exact_search_is_measured_too_and_always_reaches_the_recall(sample: Sample) -> None:
    trial, ann_index = autotune(EXACT, sample, target=1.0)

    assert ann_index is None
    assert trial.reached
    assert (trial.spec.kind, trial.spec.recall, trial.spec.recall_target) == ("exact", 1, 1)
    assert trial.spec.microseconds is not None
    assert trial.spec.microseconds > 0


def test_one_thread_is_for_the_block_only_even_when_it_fails() -> None:
    threads = faiss.omp_get_max_threads()
    inside: list[int] = []

    def fail() -> None:
        with one_thread():
            inside.append(faiss.omp_get_max_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [1]
    assert faiss.omp_get_max_threads() == threads


@pytest.mark.parametrize("width", [2, 3, 8, 31, 128, 160, 161, 512, 1001])
@pytest.mark.parametrize("rows", [1, EXACT_ROWS - 1, EXACT_ROWS, 500_000, 10**7])
def test_every_structure_that_is_proposed_can_be_made_and_exact_is_always_among_them(
    rows: int, width: int
) -> None:
    specs = candidate_specs(rows, width)

    kinds = [spec.kind for spec in specs]
    assert kinds[-1] == "exact"
    assert kinds == (["exact"] if rows < EXACT_ROWS else ["lists", "graph", "quantized", "exact"])
    for spec in specs[:-1]:
        if not spec.scalar_quantizer:
            faiss.index_factory(width, spec.factory, faiss.METRIC_L2)
        assert IndexSpec.from_json(spec.to_json()) == spec


# Compaction: the same, from a gallery's database to a generation.


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    small_structures(monkeypatch)
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=8
    ) as gallery:
        yield gallery


def fill(gallery: Gallery, count: int) -> None:
    gallery.put([new_item(f"i{n}", seed=n) for n in range(count)])


def saved_plan(gallery: Gallery) -> IndexSpec | None:
    store = Store.open(gallery.folder)
    try:
        stored = stored_spec(store)
        return None if stored is None else stored.spec
    finally:
        store.close()


@pytest.mark.parametrize(
    ("count", "kind"),
    [(0, "exact"), (1, "exact"), (99, "exact"), (150, "graph"), (300, "quantized")],
)
def test_the_structure_follows_from_the_number_of_rows_and_info_tells_it(
    gallery: Gallery, count: int, kind: str
) -> None:
    fill(gallery, count)
    stages: list[str] = []

    made = rebuilt(gallery.folder, on_stage=stages.append)

    assert stages == ["reading", "measuring", "writing"]
    assert (made.spec.kind, made.count, made.generation) == (kind, count, 1)
    assert made.seq == gallery.seq
    assert gallery.info().generation == 0
    assert gallery.adopt_newest_generation()
    info = gallery.info()
    assert (info.structure, info.recall, info.generation) == (kind, made.spec.recall, 1)
    assert info.recall is not None
    assert info.recall >= 0.99
    assert (info.count, info.recent) == (count, 0)
    with Gallery.open(gallery.folder, fingerprint=None) as again:
        assert again.info().recall == info.recall
    assert gallery.verify() == []


def test_when_no_structure_reaches_the_recall_everything_is_scanned(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    hopeless = replace(HOPELESS, factory="IVF4,PQ1x4fsr")
    monkeypatch.setattr(
        "index.maintenance.compaction.candidate_specs", lambda rows, width: [hopeless, EXACT]
    )
    fill(gallery, 300)

    made = rebuilt(gallery.folder, target=0.999)

    assert [trial.reached for trial in made.trials] == [False, True]
    assert made.spec.kind == "exact"
    assert gallery.adopt_newest_generation()
    assert gallery.info().structure == "exact"
    assert gallery.info().recall == 1
    assert sorted(
        path.name for path in (gallery.folder / "snapshots" / "gen-00000001").iterdir()
    ) == [
        "keys.i64",
        "manifest.json",
        "vectors.f32",
    ]


def test_tuning_measures_everything_and_the_quickest_that_reaches_the_recall_is_kept(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(gallery, 300)
    speeds = {"graph": 30.0, "quantized": 50.0, "exact": 70.0}

    def timed(
        spec: IndexSpec, sample: Sample, *, target: float
    ) -> tuple[TuningTrial, AnnIndex | None]:
        trial, ann_index = autotune(spec, sample, target=target)
        return replace(trial, spec=replace(trial.spec, microseconds=speeds[spec.kind])), ann_index

    monkeypatch.setattr("index.maintenance.compaction.autotune", timed)
    assert saved_plan(gallery) is None

    made = rebuilt(gallery.folder, tune=True, target=0.97)

    assert [trial.spec.kind for trial in made.trials] == ["quantized", "graph", "exact"]
    assert made.spec.kind == "graph"
    assert saved_plan(gallery) == made.spec
    assert gallery.adopt_newest_generation()
    assert gallery.info().structure == "graph"

    again = rebuilt(gallery.folder)  # the list would begin with inverted lists
    assert [trial.spec.kind for trial in again.trials] == ["graph"]
    assert again.spec.recall_target == 0.97, "what was asked for before is asked for again"
    assert saved_plan(gallery) == made.spec

    speeds["exact"] = 1.0
    assert rebuilt(gallery.folder, tune=True).spec.kind == "exact"
    assert [trial.spec.kind for trial in rebuilt(gallery.folder).trials] == ["exact"]


def test_a_quick_structure_that_misses_the_recall_is_not_chosen(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    hopeless = replace(HOPELESS, factory="IVF4,PQ1x4fsr")
    graph = replace(GRAPH, factory="HNSW8_SQ8")
    monkeypatch.setattr(
        "index.maintenance.compaction.candidate_specs", lambda rows, width: [hopeless, graph, EXACT]
    )
    fill(gallery, 300)

    made = rebuilt(gallery.folder, tune=True, target=0.99)

    assert [trial.reached for trial in made.trials] == [False, True, True]
    assert made.spec.kind in ("graph", "exact")
    assert made.spec.recall is not None
    assert made.spec.recall >= 0.99


def test_what_is_written_meanwhile_is_found_after_the_takeover(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(gallery, 150)

    def late(stage: str) -> None:
        if stage == "writing":
            gallery.put([new_item("late", seed=999), new_item("i3", seed=888)])
            gallery.delete(["i7"])

    rebuilt(gallery.folder, on_stage=late)
    assert gallery.adopt_newest_generation()

    info = gallery.info()
    assert (info.structure, info.recent, info.count) == ("graph", 2, 150)
    for item_id, seed in (("late", 999), ("i3", 888)):
        query = new_item("q", seed=seed).vector_D[np.newaxis]
        assert gallery.search(query, k=1).hits[0][0].id == item_id
    for seed in (3, 7):
        query = new_item("q", seed=seed).vector_D[np.newaxis]
        assert gallery.search(query, k=1).hits[0][0].score < 0.9999
    assert gallery.verify() == []


def test_a_target_for_a_small_gallery_is_remembered_for_when_it_has_grown(gallery: Gallery) -> None:
    fill(gallery, 30)

    rebuilt(gallery.folder, tune=True, target=0.9)

    spec = saved_plan(gallery)
    assert spec is not None
    assert spec.recall_target == 0.9 != RECALL


def test_what_was_tuned_for_less_is_said_when_it_no_longer_does(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(gallery, 300)
    hopeless = replace(HOPELESS, factory="IVF4,PQ1x4fsr")
    monkeypatch.setattr("index.search.autotune.K_FACTORS", (1.0,))
    store = Store.open(gallery.folder)
    store.set_setting(SETTING, TunedSpec(hopeless, 300).to_json())
    store.close()

    made = rebuilt(gallery.folder, target=0.999)

    assert not made.trials[0].reached
    assert len(made.trials) > 1, "the next candidates are tried"
    assert "does not reach recall 0.999 any more" in made.spec.note
    assert gallery.adopt_newest_generation()
    assert gallery.info().note == made.spec.note


def test_what_was_tuned_for_a_small_gallery_is_not_kept_for_a_large_one() -> None:
    tuned = TunedSpec(EXACT, 15_000)
    ladder = candidate_specs(58_000, 64)

    assert not tuned.suits(58_000)
    assert tuned.before(ladder, rows=58_000) == ladder
    assert TunedSpec(EXACT, 30_000).before(ladder, rows=58_000)[0].kind == "exact"
    graph = replace(GRAPH, search_depth=7, k_factor=2)
    first, *others = TunedSpec(graph, 30_000).before(ladder, rows=58_000)
    assert (first.factory, first.search_depth, first.k_factor) == (graph.factory, 0, 0)
    assert others == ladder


def test_when_nothing_reaches_the_recall_it_is_said(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    hopeless = replace(HOPELESS, factory="IVF4,PQ1x4fsr")
    monkeypatch.setattr(
        "index.maintenance.compaction.candidate_specs", lambda rows, width: [hopeless, EXACT]
    )
    fill(gallery, 300)

    made = rebuilt(gallery.folder, target=0.999)

    assert made.spec.note.startswith("every search looks at every item: no structure is sure")
