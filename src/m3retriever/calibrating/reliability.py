"""From scores to probabilities of relevance, and how far such probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from m3retriever.calibration import Calibration
from m3retriever.errors import InvalidArgumentError
from m3retriever.vectors import FloatArray

Fit: TypeAlias = Callable[[FloatArray, np.ndarray], Calibration]
"""From scores (n,) and whether each is relevant (n,) bool to a curve."""

POINTS = 100  # of a curve, about: those where it rises
CERTAIN = 7.0  # log odds beyond which a probability is within 0.001 of 0 or 1
BINS = 10  # of a reliability curve, equally wide


class Bin(NamedTuple):
    """Pairs of about the same probability: what was said of them, and what is true."""

    low: float
    high: float
    pairs: int
    said: float
    true: float


def isotonic(scores: FloatArray, relevant: np.ndarray) -> Calibration:
    """The rising steps that fit best (Zadrozny & Elkan, 2002): any shape, wants many pairs."""
    from sklearn.isotonic import IsotonicRegression

    check_labels(scores, relevant)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, relevant.astype(np.float64))
    return _curve(fitted.X_thresholds_, np.maximum.accumulate(np.clip(fitted.y_thresholds_, 0, 1)))


def logistic(scores: FloatArray, relevant: np.ndarray) -> Calibration:
    """The S-curve that fits best (Platt, 1999): two numbers, so that few pairs are enough."""
    from sklearn.linear_model import LogisticRegression

    check_labels(scores, relevant)
    center, spread = float(scores.mean()), float(scores.std()) or 1.0
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(((scores - center) / spread)[:, None], relevant)
    slope, start = max(0.0, float(fitted.coef_[0, 0])), float(fitted.intercept_[0])
    low, high = float(scores.min()), float(scores.max())
    if not slope:
        return Calibration((low,), (float(relevant.mean()),))
    ends = slope * (np.array([low, high]) - center) / spread + start
    inside = np.clip(ends, -CERTAIN, CERTAIN)
    odds = np.union1d(np.linspace(ends[0], ends[1], POINTS), np.linspace(inside[0], inside[1], POINTS))
    points = np.unique(center + (odds - start) * spread / slope)
    return _curve(points, 1 / (1 + np.exp(-np.clip(slope * (points - center) / spread + start, -500, 500))))


FITS: dict[str, Fit] = {"isotonic": isotonic, "logistic": logistic}


def brier(probabilities: FloatArray, relevant: np.ndarray) -> float:
    """Mean squared distance of what was said from what is true, in [0, 1], lower is better (Brier, 1950)."""
    return float(np.mean((probabilities - relevant) ** 2)) if len(relevant) else 0.0


def reliability(probabilities: FloatArray, relevant: np.ndarray, *, bins: int = BINS) -> list[Bin]:
    """Pairs by what was said of them, in equally wide bins; empty ones are left out."""
    places = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    found = []
    for place in range(bins):
        inside = places == place
        if pairs := int(inside.sum()):
            said, true = float(probabilities[inside].mean()), float(relevant[inside].mean())
            found.append(Bin(place / bins, (place + 1) / bins, pairs, said, true))
    return found


def expected_calibration_error(curve: list[Bin]) -> float:
    """Mean distance of said from true over the bins, weighted by their pairs, in [0, 1] (Naeini et al., 2015)."""
    total = sum(one.pairs for one in curve)
    return sum(one.pairs * abs(one.said - one.true) for one in curve) / total if total else 0.0


def check_labels(scores: FloatArray, relevant: np.ndarray) -> None:
    """Refuse labels from which nothing can be learned."""
    if len(scores) != len(relevant) or not relevant.any() or relevant.all():
        raise InvalidArgumentError(
            f"a probability is fitted on relevant and other pairs; got {int(relevant.sum())} relevant of {len(relevant)}"
        )


def _curve(scores: FloatArray, probabilities: FloatArray) -> Calibration:
    """A curve of about twice POINTS points at most, those where it rises."""
    first = np.unique(scores, return_index=True)[1]
    scores, probabilities = scores[first], np.maximum.accumulate(probabilities[first])
    if len(scores) > 2 * POINTS:
        steps = np.searchsorted(probabilities, np.linspace(probabilities[0], probabilities[-1], POINTS))
        kept = np.unique(np.concatenate([[0], steps, np.maximum(steps - 1, 0), [len(scores) - 1]]).clip(0, len(scores) - 1))
        scores, probabilities = scores[kept], probabilities[kept]
    return Calibration(tuple(scores.tolist()), tuple(probabilities.tolist()))
