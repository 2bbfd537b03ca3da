"""Measures of retrieval quality, named and defined as in ir_measures and trec_eval.

All of them depend on the ranks of a query's relevant documents and on nothing else. Ranks take a column
per ranking, so that tuning can try hundreds of weights in one call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import FloatArray, IntArray

Measure: TypeAlias = Callable[[IntArray, IntArray, int], FloatArray]
"""From ranks (r, w), from 1, of a query's r >= 1 relevant documents in w rankings, their grades (r,), all
above 0, and k: (w,) values in [0, 1]."""

NOT_FOUND = 1 << 40  # the rank of a document that a ranking lacks: beyond every k
NO_CUT = NOT_FOUND - 1  # a measure without @k looks at the whole ranking


def ndcg(ranks: IntArray, grades: IntArray, k: int) -> FloatArray:
    """Gain (the grade) discounted by log2(rank + 1), over the best that k places allow (Järvelin & Kekäläinen, 2002)."""
    best = np.sort(grades)[::-1][:k]
    ideal = (best / np.log2(np.arange(2, len(best) + 2))).sum()
    gained = np.where(ranks <= k, grades[:, None] / np.log2(ranks + 1.0), 0).sum(axis=0)
    values: FloatArray = gained / ideal
    return values


def recall(ranks: IntArray, grades: IntArray, k: int) -> FloatArray:
    """Share of the relevant documents (grade > 0) among the first k."""
    return _found(ranks, k) / len(ranks)


def precision(ranks: IntArray, grades: IntArray, k: int) -> FloatArray:
    """Share of relevant documents among the first k places, filled or not."""
    return _found(ranks, k) / k


def success(ranks: IntArray, grades: IntArray, k: int) -> FloatArray:
    """1 where a relevant document is among the first k, else 0."""
    return np.minimum(_found(ranks, k), 1)


def reciprocal_rank(ranks: IntArray, grades: IntArray, k: int) -> FloatArray:
    """1 / rank of the first relevant document among the first k; 0 where there is none."""
    first = ranks.min(axis=0)
    return np.where(first <= k, 1 / first, 0)


def average_precision(ranks: IntArray, grades: IntArray, k: int) -> FloatArray:
    """Mean over the relevant documents of the precision at their rank; 0 for those not among the first k."""
    in_order = np.sort(ranks, axis=0)
    at_rank = np.arange(1, len(ranks) + 1)[:, None] / in_order
    total: FloatArray = np.where(in_order <= k, at_rank, 0).sum(axis=0)
    return total / len(ranks)


MEASURES: dict[str, Measure] = {
    "nDCG": ndcg,
    "R": recall,
    "P": precision,
    "Success": success,
    "RR": reciprocal_rank,
    "AP": average_precision,
}
NEEDS_CUT = {"R", "P", "Success"}


def measure_named(name: str) -> tuple[Measure, int]:
    """The measure and its k, of a name such as nDCG@10; InvalidArgumentError says what names there are."""
    match = re.fullmatch(r"([A-Za-z]+)(?:@([1-9]\d{0,8}))?", name)
    if match is None or match[1] not in MEASURES or (match[1] in NEEDS_CUT and not match[2]):
        raise InvalidArgumentError(f"a measure is {', '.join(MEASURES)} with @k, such as nDCG@10 or R@100; got {name!r}")
    return MEASURES[match[1]], int(match[2] or NO_CUT)


def ranks_of(relevant: Sequence[str], ids: Sequence[str], scores: FloatArray) -> IntArray:
    """Ranks (r, w) of the relevant documents among n documents with scores (n, w); ties by id, NOT_FOUND for others.

    `ranks_of(["b"], ["a", "b"], [[1.0], [1.0]])` is `[[2]]`.
    """
    scores = np.asarray(scores, np.float64)
    place = {id: row for row, id in enumerate(ids)}
    names = np.array(ids, dtype=object)
    ranks = np.full((len(relevant), scores.shape[1]), NOT_FOUND)
    for number, id in enumerate(relevant):
        if (row := place.get(id)) is not None:
            ahead = (scores > scores[row]).sum(axis=0)
            tied = ((scores == scores[row]) & (names < id)[:, None]).sum(axis=0)
            ranks[number] = 1 + ahead + tied
    return ranks


def relevant_of(judged: Mapping[str, int]) -> tuple[list[str], IntArray]:
    """Ids of the relevant documents of one query, and their grades (r,)."""
    relevant = [id for id, grade in judged.items() if grade > 0]
    return relevant, np.array([judged[id] for id in relevant], np.int64)


def _found(ranks: IntArray, k: int) -> FloatArray:
    """How many of the relevant documents are among the first k: (w,)."""
    return (ranks <= k).sum(axis=0).astype(np.float64)  # type: ignore[no-any-return]  # a sum over an axis is an array
