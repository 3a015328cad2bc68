"""Which items a search may return: the API's ``filter`` in, a frozen description and SQL out.

A condition looks at one ``key``: ``label`` is the item's label, any other key is the metadata
member of exactly that name (dots and brackets have no meaning). What holds, and what does not:

- An absent key, ``null`` and an object hold no condition; ``must_not`` of them therefore holds.
- Text, numbers and booleans never equal one another; 1 and 1.0 are equal.
- For an array in the metadata, a condition holds when any one element fulfils all of it.
- Ranges compare numbers by value and text by code point (dates as ISO 8601 compare rightly).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from index.errors import FilterError
from index.items import is_number, is_text, shown

MAX_CONDITIONS: Final = 64  # in one filter
MAX_VALUES: Final = 1000  # to match, in one filter
LABEL_KEY: Final = "label"
OPERATORS: Final = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Match:
    """Holds when the key's value is one of ``values``."""

    key: str
    values: tuple[Value, ...]  # at least one


@dataclass(frozen=True, slots=True)
class Range:
    """Holds when the key's value lies within all the bounds, which are all text or all numbers."""

    key: str
    bounds: tuple[tuple[str, str | int | float], ...]  # (gte | gt | lte | lt, bound), at least one


Condition = Match | Range


@dataclass(frozen=True, slots=True)
class Filter:
    """Holds when all of ``must``, one of ``should`` (if there are any) and no ``must_not`` hold."""

    must: tuple[Condition, ...] = ()
    should: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()


def parse_filter(value: object) -> Filter:
    """Return the filter that decoded JSON describes; ``{}`` lets everything through.

    >>> parse_filter({"must": [{"key": "label", "match": "coat"}]}).must
    (Match(key='label', values=('coat',)),)

    Raises:
        FilterError: malformed, or more than 64 conditions or 1,000 values to match.
    """
    members = _object(value, "a filter", allowed=("must", "should", "must_not"))
    lists = {name: _conditions(name, listed) for name, listed in members.items()}
    conditions = [condition for listed in lists.values() for condition in listed]
    if len(conditions) > MAX_CONDITIONS:
        raise FilterError(
            f"a filter has at most {MAX_CONDITIONS} conditions, got {len(conditions)}"
        )
    values = sum(len(condition.values) for condition in conditions if isinstance(condition, Match))
    if values > MAX_VALUES:
        raise FilterError(f"a filter matches at most {MAX_VALUES} values, got {values}")
    return Filter(**lists)


def filter_sql(wanted: Filter) -> tuple[str, list[Value]]:
    """Return an SQL condition over the table ``items``, true or false, and its parameters."""
    parameters: list[Value] = []

    def sql_of(condition: Condition) -> str:
        sql, needed = _condition_sql(condition)
        parameters.extend(needed)
        return sql

    parts = [sql_of(condition) for condition in wanted.must]
    if wanted.should:
        parts.append("(" + " OR ".join([sql_of(condition) for condition in wanted.should]) + ")")
    parts += [f"NOT {sql_of(condition)}" for condition in wanted.must_not]
    return " AND ".join(parts) or "1", parameters


def _conditions(name: str, value: object) -> tuple[Condition, ...]:
    if not isinstance(value, list):
        raise FilterError(f"{name!r} must be a list of conditions, got {shown(value)}")
    return tuple(_condition(element) for element in value)


def _condition(value: object) -> Condition:
    members = _object(value, "a condition", allowed=("key", "match", "range"))
    key = members.get("key")
    if not isinstance(key, str) or not is_text(key):
        raise FilterError(f"a condition needs a 'key' of text, got {shown(key)}")
    if ("match" in members) == ("range" in members):
        raise FilterError(f"the condition on {shown(key)} needs either 'match' or 'range'")
    if "match" in members:
        return Match(key, _match_values(key, members["match"]))
    return Range(key, _bounds(key, members["range"]))


def _match_values(key: str, match: object) -> tuple[Value, ...]:
    if isinstance(match, list):
        if not match:
            raise FilterError(f"'match' on {shown(key)} needs at least one value")
        return tuple(_match_value(key, value) for value in match)
    return (_match_value(key, match),)


def _match_value(key: str, value: object) -> Value:
    if isinstance(value, bool) or _is_comparable(value):
        return value
    raise FilterError(
        f"'match' on {shown(key)} takes text, finite numbers and booleans, got {shown(value)}"
    )


def _bounds(key: str, value: object) -> tuple[tuple[str, str | int | float], ...]:
    members = _object(value, f"'range' on {shown(key)}", allowed=tuple(OPERATORS))
    if not members:
        raise FilterError(f"'range' on {shown(key)} needs one of gte, gt, lte and lt")
    bounds: list[tuple[str, str | int | float]] = []
    for name, bound in members.items():
        if not _is_comparable(bound):
            raise FilterError(
                f"{name!r} on {shown(key)} must be text or a finite number, got {shown(bound)}"
            )
        bounds.append((name, bound))
    if len({isinstance(bound, str) for _, bound in bounds}) > 1:
        raise FilterError(f"'range' on {shown(key)} mixes text and numbers")
    return tuple(bounds)


def _is_comparable(value: object) -> TypeGuard[str | int | float]:
    return is_text(value) if isinstance(value, str) else is_number(value)


def _object(value: object, what: str, *, allowed: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise FilterError(f"{what} must be a JSON object, got {shown(value)}")
    unknown = [name for name in value if name not in allowed]
    if unknown:
        raise FilterError(f"{what} has {', '.join(allowed)}, not {shown(unknown[0])}")
    return value


def _condition_sql(condition: Condition) -> tuple[str, list[Value]]:
    if condition.key == LABEL_KEY:
        sql, parameters = _test_sql(condition, kind="'text'", value="items.label")
        return f"(items.label IS NOT NULL AND {sql})", parameters
    sql, parameters = _test_sql(condition, kind="member.type", value="member.value")
    # json_each gives a scalar as one row, an array as a row per element, and an object as a row per
    # member, which alone has text for its key. JSON escapes are SQLite's path escapes as well.
    return (
        "EXISTS (SELECT 1 FROM json_each(items.metadata, ?) AS member "
        f"WHERE typeof(member.key) <> 'text' AND {sql})",
        ["$." + json.dumps(condition.key, ensure_ascii=False), *parameters],
    )


def _test_sql(condition: Condition, *, kind: str, value: str) -> tuple[str, list[Value]]:
    """Return the test of one value; ``kind`` and ``value`` are SQL for its JSON type and itself."""
    if isinstance(condition, Match):
        return _match_sql(condition.values, kind, value)
    bounds = [bound for _, bound in condition.bounds]
    tests = [f"{value} {OPERATORS[name]} ?" for name, _ in condition.bounds]
    kinds = "('text')" if isinstance(bounds[0], str) else "('integer', 'real')"
    return " AND ".join([f"{kind} IN {kinds}", *tests]), [*bounds]


def _match_sql(values: tuple[Value, ...], kind: str, value: str) -> tuple[str, list[Value]]:
    texts = [wanted for wanted in values if isinstance(wanted, str)]
    truths = [wanted for wanted in values if isinstance(wanted, bool)]
    numbers = [wanted for wanted in values if not isinstance(wanted, str | bool)]
    tests = []
    if texts:
        tests.append(f"({kind} = 'text' AND {value} IN ({_marks(texts)}))")
    if numbers:
        tests.append(f"({kind} IN ('integer', 'real') AND {value} IN ({_marks(numbers)}))")
    if truths:
        tests.append(f"{kind} IN ({_marks(truths)})")
    names = ["true" if wanted else "false" for wanted in truths]
    return f"({' OR '.join(tests)})", [*texts, *numbers, *names]


def _marks(values: Sequence[Value]) -> str:
    return ", ".join("?" * len(values))
