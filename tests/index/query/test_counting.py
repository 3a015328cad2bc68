"""How many items there are and what they say: exact, as a slow count over every item says too."""

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.errors import GroupKeyError
from index.gallery import Gallery
from index.items.filter import parse_filter
from index.items.item import NewItem
from index.query.editing import Patch
from index.store.schema import DATABASE_NAME

VALUES: list[Any] = ["a", "b", 1, 1.0, 2, True, False, None, ["a", 2, "a"], {"in": "a"}, []]


def gallery_of(folder: Path, metadata: list[dict[str, Any]]) -> Gallery:
    gallery = Gallery.create(folder, model_name="m", fingerprint="f" * 64, width=4)
    gallery.put(
        [
            NewItem(
                id=f"i{n}",
                vector_D=np.eye(4, dtype=np.float32)[n % 4],
                label=("coat", "hat", None)[n % 3],
                metadata=members,
                thumbnail=None,
                content_sha256=f"{n:064x}",
            )
            for n, members in enumerate(metadata)
        ]
    )
    return gallery


def slow_count(gallery: Gallery, members: list[str], name: str) -> Counter[Any]:
    """Return how many items have each value, told apart by kind and value."""
    found: Counter[Any] = Counter()
    for item in gallery.existing(members).values():
        value = item.label if name == "label" else item.metadata.get(name)
        listed = value if isinstance(value, list) else [value]
        known = {
            (isinstance(one, bool), one) for one in listed if isinstance(one, str | int | float)
        }
        found.update(known)
    return found


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    metadata=st.lists(
        st.dictionaries(st.sampled_from("xy"), st.sampled_from(VALUES)), min_size=1, max_size=12
    )
)
def test_facets_are_what_a_count_of_every_item_says(
    tmp_path_factory: pytest.TempPathFactory, metadata: list[dict[str, Any]]
) -> None:
    with gallery_of(tmp_path_factory.mktemp("counted") / "gallery", metadata) as gallery:
        gallery.patch("i0", Patch({"metadata": {"x": "b"}}))  # its key is another one now
        for wanted in (None, {"must_not": [{"key": "x", "match": "b"}]}):
            asked = None if wanted is None else parse_filter(wanted)
            ids = [item.id for item in gallery.page(limit=99, filter=asked).items]
            counts = gallery.facets(asked, keys=["label", "x", "y"], limit=50)

            assert counts.count == len(ids)
            assert counts.seq == gallery.seq
            for facet in counts.facets:
                found = {
                    (isinstance(one.value, bool), one.value): one.count for one in facet.values
                }
                assert found == slow_count(gallery, ids, facet.key)
                assert facet.distinct == len(found)
                numbers = [one.count for one in facet.values]
                assert numbers == sorted(numbers, reverse=True)


def test_only_the_most_frequent_values_are_listed_and_the_rest_is_counted(tmp_path: Path) -> None:
    metadata = [{"n": n // 3} for n in range(12)] + [{"n": 0}]
    with gallery_of(tmp_path / "gallery", metadata) as gallery:
        (facet,) = gallery.facets(None, keys=["n"], limit=2).facets

        assert [(one.value, one.count) for one in facet.values] == [(0, 4), (1, 3)]
        assert facet.distinct == 4
        nothing = parse_filter({"must": [{"key": "n", "match": 99}]})
        counts = gallery.facets(nothing, keys=["n"], limit=2)
        assert (counts.count, counts.facets[0].values, counts.facets[0].distinct) == (0, [], 0)


@pytest.mark.parametrize("keys", [["id"], [""], ["x", "x"]])
def test_a_key_that_counts_nothing_is_refused(tmp_path: Path, keys: list[str]) -> None:
    with gallery_of(tmp_path / "gallery", [{}]) as gallery, pytest.raises(GroupKeyError):
        gallery.facets(None, keys=keys, limit=2)


def test_an_index_of_an_older_format_that_cannot_be_renewed_is_not_trusted(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "gallery", [{"tags": ["a", "b"]}, {"tags": ["a"]}]) as gallery:
        new = gallery.facets(None, keys=["tags"], limit=9)
        with sqlite3.connect(tmp_path / "gallery" / DATABASE_NAME) as database:
            database.execute("DELETE FROM terms")
            database.execute("PRAGMA user_version = 2")

        old = gallery.facets(None, keys=["tags"], limit=9)

    assert old.facets == new.facets
    assert [(one.value, one.count) for one in old.facets[0].values] == [("a", 2), ("b", 1)]
