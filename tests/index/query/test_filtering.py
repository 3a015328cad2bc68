"""Filters on random galleries: searches and pages let through what plain Python does."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.gallery import Gallery
from index.items.filter import parse_filter
from tests.support.fakes import new_item, unit_vectors
from tests.support.galleries.filter_twins import METADATA, TEXT, Items, filters, named, passes
from tests.support.galleries.segments import SMALL, rebuilt, small_structures

LABELS = st.none() | TEXT.filter(bool)
ITEMS = st.lists(st.tuples(LABELS, METADATA), max_size=8)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(before=ITEMS, later=ITEMS, wanted=st.lists(filters(), min_size=1, max_size=4))
def test_searches_and_pages_let_through_what_plain_python_does(
    monkeypatch: pytest.MonkeyPatch, before: Items, later: Items, wanted: list[dict[str, Any]]
) -> None:
    """Through a structure, by a scan, within what came since, and page by page."""
    small_structures(monkeypatch)
    plain: Items = [(None, {"k": n % 5, "a": {"b": n % 3}}) for n in range(100)]
    items = [*plain, *before, *later]
    with TemporaryDirectory() as folder:
        path = Path(folder, "g")
        with Gallery.create(
            path, model_name="m", fingerprint="a1" * 32, width=8, policy=SMALL
        ) as gallery:

            def check() -> None:
                for one in wanted:
                    parsed = parse_filter(one)
                    passing = {
                        item[0] for item in named(items[: gallery.count]) if passes(one, item)
                    }
                    for exact in (False, True):
                        found = gallery.search(
                            unit_vectors(1, 8, seed=3), k=150, filter=parsed, exact=exact
                        )
                        assert {hit.id for hit in found.hits[0]} == passing, (one, exact)
                    page = gallery.page(limit=150, filter=parsed)
                    assert {item.id for item in page.items} == passing, one

            def put(start: int, some: Items) -> None:
                gallery.put(
                    [
                        new_item(f"i{n}", seed=n, label=label, metadata=metadata)
                        for n, (label, metadata) in enumerate(some, start=start)
                    ]
                )

            put(0, [*plain, *before])
            check()
            rebuilt(path)
            assert gallery.adopt_newest_generation()
            check()
            put(100 + len(before), later)
            check()
            assert gallery.verify() == []
