"""Fusions that are weighted means; they differ in what they take the mean of: a summand for each mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.rates import Rates
from m3retriever.types import MODES, FloatArray, Mode, ModeScores, Weights

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


def null_cdf(
    scores: ModeScores, weights: Weights, *, unrelated: Mapping[Mode, Mapping[str, Sequence[float]]] | None = None
) -> FloatArray:
    """The weighted mean of how rare each score is among pairs that have nothing to do with each other.

    Rarity is -log10 of the share of unrelated pairs that reach the score: Fisher's way of joining independent
    tests (1925), with weights. It evens out the modes' scales; given unrelated pairs it looks at no other
    candidate, so that it may be thresholded.

    Parameters
    ----------
    unrelated
        By mode, the `scores` and `rates` of unrelated pairs (`rates.Rates`); of a mode that is missing, and by
        default, the candidates themselves stand in.
    """
    return _mean(rarities(scores, unrelated=unrelated), weights)


def raw(scores: ModeScores) -> FloatArray:
    """What `weighted_sum` sums: (n, 3) float64."""
    return scores.values.astype(np.float64)


def reciprocal_ranks(scores: ModeScores, *, constant: int = RRF_CONSTANT) -> FloatArray:
    """What `rrf` sums: 1 / (constant + rank) in each mode, (n, 3)."""
    if not (isinstance(constant, int | float) and math.isfinite(constant) and constant >= 0):
        raise InvalidArgumentError(f"the constant of rrf is a number >= 0; got {constant!r}")
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


def rarities(scores: ModeScores, *, unrelated: Mapping[Mode, Mapping[str, Sequence[float]]] | None = None) -> FloatArray:
    """What `null_cdf` sums: -log10 of the share of unrelated pairs that reach each score, (n, 3) >= 0."""
    values, given = raw(scores), dict(unrelated or {})
    if unknown := set(given) - set(MODES):
        raise InvalidArgumentError(f"unrelated pairs are given by {', '.join(MODES)}; got {sorted(unknown)}")
    known = {mode: Rates(tuple(held["scores"]), tuple(held["rates"])) for mode, held in given.items()}
    if not len(values):
        return values
    columns = [(known.get(mode) or Rates.of(column)).rarity(column) for mode, column in zip(MODES, values.T, strict=True)]
    return np.stack(columns, axis=1)


def _mean(summands: FloatArray, weights: Weights) -> FloatArray:
    parts = summands * np.array(tuple(weights.normalized()))
    fused: FloatArray = parts[:, 0] + parts[:, 1] + parts[:, 2]
    return fused
