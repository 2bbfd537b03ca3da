"""How scores are spread, and what every threshold gives: the numbers of a picture, here and in the inspector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m3retriever.calibrating.thresholds import MIN_RETURNED, Cuts, Pairs
from m3retriever.vectors import FloatArray, IntArray

BINS = 40  # of a histogram
SAMPLES = 160  # thresholds at which a curve is drawn: finer than a pixel would not show


@dataclass(frozen=True, eq=False)
class Spread:
    """Histograms of relevant and other pairs, each as shares of their own number.

    Attributes
    ----------
    edges : (BINS + 1,) scores
    relevant, other : (BINS,) shares; they sum to 1 where there are any
    """

    edges: FloatArray
    relevant: FloatArray
    other: FloatArray

    @classmethod
    def of(cls, pairs: Pairs, low: float, high: float) -> Spread:
        """In equal bins from low to high."""
        edges = np.linspace(low, high, BINS + 1)
        sides = (pairs.scores[chosen] for chosen in (pairs.relevant, ~pairs.relevant))
        return cls(edges, *(np.histogram(scores, edges)[0] / max(len(scores), 1) for scores in sides))


@dataclass(frozen=True, eq=False)
class Curves:
    """Precision, recall and F1 by threshold, where at least MIN_RETURNED answers are left.

    Attributes
    ----------
    thresholds, precision, recall, f1 : (m,) with m at most SAMPLES
    returned : (m,) how many answers are left
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    returned: IntArray

    @classmethod
    def of(cls, pairs: Pairs, low: float, high: float) -> Curves:
        """At even steps from low to high."""
        cuts, at = Cuts.of(pairs), np.linspace(low, high, SAMPLES)
        row = np.searchsorted(-cuts.thresholds, -at, side="right") - 1  # the last cut that is no lower
        row, at = row[row >= 0], at[row >= 0]
        enough = cuts.returned[row] >= MIN_RETURNED
        row, at = row[enough], at[enough]
        precision, recall = cuts.precision[row], cuts.recall[row]
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return cls(at, precision, recall, f1, cuts.returned[row])
