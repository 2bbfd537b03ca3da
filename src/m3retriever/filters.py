"""Chroma's filter language, `where`, as a function of one document's metadata.

MemoryStore filters with it; the index checks every hit with it once more, so that a document whose
metadata changed while a search ran cannot slip through. Tested against Chroma itself, operator by
operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from m3retriever.checks import INT64, RESERVED_KEY
from m3retriever.errors import InvalidFilterError

OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$not_contains")
JOINS = ("$and", "$or")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda value, operand: value > operand,
    "$gte": lambda value, operand: value >= operand,
    "$lt": lambda value, operand: value < operand,
    "$lte": lambda value, operand: value <= operand,
}


def check_where(where: Mapping[str, Any] | None) -> None:
    """Raise InvalidFilterError, saying where and why, for what is not Chroma's filter language.

    None means no filter. An empty mapping is refused: it is more often a filter that was forgotten.
    """
    if where is None:
        return
    if not isinstance(where, Mapping) or len(where) != 1:
        raise InvalidFilterError(
            f"where must be a mapping with exactly one key (join several with $and); got {where!r}; for no filter pass None"
        )
    [(key, condition)] = where.items()
    if key in JOINS:
        if not isinstance(condition, Sequence) or isinstance(condition, str) or len(condition) < 2:
            raise InvalidFilterError(f"{key} takes a list of at least two filters; got {condition!r}")
        for part in condition:
            if part is None:
                raise InvalidFilterError(f"{key} takes filters; got None among them")
            check_where(part)
    elif not isinstance(key, str) or key.startswith(("#", "$")) or key == RESERVED_KEY:
        raise InvalidFilterError(f"where takes a metadata key, $and or $or; got {key!r}")
    else:
        operator, operand = _condition(condition)
        _check_operand(key, operator, operand)


def matches(where: Mapping[str, Any] | None, metadata: Mapping[str, Any]) -> bool:
    """Whether a document with this metadata passes the filter.

    A missing key fails every condition but $ne, $nin and $not_contains. Types are kept apart (a bool
    is no number, a str is neither), except that an int and a float compare by value; inside a list
    ($contains) they do not.
    """
    if where is None:
        return True
    [(key, condition)] = where.items()
    if key in JOINS:
        return (all if key == "$and" else any)(matches(part, metadata) for part in condition)
    operator, operand = _condition(condition)
    return _holds(metadata.get(key), operator, operand)


def for_chroma(where: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The same filter, written so that Chroma answers it as `matches` does.

    Chroma 1.5 compares a stored int with a float operand by cutting off the operand's fraction, so
    that `{"price": {"$lt": 2.5}}` loses a price of 2 and `{"$eq": 2.5}` finds it. Conditions with such
    an operand get a second condition that puts the whole number in question right.
    """
    if where is None:
        return None
    [(key, condition)] = where.items()
    if key in JOINS:
        return {key: [for_chroma(part) for part in condition]}
    operator, operand = _condition(condition)
    if operator in ("$in", "$nin"):
        parts = [_exact(key, "$eq" if operator == "$in" else "$ne", value) for value in operand]
        if any(set(part) & set(JOINS) for part in parts):
            return _join("$or" if operator == "$in" else "$and", parts)
        return {key: {operator: list(operand)}}
    return _exact(key, operator, operand)


def _exact(key: str, operator: str, operand: Any) -> dict[str, Any]:
    plain = {key: {operator: operand}}
    if not isinstance(operand, float) or operand.is_integer() or operator.endswith("contains"):
        return plain
    cut = math.trunc(operand)
    misses = {"$ne", "$lt" if operand > 0 else "$gt"}
    adds = {"$eq", "$gte" if operand > 0 else "$lte"}
    if operator in misses:
        return _join("$or", [plain, {key: {"$eq": cut}}])
    if operator in adds:
        return _join("$and", [plain, {key: {"$ne": cut}}])
    return plain


def _join(operator: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {operator: parts}


def _condition(condition: Any) -> tuple[str, Any]:
    if not isinstance(condition, Mapping):
        return "$eq", condition
    if len(condition) != 1 or next(iter(condition)) not in OPERATORS:
        raise InvalidFilterError(f"a condition takes exactly one of {', '.join(OPERATORS)}; got {dict(condition)!r}")
    [(operator, operand)] = condition.items()
    return operator, operand


def _check_operand(key: str, operator: str, operand: Any) -> None:
    if operator in _COMPARE:
        if not _is_number(operand):
            raise InvalidFilterError(f"{operator} on {key!r} takes an int or a float; got {operand!r}")
        _check_scalar(key, operand)
    elif operator in ("$in", "$nin"):
        if not isinstance(operand, list | tuple) or not operand or len({type(value) for value in operand}) != 1:
            raise InvalidFilterError(f"{operator} on {key!r} takes a non-empty list of one type; got {operand!r}")
        for value in operand:
            _check_scalar(key, value)
    else:
        _check_scalar(key, operand)


def _check_scalar(key: str, value: Any) -> None:
    if not isinstance(value, str | int | float | bool):
        raise InvalidFilterError(f"a filter on {key!r} takes str, int, float or bool; got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidFilterError(f"a filter on {key!r} takes finite numbers; got {value!r}")
    if isinstance(value, int) and value not in INT64:
        raise InvalidFilterError(f"a filter on {key!r} takes an int that fits 64 bits; got {value}")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidFilterError(f"a filter on {key!r} takes text; got {value!r}, which holds a lone surrogate")


def _holds(value: Any, operator: str, operand: Any) -> bool:
    if operator in _COMPARE:
        return any(_is_number(one) and _COMPARE[operator](one, operand) for one in _values(value))
    if operator in ("$contains", "$not_contains"):
        found = isinstance(value, list | tuple) and any(_same(one, operand) for one in value)
        return found == (operator == "$contains")
    wanted = operand if operator in ("$in", "$nin") else [operand]
    found = any(_equal(one, other) for one in _values(value) for other in wanted)
    return found == (operator in ("$eq", "$in"))


def _values(value: Any) -> Sequence[Any]:
    return [] if value is None or isinstance(value, list | tuple) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(value: Any, operand: Any) -> bool:
    return _same(value, operand) or (_is_number(value) and _is_number(operand) and bool(value == operand))


def _same(value: Any, operand: Any) -> bool:
    return type(value) is type(operand) and bool(value == operand)
