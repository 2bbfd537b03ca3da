"""LlamaIndex's MetadataFilters in the filter language of the index.

A filter means what plain Python says of the node's metadata, as in LlamaIndex's SimpleVectorStore: a
missing key passes only NE, NIN and IS_EMPTY; CONTAINS, ANY and ALL mean membership in a list and a
substring of a text; numbers compare by value, True being 1 and False 0; values that Python cannot
compare do not pass. Groups may be nested; NOT passes where none of its filters does. What has no
meaning is refused with InvalidFilterError, never left out. Tested operator by operator against plain
Python, in every mode and store.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from m3retriever.checks import INT64
from m3retriever.errors import InvalidFilterError, shown
from m3retriever.filters import check_where
from m3retriever.types import Where

_COMPARE: dict[FilterOperator, tuple[str, Callable[[Any, Any], bool]]] = {
    FilterOperator.GT: ("$gt", operator.gt),
    FilterOperator.GTE: ("$gte", operator.ge),
    FilterOperator.LT: ("$lt", operator.lt),
    FilterOperator.LTE: ("$lte", operator.le),
}
_TEXT = {
    FilterOperator.TEXT_MATCH: "$text_match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$text_match_insensitive",
}
_LIST = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)


def as_where(filters: MetadataFilters | None) -> Where | None:
    """The `where` that says the same, checked; None where there is no filter, or an empty list of them."""
    if filters is None:
        return None
    if not isinstance(filters, MetadataFilters):
        raise InvalidFilterError(f"filters takes MetadataFilters; got {shown(filters)}")
    if not filters.filters:
        return None
    where = _group(filters)
    check_where(where)
    return where


def nothing(key: str) -> Where:
    """A filter that no document passes."""
    return {"$and": [{key: {"$empty": True}}, {key: {"$empty": False}}]}


def _group(filters: MetadataFilters) -> Where:
    parts = [_group(part) if isinstance(part, MetadataFilters) else _condition(part) for part in filters.filters]
    if not parts:
        raise InvalidFilterError(
            "a MetadataFilters inside another takes at least one filter; got none, which could mean all nodes or no node"
        )
    if filters.condition == FilterCondition.NOT:
        return {"$not": _any(parts)}
    return _any(parts) if filters.condition == FilterCondition.OR else _all(parts)


def _condition(condition: MetadataFilter) -> Where:
    key, value = condition.key, condition.value
    if not key or key[0] in "#$":
        raise InvalidFilterError(f"a filter takes a metadata key, which does not begin with # or $; got {shown(key)}")
    _check_value(key, condition.operator, value)
    return _WHERE[condition.operator](key, value)


def _check_value(key: str, asked: FilterOperator, value: Any) -> None:
    """One value, a list or a text, as the operator wants it."""
    if asked == FilterOperator.IS_EMPTY:
        return
    if value is None:
        raise InvalidFilterError(
            f"{asked.name} on {shown(key)} takes a value; got None: for nodes without the key use IS_EMPTY"
        )
    if asked in _LIST and not isinstance(value, list):
        raise InvalidFilterError(f"{asked.name} on {shown(key)} takes a list; got {shown(value)}")
    if asked not in _LIST and isinstance(value, list):
        raise InvalidFilterError(
            f"{asked.name} on {shown(key)} takes one value; got {shown(value)}: for several use IN, ANY or ALL"
        )
    if asked in _TEXT and not isinstance(value, str):
        raise InvalidFilterError(f"{asked.name} on {shown(key)} takes a str; got {shown(value)}")


def _equal(key: str, value: Any) -> Where:
    return _any([{key: {"$eq": value}}, *_bools(key, lambda flag: flag == value)])


def _in(key: str, values: Sequence[Any]) -> Where:
    if not values:
        return nothing(key)
    return _any([{key: {"$in": list(values)}}, *_bools(key, lambda flag: flag in values)])


def _compare(asked: FilterOperator) -> Callable[[str, Any], Where]:
    name, holds = _COMPARE[asked]

    def where(key: str, value: Any) -> Where:
        return _any([{key: {name: value}}, *_bools(key, lambda flag: not isinstance(value, str) and holds(flag, value))])

    return where


def _contains(key: str, value: Any) -> Where:
    """A list that holds the value, or a text that it is a part of."""
    parts: list[Where] = [{key: {"$contains": one}} for one in _same_values(value)]
    return _any([*parts, {key: {"$text_match": value}}] if isinstance(value, str) else parts)


def _contains_any(key: str, values: Sequence[Any]) -> Where:
    return _any([_contains(key, value) for value in values]) if values else nothing(key)


def _contains_all(key: str, values: Sequence[Any]) -> Where:
    present: list[Where] = [{key: {"$empty": False}}, {key: {"$eq": ""}}]
    return _all([_contains(key, value) for value in values]) if values else _any(present)


def _bools(key: str, holds: Callable[[bool], bool]) -> list[Where]:
    """The stored bools that pass: to the index a bool is no number, to Python it is 0 or 1."""
    return [{key: {"$eq": flag}} for flag in (False, True) if holds(flag)]


def _same_values(value: Any) -> list[Any]:
    """The value in every type in which Python calls it equal: inside a list the index keeps types apart."""
    if isinstance(value, str):
        return [value]
    numbers: list[Any] = [value]
    if isinstance(value, float) and value.is_integer() and int(value) in INT64:
        numbers.append(int(value))
    if isinstance(value, int) and value in INT64 and float(value) == value:
        numbers.append(float(value))
    return numbers + [flag for flag in (False, True) if flag == value]


def _any(parts: Sequence[Where]) -> Where:
    return parts[0] if len(parts) == 1 else {"$or": list(parts)}


def _all(parts: Sequence[Where]) -> Where:
    return parts[0] if len(parts) == 1 else {"$and": list(parts)}


_WHERE: dict[FilterOperator, Callable[[str, Any], Where]] = {
    FilterOperator.EQ: _equal,
    FilterOperator.NE: lambda key, value: {"$not": _equal(key, value)},
    **{asked: _compare(asked) for asked in _COMPARE},
    FilterOperator.IN: _in,
    FilterOperator.NIN: lambda key, values: {"$not": _in(key, values)},
    FilterOperator.ANY: _contains_any,
    FilterOperator.ALL: _contains_all,
    FilterOperator.CONTAINS: _contains,
    FilterOperator.TEXT_MATCH: lambda key, text: {key: {"$text_match": text}},
    FilterOperator.TEXT_MATCH_INSENSITIVE: lambda key, text: {key: {"$text_match_insensitive": text}},
    FilterOperator.IS_EMPTY: lambda key, _: {key: {"$empty": True}},
}
