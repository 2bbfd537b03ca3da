"""The settings of the sidebar as a profile: what every number on every page is computed with."""

from __future__ import annotations

from dataclasses import replace

from m3retriever import Profile, Weights
from m3retriever.ranking import Ranking

HYBRID = "hybrid"
K_MIN, K_MAX, K_STEP = 5, 100, 5  # of the slider of results


def with_settings(profile: Profile, weights: Weights, threshold: float | None) -> Profile:
    """The profile with other weights and another threshold of the hybrid; the same object where nothing differs.

    Other weights take with them what was fitted with the old ones, and make a weighted sum of a fusion that has none.
    """
    changed = profile
    if weights != profile.weights:
        ranking = Ranking.of(profile, HYBRID, weights, None)
        single = {mode: held for mode, held in (profile.calibration or {}).items() if mode != HYBRID}
        changed = replace(
            profile,
            weights=ranking.weights,
            fusion=ranking.fusion,
            parameters=ranking.parameters,
            calibration=single or None,
        )
    if threshold is not None and threshold != profile.thresholds.get(HYBRID, 0.0):
        changed = replace(changed, thresholds={**changed.thresholds, HYBRID: threshold})
    return changed
