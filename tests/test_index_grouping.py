"""Few hits of a group, some left out, the best passed over: held against a twin that sorts all."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import GroupKeyError
from index.filter import parse_filter
from index.gallery import Gallery
from index.groups import CONTENT, FEW, Groups, KnownGroups, group_key
from index.items import Itself, NewItem
from index.picking import MAX_REACH, Picking, places_within
from tests.bases import rebuilt
from tests.fakes import clustered_vectors, new_item, unit_vectors
from tests.filters import KEYS, METADATA, Named, depth_and_value, kind, named, values_of

WIDTH = 4
# Few values, so that groups are shared, and each trap: 1 and "1" and true, lists, null, objects.
VALUES = [None, "a", "b", 1, 1.0, "1", True, 0.5, ["a"], ["a", "b"], [], {"x": 1}, "é", "e\u0301"]
SHARED = st.sampled_from(["i0", "i1", "i2", "i3", "i7", "nobody"])


def new_gallery(folder: Path, items: list[NewItem], width: int = WIDTH) -> Gallery:
    gallery = Gallery.create(folder, model_name="m", fingerprint="f", width=width)
    gallery.put(items)
    return gallery


def group_of(key: str, item: Named) -> object:
    """The slow twin of a group, written from the rules in index/groups.py."""
    elements = [
        one
        for value in values_of(key, item)
        for one in (value if isinstance(value, list) else [value])
        if kind(one) != "other"
    ]
    distinct = {(kind(one), one) for one in elements}
    return distinct.pop() if len(distinct) == 1 else ("alone", item[0])


def twin(
    items: list[NewItem], query: np.ndarray, *, k: int, asked: dict[str, Any], itself: str | None
) -> list[str]:
    """Return the hits' ids: sort everything, then go through it once."""
    scored = [(-float(np.float64(query) @ np.float64(one.vector_D)), one) for one in items]
    ranked = [one for _, one in sorted(scored, key=lambda pair: (pair[1].id != itself, pair[0]))]
    names = {one.id: (one.id, one.label, dict(one.metadata)) for one in items}
    key, own = asked.get("exclude_group"), names.get(itself or "")
    taken: Counter[object] = Counter()
    hits = []
    for one in ranked:
        if one.id in asked.get("exclude", ()) or one.content_sha256 == asked.get("content"):
            continue
        if key and own and group_of(key, names[one.id]) == group_of(key, own):
            continue
        if asked.get("group_by"):
            group = group_of(asked["group_by"], names[one.id])
            if taken[group] == asked.get("group_size", 1):
                continue
            taken[group] += 1
        hits.append(one.id)
    offset = asked.get("offset", 0)
    return hits[offset : offset + k]


def picking_of(asked: dict[str, Any]) -> Picking:
    fields = {name: value for name, value in asked.items() if name in ("offset", "group_size")}
    for name in ("group_by", "exclude_group"):
        if asked.get(name):
            fields[name] = group_key(asked[name])
    return Picking(
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


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_hits_are_those_of_the_twin(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    count = data.draw(st.integers(1, 24))
    groups = data.draw(st.lists(st.sampled_from(VALUES), min_size=count, max_size=count))
    labels = data.draw(st.lists(st.sampled_from(["x", "y", None]), min_size=count, max_size=count))
    vectors = unit_vectors(count, WIDTH, data.draw(st.integers(0, 5)))
    items = [
        NewItem(
            id=f"i{n}",
            vector_D=vectors[n],
            label=labels[n],
            metadata={"group": groups[n], "label": "same"},
            thumbnail=None,
            content_sha256=f"c{n % 3}",
        )
        for n in range(count)
    ]
    with new_gallery(tmp_path_factory.mktemp("g") / "g", items) as gallery:
        for _ in range(4):
            asked = data.draw(ASKED)
            k = data.draw(st.integers(1, 30))
            own = data.draw(st.integers(0, count - 1))
            itself = Itself(f"i{own}", vectors[own])
            found = gallery.search(
                vectors[[own]], k=k, itself=itself, picking=picking_of(asked)
            ).hits[0]

            assert [hit.id for hit in found] == twin(
                items, vectors[own], k=k, asked=asked, itself=itself.id
            )


@settings(max_examples=100, deadline=None)
@given(st.lists(METADATA, min_size=1, max_size=6), KEYS.filter(lambda key: key not in ("id", "")))
def test_groups_are_told_apart_as_filters_tell_values_apart(
    tmp_path_factory: pytest.TempPathFactory, metadata: list[dict[str, Any]], key: str
) -> None:
    items = [new_item(f"i{n}", width=WIDTH, metadata=one) for n, one in enumerate(metadata)]
    names = named([(None, one) for one in metadata])
    with new_gallery(tmp_path_factory.mktemp("g") / "g", items) as gallery:
        codes = groups_of(gallery, key).of(np.arange(1, len(items) + 1))

    expected = [group_of(key, item) for item in names]
    for one, code in zip(expected, codes, strict=True):
        for other, other_code in zip(expected, codes, strict=True):
            assert (one == other) == (code == other_code)


def groups_of(gallery: Gallery, key: str) -> Groups:
    known = KnownGroups(gallery._store.reading, stored=lambda: gallery.count)
    return known.of(group_key(key), up_to=gallery.count)
