"""How one call turns raw scores into a ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np

from m3retriever.calibration import Calibration, calibration_of
from m3retriever.errors import InvalidArgumentError, ProfileError, shown
from m3retriever.fusion import SUMMANDS, contributions, fuse, mode_ranks, top_k
from m3retriever.observing.spans import span
from m3retriever.types import MODES, Document, FloatArray, Hit, Mode, ModeScores, Profile, Weights, is_finite

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
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, mode: SearchMode, weights: WeightsLike | None, threshold: float | str | None) -> Ranking:
        """What a call asks for, with the profile for what it leaves open; InvalidArgumentError for nonsense.

        Weights given here make a weighted sum of a fusion that has none of its own to replace.
        """
        if not isinstance(mode, str) or mode not in SEARCH_MODES:
            raise InvalidArgumentError(f"mode must be one of {', '.join(SEARCH_MODES)}; got {shown(mode)}")
        if weights is not None and mode != "hybrid":
            raise InvalidArgumentError(f"weights go with mode 'hybrid'; got mode {mode!r}")
        own = weights is None or profile.fusion in SUMMANDS
        return cls(
            mode,
            profile.weights if weights is None else Weights.of(weights),
            profile.fusion if own else "weighted_sum",
            _threshold(profile, mode, threshold, weighted=weights is not None, own=own),
            calibration_of(profile, mode) if weights is None else None,  # fitted with the profile's weights
            profile.parameters if own else {},
        )

    def fuse(self, scores: ModeScores) -> FloatArray:
        """One score per candidate, (n,) float64."""
        if self.mode == "hybrid":
            return fuse(scores, self.weights, self.fusion, self.parameters)
        return scores.column(self.mode).astype(np.float64)

    def eligible(self, scores: ModeScores, fused: FloatArray, rows: Sequence[int]) -> list[int]:
        """The rows that may be hits: above the threshold, and in sparse mode with a shared token."""
        floor = -np.inf if self.threshold is None else self.threshold
        return [row for row in rows if fused[row] >= floor and (self.mode != "sparse" or fused[row] > 0)]

    def parts(self, scores: ModeScores) -> dict[Mode, float]:
        """The parts whose sum is the score of the one candidate in `scores`."""
        if self.mode != "hybrid":
            return {self.mode: float(scores.column(self.mode)[0])}
        if self.fusion not in ("weighted_sum", "routed"):
            return {}
        parts = contributions(scores, self.weights, self.fusion, self.parameters)
        return dict(zip(MODES, parts[0].tolist(), strict=True))

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


def ranked_hits(
    scores: ModeScores,
    ranking: Ranking,
    k: int,
    fetch: Callable[[Sequence[str]], Mapping[str, Document]],
    passes: Callable[[Document], bool],
) -> list[Hit]:
    """The k best candidates as hits, best first; `fetch` gives those of the documents that are still there.

    Documents that no longer pass are left out, and the next best looked up in their place.
    """
    with span("fusion", candidates=len(scores)):
        fused = ranking.fuse(scores)
        rows = ranking.eligible(scores, fused, top_k(scores, fused, len(scores)))
        ranks = mode_ranks(scores)
    hits: list[Hit] = []
    for start in range(0, len(rows), k):  # a second round only where a document changed meanwhile
        batch = rows[start : start + k]
        with span("documents", documents=len(batch)):
            held = fetch([scores.ids[row] for row in batch])
        for row in batch:
            document = held.get(scores.ids[row])
            if document is not None and passes(document):
                place = {mode: ranks[mode][row] for mode in MODES}
                score, by_mode = float(fused[row]), scores.of(row)
                hits.append(Hit(document, score, by_mode, place, scores.found_by[row], *ranking.judged(score, by_mode)))
        if len(hits) >= k:
            break
    return hits[:k]


def _threshold(profile: Profile, mode: SearchMode, threshold: float | str | None, *, weighted: bool, own: bool) -> float | None:
    """The lowest score that counts: a number as given, or what the profile knows."""
    if threshold is None:
        return None
    if isinstance(threshold, str):
        if threshold == "profile" and own:
            if mode not in profile.thresholds and "wanted" in profile.fitted.get("calibration", {}):
                raise ProfileError(f"the profile has no threshold for {mode}: none gave what was wanted")
            return profile.thresholds.get(mode)
        if weighted:
            raise ProfileError(f"threshold {threshold!r} goes with the profile's weights; got others for this call")
        return (calibration_of(profile, mode) or Calibration()).threshold(threshold)
    if not isinstance(threshold, Real) or isinstance(threshold, bool) or not is_finite(threshold):
        raise InvalidArgumentError(f"threshold must be a finite number, 'profile', 'p>=P' or 'fpr<=F'; got {shown(threshold)}")
    return float(threshold)
