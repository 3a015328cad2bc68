"""Ranges that say nothing beside others of the same filter: conditions in, those that count out.

Sixty-four ranges that each hold for most items cost as many ways through an index; mostly one lies
within the next, and one way is enough.
"""

from collections.abc import Callable, Sequence
from typing import Any

from index.items.filter import Condition, Key, Range
from index.items.metadata_index import kind_of


def narrowest(conditions: Sequence[Condition]) -> list[Condition]:
    """Return those of ``conditions`` that make all of them hold: no range with another in it.

    >>> n = Key("n", column=False)
    >>> narrowest([Range(n, (("gte", number),)) for number in range(64)])
    [Range(key=Key(name='n', column=False), bounds=(('gte', 63),))]
    """
    return _kept(conditions, lambda one, other: _lies_in(other, one))


def widest(conditions: Sequence[Condition]) -> list[Condition]:
    """Return those of ``conditions`` of which one holds if any does: no range in another."""
    return _kept(conditions, _lies_in)


def _kept(
    conditions: Sequence[Condition], says_nothing_beside: Callable[[Range, Range], bool]
) -> list[Condition]:
    ranges: dict[tuple[Key, int], list[Range]] = {}
    others: list[Condition] = []
    for condition in conditions:
        if not isinstance(condition, Range):
            others.append(condition)
            continue
        known = ranges.setdefault((condition.key, kind_of(condition.bounds[0][1])), [])
        if not any(says_nothing_beside(condition, one) for one in known):
            known[:] = [one for one in known if not says_nothing_beside(one, condition)]
            known.append(condition)
    return [*others, *(one for known in ranges.values() for one in known)]


def _lies_in(one: Range, other: Range) -> bool:
    """Return whether all that holds ``one``, on the same key and of the same kind, holds ``other``.

    Bound by bound, so it is as true of the elements of an array as of a value.
    """
    return _lowest(one) >= _lowest(other) and _highest(one) <= _highest(other)


def _lowest(one: Range) -> tuple[Any, ...]:
    """Return where a range begins, in order: (0,) without a bound, else that and what is next."""
    return max([(0,), *((1, bound, name == "gt") for name, bound in one.bounds if name[0] == "g")])


def _highest(one: Range) -> tuple[Any, ...]:
    return min([(1,), *((0, bound, name == "lte") for name, bound in one.bounds if name[0] == "l")])
