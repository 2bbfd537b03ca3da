"""From a score to the probability that the document is relevant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3retriever.errors import ProfileError
from m3retriever.types import Profile


@dataclass(frozen=True)
class Calibration:
    """A curve that rises with the score: straight between its points, level beyond them.

    Attributes
    ----------
    scores : ascending, on the scale of what ranks
    probabilities : as many, never falling, each in [0, 1]
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        scores, probabilities = _numbers(self.scores), _numbers(self.probabilities)
        if len(scores) != len(probabilities) or not len(scores):
            raise ProfileError(f"a calibration has as many probabilities as scores; got {len(probabilities)} and {len(scores)}")
        if (np.diff(scores) <= 0).any() or (np.diff(probabilities) < 0).any():
            raise ProfileError("a calibration's scores ascend, and its probabilities never fall")
        if probabilities[0] < 0 or probabilities[-1] > 1:
            raise ProfileError(f"probabilities are between 0 and 1; got {probabilities[0]} to {probabilities[-1]}")

    def probability(self, score: float) -> float:
        """Of being relevant, in [0, 1]. `Calibration((0, 1), (0, 0.5)).probability(0.5)` is 0.25."""
        return float(np.interp(score, self.scores, self.probabilities))


def calibration_of(profile: Profile, mode: str) -> Calibration | None:
    """What a profile holds for a mode or "hybrid": `calibration.<mode>` with `scores` and `probabilities`."""
    held = (profile.calibration or {}).get(mode)
    if held is None:
        return None
    try:
        return Calibration(tuple(held["scores"]), tuple(held["probabilities"]))
    except (KeyError, TypeError) as error:
        raise ProfileError(f"calibration.{mode} holds scores and probabilities, lists of numbers; got {held!r}") from error


def _numbers(values: Sequence[float]) -> np.ndarray:
    try:
        numbers = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ProfileError(f"a calibration is made of numbers; got {values!r}") from error
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ProfileError(f"a calibration is made of finite numbers; got {values!r}")
    return numbers
