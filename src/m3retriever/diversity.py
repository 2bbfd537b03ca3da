"""Choosing hits that are relevant and unlike each other."""

from __future__ import annotations

from numbers import Real

import numpy as np

from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.types import FloatArray


def mmr(scores: FloatArray, vectors: FloatArray, k: int, *, balance: float = 0.5) -> list[int]:
    """Rows of the k candidates that maximal marginal relevance picks, in the order picked.

    Each pick maximises balance·score - (1 - balance)·(its largest cosine with those picked before)
    (Carbonell & Goldstein, 1998). Ties go to the earlier row.

    Parameters
    ----------
    scores
        (n,), how relevant each candidate is, on the scale of a cosine.
    vectors
        (n, d), of norm 1.
    k
        At least 1; of fewer candidates all are picked.
    balance
        In [0, 1]: 1 is the order of the scores, 0 only avoids what is alike.
    """
    check_balance(balance)
    picked: list[int] = []
    closest = np.zeros(len(scores))
    left = np.ones(len(scores), bool)
    while left.any() and len(picked) < k:
        gain = balance * np.asarray(scores, np.float64) - (1 - balance) * closest
        row = int(np.argmax(np.where(left, gain, -np.inf)))
        left[row] = False
        alike = np.einsum("nd,d->n", vectors, vectors[row])  # the same bits for equal rows, which `@` does not give
        closest = np.maximum(closest, alike) if picked else alike
        picked.append(row)
    return picked


def check_balance(balance: float) -> None:
    """How much relevance counts beside being different, in [0, 1]."""
    if not isinstance(balance, Real) or not 0 <= balance <= 1:
        raise InvalidArgumentError(f"balance must be between 0 and 1; got {shown(balance)}")


def on_the_scale_of(scores: FloatArray, cosines: FloatArray) -> FloatArray:
    """Scores moved and stretched so that they span what the cosines span; in the same order.

    A sparse score or a rank fusion lies on a scale of its own, on which a cosine would drown it, or the
    other way round. Cosines themselves stay as they are.
    """
    low, high = float(scores.min()), float(scores.max())
    if high == low:
        return np.full(len(scores), float(cosines.max()))
    span = float(cosines.max() - cosines.min())
    return (scores - low) / (high - low) * span + float(cosines.min())
