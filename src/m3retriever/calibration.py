"""What a score means: the probability of being relevant, how rare it is among scores of what is not, and in words.

A profile holds it by mode; `calibrating` fits it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from m3retriever.errors import ProfileError, shown
from m3retriever.rates import MOST_POINTS, Rates, finite_numbers
from m3retriever.types import Profile, Weights

LEVELS = ("unrelated", "weak", "related", "nearly identical")
CONDITION = re.compile(r"\s*(p\s*>=|fpr\s*<=)\s*(\d*\.?\d+(?:[eE][-+]?\d+)?)\s*")
KEYS = {"scores", "probabilities", "unrelated", "unanswerable", "levels", "weights", "fusion"}
SAME = 1e-6  # weights that differ by less are the same


@dataclass(frozen=True)
class Calibration:
    """What the scores of one mode, or the fused ones, mean.

    Attributes
    ----------
    scores : ascending, on the scale of what ranks
    probabilities : of being relevant, as many, never falling, each in [0, 1]: a curve that is straight between
        its points and level beyond them; without labels both are empty
    unrelated : of pairs of a query and a document drawn at random
    unanswerable : of the best document for questions that no document answers
    levels : the lowest score that counts as each of LEVELS but the first
    """

    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    unrelated: Rates | None = None
    unanswerable: Rates | None = None
    levels: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores, probabilities = finite_numbers(self.scores), finite_numbers(self.probabilities)
        if len(scores) > MOST_POINTS:
            raise ProfileError(f"a calibration has at most {MOST_POINTS} points; got {len(scores)}")
        if len(scores) != len(probabilities):
            raise ProfileError(f"a calibration has as many probabilities as scores; got {len(probabilities)} and {len(scores)}")
        object.__setattr__(self, "scores", tuple(scores.tolist()))
        object.__setattr__(self, "probabilities", tuple(probabilities.tolist()))
        if (np.diff(scores) <= 0).any() or (np.diff(probabilities) < 0).any():
            raise ProfileError("a calibration's scores ascend, and its probabilities never fall")
        if len(scores) and (probabilities[0] < 0 or probabilities[-1] > 1):
            raise ProfileError(f"probabilities are between 0 and 1; got {probabilities[0]} to {probabilities[-1]}")
        bounds = [self.levels[name] for name in LEVELS[1:] if name in self.levels]
        if set(self.levels) - set(LEVELS[1:]) or list(finite_numbers(bounds)) != sorted(bounds):
            names, got = ", ".join(LEVELS[1:]), shown(self.levels)
            raise ProfileError(f"levels are the lowest scores of {names}, in this order; got {got}")

    def probability(self, score: float) -> float | None:
        """Of being relevant, in [0, 1], None without a curve. `Calibration((0, 1), (0, 0.5)).probability(0.5)` is 0.25."""
        return float(np.interp(score, self.scores, self.probabilities)) if self.scores else None

    def level(self, score: float) -> str | None:
        """The score in a word, of LEVELS; None where the bounds are not known."""
        if not self.levels:
            return None
        reached = [name for name in LEVELS[1:] if name in self.levels and score >= self.levels[name]]
        return reached[-1] if reached else LEVELS[0]

    def threshold(self, condition: str) -> float:
        """The lowest score that fulfils "p>=0.7" (the probability) or "fpr<=0.01" (the false-positive rate).

        The rate is that of unanswerable questions where they were given when fitting, else of unrelated pairs.
        Infinite where no score is as probable. ProfileError for another text, or where it was not fitted.
        """
        match = CONDITION.fullmatch(condition)
        if match is None or not 0 <= float(match[2]) <= 1:
            raise ProfileError(
                f"threshold must be a number, 'profile', 'p>=P' or 'fpr<=F' with P and F in [0, 1]; got {condition[:200]!r}"
            )
        wanted = float(match[2])
        if match[1].startswith("p"):
            return self._score_of(wanted, condition)
        rates = self.unanswerable or self.unrelated
        if rates is None:
            raise ProfileError(f"threshold {condition!r} needs a profile with false-positive rates: run m3retriever calibrate")
        return rates.score_at(wanted)

    def _score_of(self, probability: float, condition: str) -> float:
        if not self.scores:
            raise ProfileError(f"threshold {condition!r} needs a profile fitted on labels: run m3retriever calibrate")
        above = np.flatnonzero(np.array(self.probabilities) >= probability)
        if not len(above):
            return math.inf
        first = int(above[0])
        if first == 0:
            return -math.inf
        part = slice(first - 1, first + 1)
        return float(np.interp(probability, self.probabilities[part], self.scores[part]))

    def content(self) -> dict[str, Any]:
        """As a profile's `calibration.<mode>` holds it."""
        rates = {"unrelated": self.unrelated, "unanswerable": self.unanswerable}
        return {
            **({"scores": list(self.scores), "probabilities": list(self.probabilities)} if self.scores else {}),
            **{name: {"scores": list(one.scores), "rates": list(one.rates)} for name, one in rates.items() if one},
            **({"levels": dict(self.levels)} if self.levels else {}),
        }


def calibration_of(profile: Profile, mode: str) -> Calibration | None:
    """What a profile holds for a mode or "hybrid", under `calibration.<mode>`; None where it holds nothing."""
    held = (profile.calibration or {}).get(mode)
    if held is None:
        return None
    try:
        if unknown := set(held) - KEYS:
            raise ProfileError(f"calibration.{mode} holds {', '.join(sorted(KEYS))}; got {sorted(unknown)}")
        _check_fit(profile, held)
        unrelated, unanswerable = (_rates(held.get(name)) for name in ("unrelated", "unanswerable"))
        bare = "scores" not in held and (unrelated or unanswerable or held.get("levels"))
        curve = ((), ()) if bare else (tuple(held["scores"]), tuple(held["probabilities"]))
        if not bare and not curve[0]:
            raise ProfileError(f"calibration.{mode} holds at least one score with its probability; got none")
        return Calibration(*curve, unrelated, unanswerable, held.get("levels", {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ProfileError(f"calibration.{mode} holds scores and probabilities, lists of numbers; got {shown(held)}") from error


def _check_fit(profile: Profile, held: Mapping[str, Any]) -> None:
    """Refuse a calibration of the hybrid that was fitted with other weights or another fusion than the profile has."""
    if "weights" not in held:
        return
    fitted, own = Weights.of(held["weights"]).normalized(), profile.weights.normalized()
    apart = max(abs(one - other) for one, other in zip(fitted, own, strict=True))
    if apart > SAME or held.get("fusion", profile.fusion) != profile.fusion:
        raise ProfileError(
            f"calibration.hybrid was fitted with the weights {tuple(round(one, 4) for one in fitted)} and "
            f"{held.get('fusion')!r}, the profile has {tuple(round(one, 4) for one in own)} and {profile.fusion!r}: calibrate "
            "again, or take calibration.hybrid and thresholds.hybrid out"
        )


def _rates(held: Mapping[str, Any] | None) -> Rates | None:
    return None if held is None else Rates(tuple(held["scores"]), tuple(held["rates"]))
