"""How rare a score is: the share of a sample of scores that reaches it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3retriever.errors import ProfileError, shown
from m3retriever.vectors import FloatArray

POINTS = 120  # kept of a larger sample: half of them for the rarest tenth, which thresholds are about
MOST_POINTS = 10_000  # of a curve in a profile: what is fitted has some hundreds, and every search looks at them
ROUNDING = 1e-9  # of a share
TAIL = 10.0  # the tail beyond the sample falls as over its rarest factor of ten


@dataclass(frozen=True)
class Rates:
    """The share of a sample of scores that is at least as high as a score, from 1 down.

    Attributes
    ----------
    scores : strictly ascending, the lowest of the sample first
    rates : as many, falling from at most 1, each in (0, 1]
    """

    scores: tuple[float, ...]
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        scores, rates = finite_numbers(self.scores), finite_numbers(self.rates)
        if len(scores) > MOST_POINTS:
            raise ProfileError(f"rates have at most {MOST_POINTS} points; got {len(scores)}")
        if len(scores) != len(rates) or not len(scores):
            raise ProfileError(f"rates go with as many scores; got {len(rates)} and {len(scores)}")
        if (np.diff(scores) <= 0).any() or (np.diff(rates) >= 0).any():
            raise ProfileError("the scores of rates ascend, and the rates fall")
        if rates[0] > 1 or rates[-1] <= 0:
            raise ProfileError(f"rates are above 0 and at most 1; got {rates[0]} to {rates[-1]}")
        object.__setattr__(self, "scores", tuple(scores.tolist()))
        object.__setattr__(self, "rates", tuple(rates.tolist()))

    @classmethod
    def of(cls, sample: Sequence[float] | FloatArray, *, total: int | None = None) -> Rates:
        """The rates of a sample, at every score of a small one: `Rates.of([1, 2, 2, 3])` falls 1, 0.75, 0.25.

        `total` counts those that have no score, and reach none, as well.
        """
        values, first = np.unique(np.sort(finite_numbers(sample)), return_index=True)
        if not len(values):
            raise ProfileError("rates need at least one score; got none")
        rates = (len(sample) - first) / (total or len(sample))
        if len(values) > POINTS:
            rarest = max(rates[-1], 1e-9)
            wanted = np.concatenate([np.linspace(1, 0.1, POINTS // 2), np.geomspace(0.1, rarest, POINTS // 2)])
            kept = np.unique(np.searchsorted(-rates, -wanted))
            kept = np.unique(np.append(kept[kept < len(rates)], len(rates) - 1))
            values, rates = values[kept], rates[kept]
        return cls(tuple(values.tolist()), tuple(rates.tolist()))

    def score_at(self, rate: float) -> float:
        """The lowest score known to be reached by no more than this share.

        ProfileError for a share below what the sample can tell.
        """
        low_enough = np.flatnonzero(np.array(self.rates) <= rate + ROUNDING)
        if not len(low_enough):
            raise ProfileError(f"a sample of this size tells rates down to {self.rates[-1]:.2g}; got {rate:g}: fit on more")
        return self.scores[int(low_enough[0])]

    def rate(self, score: float) -> float:
        """The share that reaches a score, in (0, 1]; beyond the sample as its tail falls."""
        return math.pow(10, -float(self.rarity(np.array([score]))[0]))

    def rarity(self, scores: FloatArray) -> FloatArray:
        """-log10 of the share that reaches each score, (n,) >= 0: 3 where one of a thousand does.

        Between the points, and beyond the last, the share falls exponentially, so that it never stops to
        tell scores apart.
        """
        known, decades = np.array(self.scores), -np.log10(self.rates)
        inside: FloatArray = np.interp(scores, known, decades)
        beyond: FloatArray = np.maximum(0, scores - known[-1]) * self._slope(known, decades)
        return inside + beyond

    @staticmethod
    def _slope(known: FloatArray, decades: FloatArray) -> float:
        """Decades per unit of score over the rarest factor of TAIL."""
        if len(known) == 1:
            return 0.0
        start = min(int(np.searchsorted(decades, decades[-1] - np.log10(TAIL))), len(known) - 2)
        return float((decades[-1] - decades[start]) / (known[-1] - known[start]))


def finite_numbers(values: Sequence[float] | FloatArray) -> FloatArray:
    """(n,) float64; ProfileError where they are not finite numbers."""
    try:
        given = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise ProfileError(f"a calibration is made of numbers; got {shown(values)}") from error
    if given.ndim != 1 or (given.dtype.kind not in "iuf" and given.size) or not np.isfinite(given.astype(np.float64)).all():
        raise ProfileError(f"a calibration is made of finite numbers; got {shown(values)}")
    numbers: FloatArray = given.astype(np.float64)
    return numbers
