"""The filter language, `where`, as a function of one document.

It is Chroma's, in its widest form: conditions on metadata keys, on the text (`#document`) and on the id
(`#id`), joined by $and and $or, with a few conditions more that Chroma lacks: $not, $text_match,
$text_match_insensitive, $empty, and $gt to $lte between strings. Chroma's `where_document` is the part
about the text, written without its key (`about_text`).

MemoryStore filters with `predicate`; the index checks every hit with it once more, patterns apart, so
that a document that changed while a search ran cannot slip through. Tested against Chroma itself, operator
by operator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from m3retriever.checks import INT64, RESERVED_PREFIX
from m3retriever.errors import InvalidFilterError, shown
from m3retriever.types import Document, Where

CHROMA_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$not_contains")
OPERATORS = (*CHROMA_OPERATORS, "$text_match", "$text_match_insensitive", "$empty")
TEXT_OPERATORS = ("$contains", "$not_contains", "$regex", "$not_regex")
PATTERNS = ("$regex", "$not_regex")
ID_OPERATORS = ("$eq", "$ne", "$in", "$nin")
JOINS = ("$and", "$or")
TEXT, ID = "#document", "#id"  # Chroma's own names for what is not metadata
MOST_NESTED = 50  # filters within filters: Chroma reads about 60
_KINDS = (bool, int, float, str)  # bool first, for it is an int too
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda value, operand: value > operand,
    "$gte": lambda value, operand: value >= operand,
    "$lt": lambda value, operand: value < operand,
    "$lte": lambda value, operand: value <= operand,
}


def check_where(where: Where | None) -> None:
    """Raise InvalidFilterError, saying where and why, for what is not in the filter language.

    None means no filter. An empty mapping is refused: it is more often a filter that was forgotten.
    """
    if where is not None:
        _check(where, level=1)


def _check(where: Any, *, level: int) -> None:
    if level > MOST_NESTED:
        raise InvalidFilterError(f"a filter is nested at most {MOST_NESTED} deep; join flatly: {{'$and': [a, b, c]}}")
    if not isinstance(where, Mapping) or len(where) != 1:
        raise InvalidFilterError(
            f"where must be a mapping with exactly one key (join several with $and); got {shown(where)}; for no filter "
            "pass None"
        )
    [(key, condition)] = where.items()
    if key in JOINS:
        _check_join(key, condition, level=level)
    elif key == "$not":
        if condition is None:
            raise InvalidFilterError("$not takes a filter; got None")
        _check(condition, level=level + 1)
    elif key in (TEXT, ID):
        _check_special(key, *operation(condition, TEXT_OPERATORS if key == TEXT else ID_OPERATORS))
    elif not isinstance(key, str) or not key or key.startswith(("#", "$")):
        raise InvalidFilterError(f"where takes a metadata key, {TEXT}, {ID}, $and, $or or $not; got {shown(key)}")
    elif key.startswith(RESERVED_PREFIX):
        raise InvalidFilterError(f"a key that begins with {RESERVED_PREFIX} is Chroma's own, no document's; got {shown(key)}")
    elif not _is_text(key):
        raise InvalidFilterError(f"where takes a metadata key that is text; got {shown(key)}, which holds a lone surrogate")
    else:
        _check_operand(key, *operation(condition))


def matches(where: Where | None, document: Document) -> bool:
    """Whether a document passes the filter.

    A missing key fails every condition but $ne, $nin, $not_contains and $empty. Types are kept apart (a
    bool is no number, a str is neither), except that an int and a float compare by value; inside a list
    ($contains) they do not. Regular expressions are searched for with Python's `re`, whose dialect differs
    from Chroma's at the edges (\\p{L}, [[:alpha:]], $ before a last line break).
    """
    return predicate(where)(document)


def predicate(where: Where | None, *, patterns: bool | None = None) -> Callable[[Document], bool]:
    """`matches` for many documents: what takes time, such as an $in of many values, is prepared once.

    With `patterns`, regular expressions are not searched for but taken to hold (True) or not to (False):
    for documents that another engine, such as Chroma's, has judged already. Python's own engine may take
    for ever over a short text, and its dialect is another one.
    """
    if where is None:
        return lambda document: True
    [(key, condition)] = where.items()
    if key in JOINS:
        parts, join = [predicate(part, patterns=patterns) for part in condition], all if key == "$and" else any
        return lambda document: join(part(document) for part in parts)
    if key == "$not":
        opposite = predicate(condition, patterns=None if patterns is None else not patterns)
        return lambda document: not opposite(document)
    operator, operand = operation(condition, TEXT_OPERATORS if key == TEXT else ID_OPERATORS if key == ID else OPERATORS)
    if key == TEXT:
        if patterns is not None and operator in PATTERNS:
            return lambda document: patterns
        holds = _text_test(operator, operand)
        return lambda document: holds(document.text)
    if operator in ("$eq", "$ne", "$in", "$nin"):
        operand = frozenset(operand if operator in ("$in", "$nin") else [operand])
    if key == ID:
        return lambda document: _holds(document.id, operator, operand)
    return lambda document: _holds(document.metadata.get(key), operator, operand)


def about_text(where_document: Where | None) -> Where | None:
    """Chroma's `where_document`, such as {"$contains": "tax"}, as a `where`; checked."""
    if where_document is None:
        return None
    where = _about_text(where_document, level=1)
    check_where(where)
    return where


def _about_text(where_document: Any, *, level: int) -> Where:
    if not isinstance(where_document, Mapping) or len(where_document) != 1:
        raise InvalidFilterError(
            f"where_document must be a mapping with exactly one of {', '.join(TEXT_OPERATORS)}, $and, $or; "
            f"got {shown(where_document)}; for no filter pass None"
        )
    [(key, condition)] = where_document.items()
    if key in JOINS and isinstance(condition, list | tuple) and level < MOST_NESTED:
        return {key: [_about_text(part, level=level + 1) for part in condition]}
    return {key: condition} if key in JOINS else {TEXT: dict(where_document)}


def has_pattern(where: Where) -> bool:
    """Whether a regular expression is anywhere in a filter."""
    [(key, condition)] = where.items()
    if key in JOINS:
        return any(has_pattern(part) for part in condition)
    if key == "$not":
        return has_pattern(condition)
    return key == TEXT and operation(condition, TEXT_OPERATORS)[0] in PATTERNS


def reads_text(where: Where) -> bool:
    """Whether a filter looks at the text of documents."""
    [(key, condition)] = where.items()
    if key in JOINS:
        return any(reads_text(part) for part in condition)
    return reads_text(condition) if key == "$not" else key == TEXT


def plain(where: Where) -> dict[str, Any]:
    """The same filter, which is valid, as dicts, lists and values of Python's own types, shared with no one.

    Values of subclasses, such as an Enum's members, may look alike (`repr`) or change; these do not.
    """
    [(key, condition)] = where.items()
    if key in JOINS:
        return {key: [plain(part) for part in condition]}
    if key == "$not":
        return {key: plain(condition)}
    operator, operand = operation(condition, TEXT_OPERATORS if key == TEXT else ID_OPERATORS if key == ID else OPERATORS)
    values = [_plain_value(one) for one in operand] if isinstance(operand, list | tuple) else _plain_value(operand)
    return {_plain_value(key): {operator: values}}


def _plain_value(value: Any) -> Any:
    kind = _kind(value)
    return value if type(value) is kind or kind not in _PLAIN else _PLAIN[kind](value)


_PLAIN: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}


def both(*filters: Where | None) -> Where | None:
    """The filter that all of these make together; None where there is none among them."""
    given = [where for where in filters if where is not None]
    return given[0] if len(given) == 1 else {"$and": given} if given else None


def operation(condition: Any, allowed: Sequence[str] = OPERATORS) -> tuple[str, Any]:
    """Operator and operand of one condition; a plain value is compared with $eq."""
    if not isinstance(condition, Mapping):
        return "$eq", condition
    if len(condition) != 1 or next(iter(condition)) not in allowed:
        raise InvalidFilterError(f"a condition takes exactly one of {', '.join(allowed)}; got {shown(dict(condition))}")
    [(operator, operand)] = condition.items()
    return operator, operand


def _check_join(key: str, parts: Any, *, level: int) -> None:
    if not isinstance(parts, list | tuple) or len(parts) < 2:
        raise InvalidFilterError(f"{key} takes a list of at least two filters; got {shown(parts)}")
    for part in parts:
        if part is None:
            raise InvalidFilterError(f"{key} takes filters; got None among them")
        _check(part, level=level + 1)


def _check_special(key: str, operator: str, operand: Any) -> None:
    """Conditions on the text take a non-empty str, on the id a str or a list of them."""
    if key == TEXT and operator not in TEXT_OPERATORS:
        raise InvalidFilterError(f"a condition on {TEXT} takes one of {', '.join(TEXT_OPERATORS)}; got {shown(operand)}")
    values = operand if operator in ("$in", "$nin") else [operand]
    if not isinstance(values, list | tuple) or not values or not all(isinstance(value, str) and value for value in values):
        raise InvalidFilterError(f"{operator} on {key} takes non-empty text; got {shown(operand)}")
    for value in values:
        _check_scalar(key, value)


def _check_operand(key: str, operator: str, operand: Any) -> None:
    if operator in _COMPARE:
        if not _is_number(operand) and not isinstance(operand, str):
            raise InvalidFilterError(f"{operator} on {shown(key)} takes an int, a float or a str; got {shown(operand)}")
        _check_scalar(key, operand)
    elif operator in ("$in", "$nin"):
        if not isinstance(operand, list | tuple) or not operand or len({type(value) for value in operand}) != 1:
            raise InvalidFilterError(f"{operator} on {shown(key)} takes a non-empty list of one type; got {shown(operand)}")
        for value in operand:
            _check_scalar(key, value)
    elif operator in ("$text_match", "$text_match_insensitive") and not isinstance(operand, str):
        raise InvalidFilterError(f"{operator} on {shown(key)} takes a str; got {shown(operand)}")
    elif operator == "$empty" and not isinstance(operand, bool):
        raise InvalidFilterError(f"$empty on {shown(key)} takes true or false; got {shown(operand)}")
    else:
        _check_scalar(key, operand)


def _check_scalar(key: str, value: Any) -> None:
    if not isinstance(value, str | int | float | bool):
        raise InvalidFilterError(f"a filter on {shown(key)} takes str, int, float or bool; got {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidFilterError(f"a filter on {shown(key)} takes finite numbers; got {shown(value)}")
    if isinstance(value, int) and int(value) not in INT64:  # of an IntEnum, `in` would try number by number
        raise InvalidFilterError(f"a filter on {shown(key)} takes an int that fits 64 bits; got {shown(value)}")
    if isinstance(value, str) and not _is_text(value):
        raise InvalidFilterError(f"a filter on {shown(key)} takes text; got {shown(value)}, which holds a lone surrogate")


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _text_test(operator: str, operand: str) -> Callable[[str], bool]:
    wanted = not operator.startswith("$not")
    if operator not in PATTERNS:
        return lambda text: (operand in text) == wanted
    try:
        pattern = re.compile(operand)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidFilterError(f"{operator} takes a regular expression; got {shown(operand)}: {shown(str(error))}") from None
    return lambda text: (pattern.search(text) is not None) == wanted


def _holds(value: Any, operator: str, operand: Any) -> bool:
    if operator in _COMPARE:
        return any(_comparable(one, operand) and _COMPARE[operator](one, operand) for one in _values(value))
    if operator in ("$contains", "$not_contains"):
        found = isinstance(value, list | tuple) and any(_same(one, operand) for one in value)
        return found == (operator == "$contains")
    if operator == "$empty":
        return (value is None or value in ("", [])) is operand
    if operator == "$text_match":
        return isinstance(value, str) and operand in value
    if operator == "$text_match_insensitive":
        return isinstance(value, str) and operand.lower() in value.lower()
    found = any(one in operand and _comparable(one, next(iter(operand))) for one in _values(value))
    return found == (operator in ("$eq", "$in"))


def _values(value: Any) -> Sequence[Any]:
    return [] if value is None or isinstance(value, list | tuple) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(value: Any, operand: Any) -> bool:
    return _kind(value) is _kind(operand) or (_is_number(value) and _is_number(operand))


def _same(value: Any, operand: Any) -> bool:
    return _kind(value) is _kind(operand) and bool(value == operand)


def _kind(value: Any) -> type:
    """What a value counts as: also one of a subclass, such as an Enum's member that is a str."""
    kind = type(value)
    return kind if kind in _KINDS else next((one for one in _KINDS if isinstance(value, one)), kind)
