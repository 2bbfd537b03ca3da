"""From three scores per candidate to one. A fusion is a function and a line in `FUSIONS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import MODES, FloatArray, Mode, ModeScores, Weights

Fusion: TypeAlias = Callable[[ModeScores, Weights], FloatArray]

RRF_CONSTANT = 60  # Cormack et al., 2009: the value of their experiments


def weighted_sum(scores: ModeScores, weights: Weights) -> FloatArray:
    """The weighted mean of the raw scores: (w0·dense + w1·sparse + w2·colbert) / (w0 + w1 + w2).

    As FlagEmbedding's `compute_score`. A weight of 0 leaves a mode out: weights (.4, .2, 0) give its
    "sparse+dense". (n,) float64; each value depends on its own row alone.
    """
    parts = contributions(scores, weights)
    return parts[:, 0] + parts[:, 1] + parts[:, 2]


def contributions(scores: ModeScores, weights: Weights) -> FloatArray:
    """The three parts of which `weighted_sum` is the sum: (n, 3) float64."""
    parts: FloatArray = scores.values.astype(np.float64) * np.array(tuple(weights.normalized()))
    return parts


def rrf(scores: ModeScores, weights: Weights, *, constant: int = RRF_CONSTANT) -> FloatArray:
    """Weighted reciprocal rank fusion (Cormack et al., 2009): the mean of w / (constant + rank), rank from 1.

    Candidates that tie in a mode share the best of their ranks, so the result does not depend on
    their order. Ranks carry no notion of "good enough": do not threshold this score.
    """
    fused = np.zeros(len(scores))
    for mode, weight in zip(MODES, weights.normalized(), strict=True):
        column = scores.column(mode)
        better = len(column) - np.searchsorted(np.sort(column), column, side="right")
        fused += weight / (constant + 1 + better)
    return fused


FUSIONS: dict[str, Fusion] = {"weighted_sum": weighted_sum, "rrf": rrf}


def fusion_named(name: str) -> Fusion:
    """The fusion of that name; InvalidArgumentError lists the names there are."""
    if name not in FUSIONS:
        raise InvalidArgumentError(f"fusion must be one of {', '.join(FUSIONS)}; got {name!r}")
    return FUSIONS[name]


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
