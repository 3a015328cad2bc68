"""A whole gallery against a plain dict: writes, reads, rebuilds, a second worker, reopening."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from index.errors import UnknownIdError
from index.gallery import Gallery
from index.items.filter import parse_filter
from index.items.item import Hit, NewItem
from tests.support.fakes import new_item, unit_vectors
from tests.support.galleries.segments import SMALL, best, rebuilt, scores_of, small_structures

WIDTH = 8
IDS = [f"i{number}" for number in range(400)]
FILTERS: list[Any] = [
    None,
    {},
    {"must": [{"key": "label", "match": "l1"}]},
    {"must": [{"key": "n", "match": 1}]},
    {"must": [{"key": "n", "match": True}]},
    {"must_not": [{"key": "n", "range": {"lt": 60}}]},
    {"should": [{"key": "n", "range": {"gte": 20, "lt": 40}}, {"key": "label", "match": "l0"}]},
]
PASSES: list[Any] = [
    lambda item: True,
    lambda item: True,
    lambda item: item.label == "l1",
    lambda item: item.metadata["n"] == 1 and item.metadata["n"] is not True,
    lambda item: item.metadata["n"] is True,
    lambda item: item.metadata["n"] is True or item.metadata["n"] >= 60,
    lambda item: (
        (item.metadata["n"] is not True and 20 <= item.metadata["n"] < 40) or item.label == "l0"
    ),
]

tally: Counter[str] = Counter()  # over all runs: what was searched, and how much of it was found


def item_of(item_id: str, version: int) -> NewItem:
    """Return the item that ``version`` makes of an id; versions 0 and 4 have one content."""
    number = int(item_id[1:])
    n: Any = True if version == 2 else (number + version) % 80
    label = None if number % 3 == 2 else f"l{number % 3}"
    seed = 1000 * (version % 4) + number // 2  # every vector twice: ties
    return new_item(item_id, seed=seed, width=WIDTH, label=label, metadata={"n": n})


class GalleryAgainstDict(RuleBasedStateMachine):
    """Whatever is done to a gallery by whom, it answers as a dict of the same items would."""

    @initialize(count=st.sampled_from([0, 150, 150, 400]))
    def create(self, count: int) -> None:
        self.place = TemporaryDirectory()
        self.folder = Path(self.place.name, "gallery")
        self.ours = Gallery.create(
            self.folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH, policy=SMALL
        )
        self.theirs = Gallery.open(self.folder, fingerprint=None, policy=SMALL)
        self.model: dict[str, NewItem] = {}
        self.keys: dict[str, int] = {}  # in what order the items were stored
        self.last_key = 0
        if count:
            self.put_many(start=0, count=count, version=0, ours=True)

    def gallery(self, ours: bool) -> Gallery:
        return self.ours if ours else self.theirs

    @rule(
        ids=st.lists(st.sampled_from(IDS[:8]), min_size=1, max_size=5),
        version=st.integers(0, 3),
        upsert=st.booleans(),
        ours=st.booleans(),
    )
    def put(self, ids: list[str], version: int, upsert: bool, ours: bool) -> None:
        items = [item_of(item_id, version + place % 2) for place, item_id in enumerate(ids)]
        expected = [self._expect(item, upsert) for item in items]

        results = self.gallery(ours).put(items, upsert=upsert)

        assert [(result.id, result.outcome) for result in results] == list(
            zip(ids, expected, strict=True)
        )
        assert max(result.seq for result in results) <= self.gallery(ours).seq

    @rule(
        start=st.integers(0, 300),
        count=st.sampled_from([30, 100, 300]),
        version=st.integers(0, 3),
        ours=st.booleans(),
    )
    def put_many(self, start: int, count: int, version: int, ours: bool) -> None:
        items = [item_of(item_id, version) for item_id in IDS[start : start + count]]
        expected = [self._expect(item, True) for item in items]

        results = self.gallery(ours).put(items)

        assert [result.outcome for result in results] == expected

    def _expect(self, item: NewItem, upsert: bool) -> str:
        old = self.model.get(item.id)
        if old is not None:
            if _content(old) == _content(item):
                return "unchanged"
            if not upsert:
                return "conflict"
        self.model[item.id] = item
        self.last_key += 1
        self.keys[item.id] = self.last_key
        return "created" if old is None else "replaced"

    @rule(ids=st.lists(st.sampled_from(IDS[:20]), max_size=5), ours=st.booleans())
    def delete(self, ids: list[str], ours: bool) -> None:
        self._delete(ids, ours)

    @rule(start=st.integers(0, 300), count=st.sampled_from([20, 100]), ours=st.booleans())
    def delete_many(self, start: int, count: int, ours: bool) -> None:
        self._delete(IDS[start : start + count], ours)

    def _delete(self, ids: list[str], ours: bool) -> None:
        expected = [self.model.pop(item_id, None) is not None for item_id in ids]
        assert self.gallery(ours).delete(ids) == expected

    @rule(item_id=st.sampled_from(IDS[:30]), ours=st.booleans())
    def get(self, item_id: str, ours: bool) -> None:
        gallery, item = self.gallery(ours), self.model.get(item_id)
        assert (item_id in gallery.existing([item_id])) == (item is not None)
        if item is None:
            for read in (gallery.get, gallery.vector, gallery.thumbnail):
                with pytest.raises(UnknownIdError):
                    read(item_id)
            return
        stored = gallery.get(item_id)
        assert (stored.content_sha256, stored.label, stored.metadata) == _content(item)
        np.testing.assert_array_equal(gallery.vector(item_id), item.vector_D)
        assert gallery.thumbnail(item_id) == item.thumbnail

    @rule(
        limit=st.sampled_from([1, 7, 100, 1000]),
        which=st.integers(0, len(FILTERS) - 1),
        ours=st.booleans(),
    )
    def page(self, limit: int, which: int, ours: bool) -> None:
        seen: list[str] = []
        cursor = None
        for _ in range(5):
            page = self.gallery(ours).page(limit=limit, cursor=cursor, filter=_filter(which))
            seen += [item.id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        expected = sorted(self._matching(which), key=self.keys.__getitem__)
        assert seen == expected[: 5 * limit]
        assert (cursor is None) == (len(expected) <= 5 * limit)

    @rule(
        queries=st.lists(st.integers(0, 400), min_size=1, max_size=3),
        k=st.sampled_from([1, 2, 10, 10, 60, 500]),
        which=st.integers(0, len(FILTERS) - 1),
        min_score=st.sampled_from([None, None, 0.3, 0.9]),
        exact=st.booleans(),
        ours=st.booleans(),
    )
    def search(
        self,
        *,
        queries: list[int],
        k: int,
        which: int,
        min_score: float | None,
        exact: bool,
        ours: bool,
    ) -> None:
        gallery = self.gallery(ours)
        queries_QD = np.concatenate([unit_vectors(1, WIDTH, seed) for seed in queries])

        result = gallery.search(
            queries_QD, k=k, filter=_filter(which), min_score=min_score, exact=exact
        )

        ann_index = gallery.info().structure
        assert result.seq == gallery.seq
        for query_D, hits in zip(queries_QD, result.hits, strict=True):
            nearest = self._nearest(query_D, which)
            least = -1.0 if min_score is None else min_score
            expected = [(item_id, score) for item_id, score in nearest[:k] if score >= least]
            self._check_true(hits, nearest)
            if exact or ann_index == "exact":
                assert [hit.id for hit in hits] == [item_id for item_id, _ in expected]
                continue
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert all(hit.score >= least for hit in hits)
            if min_score is None:
                assert len(hits) == len(expected)
            worst = expected[-1][1] if expected else 2.0
            tally["wanted"] += len(expected)
            tally["found"] += sum(hit.score >= worst - 1e-6 for hit in hits)
            tally[ann_index] += 1

    @rule(
        query=st.integers(0, 400),
        which=st.integers(0, len(FILTERS) - 1),
        min_score=st.sampled_from([-1.0, 0.0, 0.5, 0.95]),
        ours=st.booleans(),
    )
    def range_search(self, query: int, which: int, min_score: float, ours: bool) -> None:
        (query_D,) = unit_vectors(1, WIDTH, query)

        hits = (
            self.gallery(ours)
            .range_search(query_D, min_score=min_score, filter=_filter(which))
            .hits
        )

        nearest = self._nearest(query_D, which)
        self._check_true(hits, nearest)
        assert [hit.id for hit in hits] == [
            item_id for item_id, score in nearest if score >= np.float32(min_score)
        ]

    @rule(tune=st.sampled_from([False] * 7 + [True]), taken_over=st.booleans())
    def rebuild(self, tune: bool, taken_over: bool) -> None:
        made = rebuilt(self.folder, tune=tune)
        assert made.count == len(self.model)
        tally[f"rebuilt {made.spec.kind}"] += 1
        if taken_over:
            self.take_over(ours=True)
            assert self.ours.info().structure == made.spec.kind
            self.search(queries=[1, 2, 3], k=10, which=0, min_score=None, exact=False, ours=True)

    @rule(ours=st.booleans())
    def take_over(self, ours: bool) -> None:
        gallery = self.gallery(ours)
        newest = max(gallery._generations.numbers(), default=0)
        before = gallery.info().generation

        assert gallery.adopt_newest_generation() == (newest > before)

        assert gallery.info().generation == max(newest, before)

    @rule(ours=st.booleans())
    def reopen(self, ours: bool) -> None:
        self.gallery(ours).close()
        gallery = Gallery.open(self.folder, fingerprint="a1" * 32, policy=SMALL)
        if ours:
            self.ours = gallery
        else:
            self.theirs = gallery

    @rule(ours=st.booleans())
    def verify(self, ours: bool) -> None:
        assert self.gallery(ours).verify() == []

    @invariant()
    def it_counts_what_the_dict_holds(self) -> None:
        self.ours.catch_up()  # the other one sleeps, sometimes through more than the log remembers
        assert self.ours.count == len(self.model)

    def teardown(self) -> None:
        for gallery in (self.theirs, self.ours):
            assert gallery.verify() == []
            assert gallery.catch_up() == gallery.seq
            assert gallery.count == len(self.model)
            gallery.close()
        self.place.cleanup()

    def _matching(self, which: int) -> list[str]:
        return [item_id for item_id, item in self.model.items() if PASSES[which](item)]

    def _nearest(self, query_D: NDArray[np.float32], which: int) -> list[tuple[str, float]]:
        """Return every matching id with its score, best first, ties by the older item."""
        ids = self._matching(which)
        if not ids:
            return []
        id_of = {self.keys[item_id]: item_id for item_id in ids}
        vectors_ND = np.stack([self.model[item_id].vector_D for item_id in ids])
        keys, scores = best(np.array(list(id_of)), scores_of(vectors_ND, query_D), len(ids))
        return [
            (id_of[key], score) for key, score in zip(keys.tolist(), scores.tolist(), strict=True)
        ]

    def _check_true(self, hits: list[Hit], nearest: list[tuple[str, float]]) -> None:
        """Every hit is there, passes the filter, comes once, and says the truth."""
        score_of = dict(nearest)
        assert len({hit.id for hit in hits}) == len(hits)
        for hit in hits:
            item = self.model[hit.id]
            assert hit.score == pytest.approx(score_of[hit.id], abs=1e-5)
            assert (hit.label, hit.metadata) == (item.label, item.metadata)
            assert (hit.metadata["n"] is True) == (item.metadata["n"] is True)


def _content(item: NewItem) -> tuple[str, str | None, Any]:
    return item.content_sha256, item.label, item.metadata


def _filter(which: int) -> Any:
    return None if FILTERS[which] is None else parse_filter(FILTERS[which])


@pytest.fixture(autouse=True)
def _small_structures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small_structures(monkeypatch)
    tally.clear()
    return


def run(*, runs: int, steps: int) -> None:
    for kind, count in (("graph", 150), ("quantized", 300), ("lists", 400)):
        machine = GalleryAgainstDict()  # type: ignore[no-untyped-call]
        machine.create(count=count)
        machine.rebuild(tune=False, taken_over=True)
        machine.teardown()
        assert tally[kind] > 0, f"no {kind} was searched; chance alone may leave one out"
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        GalleryAgainstDict,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(dict(tally))  # noqa: T201
    assert tally["found"] >= 0.9 * tally["wanted"]


def test_a_gallery_answers_as_a_dict_of_the_same_items_would() -> None:
    run(runs=40, steps=25)


@pytest.mark.durability
def test_a_gallery_answers_as_a_dict_would_over_hundreds_of_long_runs() -> None:
    run(runs=500, steps=50)
