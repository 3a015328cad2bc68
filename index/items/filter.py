"""Which items a search may return: the API's ``filter`` in, frozen conditions out.

A condition looks at one ``key``: ``id``, ``label``, or a member of the metadata. Members of objects
are named by their path, joined with dots: ``size.eu`` is the member ``eu`` of ``size``. Where the
metadata has a member called ``size.eu`` itself, the one that lies less deep counts. A key that
begins with ``metadata.`` is always a member, so ``metadata.id`` is the member called ``id``.

- Text, numbers and booleans never equal one another; 1 and 1.0 are equal.
- For an array, a match or a range holds when any one element fulfils all of it; what is absent,
  ``null`` or an object holds neither, and ``must_not`` of them therefore holds.
- Ranges compare numbers by value and text by code point (dates as ISO 8601 compare rightly).
- Text is compared in Unicode's composed form (NFC); upper and lower case differ.
- What no item can ever fulfil is refused instead of finding nothing.
"""

import operator
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from index.errors import FilterError, InvalidIdError, InvalidMetadataError
from index.items.ids import check_id
from index.items.item import check_label, clean_label, is_number, is_text, quoted
from index.items.metadata_index import NULL, OTHER, TEXT, kind_of, metadata_entries, nfc

MAX_CONDITIONS: Final = 64  # in one filter
MAX_VALUES: Final = 1000  # to match, in one filter
ID_KEY: Final = "id"
LABEL_KEY: Final = "label"
MEMBER_PREFIX: Final = "metadata."
OPERATORS: Final = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}
_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "gte": operator.ge,
    "gt": operator.gt,
    "lte": operator.le,
    "lt": operator.lt,
}
_KINDS: Final = ("match", "range", "exists", "is_null")

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Key:
    """What a condition looks at."""

    name: str  # of the member; or ``id``, ``label``
    column: bool  # whether it is the item's own id or label


@dataclass(frozen=True, slots=True)
class Match:
    """Holds when the key's value is one of ``values``."""

    key: Key
    values: tuple[Value, ...]  # at least one


@dataclass(frozen=True, slots=True)
class Range:
    """Holds when the key's value lies within all the bounds, which are all text or all numbers."""

    key: Key
    bounds: tuple[tuple[str, str | int | float], ...]  # (gte | gt | lte | lt, bound), at least one


@dataclass(frozen=True, slots=True)
class Exists:
    """Holds when the key is there, ``null`` or not; or with ``wanted`` off when it is not."""

    key: Key
    wanted: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    """Holds when the key is there and ``null``; or with ``wanted`` off there and not ``null``.

    A label is never ``null``: it is there or not.
    """

    key: Key
    wanted: bool


Condition = Match | Range | Exists | IsNull


@dataclass(frozen=True, slots=True)
class Filter:
    """Holds when all of ``must``, one of ``should`` (if there are any) and no ``must_not`` hold."""

    must: tuple[Condition, ...] = ()
    should: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()


def parse_filter(value: object) -> Filter:
    """Return the filter that decoded JSON describes; ``{}`` lets everything through.

    >>> parse_filter({"must": [{"key": "label", "match": "coat"}]}).must
    (Match(key=Key(name='label', column=True), values=('coat',)),)

    Raises:
        FilterError: malformed, more than 64 conditions or 1,000 values to match, or a condition
            that no item can ever fulfil.
    """
    members = _object(value, "a filter", allowed=("must", "should", "must_not"))
    count = sum(len(listed) for listed in members.values() if isinstance(listed, list))
    if count > MAX_CONDITIONS:
        raise FilterError(f"a filter has at most {MAX_CONDITIONS} conditions, got {count}")
    lists = {name: _conditions(name, listed) for name, listed in members.items()}
    conditions = [condition for listed in lists.values() for condition in listed]
    values = sum(len(condition.values) for condition in conditions if isinstance(condition, Match))
    if values > MAX_VALUES:
        raise FilterError(f"a filter matches at most {MAX_VALUES} values, got {values}")
    return Filter(**lists)


def holds(condition: Condition, *, item_id: str, label: str | None, metadata: str) -> bool:
    """Whether ``condition`` holds for one item, whose metadata is JSON text."""
    key = condition.key
    if key.column:
        text = item_id if key.name == ID_KEY else label
        entries: list[tuple[int, Value]] = [] if text is None else [(TEXT, text)]
    else:
        entries = [
            (kind, value) for name, kind, value in metadata_entries(metadata) if name == key.name
        ]
    if isinstance(condition, Exists):
        return bool(entries) == condition.wanted
    if isinstance(condition, IsNull):
        return any((entry == (OTHER, NULL)) == condition.wanted for entry in entries)
    if isinstance(condition, Match):
        wanted = {(kind_of(one), one) for one in condition.values}
        return any(entry in wanted for entry in entries)
    kind = kind_of(condition.bounds[0][1])
    return any(
        kind == entry_kind and all(_TESTS[name](value, bound) for name, bound in condition.bounds)
        for entry_kind, value in entries
    )


def _conditions(name: str, value: object) -> tuple[Condition, ...]:
    if not isinstance(value, list):
        raise FilterError(f"{name!r} must be a list of conditions, got {quoted(value)}")
    return tuple(_condition(element) for element in value)


def _condition(value: object) -> Condition:
    members = _object(value, "a condition", allowed=("key", *_KINDS))
    key = members.get("key")
    if not isinstance(key, str) or not is_text(key):
        raise FilterError(f"a condition needs a 'key' of text, got {quoted(key)}")
    kinds = [kind for kind in _KINDS if kind in members]
    if len(kinds) != 1:
        raise FilterError(
            f"the condition on {quoted(key)} needs one of 'match', 'range', 'exists' and 'is_null'"
        )
    (kind,) = kinds
    wanted, of = members[kind], parse_key(key)
    if kind == "match":
        return Match(of, _match_values(of, wanted))
    if kind == "range":
        return Range(of, _bounds(of, wanted))
    if not isinstance(wanted, bool):
        raise FilterError(f"{kind!r} on {quoted(key)} is true or false, got {quoted(wanted)}")
    if of == Key(ID_KEY, column=True):
        raise FilterError(f"{kind!r} on 'id' tells no items apart: every item has an id")
    if kind == "exists":
        return Exists(of, wanted)
    if of.column and wanted:
        raise FilterError(
            "a label is never null: for items without a label, ask for "
            '{"key": "label", "exists": false}'
        )
    return IsNull(of, wanted)


def parse_key(key: str) -> Key:
    """Return what a condition on ``key`` looks at."""
    if key in (ID_KEY, LABEL_KEY):
        return Key(key, column=True)
    return Key(nfc(key.removeprefix(MEMBER_PREFIX)), column=False)


def _match_values(key: Key, match: object) -> tuple[Value, ...]:
    if not isinstance(match, list):
        match = [match]
    if not match:
        raise FilterError(f"'match' on {quoted(key.name)} needs at least one value")
    if len(match) > MAX_VALUES:
        raise FilterError(f"a filter matches at most {MAX_VALUES} values, got {len(match)}")
    values = [_match_value(key, value) for value in match]
    if key == Key(LABEL_KEY, column=True):
        return tuple(spelling for value in values for spelling in _spellings(str(value)))
    return tuple(nfc(value) if isinstance(value, str) else value for value in values)


def _match_value(key: Key, value: object) -> Value:
    if value is None:
        raise FilterError(
            f"'match' on {quoted(key.name)} takes text, finite numbers and booleans; for null, ask "
            'for {"key": …, "is_null": true}'
        )
    if not isinstance(value, bool) and not _is_comparable(value):
        raise FilterError(
            f"'match' on {quoted(key.name)} takes text, finite numbers and booleans, "
            f"got {quoted(value)}"
        )
    if key.column:
        _check_column(key, value)
    return value


def _check_column(key: Key, value: object) -> None:
    """Refuse what no id, or no label, can be."""
    if not isinstance(value, str):
        raise FilterError(f"'{key.name}' is text, and never equals {quoted(value)}")
    try:
        check_id(value) if key.name == ID_KEY else check_label(value)
    except (InvalidIdError, InvalidMetadataError) as error:
        raise FilterError(f"no item has this {key.name}: {error}") from error


def _spellings(label: str) -> list[str]:
    """Return how ``label`` may be stored: as labels are today, or as they came in the past."""
    cleaned = clean_label(label)
    assert cleaned is not None  # it was checked
    return list(dict.fromkeys([label, cleaned, unicodedata.normalize("NFD", cleaned)]))


def _bounds(key: Key, value: object) -> tuple[tuple[str, str | int | float], ...]:
    members = _object(value, f"'range' on {quoted(key.name)}", allowed=tuple(OPERATORS))
    if not members:
        raise FilterError(f"'range' on {quoted(key.name)} needs one of gte, gt, lte and lt")
    bounds: list[tuple[str, str | int | float]] = []
    for name, bound in members.items():
        if not _is_comparable(bound):
            raise FilterError(
                f"{name!r} on {quoted(key.name)} must be text or a finite number, "
                f"got {quoted(bound)}"
            )
        if key.column and not isinstance(bound, str):
            raise FilterError(f"'{key.name}' is text, and never compares with {quoted(bound)}")
        bounds.append((name, nfc(bound) if isinstance(bound, str) else bound))
    if len({isinstance(bound, str) for _, bound in bounds}) > 1:
        raise FilterError(f"'range' on {quoted(key.name)} mixes text and numbers")
    return tuple(bounds)


def _is_comparable(value: object) -> TypeGuard[str | int | float]:
    return is_text(value) if isinstance(value, str) else is_number(value)


def _object(value: object, what: str, *, allowed: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise FilterError(f"{what} must be a JSON object, got {quoted(value)}")
    unknown = [name for name in value if name not in allowed]
    if unknown:
        raise FilterError(f"{what} has {', '.join(allowed)}, not {quoted(unknown[0])}")
    return value
