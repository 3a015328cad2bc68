"""Few hits of a group, some left out, the best passed over: held against a twin that sorts all."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import GroupKeyError
from index.gallery import Gallery
from index.items.filter import parse_filter
from index.items.item import NewItem, QueryItem, encode_metadata
from index.items.metadata_index import add_metadata_entries, metadata_entries
from index.query.groups import FEW, Groups, group_key, read_groups
from index.query.result_selection import (
    MAX_REACH,
    ResultSelection,
    ResultSelector,
    places_within,
    select_results,
)
from index.search.ann_index import AnnIndex
from index.search.index_spec import IndexSpec
from index.search.vector_matrix import Matrix
from index.snapshot.segments.immutable_segment import ImmutableSegment
from index.snapshot.snapshot import Snapshot, SnapshotWriter
from index.store.schema import FORMAT_VERSION, TABLES
from tests.support.fakes import clustered_vectors, new_item, unit_vectors
from tests.support.galleries.filter_twins import KEYS, METADATA, Named, composed, kind, values_of

WIDTH = 4
# Few values, so that groups are shared, and each trap: 1 and "1" and true, lists, null, objects.
VALUES = [None, "a", "b", 1, 1.0, "1", True, 0.5, ["a"], ["a", "b"], [], {"x": 1}, "é", "e\u0301"]
SHARED = st.sampled_from(["i0", "i1", "i2", "i3", "i7", "nobody"])


def new_gallery(folder: Path, items: list[NewItem], width: int = WIDTH) -> Gallery:
    gallery = Gallery.create(folder, model_name="m", fingerprint="f", width=width)
    gallery.put(items)
    return gallery


def group_of(key: str, item: Named) -> object:
    """The slow twin of a group, written from the rules in index/query/groups.py."""
    elements = [
        composed(one)
        for value in values_of(key, item)
        for one in (value if isinstance(value, list) else [value])
        if kind(one) != "other"
    ]
    distinct = {(kind(one), one) for one in elements}
    return distinct.pop() if len(distinct) == 1 else ("alone", item[0])


def twin(
    stored: list[NewItem], among: list[NewItem], asker: NewItem, *, k: int, asked: dict[str, Any]
) -> list[str]:
    """Return the hits' ids: sort everything, then go through it once."""
    query = np.float64(asker.vector_D)
    scores = {one.id: np.float32(query @ np.float64(one.vector_D)) for one in among}
    ages = {one.id: age for age, one in enumerate(stored)}
    named = {one.id: (one.id, one.label, dict(one.metadata)) for one in stored}
    key = asked.get("exclude_group")
    taken: Counter[object] = Counter()
    hits = []
    for one in sorted(among, key=lambda one: (one.id != asker.id, -scores[one.id], ages[one.id])):
        if one.id in asked.get("exclude", ()) or one.content_sha256 == asked.get("content"):
            continue
        if key and group_of(key, named[one.id]) == group_of(key, named[asker.id]):
            continue
        if asked.get("group_by"):
            group = group_of(asked["group_by"], named[one.id])
            if taken[group] == asked.get("group_size", 1):
                continue
            taken[group] += 1
        hits.append(one.id)
    offset = asked.get("offset", 0)
    return hits[offset : offset + k]


def result_selection(asked: dict[str, Any]) -> ResultSelection:
    fields = {name: value for name, value in asked.items() if name in ("offset", "group_size")}
    for name in ("group_by", "exclude_group"):
        if asked.get(name):
            fields[name] = group_key(asked[name])
    return ResultSelection(
        **fields,
        exclude=frozenset(asked.get("exclude", ())),
        exclude_content=asked.get("content"),
    )


ASKED = st.fixed_dictionaries(
    {},
    optional={
        "offset": st.integers(0, 12),
        "group_by": st.sampled_from(["label", "group", "metadata.label"]),
        "group_size": st.integers(1, 3),
        "exclude": st.lists(SHARED, max_size=3),
        "exclude_group": st.sampled_from(["label", "group"]),
        "content": st.sampled_from(["c0", "c1", "none"]),
    },
)


def made_items(count: int, width: int, *, groups: int, seed: int) -> list[NewItem]:
    """Items in clusters that are groups too, some with every trap of a value instead."""
    rng = np.random.default_rng(seed)
    vectors = clustered_vectors(count, width, seed)
    return [
        NewItem(
            id=f"i{n}",
            vector_D=vectors[n],
            label=[None, "x", "y", "z"][int(rng.integers(0, 4))],
            metadata={
                "group": VALUES[n % len(VALUES)] if n % 2 else f"g{rng.integers(0, groups)}",
                "label": "same",
            },
            thumbnail=None,
            content_sha256=f"c{n % 3}",
        )
        for n in range(count)
    ]


@dataclass
class Stored:
    """A gallery, and what is in it."""

    gallery: Gallery
    items: list[NewItem]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    items = made_items(40, WIDTH, groups=5, seed=1)
    with new_gallery(tmp_path_factory.mktemp("small") / "g", items) as gallery:
        yield Stored(gallery, items)


@settings(max_examples=100, deadline=None)
@given(asked=ASKED, k=st.integers(1, 45), own=st.integers(0, 39), data=st.data())
def test_hits_are_those_of_the_twin(
    small: Stored, asked: dict[str, Any], k: int, own: int, data: Any
) -> None:
    only = data.draw(st.sampled_from([None, ["x"], ["x", "y"]]))
    wanted = only and parse_filter({"must": [{"key": "label", "match": only}]})
    among = [one for one in small.items if only is None or one.label in only]
    asker = small.items[own]

    found = small.gallery.search(
        asker.vector_D[np.newaxis],
        k=k,
        filter=wanted or None,
        query_item=QueryItem(asker.id, asker.vector_D),
        selection=result_selection(asked),
    )

    expected = twin(small.items, among, asker, k=k, asked=asked)
    assert [hit.id for hit in found.hits[0]] == expected


def test_a_score_that_every_hit_reaches_cuts_what_was_picked(small: Stored) -> None:
    asker = small.items[7]
    selection = result_selection({"group_by": "group", "exclude": ["i7"]})
    query = asker.vector_D[np.newaxis]
    every = small.gallery.search(query, k=40, selection=selection).hits[0]

    for hit in every[::3]:
        above = small.gallery.search(query, k=40, min_score=hit.score, selection=selection).hits[0]
        assert above == [one for one in every if one.score >= hit.score]


@pytest.mark.parametrize("first_key", [1, 2 * FEW], ids=["one by one", "by the index"])
@settings(max_examples=40, deadline=None)
@given(
    metadata=st.lists(METADATA, min_size=1, max_size=8),
    key=KEYS.filter(lambda key: key not in ("id", "")),
)
def test_groups_are_told_apart_as_filters_tell_values_apart(
    first_key: int, metadata: list[dict[str, Any]], key: str
) -> None:
    database = apsw.Connection(":memory:")
    database.execute(TABLES)
    database.pragma("user_version", FORMAT_VERSION)
    keys = np.arange(first_key, first_key + len(metadata))
    for item_key, one in zip(keys.tolist(), metadata, strict=True):
        text = encode_metadata(one).text
        row = (item_key, f"i{item_key}", None, text, "c", "now", 0)
        database.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        add_metadata_entries(database.cursor(), item_key, metadata_entries(text))

    codes = read_groups(database, group_key(key), after=0).of(keys)

    names = [(f"i{n}", None, one) for n, one in enumerate(metadata)]
    expected = [group_of(key, item) for item in names]
    for one, code in zip(expected, codes, strict=True):
        assert [one == other for other in expected] == (codes == code).tolist()


def test_groups_follow_what_is_stored_later(tmp_path: Path) -> None:
    def stored(numbers: range, group: str) -> list[NewItem]:
        return [new_item(f"i{n}", seed=n, width=WIDTH, metadata={"group": group}) for n in numbers]

    query, selection = unit_vectors(1, WIDTH, 3), result_selection({"group_by": "group"})
    with new_gallery(tmp_path / "g", stored(range(4), "a")) as gallery:
        assert len(gallery.search(query, k=9, selection=selection).hits[0]) == 1
        gallery.put(stored(range(4, 7), "b"))
        assert len(gallery.search(query, k=9, selection=selection).hits[0]) == 2
        gallery.put(stored(range(3, 4), "c"))  # replaced
        assert len(gallery.search(query, k=9, selection=selection).hits[0]) == 3
        gallery.delete([f"i{n}" for n in range(4, 7)])
        assert len(gallery.search(query, k=9, selection=selection).hits[0]) == 2
        only = result_selection({"group_by": "group", "exclude": ["i3"]})
        assert [hit.id for hit in gallery.search(query, k=9, selection=only).hits[0]] != ["i3"]


ROWS = 4_000
NOTHING_OUT = np.empty(0, np.int64)
# By key: half of all rows are one group, the others are 300 groups; and two kinds, one of each 50.
KEYS_N = np.arange(1, ROWS + 1)
MOST = Groups(KEYS_N, np.where(KEYS_N % 2 == 0, 0, KEYS_N % 600), to=ROWS)
KINDS = Groups(KEYS_N, np.int64(KEYS_N % 50 == 0), to=ROWS)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """Rows that a graph searches, some of them dead, and some that came later."""
    vectors = clustered_vectors(ROWS, 16, seed=2)
    matrix = Matrix.of(vectors[:-200])
    spec = IndexSpec(
        kind="graph",
        factory="HNSW16",
        scalar_quantizer=True,
        construction=40,
        search_depth=64,
        k_factor=2,
    )
    ann_index = AnnIndex.build(matrix, spec, count=ROWS - 200)
    base = ImmutableSegment(
        generation=1,
        seq=0,
        keys_N=KEYS_N[:-200],
        matrix=matrix,
        spec=spec,
        ann_index=ann_index.with_unindexed_rows(NOTHING_OUT),
    )
    writer = SnapshotWriter(16, segment=base, seq=0)
    removed = KEYS_N[::9].copy()
    writer.apply(seq=1, keys_N=KEYS_N[-200:], vectors_ND=vectors[-200:], removed=removed)
    return writer.snapshot


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "selector",
    [
        ResultSelector(excluded_keys=NOTHING_OUT, excluded_groups=[], groups=MOST, group_size=1),
        ResultSelector(excluded_keys=KEYS_N[:900:3], excluded_groups=[], groups=MOST, group_size=3),
        ResultSelector(
            excluded_keys=NOTHING_OUT, excluded_groups=[(MOST, 0)], groups=None, group_size=1
        ),
        ResultSelector(
            excluded_keys=NOTHING_OUT, excluded_groups=[(KINDS, 0)], groups=MOST, group_size=1
        ),
        ResultSelector(excluded_keys=NOTHING_OUT, excluded_groups=[], groups=KINDS, group_size=40),
        ResultSelector(excluded_keys=KEYS_N[:1_000], excluded_groups=[], groups=None, group_size=1),
    ],
    ids=["groups", "three of each", "without most", "only a few", "few groups", "without ids"],
)
def test_a_structure_finds_as_many_and_nearly_the_same(
    snapshot: Snapshot, selector: ResultSelector, exact: bool
) -> None:
    for number in range(5):
        query_1D = unit_vectors(1, 16, seed=number)
        all_keys = snapshot.search(query_1D, k=ROWS, exact=True)[0]
        expected = selector.select(all_keys)[0][:60].tolist()

        keys, scores = select_results(
            snapshot, query_1D, selector, k=60, mask=None, exact=exact, finish=lambda hits: hits
        )

        found = keys.tolist()
        assert len(set(found)) == len(found) == len(expected)
        assert (np.diff(scores) <= 0).all()
        assert (selector.select((keys, scores))[0] == keys).all()
        if exact:
            assert found == expected
        else:
            assert len(set(found) & set(expected)) >= 0.9 * len(expected)


def test_when_many_are_not_enough_all_are_looked_at(tmp_path: Path) -> None:
    count = MAX_REACH + 500
    vectors = clustered_vectors(count, 2, seed=4)
    order = np.argsort(-(vectors @ vectors[0]), kind="stable")
    near = set(order[: count - 20].tolist())
    items = [
        NewItem(
            id=f"i{n}",
            vector_D=vectors[n],
            label=None,
            metadata={"group": "near"} if n in near else {},
            thumbnail=None,
            content_sha256="c",
        )
        for n in range(count)
    ]
    with new_gallery(tmp_path / "g", items, 2) as gallery:
        hits = gallery.search(
            vectors[:1], k=21, selection=result_selection({"group_by": "group"})
        ).hits[0]

    assert [hit.id for hit in hits[1:]] == [f"i{n}" for n in order[count - 20 :]]


def test_places_are_counted_within_equals() -> None:
    assert places_within(np.array([7, 3, 7, 7, 3])).tolist() == [0, 0, 1, 2, 1]
    assert places_within(np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize("name", ["", "id", "x" * 1_025, "a\0b"])
def test_a_key_that_groups_nothing_is_refused(name: str) -> None:
    with pytest.raises(GroupKeyError):
        group_key(name)
