"""Fits what a profile says of scores: probabilities, rates, levels, and the thresholds for what is wanted.

Everything works on scores taken once (`M3Index.score`), each mode alone and the hybrid of the profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from m3retriever.calibrating.reliability import FITS, Bin, brier, expected_calibration_error, reliability
from m3retriever.calibrating.thresholds import Measured, Pairs, for_certain_recall, for_f, for_precision, for_rate, for_recall
from m3retriever.calibration import LEVELS, Calibration
from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Qrels, Run, answerable, run_of
from m3retriever.fusion import POINTWISE
from m3retriever.ranking import SEARCH_MODES, Ranking, SearchMode
from m3retriever.rates import Rates
from m3retriever.types import MODES, ModeScores, Profile
from m3retriever.vectors import FloatArray, IntArray

HALVINGS = 10  # times the questions are parted at random, each half fitted for the other
FOLDS = 5  # of the probabilities
MIN_QUESTIONS = 10  # with fewer, half of them say nothing
SEED = 0
WEAK = 0.05  # share of unrelated pairs that reach the level "weak"
RELATED = 0.002  # without labels: share of unrelated pairs that reach "related"
WANTS = {
    "precision": "precision must be above 0 and at most 1",
    "recall": "recall must be above 0 and at most 1",
    "f": "beta must be a number above 0",
    "fpr": "a false-positive rate is between 0 and 1",
}
PROBABLE = 0.5  # with labels: probability at which "related" begins
IDENTICAL = 0.1  # share of texts less one word that "nearly identical" leaves out


@dataclass(frozen=True)
class Wanted:
    """What a threshold is for.

    Attributes
    ----------
    what : "precision" or "recall" (at least `value`), "f" (the best F-beta, `value` is beta), or "fpr" (at most `value`
        of the unanswerable questions get an answer; without such questions, of unrelated pairs)
    confidence : with recall, a promise: the mean recall of questions to come is at least `value` with it
    """

    what: Literal["precision", "recall", "f", "fpr"] = "f"
    value: float = 1.0
    confidence: float | None = None

    def __post_init__(self) -> None:
        if self.what not in ("precision", "recall", "f", "fpr"):
            raise InvalidArgumentError(f"a threshold is for precision, recall, f or fpr; got {self.what!r}")
        if self.confidence is not None and self.what != "recall":
            raise InvalidArgumentError(f"a confidence goes with recall; got {self.what!r}")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise InvalidArgumentError(f"confidence must be between 0 and 1; got {self.confidence!r}")
        low, high = {"f": (0.0, math.inf), "fpr": (-math.ulp(0), 1.0)}.get(self.what, (0.0, 1.0))
        if not low < self.value <= high or math.isinf(self.value):
            raise InvalidArgumentError(f"{WANTS[self.what]}; got {self.value!r}")

    def __str__(self) -> str:
        promise = "" if self.confidence is None else f" with confidence {self.confidence:g}"
        sign = {"f": "best F-", "fpr": "fpr <= "}.get(self.what, f"{self.what} >= ")
        return f"{sign}{self.value:g}{promise}"

    def threshold(self, pairs: Pairs, wrong: FloatArray) -> float:
        """The threshold for it; InvalidArgumentError where there is none. `wrong` holds scores that should not count."""
        if self.what == "fpr":
            return for_rate(wrong, self.value)
        if self.what == "precision":
            return for_precision(pairs, self.value)
        if self.what == "f":
            return for_f(pairs, self.value)
        if self.confidence is None:
            return for_recall(pairs, self.value)
        return for_certain_recall(pairs, self.value, confidence=self.confidence)

    def value_at(self, threshold: float, pairs: Pairs, wrong: FloatArray) -> float:
        """What a threshold gives of what was wanted."""
        if self.what == "fpr":
            return float(np.mean(wrong >= threshold)) if len(wrong) else 0.0
        measured = pairs.measured(threshold)
        if self.what == "f":
            return measured.f(self.value)
        promised = self.what == "recall" and self.confidence is not None
        return measured.mean_recall if promised else float(getattr(measured, self.what))


@dataclass(frozen=True)
class HeldOut:
    """What thresholds gave on the halves they were not fitted on: mean, standard deviation, and of how many halves."""

    mean: float
    deviation: float
    halves: int


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What was fitted for one mode, or the hybrid.

    Attributes
    ----------
    calibration : as the profile holds it
    threshold : for what was wanted; None where it cannot be had, and `problem` says why
    measured : what the threshold makes of the questions it was fitted on; None without labels
    false_positives : the share of unanswerable questions (else of unrelated pairs) that reach it; None without either
    held_out : what was wanted, on halves of the questions that the threshold was not fitted on
    method : "isotonic" or "logistic", whichever was nearer to the truth on held-out questions; None without labels
    brier : of the probabilities, on held-out questions
    reliability : what was said and what is true, on held-out questions
    """

    calibration: Calibration
    threshold: float | None = None
    problem: str | None = None
    measured: Measured | None = None
    false_positives: float | None = None
    held_out: HeldOut | None = None
    method: str | None = None
    brier: float | None = None
    reliability: tuple[Bin, ...] = ()

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error on held-out questions."""
        return expected_calibration_error(list(self.reliability)) if self.reliability else None


@dataclass(frozen=True, eq=False)
class Evidence:
    """What calibrating learns from; every part may be missing, but not labels and unrelated pairs both.

    Attributes
    ----------
    scores : {question: its candidates' raw scores}
    qrels : {question: {document: grade}}; what is not judged is not relevant
    unanswerable : candidates' raw scores of questions that no document answers
    unrelated : raw scores of questions with documents drawn at random (`unrelated.unrelated_pairs`)
    identical : raw scores of nearly identical texts (`unrelated.identical_pairs`)
    """

    scores: Mapping[str, ModeScores]
    qrels: Qrels
    unanswerable: Sequence[ModeScores] = ()
    unrelated: Sequence[ModeScores] = ()
    identical: ModeScores | None = None


def calibrate(
    evidence: Evidence,
    profile: Profile,
    wanted: Wanted | None = None,
    *,
    modes: Sequence[SearchMode] = SEARCH_MODES,
    on_step: Callable[[int], None] = lambda done: None,
) -> dict[str, Calibrated]:
    """Every mode's calibration, with the threshold for what is wanted; `on_step` is called with 1 after each mode.

    Raises
    ------
    InvalidArgumentError
        Labels of fewer than MIN_QUESTIONS questions, none at all and no unrelated pairs, or a wish that needs labels
        where there are none. What cannot be had in one mode alone is its `problem`.
    """
    if not evidence.qrels and not evidence.unrelated:
        raise InvalidArgumentError("calibrating needs questions with known answers, or unrelated pairs; got neither")
    count = len(answerable(evidence.qrels))
    if evidence.qrels and count < MIN_QUESTIONS:
        raise InvalidArgumentError(
            f"calibrating needs at least {MIN_QUESTIONS} questions with a relevant document; got {count}"
        )
    if wanted is not None and wanted.what != "fpr" and not evidence.qrels:
        raise InvalidArgumentError(f"a threshold for {wanted} needs questions with known answers; without them only fpr")
    found: dict[str, Calibrated] = {}
    for mode in modes:
        found[mode] = _calibrated(_OfMode.of(evidence, Ranking.of(profile, mode, None, None)), wanted)
        on_step(1)
    return found


def fitted_profile(profile: Profile, calibrated: Mapping[str, Calibrated], wanted: Wanted | None, **on: Any) -> Profile:
    """The profile with what was fitted: calibrations, thresholds if any were wanted, and `on`, which says what it was
    fitted on. What could not be fitted leaves nothing behind of an earlier fit."""
    thresholds = {mode: one.threshold for mode, one in calibrated.items() if one.threshold is not None}
    kept = {mode: held for mode, held in profile.thresholds.items() if wanted is None or mode not in calibrated}
    contents = {mode: one.calibration.content() for mode, one in calibrated.items()}
    if contents.get("hybrid"):
        contents["hybrid"] |= {"weights": list(profile.weights.normalized()), "fusion": profile.fusion}
    held = {**(profile.calibration or {}), **contents}
    named = {} if wanted is None else {"wanted": str(wanted)}
    return replace(
        profile,
        thresholds={**kept, **thresholds},
        calibration={mode: content for mode, content in held.items() if content} or None,
        fitted={**profile.fitted, "calibration": {**on, **named, **{mode: _numbers(one) for mode, one in calibrated.items()}}},
    )


def _numbers(one: Calibrated) -> dict[str, Any]:
    """The held-out numbers that a profile keeps."""
    numbers = {
        "method": one.method,
        "brier": one.brier,
        "calibration_error": one.calibration_error,
        "held_out": one.held_out and one.held_out.mean,
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _pointwise(ranking: Ranking) -> bool:
    """Whether the fused score of a pair looks at no other candidate."""
    if ranking.fusion == "null_cdf":  # without unrelated pairs the candidates stand in for them
        return set(ranking.parameters.get("unrelated", ())) == set(MODES)
    return ranking.fusion in POINTWISE


@dataclass(frozen=True, eq=False)
class _OfMode:
    """The evidence as one mode, or the hybrid, sees it."""

    pairs: Pairs
    unanswerable: FloatArray  # -inf where nothing is found
    unrelated: FloatArray
    unrelated_of: IntArray  # the question of each, by number
    identical: FloatArray

    @classmethod
    def of(cls, evidence: Evidence, ranking: Ranking) -> _OfMode:
        run: Run = {question: run_of(scores, ranking) for question, scores in evidence.scores.items()}
        best = [max(run_of(scores, ranking).values(), default=-np.inf) for scores in evidence.unanswerable]
        known = ranking.mode != "hybrid" or _pointwise(ranking)
        unrelated = [ranking.fuse(scores) for scores in evidence.unrelated] if known else []
        alike = ranking.fuse(evidence.identical) if known and evidence.identical is not None else np.empty(0)
        of = np.repeat(np.arange(len(unrelated)), [len(one) for one in unrelated])
        return cls(Pairs.of(run, evidence.qrels), np.array(best), np.concatenate([np.empty(0), *unrelated]), of, alike)

    @property
    def wrong(self) -> FloatArray:
        """Scores of what should not be returned."""
        return self.unanswerable if len(self.unanswerable) else self.unrelated

    @property
    def wrong_of(self) -> IntArray:
        """The question of each of these scores, by number."""
        return np.arange(len(self.unanswerable)) if len(self.unanswerable) else self.unrelated_of

    def rates(self) -> dict[str, Rates]:
        """How rare scores are among those that should not be returned."""
        samples = {"unanswerable": self.unanswerable, "unrelated": self.unrelated}
        found = {name: (sample[np.isfinite(sample)], len(sample)) for name, sample in samples.items()}
        return {name: Rates.of(known, total=total) for name, (known, total) in found.items() if len(known)}


def _calibrated(mode: _OfMode, wanted: Wanted | None) -> Calibrated:
    result = Calibrated(Calibration())
    if len(mode.pairs.wanted):
        result = _with_probabilities(mode.pairs)
    calibration = replace(result.calibration, **mode.rates())  # type: ignore[arg-type]  # both are Rates
    result = replace(result, calibration=replace(calibration, levels=_levels(calibration, mode.identical)))
    if wanted is None:
        return result
    try:
        threshold = wanted.threshold(mode.pairs, mode.wrong)
    except InvalidArgumentError as error:
        return replace(result, problem=str(error))
    return replace(
        result,
        threshold=threshold,
        measured=mode.pairs.measured(threshold) if len(mode.pairs.wanted) else None,
        false_positives=float(np.mean(mode.wrong >= threshold)) if len(mode.wrong) else None,
        held_out=_held_out(mode, wanted),
    )


def _with_probabilities(pairs: Pairs) -> Calibrated:
    """The curve that is nearest to the truth on held-out questions, and how near; none where nothing can be learned."""
    relevant = pairs.relevant.astype(np.float64)
    held_out = {}
    for name in FITS:
        try:
            held_out[name] = _cross_validated(pairs, name)
        except InvalidArgumentError:  # no relevant pair, or no other, in some fold: nothing can be learned
            return Calibrated(Calibration())
    method = min(held_out, key=lambda name: brier(held_out[name], relevant))
    said = held_out[method]
    return Calibrated(
        FITS[method](pairs.scores, pairs.relevant),
        method=method,
        brier=brier(said, relevant),
        reliability=tuple(reliability(said, relevant)),
    )


def _cross_validated(pairs: Pairs, method: str) -> FloatArray:
    """Each pair's probability under the curve fitted on the other folds' questions, (n,)."""
    fold_of = (np.random.default_rng(SEED).permutation(len(pairs.wanted)) % FOLDS)[pairs.question]
    said = np.empty(len(pairs.scores))
    for fold in range(FOLDS):
        curve = FITS[method](pairs.scores[fold_of != fold], pairs.relevant[fold_of != fold])
        said[fold_of == fold] = np.interp(pairs.scores[fold_of == fold], curve.scores, curve.probabilities)
    return said


def _held_out(mode: _OfMode, wanted: Wanted) -> HeldOut | None:
    """The threshold of one half of the questions, judged on the other, many times; None where no half has one."""
    values = []
    for halving in range(HALVINGS):
        random = np.random.default_rng((SEED, halving))
        questions, wrong = (
            _half(len(mode.pairs.wanted), random),
            _half(int(mode.wrong_of.max(initial=-1)) + 1, random)[mode.wrong_of],
        )
        for mine, others in ((questions, wrong), (~questions, ~wrong)):
            try:
                threshold = wanted.threshold(mode.pairs.only(mine), mode.wrong[others])
            except InvalidArgumentError:
                continue
            values.append(wanted.value_at(threshold, mode.pairs.only(~mine), mode.wrong[~others]))
    return HeldOut(float(np.mean(values)), float(np.std(values)), len(values)) if values else None


def _half(count: int, random: np.random.Generator) -> np.ndarray:
    return random.permutation(count) < count // 2


def _levels(calibration: Calibration, identical: FloatArray) -> dict[str, float]:
    """The lowest scores of the levels that the evidence tells; never falling."""
    bounds: dict[str, float] = {}
    if calibration.unrelated is not None:
        bounds["weak"] = calibration.unrelated.score_at(max(WEAK, calibration.unrelated.rates[-1]))
        bounds["related"] = calibration.unrelated.score_at(max(RELATED, calibration.unrelated.rates[-1]))
    if calibration.scores and math.isfinite(probable := calibration.threshold(f"p>={PROBABLE}")):
        bounds["related"] = probable
    if len(identical):
        bounds["nearly identical"] = float(np.quantile(identical, IDENTICAL))
    named = [name for name in LEVELS[1:] if name in bounds]
    rising = accumulate((bounds[name] for name in named), max)
    return dict(zip(named, rising, strict=True))
