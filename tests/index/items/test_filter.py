"""Filters: parsed, refused, and answered alike by the index, a scan and plain Python."""

import math
import re
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import FilterError
from index.items.filter import Condition, Exists, Filter, IsNull, Key, Match, Range, parse_filter
from index.items.metadata_index import metadata_index_faults
from index.items.prepared_item import PreparedItem
from index.store import condition_queries
from index.store.condition_queries import condition_keys, distinct, scan_keys
from index.store.schema import FORMAT_VERSION, TABLES
from index.store.transaction import WriteTransaction
from tests.support.fakes import new_item
from tests.support.galleries.filter_twins import METADATA, TEXT, Items, conditions, holds, named


def stored(items: Items) -> apsw.Connection:
    """Return a database with ``items`` under the keys 1, 2, …"""
    connection = apsw.Connection(":memory:")
    connection.execute(TABLES)
    connection.pragma("user_version", FORMAT_VERSION)
    transaction = WriteTransaction(connection)
    for number, (label, metadata) in enumerate(items):
        item = new_item(f"i{number}", label=label, metadata=metadata)
        transaction.put(PreparedItem.of(item, width=len(item.vector_D), created=""), upsert=True)
    return connection


def parsed(condition: dict[str, Any]) -> Condition:
    return parse_filter({"must": [condition]}).must[0]


def check_condition(
    connection: apsw.Connection, condition: dict[str, Any], *, after: int, holding: list[int]
) -> None:
    """All ways to the keys of one condition must lead to ``holding``."""
    for scan_cost in (
        0,
        condition_queries.SCAN_COST,
        1_000_000,
    ):  # the scan, as it comes, the index
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(condition_queries, "SCAN_COST", scan_cost)
            found = condition_keys(connection, parsed(condition), after=after)
        assert found.dtype == np.int64
        assert found.tolist() == holding, (condition, scan_cost)
    assert scan_keys(connection, parsed(condition), after=after).tolist() == holding
    connection.pragma("user_version", 2)  # an older index, which does not know all of it
    connection.execute("CREATE TEMP TABLE terms (none)")  # in front of ours
    assert condition_keys(connection, parsed(condition), after=after).tolist() == holding
    connection.execute("DROP TABLE temp.terms")
    connection.pragma("user_version", FORMAT_VERSION)


@settings(deadline=None, max_examples=300)
@given(
    condition=conditions(),
    items=st.lists(st.tuples(st.none() | TEXT.filter(bool), METADATA), max_size=8),
    gone=st.sets(st.integers(0, 7)),
    after=st.integers(0, 9),
)
def test_the_index_the_scan_and_plain_python_find_the_same_keys(
    condition: dict[str, Any],
    items: Items,
    gone: set[int],
    after: int,
) -> None:
    connection = stored(items)
    for number in gone:
        WriteTransaction(connection).delete(f"i{number}")
    holding = [
        number + 1
        for number, item in enumerate(named(items))
        if number not in gone and number + 1 > after and holds(condition, item)
    ]

    check_condition(connection, condition, after=after, holding=holding)
    assert list(metadata_index_faults(connection)) == []


def test_the_index_has_just_the_terms_of_what_is_stored_through_replacements() -> None:
    connection = stored([("a", {"k": [1, 1.0, True, "1", None, [2], {"k": 3}], "n": None})])
    terms = "SELECT name, kind, value, key FROM terms ORDER BY key, name, kind"
    assert connection.execute(terms).fetchall() == [
        ("k", 0, 1, 1),
        ("k", 1, 1, 1),
        ("k", 2, "1", 1),
        ("n", 3, 0, 1),
    ]

    replacing = new_item("i0", metadata={"k": 2.5, "": "", "o": {"k": 1}, "o.k": 2, "e": [[]]})
    WriteTransaction(connection).put(
        PreparedItem.of(replacing, width=len(replacing.vector_D), created=""), upsert=True
    )
    assert connection.execute(terms).fetchall() == [
        ("", 2, "", 2),
        ("e", 3, 1, 2),
        ("k", 1, 2.5, 2),
        ("o", 3, 2, 2),
        ("o.k", 1, 2, 2),
    ]

    WriteTransaction(connection).delete("i0")
    assert connection.execute(terms).fetchall() == []


def test_an_item_with_damaged_metadata_is_deleted_with_its_terms() -> None:
    connection = stored([(None, {"k": 1}), (None, {"k": 1})])
    connection.execute("UPDATE items SET metadata = '{' WHERE key = 1")

    assert WriteTransaction(connection).delete("i0")

    assert connection.execute("SELECT key FROM terms").fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("condition", "plan"),
    [
        ({"key": "k", "match": [1, 2]}, "SEARCH terms USING PRIMARY KEY .*value=. AND key>"),
        (
            {"key": "k", "range": {"gte": 1, "lt": 2}},
            "SEARCH terms USING PRIMARY KEY .*value>. AND",
        ),
        ({"key": "label", "match": ["a", "b"]}, "SEARCH items USING .*items_by_label .*rowid>"),
        ({"key": "label", "range": {"gt": "a"}}, "SEARCH items USING .*items_by_label .label>"),
        ({"key": "id", "match": ["a", "b"]}, "SEARCH items USING .*autoindex_items_1 .id=. AND"),
        ({"key": "id", "range": {"gt": "a"}}, "SEARCH items USING .*autoindex_items_1 .id>"),
        ({"key": "k", "exists": True}, "SEARCH terms USING PRIMARY KEY .name=.*"),
        ({"key": "k", "is_null": True}, "SEARCH terms USING PRIMARY KEY .name=. AND kind=. AND"),
    ],
)
def test_conditions_are_looked_up_and_not_searched_for(
    condition: dict[str, Any], plan: str
) -> None:
    connection = stored([("a", {"k": n}) for n in range(50)])
    asked: list[tuple[str, Any]] = []
    connection.exec_trace = lambda _, sql, values: asked.append((sql, values)) is None

    condition_keys(connection, parsed(condition), after=3)

    connection.exec_trace = None
    plans = [
        " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))
        for sql, values in asked
    ]
    assert any(re.search(plan, steps) for steps in plans), plans


TRAPS: list[Any] = [None, True, False, 0, 1, 1.0, -0.0, 0.1, 2**53 + 1, 2.0**53, 2**63 - 1]
TRAPS += ["", "1", "true", "null", "a", "A", "é", "\uffff", "\U0001f600", "[1]", '{"k":1}']
TRAPS += [[], [1], [True], ["1"], [None], [1, "a"], [[1]], [{"k": 1}], {}, {"k": 1}, {"0": "a"}]


@pytest.mark.parametrize("key", ["k", 'q"uo\\te', "a.b[0]", "", "metadata.id", "o.k"])
@pytest.mark.parametrize("after", [0, 2])
def test_all_ways_agree_on_every_pair_of_value_and_condition(key: str, after: int) -> None:
    name = key.removeprefix("metadata.")
    items: Items = [(None, {name: trap}) for trap in TRAPS]
    if name == "o.k":
        items += [(None, {"o": {"k": trap}}) for trap in TRAPS]
    items.append((None, {}))
    scalars = [trap for trap in TRAPS if isinstance(trap, str | int | float)]
    tests: list[dict[str, Any]] = [{"match": scalar} for scalar in scalars]
    tests += [{"match": ["a", 1, True]}, {"match": [False, "é"]}]
    tests += [{kind: wanted} for kind in ("exists", "is_null") for wanted in (True, False)]
    for bound in [scalar for scalar in scalars if not isinstance(scalar, bool)]:
        tests += [{"range": {name: bound}} for name in ("gte", "gt", "lte", "lt")]
    tests += [{"range": {"gte": 0, "lt": 1}}, {"range": {"gt": "", "lte": "a"}}]

    connection = stored(items)
    for test in tests:
        condition = {"key": key, **test}
        holding = [
            number + 1
            for number, item in enumerate(named(items))
            if number >= after and holds(condition, item)
        ]
        check_condition(connection, condition, after=after, holding=holding)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"key": "id", "match": "i1"}, {"i1"}),
        ({"key": "id", "match": ["i1", "i2", "never"]}, {"i1", "i2"}),
        ({"key": "id", "range": {"gte": "i2"}}, {"i2", "i3", "i4"}),
        ({"key": "metadata.id", "match": 7}, {"i0"}),
        ({"key": "metadata.label", "match": "x"}, {"i0"}),
        ({"key": "size.eu", "match": 40}, {"i0", "i1"}),
        ({"key": "size.eu", "match": 41}, set()),  # behind the member that is called so
        ({"key": "size.uk.men", "range": {"gt": 6}}, {"i0"}),
        ({"key": "size.uk.men", "range": {"gt": 7}}, set()),
        ({"key": "metadata.size.eu", "match": 40}, {"i0", "i1"}),
        ({"key": "sold", "is_null": True}, {"i0"}),
        ({"key": "sold", "is_null": False}, {"i1"}),
        ({"key": "sold", "exists": True}, {"i0", "i1"}),
        ({"key": "sold", "exists": False}, {"i2", "i3", "i4"}),
        ({"key": "size", "exists": True}, {"i0", "i1"}),
        ({"key": "tags", "exists": True}, {"i2"}),
        ({"key": "label", "exists": True}, {"i0", "i3", "i4"}),
        ({"key": "label", "exists": False}, {"i1", "i2"}),
        ({"key": "label", "match": " Cafe\u0301 "}, {"i3", "i4"}),
        ({"key": "label", "match": "café"}, set()),
        ({"key": "note", "match": "e\u0301"}, {"i3", "i4"}),
        ({"key": "note", "match": "é"}, {"i3", "i4"}),
    ],
)
def test_examples_of_the_documents(condition: dict[str, Any], found: set[str]) -> None:
    items: Items = [
        ("coat", {"id": 7, "label": "x", "size": {"eu": 40, "uk": {"men": 6.5}}, "sold": None}),
        (None, {"size.eu": 40, "size": {"eu": 41}, "sold": False}),
        (None, {"tags": []}),
        ("Caf\u00e9", {"note": "\u00e9"}),
        (" Cafe\u0301", {"note": ["e\u0301", 1]}),
    ]
    keys = [number + 1 for number in range(5) if f"i{number}" in found]

    check_condition(stored(items), condition, after=0, holding=keys)


def test_a_label_that_an_older_program_stored_decomposed_or_with_spaces_is_found() -> None:
    connection = stored([("é", {}), ("hat", {}), ("hat", {})])
    connection.execute("UPDATE items SET label = 'e\u0301' WHERE key = 1")
    connection.execute("UPDATE items SET label = 'hat ' WHERE key = 2")

    check_condition(connection, {"key": "label", "match": "é"}, after=0, holding=[1])
    check_condition(connection, {"key": "label", "match": "hat "}, after=0, holding=[2, 3])


def test_a_filter_is_read_into_frozen_conditions() -> None:
    wanted = {
        "must": [{"key": "label", "match": ["coat", "shirt"]}],
        "must_not": [{"key": "price", "range": {"gte": 10, "lt": 20.5}}],
    }

    assert parse_filter(wanted) == Filter(
        must=(Match(Key("label", column=True), ("coat", "shirt")),),
        must_not=(Range(Key("price", column=False), (("gte", 10), ("lt", 20.5))),),
    )
    assert parse_filter({"should": [{"key": "a", "exists": False}]}) == Filter(
        should=(Exists(Key("a", column=False), wanted=False),)
    )
    assert parse_filter({"should": [{"key": "metadata.id", "is_null": True}]}) == Filter(
        should=(IsNull(Key("id", column=False), wanted=True),)
    )


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (None, "a filter must be a JSON object"),
        ([], "a filter must be a JSON object"),
        ({"most": []}, "a filter has must, should, must_not, not 'most'"),
        ({"must": {"key": "a", "match": 1}}, "'must' must be a list"),
        ({"must": ["a"]}, "a condition must be a JSON object"),
        (
            {"must": [{"must": []}]},
            "a condition has key, match, range, exists, is_null, not 'must'",
        ),
        ({"must": [{"match": 1}]}, "needs a 'key' of text"),
        ({"must": [{"key": 1, "match": 1}]}, "needs a 'key' of text"),
        ({"must": [{"key": "\ud800", "match": 1}]}, "needs a 'key' of text"),
        ({"must": [{"key": "a"}]}, "needs one of 'match', 'range', 'exists' and 'is_null'"),
        ({"must": [{"key": "a", "match": 1, "range": {"gt": 1}}]}, "needs one of 'match'"),
        ({"must": [{"key": "a", "match": []}]}, "at least one value"),
        ({"must": [{"key": "a", "match": None}]}, 'for null, ask for {"key": …, "is_null": true}'),
        ({"must": [{"key": "a", "match": ["b", None]}]}, "for null, ask for"),
        ({"must": [{"key": "a", "match": {}}]}, "takes text, finite numbers and booleans"),
        ({"must": [{"key": "a", "exists": 1}]}, "'exists' on 'a' is true or false, got 1"),
        ({"must": [{"key": "a", "is_null": None}]}, "'is_null' on 'a' is true or false"),
        ({"must": [{"key": "id", "exists": True}]}, "every item has an id"),
        ({"must": [{"key": "id", "is_null": False}]}, "every item has an id"),
        ({"must": [{"key": "label", "is_null": True}]}, "a label is never null"),
        ({"must": [{"key": "label", "match": 1}]}, "'label' is text, and never equals 1"),
        ({"must": [{"key": "label", "match": ["a", True]}]}, "never equals True"),
        ({"must": [{"key": "label", "match": " "}]}, "no item has this label"),
        ({"must": [{"key": "label", "match": "x" * 300}]}, "no item has this label"),
        ({"must": [{"key": "id", "match": "a/b"}]}, "no item has this id: an id has"),
        ({"must": [{"key": "id", "match": 5}]}, "'id' is text, and never equals 5"),
        ({"must": [{"key": "label", "range": {"gt": 1}}]}, "never compares with 1"),
        ({"must": [{"key": "a", "match": [[1]]}]}, "takes text, finite numbers and booleans"),
        ({"must": [{"key": "a", "match": math.nan}]}, "takes text, finite numbers and booleans"),
        ({"must": [{"key": "a", "match": 2**63}]}, "takes text, finite numbers and booleans"),
        ({"must": [{"key": "a", "match": "\0"}]}, "takes text, finite numbers and booleans"),
        ({"must": [{"key": "a", "range": 1}]}, "must be a JSON object"),
        ({"must": [{"key": "a", "range": {}}]}, "needs one of gte, gt, lte and lt"),
        ({"must": [{"key": "a", "range": {"above": 1}}]}, "has gte, gt, lte, lt, not 'above'"),
        ({"must": [{"key": "a", "range": {"gt": True}}]}, "text or a finite number"),
        ({"must": [{"key": "a", "range": {"gt": math.inf}}]}, "text or a finite number"),
        ({"must": [{"key": "a", "range": {"gt": 1, "lt": "b"}}]}, "mixes text and numbers"),
        ({"must": [{"key": "a", "match": 1}] * 65}, "at most 64 conditions, got 65"),
        ({"must": [{"key": "a", "match": [1] * 1001}]}, "at most 1000 values, got 1001"),
    ],
)
def test_a_malformed_filter_is_refused_with_a_sentence(wanted: object, sentence: str) -> None:
    with pytest.raises(FilterError, match=re.escape(sentence)):
        parse_filter(wanted)


@given(st.lists(st.integers(1, 60) | st.integers(-(2**62), 2**62), min_size=1, max_size=40))
def test_keys_are_told_once_and_in_order_whether_they_are_dense_or_sparse(keys: list[int]) -> None:
    assert distinct(np.array(keys, np.int64)).tolist() == sorted(set(keys))
