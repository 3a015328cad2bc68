"""Filters and items with every trap, and what a filter means in plain Python."""

import math
import unicodedata
from typing import Any

from hypothesis import strategies as st

Named = tuple[str, str | None, dict[str, Any]]
Items = list[tuple[str | None, dict[str, Any]]]

# Few distinct values, so that conditions often hold, and every trap: 1 == True in Python, but
# not here; keys with quotes, dots and brackets; text composed and decomposed.
TEXT = st.sampled_from(
    ["", "a", "b", "1", "true", "é", "e\u0301", "\U0001f600", "\uffff", "A", 'q"\\']
)
NUMBERS = st.sampled_from(
    [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 1.0, -0.0, 0.1, 1e300, 2.0**53]
)
FREE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
NAMES = (
    st.sampled_from(
        ["label", "id", "k", "a", "b", "a.b", "x[0]", 'q"uo\\te', "", "$", "é", "\n", "'; --"]
    )
    | FREE
)
KEYS = (
    NAMES
    | st.sampled_from(["a.b.k", "k.k", "metadata.label", "metadata.id", "e\u0301", "metadata"])
    | st.lists(NAMES, min_size=2, max_size=3).map(".".join)
)
IDS = st.sampled_from(["i0", "i1", "i2", "b"])
SCALARS = (
    st.none()
    | st.booleans()
    | NUMBERS
    | TEXT
    | FREE
    | st.floats(allow_nan=False).filter(math.isfinite)
)
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS | st.just([1]) | st.just({"k": 1}), max_size=3),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
METADATA = st.dictionaries(NAMES, VALUES, max_size=4)
COMPARABLE = NUMBERS | TEXT
MATCHED = COMPARABLE | st.booleans()
BOUNDS = st.sampled_from(["gte", "gt", "lte", "lt"])


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(KEYS)
    kind = draw(st.sampled_from(["match", "range", "exists", "is_null"]))
    if key == "id" or (key == "label" and kind == "is_null"):
        kind = "match"
    if kind in ("exists", "is_null"):
        return {"key": key, kind: draw(st.booleans())}
    texts = {"id": IDS, "label": TEXT.filter(bool)}.get(key)
    if kind == "match":
        matched = MATCHED if texts is None else texts
        return {"key": key, "match": draw(matched | st.lists(matched, min_size=1, max_size=3))}
    values = draw(st.sampled_from([NUMBERS, TEXT])) if texts is None else texts
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


def depth_and_value(metadata: dict[str, Any], key: str) -> list[tuple[int, Any]]:
    """Return every member whose path, joined with dots, is ``key``, and how deep it lies."""
    found = []
    for as_stored, member in metadata.items():
        name = unicodedata.normalize("NFC", as_stored)
        if name == key:
            found.append((1, member))
        if isinstance(member, dict) and key.startswith(f"{name}."):
            deeper = depth_and_value(member, key[len(name) + 1 :])
            found += [(depth + 1, value) for depth, value in deeper]
    return found


def values_of(key: str, item: Named) -> list[Any]:
    item_id, label, metadata = item
    if key == "id":
        return [item_id]
    if key == "label":
        return [] if label is None else [label]
    key = unicodedata.normalize("NFC", key.removeprefix("metadata."))
    found = depth_and_value(metadata, key)
    least = min((depth for depth, _ in found), default=0)
    return [value for depth, value in found if depth == least]


def composed(value: Any) -> Any:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def holds(condition: dict[str, Any], item: Named) -> bool:
    """The slow twin of one condition, written from the rules in index/items/filter.py."""
    values = values_of(condition["key"], item)
    if "exists" in condition:
        wanted: bool = condition["exists"]
        return bool(values) == wanted
    if "is_null" in condition:
        return any((value is None) == condition["is_null"] for value in values)
    elements = [
        composed(element)
        for value in values
        for element in (value if isinstance(value, list) else [value])
    ]
    if "match" in condition:
        wanted = condition["match"]
        wanted = wanted if isinstance(wanted, list) else [wanted]
        return any(
            kind(element) == kind(one) != "other" and element == composed(one)
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
            kind(element) == kind(bound) and tests[name](element, composed(bound))
            for name, bound in condition["range"].items()
        )
        for element in elements
    )


def passes(wanted: dict[str, Any], item: Named) -> bool:
    """The slow twin of a filter."""

    def found(name: str) -> list[bool]:
        return [holds(condition, item) for condition in wanted.get(name, [])]

    should = found("should")
    return all(found("must")) and (not should or any(should)) and not any(found("must_not"))


def named(items: Items) -> list[Named]:
    """Return ``items`` as they are stored, under the ids i0, i1, …"""
    return [(f"i{n}", composed(label), metadata) for n, (label, metadata) in enumerate(items)]
