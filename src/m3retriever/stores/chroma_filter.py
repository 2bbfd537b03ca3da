"""A filter as Chroma understands it: what Chroma can answer it is asked, the rest is left to `predicate`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from m3retriever.filters import CHROMA_OPERATORS, ID, JOINS, PATTERNS, TEXT, TEXT_OPERATORS, both, has_pattern, operation
from m3retriever.types import Where

_OPPOSITE = {"$eq": "$ne", "$in": "$nin", "$contains": "$not_contains", "$regex": "$not_regex"}
_OPPOSITE |= {right: left for left, right in _OPPOSITE.items()}
MOST_CONDITIONS = 300  # asked of Chroma 1.5 at once: above 1000 its SQLite refuses, and with 10,000 the process crashes
BEYOND = 2.0**63  # of a number's size: no int is larger
META = frozenset("\\.+*?()|[]{}^$#&-~")  # what means something in a regular expression of Chroma's
VALUES_A_CONDITION = 32  # of $in and $nin, so that at most 9,600 are asked for: SQLite takes 16,383 numbers


@dataclass(frozen=True)
class Question:
    """A filter in parts, all of which a document has to pass.

    Attributes
    ----------
    where, where_document : Chroma's own arguments for what Chroma is asked; None asks for all
    ids : the only documents that can pass, where the filter names them
    checked : the parts that are left to `predicate`
    alternatives : groups of filters, of each of which one has to pass: those with regular expressions, which
        only Chroma may search for, in places where it cannot be asked for them together with the rest
    """

    where: dict[str, Any] | None
    where_document: dict[str, Any] | None
    ids: tuple[str, ...] | None
    checked: tuple[Where, ...]
    alternatives: tuple[tuple[Where, ...], ...]


def question(where: Where, *, most: int | None = None, longest: int | None = None) -> Question:
    """What can be asked of Chroma about a filter, which is valid, and what cannot.

    `most` conditions are asked at once (default: MOST_CONDITIONS), on texts of `longest` bytes at most.
    """
    about_metadata: list[dict[str, Any]] = []
    about_text: list[dict[str, Any]] = []
    checked: list[Where] = []
    alternatives: list[tuple[Where, ...]] = []
    ids, left = None, MOST_CONDITIONS if most is None else min(most, MOST_CONDITIONS)
    for part in _conjuncts(_without_not(where)):
        keys = set(_keys(part))
        if keys == {ID} and (named := _named(part)) is not None:
            ids = named if ids is None else tuple(filter(set(named).__contains__, ids))
            continue
        askable = keys == {TEXT} or not keys & {TEXT, ID, None}
        asked = (_text_part(part) if keys == {TEXT} else for_chroma(part)) if askable else {}
        short = longest is None or keys != {TEXT} or _longest(asked) <= longest
        if askable and short and (size := _size(asked)) <= left:
            left -= size
            (about_text if keys == {TEXT} else about_metadata).append(asked)
        elif has_pattern(part):
            alternatives.append(tuple(part.get("$or", [part])))
        else:
            checked.append(part)
    return Question(_all(about_metadata), _all(about_text), ids, tuple(checked), tuple(alternatives))


def for_chroma(where: Where) -> dict[str, Any]:
    """A filter of metadata conditions that Chroma has, written so that it answers as `matches` does.

    Chroma 1.5 compares a stored int with a float operand by cutting off the operand's fraction, so
    that `{"price": {"$lt": 2.5}}` loses a price of 2 and `{"$eq": 2.5}` finds it. Conditions with such
    an operand get a second condition that puts the whole number in question right. It also compares a stored
    float with an int operand as if that were a float, which from 2^53 on may be another number: likewise.
    """
    [(key, condition)] = where.items()
    if key in JOINS:
        return {key: [for_chroma(part) for part in condition]}
    operator, operand = operation(condition)
    if operator in ("$in", "$nin"):
        parts = [_exact(key, "$eq" if operator == "$in" else "$ne", value) for value in operand]
        if any(set(part) & set(JOINS) for part in parts):
            return _join("$or" if operator == "$in" else "$and", parts)
        return {key: {operator: list(operand)}}
    return _exact(key, operator, operand)


def _without_not(where: Where, *, negated: bool = False) -> Where:
    """The same filter with every $not pushed inwards, as far as conditions have an opposite."""
    [(key, condition)] = where.items()
    if key == "$not":
        return _without_not(condition, negated=not negated)
    if key in JOINS:
        other = "$or" if key == "$and" else "$and"
        return {other if negated else key: [_without_not(part, negated=negated) for part in condition]}
    if not negated:
        return where
    operator, operand = (next(iter(condition.items()))) if isinstance(condition, Mapping) else ("$eq", condition)
    if operator in _OPPOSITE:
        return {key: {_OPPOSITE[operator]: operand}}
    return {key: {"$empty": not operand}} if operator == "$empty" else {"$not": where}


def _conjuncts(where: Where) -> Iterator[Where]:
    [(key, condition)] = where.items()
    if key != "$and":
        yield where
    else:
        for part in condition:
            yield from _conjuncts(part)


def _keys(where: Where) -> Iterator[str | None]:
    """The keys a filter looks at; None among them for a condition that Chroma lacks."""
    [(key, condition)] = where.items()
    if key in JOINS:
        for part in condition:
            yield from _keys(part)
    elif key in (TEXT, ID):
        yield key
    elif key == "$not":
        yield None
    else:
        operator, operand = operation(condition)
        compares_text = operator in ("$gt", "$gte", "$lt", "$lte") and isinstance(operand, str)
        yield None if operator not in CHROMA_OPERATORS or compares_text or _is_beyond(operator, operand) else key


def _is_beyond(operator: str, operand: Any) -> bool:
    """Whether a number is compared that Chroma cuts to 64 bits, so that the largest int would equal it."""
    if operator.endswith("contains"):
        return False
    operands = operand if isinstance(operand, list | tuple) else [operand]
    numbers = [float(one) for one in operands if isinstance(one, int | float)]
    return any(not -BEYOND <= number < BEYOND for number in numbers)


def _size(where: Mapping[str, Any]) -> int:
    """How many conditions Chroma would have to put together."""
    [(key, condition)] = where.items()
    if key in JOINS:
        return sum(_size(part) for part in condition)
    operands = list(condition.values()) if isinstance(condition, Mapping) else [condition]
    return sum(1 + (len(one) // VALUES_A_CONDITION if isinstance(one, list) else 0) for one in operands)


def _text_part(where: Where) -> dict[str, Any]:
    """Conditions on the text, every $contains as the regular expression that says the same.

    Chroma 1.5 has SQLite look for a $contains, which reads a text, and what is looked for, up to the first NUL: a text with
    one would pass any $not_contains. It refuses long ones, too. Its regular expressions have neither fault, and take as long.
    """
    [(key, condition)] = where.items()
    if key in JOINS:
        return {key: [_text_part(part) for part in condition]}
    operator, operand = operation(condition, TEXT_OPERATORS)
    if operator in PATTERNS:
        return {operator: operand}
    escaped = "".join(f"\\{character}" if character in META else character for character in operand)
    return {"$regex" if operator == "$contains" else "$not_regex": escaped}


def _longest(where_document: Mapping[str, Any]) -> int:
    """Bytes of the longest text or pattern that is searched for."""
    [(key, condition)] = where_document.items()
    return max(map(_longest, condition)) if key in JOINS else len(str(condition).encode())


def _named(where: Where) -> tuple[str, ...] | None:
    """The ids that one condition names; None for a condition of another kind."""
    if ID not in where:
        return None
    operator, operand = operation(where[ID])
    return tuple(operand) if operator == "$in" else (operand,) if operator == "$eq" else None


def _all(parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    joined = both(*parts)
    return None if joined is None else dict(joined)


def _exact(key: str, operator: str, operand: Any) -> dict[str, Any]:
    plain = {key: {operator: operand}}
    if not isinstance(operand, int | float) or operator.endswith("contains"):
        return plain
    cut: int | float = float(operand) if isinstance(operand, int) else math.trunc(operand)  # what some values are compared with
    if cut == operand:
        return plain
    misses = {"$ne", "$lt" if cut < operand else "$gt"}
    adds = {"$eq", "$gte" if cut < operand else "$lte"}
    if operator in misses:
        return _join("$or", [plain, {key: {"$eq": cut}}])
    if operator in adds:
        return _join("$and", [plain, {key: {"$ne": cut}}])
    return plain


def _join(operator: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {operator: parts}
