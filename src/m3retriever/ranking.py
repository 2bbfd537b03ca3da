"""How one call turns raw scores into a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias

import numpy as np

from m3retriever.calibration import Calibration, calibration_of
from m3retriever.errors import InvalidArgumentError
from m3retriever.fusion import contributions, fusion_named
from m3retriever.types import MODES, FloatArray, Mode, ModeScores, Profile, Weights

SearchMode = Literal["hybrid", "dense", "sparse", "colbert"]
WeightsLike: TypeAlias = Weights | Sequence[float] | Mapping[Mode, float]
SEARCH_MODES: tuple[SearchMode, ...] = ("hybrid", *MODES)


@dataclass(frozen=True)
class Ranking:
    """A mode or a fusion with its weights, and the score below which nothing counts."""

    mode: SearchMode
    weights: Weights
    fusion: str
    threshold: float | None
    calibration: Calibration | None = None

    @classmethod
    def of(cls, profile: Profile, mode: SearchMode, weights: WeightsLike | None, threshold: float | str | None) -> Ranking:
        """What a call asks for, with the profile for what it leaves open; InvalidArgumentError for nonsense."""
        if not isinstance(mode, str) or mode not in SEARCH_MODES:
            raise InvalidArgumentError(f"mode must be one of {', '.join(SEARCH_MODES)}; got {mode!r}")
        if weights is not None and mode != "hybrid":
            raise InvalidArgumentError(f"weights go with mode 'hybrid'; got mode {mode!r}")
        chosen = profile.weights if weights is None else Weights.of(weights)
        known = calibration_of(profile, mode) if weights is None else None  # fitted with the profile's weights
        if isinstance(threshold, str) and threshold == "profile":
            return cls(mode, chosen, profile.fusion, profile.thresholds.get(mode), known)
        real = isinstance(threshold, Real) and not isinstance(threshold, bool)
        if threshold is not None and not (real and np.isfinite(float(threshold))):
            raise InvalidArgumentError(f"threshold must be a finite number or 'profile'; got {threshold!r}")
        return cls(mode, chosen, profile.fusion, None if threshold is None else float(threshold), known)

    def fuse(self, scores: ModeScores) -> FloatArray:
        """One score per candidate, (n,) float64."""
        if self.mode == "hybrid":
            return fusion_named(self.fusion)(scores, self.weights)
        return scores.column(self.mode).astype(np.float64)

    def eligible(self, scores: ModeScores, fused: FloatArray, rows: Sequence[int]) -> list[int]:
        """The rows that may be hits: above the threshold, and in sparse mode with a shared token."""
        floor = -np.inf if self.threshold is None else self.threshold
        return [row for row in rows if fused[row] >= floor and (self.mode != "sparse" or fused[row] > 0)]

    def parts(self, scores: ModeScores) -> dict[Mode, float]:
        """The parts whose sum is the score of the one candidate in `scores`."""
        if self.mode != "hybrid":
            return {self.mode: float(scores.column(self.mode)[0])}
        if self.fusion != "weighted_sum":
            return {}
        return dict(zip(MODES, contributions(scores, self.weights)[0].tolist(), strict=True))

    def judged(self, score: float, scores: Mapping[Mode, float]) -> tuple[float | None, float]:
        """The probability of being relevant, None without a calibration, and the relevance, of one candidate."""
        probability = None if self.calibration is None else self.calibration.probability(score)
        return probability, self.relevance(scores) if probability is None else probability

    def relevance(self, scores: Mapping[Mode, float]) -> float:
        """How alike query and document are, in [0, 1]: the mode's own score, or in hybrid mode the weighted mean.

        A similarity, not a probability: on BGE-M3's scale unrelated texts have about 0.2 to 0.4, and sparse
        scores above 0.3 are high. A rank fusion knows no such number, so the weighted mean stands in for it.
        """
        if self.mode == "hybrid":
            weights = self.weights.normalized()
            value = sum(weight * scores[mode] for mode, weight in zip(MODES, weights, strict=True))
        else:
            value = scores[self.mode]
        return min(max(float(value), 0.0), 1.0)
