import json
import math
import re
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import selection
from index.changes import Changes, Row
from index.errors import FilterError
from index.filter import Condition, Filter, Match, Range, filter_sql, parse_filter
from index.items import encode_metadata
from index.schema import TABLES
from index.selection import condition_keys, scan_keys
from index.terms import term_faults
from tests.fakes import new_item

# Few distinct values, so that conditions often hold, and every trap: 1 == True in Python, but
# not here; keys with quotes, dots and brackets, which mean something in SQLite's paths.
TEXT = st.sampled_from(["", "a", "b", "1", "true", "é", "\U0001f600", "\uffff", "A", 'q"\\'])
NUMBERS = st.sampled_from(
    [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 1.0, -0.0, 0.1, 1e300, 2.0**53]
)
FREE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
KEYS = (
    st.sampled_from(["label", "k", "a.b", "x[0]", 'q"uo\\te', "", "$", "é", "\n", "'; --"]) | FREE
)
SCALARS = (
    st.none()
    | st.booleans()
    | NUMBERS
    | TEXT
    | FREE
    | st.floats(allow_nan=False).filter(math.isfinite)
)
VALUES = (
    SCALARS | st.lists(SCALARS | st.just([1]) | st.just({"k": 1}), max_size=3) | st.just({"k": 1})
)
COMPARABLE = NUMBERS | TEXT
MATCHED = COMPARABLE | st.booleans()
BOUNDS = st.sampled_from(["gte", "gt", "lte", "lt"])


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(KEYS)
    if draw(st.booleans()):
        return {"key": key, "match": draw(MATCHED | st.lists(MATCHED, min_size=1, max_size=3))}
    values = draw(st.sampled_from([NUMBERS, TEXT]))
    return {"key": key, "range": draw(st.dictionaries(BOUNDS, values, min_size=1, max_size=3))}


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.sets(st.sampled_from(["must", "should", "must_not"])))
    return {name: draw(st.lists(conditions(), max_size=2)) for name in names}


def kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def holds(condition: dict[str, Any], label: str | None, metadata: dict[str, Any]) -> bool:
    """The slow twin of one condition, written from the rules in index/filter.py."""
    key = condition["key"]
    value = label if key == "label" else metadata.get(key)
    elements = value if isinstance(value, list) else [value]
    if "match" in condition:
        wanted = condition["match"]
        wanted = wanted if isinstance(wanted, list) else [wanted]
        return any(
            kind(element) == kind(one) != "other" and element == one
            for element in elements
            for one in wanted
        )
    tests = {
        "gte": lambda element, bound: element >= bound,
        "gt": lambda element, bound: element > bound,
        "lte": lambda element, bound: element <= bound,
        "lt": lambda element, bound: element < bound,
    }
    return any(
        all(
            kind(element) == kind(bound) and tests[name](element, bound)
            for name, bound in condition["range"].items()
        )
        for element in elements
    )


def passes(wanted: dict[str, Any], label: str | None, metadata: dict[str, Any]) -> bool:
    def found(name: str) -> list[bool]:
        return [holds(condition, label, metadata) for condition in wanted.get(name, [])]

    should = found("should")
    return all(found("must")) and (not should or any(should)) and not any(found("must_not"))


def let_through(
    wanted: dict[str, Any], items: list[tuple[str | None, dict[str, Any]]]
) -> list[int]:
    """Return the places of the items that the filter's SQL lets through."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE items (key INTEGER PRIMARY KEY, label TEXT, metadata TEXT)")
    for key, (label, metadata) in enumerate(items):
        row = (key, label, encode_metadata(metadata))
        connection.execute("INSERT INTO items VALUES (?, ?, ?)", row)
    condition, parameters = filter_sql(parse_filter(json.loads(json.dumps(wanted))))
    sql = f"SELECT key FROM items WHERE {condition} ORDER BY key"
    return [key for (key,) in connection.execute(sql, parameters)]


@settings(deadline=None, max_examples=200)
@given(
    wanted=filters(),
    items=st.lists(
        st.tuples(st.none() | TEXT, st.dictionaries(KEYS, VALUES, max_size=4)), max_size=6
    ),
)
def test_sql_lets_the_same_items_through_as_plain_python(
    wanted: dict[str, Any], items: list[tuple[str | None, dict[str, Any]]]
) -> None:
    assert let_through(wanted, items) == [
        key for key, (label, metadata) in enumerate(items) if passes(wanted, label, metadata)
    ]


def stored(items: list[tuple[str | None, dict[str, Any]]]) -> apsw.Connection:
    """Return a database with ``items`` under the keys 1, 2, …"""
    connection = apsw.Connection(":memory:")
    connection.execute(TABLES)
    changes = Changes(connection)
    for number, (label, metadata) in enumerate(items):
        item = new_item(f"i{number}", label=label, metadata=metadata)
        changes.put(Row.of(item, created=""), upsert=True)
    return connection


def parsed(condition: dict[str, Any]) -> Condition:
    return parse_filter({"must": [condition]}).must[0]


def check_condition(
    connection: apsw.Connection, condition: dict[str, Any], *, after: int, holding: list[int]
) -> None:
    """All ways to the keys of one condition must lead to ``holding``."""
    for scan_cost in (0, selection.SCAN_COST, 1_000_000):  # the scan, as it comes, the index
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selection, "SCAN_COST", scan_cost)
            found = condition_keys(connection, parsed(condition), after=after)
        assert found.dtype == np.int64
        assert found.tolist() == holding, (condition, scan_cost)
    assert scan_keys(connection, parsed(condition), after=after).tolist() == holding


@settings(deadline=None, max_examples=300)
@given(
    condition=conditions(),
    items=st.lists(
        st.tuples(st.none() | TEXT, st.dictionaries(KEYS, VALUES, max_size=4)), max_size=8
    ),
    gone=st.sets(st.integers(0, 7)),
    after=st.integers(0, 9),
)
def test_the_index_the_scan_and_plain_python_find_the_same_keys(
    condition: dict[str, Any],
    items: list[tuple[str | None, dict[str, Any]]],
    gone: set[int],
    after: int,
) -> None:
    connection = stored(items)
    for number in gone:
        Changes(connection).delete(f"i{number}")
    holding = [
        number + 1
        for number, (label, metadata) in enumerate(items)
        if number not in gone and number + 1 > after and holds(condition, label, metadata)
    ]

    check_condition(connection, condition, after=after, holding=holding)
    assert list(term_faults(connection)) == []


def test_the_index_has_just_the_terms_of_what_is_stored_through_replacements() -> None:
    connection = stored([("a", {"k": [1, 1.0, True, "1", None, [2], {"k": 3}], "n": None})])
    terms = "SELECT name, kind, value, key FROM terms ORDER BY key, kind"
    assert connection.execute(terms).fetchall() == [
        ("k", 0, 1, 1),
        ("k", 1, 1, 1),
        ("k", 2, "1", 1),
    ]

    replacing = new_item("i0", metadata={"k": 2.5, "": "", "o": {"k": 1}})
    Changes(connection).put(Row.of(replacing, created=""), upsert=True)
    assert connection.execute(terms).fetchall() == [("k", 1, 2.5, 2), ("", 2, "", 2)]

    Changes(connection).delete("i0")
    assert connection.execute(terms).fetchall() == []


def test_an_item_with_damaged_metadata_is_deleted_with_its_terms() -> None:
    connection = stored([(None, {"k": 1}), (None, {"k": 1})])
    connection.execute("UPDATE items SET metadata = '{' WHERE key = 1")

    assert Changes(connection).delete("i0")

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
    ],
)
def test_conditions_are_looked_up_and_not_searched_for(
    condition: dict[str, Any], plan: str
) -> None:
    connection = stored([("a", {"k": n}) for n in range(50)])
    asked: list[tuple[str, Any]] = []
    connection.exec_trace = lambda _, sql, values: not asked.append((sql, values))

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


@pytest.mark.parametrize("key", ["label", "k", 'q"uo\\te', "a.b[0]", ""])
@pytest.mark.parametrize("place", ["must", "should", "must_not"])
def test_sql_and_plain_python_agree_on_every_pair_of_value_and_condition(
    key: str, place: str
) -> None:
    labels = [trap for trap in TRAPS if isinstance(trap, str)]
    items: list[tuple[str | None, dict[str, Any]]] = [(None, {key: trap}) for trap in TRAPS]
    items += [(label, {}) for label in labels] + [(None, {})]
    scalars = [trap for trap in TRAPS if isinstance(trap, str | int | float)]
    tests: list[dict[str, Any]] = [{"match": scalar} for scalar in scalars]
    tests += [{"match": ["a", 1, True]}, {"match": [False, "é"]}]
    for bound in [scalar for scalar in scalars if not isinstance(scalar, bool)]:
        tests += [{"range": {name: bound}} for name in ("gte", "gt", "lte", "lt")]
    tests += [{"range": {"gte": 0, "lt": 1}}, {"range": {"gt": "", "lte": "a"}}]

    connection = stored(items)
    for test in tests:
        wanted = {place: [{"key": key, **test}]}
        check_condition(
            connection,
            {"key": key, **test},
            after=2,
            holding=[
                number + 1
                for number, (label, meta) in enumerate(items)
                if number >= 2 and holds({"key": key, **test}, label, meta)
            ],
        )
        assert let_through(wanted, items) == [
            number for number, (label, meta) in enumerate(items) if passes(wanted, label, meta)
        ], wanted


def test_a_filter_is_read_into_frozen_conditions() -> None:
    wanted = {
        "must": [{"key": "label", "match": ["coat", "shirt"]}],
        "must_not": [{"key": "price", "range": {"gte": 10, "lt": 20.5}}],
    }

    assert parse_filter(wanted) == Filter(
        must=(Match("label", ("coat", "shirt")),),
        must_not=(Range("price", (("gte", 10), ("lt", 20.5))),),
    )


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (None, "a filter must be a JSON object"),
        ([], "a filter must be a JSON object"),
        ({"most": []}, "a filter has must, should, must_not, not 'most'"),
        ({"must": {"key": "a", "match": 1}}, "'must' must be a list"),
        ({"must": ["a"]}, "a condition must be a JSON object"),
        ({"must": [{"must": []}]}, "a condition has key, match, range, not 'must'"),
        ({"must": [{"match": 1}]}, "needs a 'key' of text"),
        ({"must": [{"key": 1, "match": 1}]}, "needs a 'key' of text"),
        ({"must": [{"key": "\ud800", "match": 1}]}, "needs a 'key' of text"),
        ({"must": [{"key": "a"}]}, "needs either 'match' or 'range'"),
        ({"must": [{"key": "a", "match": 1, "range": {"gt": 1}}]}, "either 'match' or 'range'"),
        ({"must": [{"key": "a", "match": []}]}, "at least one value"),
        ({"must": [{"key": "a", "match": None}]}, "takes text, finite numbers and booleans"),
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
    with pytest.raises(FilterError, match=sentence):
        parse_filter(wanted)


def test_the_largest_filter_allowed_is_run() -> None:
    wanted = {"should": [{"key": f"k{i}", "match": list(range(15))} for i in range(64)]}
    condition, parameters = filter_sql(parse_filter(wanted))
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE items (key INTEGER PRIMARY KEY, label TEXT, metadata TEXT)")
    connection.execute("""INSERT INTO items VALUES (1, NULL, '{"k63": 14}'), (2, NULL, '{}')""")

    rows = list(connection.execute(f"SELECT key FROM items WHERE {condition}", parameters))

    assert rows == [(1,)]
