"""From three scores per candidate to one. A fusion is a function and a line in `FUSIONS`.

All of these are weighted means; they differ in what they take the mean of, which `SUMMANDS` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import MODES, FloatArray, Mode, ModeScores, Weights

Fusion: TypeAlias = Callable[[ModeScores, Weights], FloatArray]
Summands: TypeAlias = Callable[[ModeScores], FloatArray]

RRF_CONSTANT = 60  # Cormack et al., 2009: the value of their experiments


def weighted_sum(scores: ModeScores, weights: Weights) -> FloatArray:
    """The weighted mean of the raw scores: (w0·dense + w1·sparse + w2·colbert) / (w0 + w1 + w2).

    As FlagEmbedding's `compute_score`. A weight of 0 leaves a mode out: weights (.4, .2, 0) give its
    "sparse+dense". (n,) float64; each value depends on its own row alone.
    """
    return _mean(raw(scores), weights)


def rrf(scores: ModeScores, weights: Weights, *, constant: int = RRF_CONSTANT) -> FloatArray:
    """Weighted reciprocal rank fusion (Cormack et al., 2009): the mean of w / (constant + rank), rank from 1.

    Candidates that tie in a mode share the best of their ranks, so the result does not depend on
    their order. Ranks carry no notion of "good enough": do not threshold this score.
    """
    return _mean(reciprocal_ranks(scores, constant=constant), weights)


def min_max(scores: ModeScores, weights: Weights) -> FloatArray:
    """The weighted mean of the scores stretched, mode by mode, so that the candidates span 0 to 1.

    It evens out the modes' scales, and makes of every query's best candidate a 1, however bad it is: do
    not threshold this score.
    """
    return _mean(stretched(scores), weights)


def z_score(scores: ModeScores, weights: Weights) -> FloatArray:
    """The weighted mean of the scores, mode by mode, in standard deviations from the candidates' mean.

    Less moved by one outlier than `min_max`. It depends on the candidates too: do not threshold it.
    """
    return _mean(standardized(scores), weights)


def raw(scores: ModeScores) -> FloatArray:
    """What `weighted_sum` sums: (n, 3) float64."""
    return scores.values.astype(np.float64)


def reciprocal_ranks(scores: ModeScores, *, constant: int = RRF_CONSTANT) -> FloatArray:
    """What `rrf` sums: 1 / (constant + rank) in each mode, (n, 3)."""
    parts = np.empty((len(scores), len(MODES)))
    for column in range(len(MODES)):
        values = scores.values[:, column]
        better = len(values) - np.searchsorted(np.sort(values), values, side="right")
        parts[:, column] = 1 / (constant + 1 + better)
    return parts


def stretched(scores: ModeScores) -> FloatArray:
    """What `min_max` sums: each mode from 0 (the worst candidate) to 1 (the best), (n, 3); 0 where all are alike."""
    values = raw(scores)
    if not len(values):
        return values
    low, high = values.min(axis=0), values.max(axis=0)
    parts: FloatArray = (values - low) / np.where(high > low, high - low, 1)
    return parts


def standardized(scores: ModeScores) -> FloatArray:
    """What `z_score` sums: each mode with mean 0 and standard deviation 1, (n, 3); 0 where all are alike."""
    values = raw(scores)
    for column in values.T:
        center = math.fsum(column) / len(column) if len(column) else 0  # fsum: the candidates' order leaves no trace
        column -= center
        spread = math.sqrt(math.fsum(column**2) / len(column)) if len(column) else 0
        column /= spread or 1
    return values


FUSIONS: dict[str, Fusion] = {"weighted_sum": weighted_sum, "rrf": rrf, "min_max": min_max, "z_score": z_score}
SUMMANDS: dict[str, Summands] = {"weighted_sum": raw, "rrf": reciprocal_ranks, "min_max": stretched, "z_score": standardized}


def contributions(scores: ModeScores, weights: Weights, fusion: str = "weighted_sum") -> FloatArray:
    """The three parts of which a fusion's score is the sum: (n, 3) float64."""
    parts: FloatArray = SUMMANDS[fusion](scores) * np.array(tuple(weights.normalized()))
    return parts


def fusion_named(name: str) -> Fusion:
    """The fusion of that name; InvalidArgumentError lists the names there are."""
    if name not in FUSIONS:
        raise InvalidArgumentError(f"fusion must be one of {', '.join(FUSIONS)}; got {name!r}")
    return FUSIONS[name]


def _mean(summands: FloatArray, weights: Weights) -> FloatArray:
    parts = summands * np.array(tuple(weights.normalized()))
    fused: FloatArray = parts[:, 0] + parts[:, 1] + parts[:, 2]
    return fused


def order(ids: tuple[str, ...], values: FloatArray) -> list[int]:
    """Row numbers, best value first; ties go to the smaller id, so that a ranking repeats exactly."""
    return sorted(range(len(ids)), key=lambda row: (-values[row], ids[row]))


def top_k(scores: ModeScores, fused: FloatArray, k: int) -> list[int]:
    """Row numbers of the k best, best first, ties by id."""
    if k < len(fused):  # sort only what can be among the k best, ties at the border included
        border = np.partition(fused, len(fused) - k)[len(fused) - k]
        rows = np.flatnonzero(fused >= border).tolist()
    else:
        rows = list(range(len(fused)))
    return sorted(rows, key=lambda row: (-fused[row], scores.ids[row]))[:k]


def mode_ranks(scores: ModeScores) -> dict[Mode, list[int]]:
    """Each candidate's place (from 1) when ranked by one mode alone, ties by id."""
    ranks: dict[Mode, list[int]] = {}
    for mode in MODES:
        places = [0] * len(scores)
        for place, row in enumerate(order(scores.ids, scores.column(mode)), start=1):
            places[row] = place
        ranks[mode] = places
    return ranks
