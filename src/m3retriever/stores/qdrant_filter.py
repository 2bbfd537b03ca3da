"""Filters in Qdrant: what a point's payload says about metadata, and our filter language as conditions on it.

Qdrant's own conditions on a JSON value are not ours: 3.0 is no 3 to it, 64-bit integers lose digits in a range, and an
index changes what a text condition means. So a point carries, beside its metadata, a list of terms, each naming a key, a
kind and a value, and its numbers as pairs of whole numbers that order as the numbers do. Equality on any key is then an
exact match of one keyword, a range two comparisons of numbers that a double holds exactly, and two fixed fields serve
every key. What cannot be said so ($regex, the text, $text_match, $gt to $lte between texts) is left to the store, which
reads the documents that the rest lets through (`narrowed`).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m3retriever.filters import ID, JOINS, TEXT, operation, plain
from m3retriever.types import Where

if TYPE_CHECKING:
    from qdrant_client import models

TERMS, NUMBERS = "terms", "numbers"  # fields of the payload
KEY, HIGH, LOW = "key", "high", "low"  # of one of the numbers
LONGEST_TERM = 250  # characters; of a longer one its SHA-256 is kept
DEEPEST = 20  # filters within filters that are sent: two messages each, and a range eight; gRPC reads them about 100 deep
REST_BITS = 11  # a 64-bit integer is at most 2**11 - 1 above the nearest double below it
LOW_BITS = 32  # of a double's 64 in the lower number: with the rest 43, so that both numbers are exact as doubles
BOUNDS = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


def point_id(id: str) -> str:
    """The id of a document's point, a UUID: 128 bits of the SHA-256 of our id, so that no two ids will ever share one."""
    return str(uuid.UUID(bytes=hashlib.sha256(id.encode()).digest()[:16]))


def terms(metadata: Mapping[str, Any]) -> list[str]:
    """What conditions of equality can ask about a document's metadata, each once."""
    found: dict[str, None] = {}
    for key, value in metadata.items():
        if isinstance(value, list):
            found |= dict.fromkeys(_element(key, one) for one in value)
        else:
            found[_scalar(key, value)] = None
        if value != "":
            found[_filled(key)] = None
    return list(found)


def numbers(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What ranges can ask: the numbers among the values, not those in lists, as `number_key` gives them."""
    found = []
    for key, value in metadata.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            high, low = number_key(value)
            found.append({KEY: _short(key), HIGH: high, LOW: low})
    return found


def number_key(value: float) -> tuple[int, int]:
    """Two whole numbers, both less than 2**53 in size, whose pairs order as 64-bit integers and doubles do by value.

    The greatest double that is not above the value, as bits that ascend with it, then what is left of an integer.
    """
    double, rest = float(value), 0
    if isinstance(value, int):
        if int(double) > value:  # beyond 2**53, where the nearest double may lie above it
            double = math.nextafter(double, -math.inf)
        rest = value - int(double)
    [bits] = struct.unpack("<q", struct.pack("<d", double))
    ascending = bits if bits >= 0 else -(bits & (2**63 - 1))  # -0.0 becomes 0
    high, low = divmod(ascending, 1 << LOW_BITS)
    return high, (low << REST_BITS) | rest


def narrowed(where: Where | None) -> tuple[models.Filter | None, bool]:
    """What Qdrant can be asked, which every document that passes satisfies; and whether that is all of the filter."""
    if where is None:
        return None, True
    conditions, whole = _parts(plain(where))
    return _all(conditions), whole


def both(*filters: models.Filter | None) -> models.Filter | None:
    """The filter that these make together."""
    return _all([one for one in filters if one is not None])


def among(points: Sequence[str]) -> models.Filter:
    """Only these points."""
    from qdrant_client import models

    return models.Filter(must=[models.HasIdCondition(has_id=list(points))])


def _parts(where: Where) -> tuple[list[Any], bool]:
    """The conditions of a filter, or of those parts of an $and that can be said; and whether nothing is left out."""
    [(key, condition)] = where.items()
    if key == "$and":
        parts = [_parts(part) for part in condition]
        return [one for said, _ in parts for one in said], all(whole for _, whole in parts)
    said = _said(where, level=1)
    return ([], False) if said is None else ([said], True)


def _said(where: Where, *, level: int) -> Any | None:
    """A filter as one condition, exactly; None where Qdrant cannot say it."""
    [(key, condition)] = where.items()
    if key in JOINS or key == "$not":
        if level > DEEPEST:
            return None
        parts: list[Any] = [_said(part, level=level + 1) for part in ([condition] if key == "$not" else condition)]
        if any(part is None for part in parts):
            return None
        return {"$and": _all, "$or": _any, "$not": _none}[key](parts)
    if key == TEXT:
        return None
    operator, operand = operation(condition)
    return _about_id(operator, operand) if key == ID else _about_key(key, operator, operand)


def _about_id(operator: str, operand: Any) -> Any:
    from qdrant_client import models

    points: list[Any] = [point_id(id) for id in (operand if operator in ("$in", "$nin") else [operand])]
    return _if(operator in ("$eq", "$in"), models.HasIdCondition(has_id=points))


def _about_key(key: str, operator: str, operand: Any) -> Any | None:
    if operator in BOUNDS:
        return None if isinstance(operand, str) else _range(key, BOUNDS[operator], operand)
    if operator in ("$eq", "$ne", "$in", "$nin"):
        values = operand if operator in ("$in", "$nin") else [operand]
        return _if(operator in ("$eq", "$in"), _has_term(*(_scalar(key, value) for value in values)))
    if operator in ("$contains", "$not_contains"):
        return _if(operator == "$contains", _has_term(_element(key, operand)))
    return _if(not operand, _has_term(_filled(key))) if operator == "$empty" else None


def _has_term(*wanted: str) -> Any:
    """That a point has one of these terms."""
    from qdrant_client import models

    return models.FieldCondition(key=TERMS, match=models.MatchAny(any=list(dict.fromkeys(wanted))))


def _range(key: str, bound: str, operand: float) -> Any:
    """That a key's number is beyond a bound: its higher part is, or that is the same and the lower part is."""
    from qdrant_client import models

    high, low = number_key(operand)
    same = models.FieldCondition(key=HIGH, range=models.Range(gte=high, lte=high))
    lower = models.FieldCondition(key=LOW, range=models.Range(**{bound: low}))
    beyond = models.FieldCondition(key=HIGH, range=models.Range(**{bound[:2]: high}))
    about = models.FieldCondition(key=KEY, match=models.MatchValue(value=_short(key)))
    inner = models.Filter(must=[about], should=[beyond, models.Filter(must=[same, lower])])
    return models.NestedCondition(nested=models.Nested(key=NUMBERS, filter=inner))


def _if(wanted: bool, condition: Any) -> Any:
    return condition if wanted else _none([condition])


def _all(conditions: list[Any]) -> models.Filter | None:
    from qdrant_client import models

    return models.Filter(must=conditions) if conditions else None


def _any(conditions: list[Any]) -> models.Filter | None:
    from qdrant_client import models

    return models.Filter(should=conditions)


def _none(conditions: list[Any]) -> models.Filter | None:
    from qdrant_client import models

    return models.Filter(must_not=conditions)


def _scalar(key: str, value: Any) -> str:
    """The term of a key whose value is this: numbers by value, the other kinds apart."""
    if isinstance(value, bool):
        return _term(key, "bool", str(value))
    if isinstance(value, str):
        return _term(key, "text", value)
    return _term(key, "number", str(int(value)) if value == int(value) else repr(value))


def _element(key: str, value: Any) -> str:
    """The term of a key whose list contains this: every kind apart, an int from a float too."""
    kind = next(kind for kind in (bool, int, float, str) if isinstance(value, kind))
    return _term(key, f"contains {kind.__name__}", repr(value + 0.0) if kind is float else str(value))  # -0.0 is 0.0


def _filled(key: str) -> str:
    """The term of a key that is there and not an empty text."""
    return _term(key, "filled", "")


def _term(key: str, kind: str, value: str) -> str:
    return _short(json.dumps([key, kind, value], ensure_ascii=False))


def _short(text: str) -> str:
    """A text as a keyword: itself, or a mark and its SHA-256 where it is long; one that begins with the mark is hashed too."""
    if len(text) <= LONGEST_TERM and not text.startswith("sha256:"):
        return text
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
