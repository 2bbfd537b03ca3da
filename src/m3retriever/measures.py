"""Measures of retrieval quality, named and defined as in ir_measures and trec_eval.

Each takes many rankings of one query at once, so that tuning can try hundreds of weights in one call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import FloatArray, IntArray

Measure: TypeAlias = Callable[[IntArray, IntArray, int], FloatArray]
"""From gains (n, w), the grades in w rankings of n documents place by place (0 where unjudged), the
grades of all judged documents (m,), one of them above 0 at least, and k: (w,) values in [0, 1]."""

NO_CUT = 1_000_000  # a measure without @k looks at the whole ranking


def ndcg(gains: IntArray, judged: IntArray, k: int) -> FloatArray:
    """Gain (the grade) discounted by log2(rank + 1), over the best that k places allow (Järvelin & Kekäläinen, 2002)."""
    best = _dcg(np.sort(judged)[::-1][:k, None])
    result: FloatArray = _dcg(gains[:k]) / best
    return result


def recall(gains: IntArray, judged: IntArray, k: int) -> FloatArray:
    """Share of the relevant documents (grade > 0) among the first k."""
    result: FloatArray = (gains[:k] > 0).sum(axis=0) / (judged > 0).sum()
    return result


def precision(gains: IntArray, judged: IntArray, k: int) -> FloatArray:
    """Share of relevant documents among the first k places, filled or not."""
    result: FloatArray = (gains[:k] > 0).sum(axis=0) / k
    return result


def success(gains: IntArray, judged: IntArray, k: int) -> FloatArray:
    """1 where a relevant document is among the first k, else 0."""
    return np.where((gains[:k] > 0).any(axis=0), 1.0, 0.0)


def reciprocal_rank(gains: IntArray, judged: IntArray, k: int) -> FloatArray:
    """1 / rank of the first relevant document among the first k; 0 where there is none."""
    relevant = gains[:k] > 0
    first = relevant.argmax(axis=0) if len(relevant) else np.zeros(gains.shape[1])
    result: FloatArray = np.where(relevant.any(axis=0), 1 / (first + 1.0), 0.0)
    return result


def average_precision(gains: IntArray, judged: IntArray, k: int) -> FloatArray:
    """Mean over the relevant documents of the precision at their rank; 0 for those not among the first k."""
    relevant = gains[:k] > 0
    at_rank = relevant.cumsum(axis=0) / np.arange(1, len(relevant) + 1)[:, None]
    result: FloatArray = (at_rank * relevant).sum(axis=0) / (judged > 0).sum()
    return result


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
    match = re.fullmatch(r"([A-Za-z]+)(?:@([1-9]\d*))?", name)
    if match is None or match[1] not in MEASURES or (match[1] in NEEDS_CUT and not match[2]):
        raise InvalidArgumentError(f"a measure is {', '.join(MEASURES)} with @k, such as nDCG@10 or R@100; got {name!r}")
    return MEASURES[match[1]], int(match[2] or NO_CUT)


def grades_of(judged: Mapping[str, int]) -> IntArray:
    """All grades of one query, (m,)."""
    return np.fromiter(judged.values(), np.int64, len(judged))


def ranked_gains(judged: Mapping[str, int], ids: Sequence[str], scores: FloatArray) -> IntArray:
    """Grades in the order of falling scores, (n, w), for scores (n, w) of n documents under w settings; ties by id."""
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    grades = np.array([judged.get(ids[row], 0) for row in by_id], np.int64)
    order = np.argsort(-np.asarray(scores, np.float64)[by_id], axis=0, kind="stable")
    ranked: IntArray = grades[order]
    return ranked


def _dcg(gains: IntArray) -> FloatArray:
    discounts = 1 / np.log2(np.arange(2, len(gains) + 2))
    result: FloatArray = discounts @ np.maximum(gains, 0)
    return result
