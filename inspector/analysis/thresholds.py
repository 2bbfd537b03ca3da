"""What a threshold makes of judged questions: pairs with their scores, the axis they lie on, the levels in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from m3retriever import ModeScores, Profile
from m3retriever.calibrating import Calibrated, Wanted
from m3retriever.calibrating.reliability import Bin
from m3retriever.calibrating.thresholds import Cuts, Measured, Pairs
from m3retriever.calibration import LEVELS, calibration_of
from m3retriever.evaluation import Qrels, run_of
from m3retriever.quality_page.charts import radius
from m3retriever.quality_page.spread import Curves, Spread
from m3retriever.ranking import Ranking, SearchMode
from m3retriever.rates import Rates
from m3retriever.vectors import FloatArray

GRAIN = 0.05  # the ends of an axis are multiples of it, so that it stands still while a threshold moves


@dataclass(frozen=True)
class Bar:
    """One bar of the histogram: a share of its own side's pairs, and how many they are."""

    start: float
    end: float
    share: float
    pairs: int
    relevant: bool


@dataclass(frozen=True)
class Sample:
    """One threshold of the curves."""

    threshold: float
    precision: float
    recall: float
    f1: float
    returned: int


@dataclass(frozen=True)
class Band:
    """The scores of one level in words."""

    level: str
    start: float
    end: float


@dataclass(frozen=True)
class Point:
    """Pairs of about the same probability; `radius` in pixels, its square by the number of pairs."""

    said: float
    true: float
    pairs: int
    radius: float


def pairs_of(scores: Mapping[str, ModeScores], qrels: Qrels, profile: Profile, mode: SearchMode) -> Pairs:
    """The candidates of judged questions, scored by a mode or the profile's hybrid: what calibrating works on."""
    ranking = Ranking.of(profile, mode, None, None)
    return Pairs.of({question: run_of(scores[question], ranking) for question in qrels}, qrels)


def roc_auc(pairs: Pairs) -> float | None:
    """How likely a relevant candidate scores above another, ties half; None where there are only such, or none."""
    cuts = Cuts.of(pairs)
    relevant = int(pairs.relevant.sum())
    other = len(pairs.scores) - relevant
    if not relevant or not other:
        return None
    right, wrong = (np.concatenate([[0], counts]) for counts in (cuts.right, cuts.returned - cuts.right))
    return float((np.diff(wrong) * (right[1:] + right[:-1])).sum() / (2 * relevant * other))


def axis_of(scores: FloatArray, *others: float | None) -> tuple[float, float]:
    """The ends of the axis of scores: 0, all scores (n,) and what else is drawn on it are inside."""
    spread = float(scores.min(initial=0.0)), float(scores.max(initial=0.0))
    values = [*spread, *(other for other in others if other is not None and math.isfinite(other))]
    low, high = min(values), max(values)
    grain = GRAIN if high - low > GRAIN else 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    ends = math.floor(low / grain + 1e-9) * grain, math.ceil(high / grain - 1e-9) * grain
    return round(ends[0], 9), round(max(ends[1], ends[0] + grain), 9)


def bars(pairs: Pairs, low: float, high: float) -> list[Bar]:
    """The histogram's bars that are not empty: relevant pairs have positive shares, others negative ones."""
    spread = Spread.of(pairs, low, high)
    found = []
    for relevant, shares in ((True, spread.relevant), (False, spread.other)):
        count = int((pairs.relevant == relevant).sum())
        for start, end, share in zip(spread.edges[:-1].tolist(), spread.edges[1:].tolist(), shares.tolist(), strict=True):
            if share:
                found.append(Bar(start, end, share if relevant else -share, round(share * count), relevant))
    return found


def samples(pairs: Pairs, low: float, high: float) -> list[Sample]:
    """The curves' points, by rising threshold."""
    found = Curves.of(pairs, low, high)
    columns = found.thresholds, found.precision, found.recall, found.f1, found.returned
    return [Sample(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def reliability_points(bins: Sequence[Bin]) -> list[Point]:
    """The points of a reliability plot; the second largest sets their scale."""
    second = sorted((one.pairs for one in bins), reverse=True)[:2][-1] if bins else 1
    return [Point(one.said, one.true, one.pairs, radius(one.pairs, second)) for one in bins]


def given(measured: Measured, wanted: Wanted) -> float | None:
    """What a threshold gives of a wish, on the questions it was fitted on; None of one about other questions."""
    if wanted.what == "f":
        return measured.f(wanted.value)
    if wanted.what == "fpr":
        return None
    return measured.mean_recall if wanted.confidence is not None else float(getattr(measured, wanted.what))


def rate_steps(rates: Rates) -> list[tuple[float, float]]:
    """(score, share of unrelated pairs that reach it), by rising score."""
    return list(zip(rates.scores, rates.rates, strict=True))


# -- levels ----------------------------------------------------------------------------------------


def levels_of(profile: Profile, mode: str, fitted: Calibrated | None) -> dict[str, float]:
    """From which score on each level is reached: as fitted now, else as the profile says; empty where neither does."""
    if fitted is not None:
        return dict(fitted.calibration.levels)
    held = calibration_of(profile, mode)
    return {} if held is None else dict(held.levels)


def out_of_order(levels: Mapping[str, float]) -> tuple[str, str] | None:
    """The first two neighbours whose bounds fall; None where all rise."""
    named = [name for name in LEVELS[1:] if name in levels]
    return next((pair for pair in pairwise(named) if levels[pair[0]] > levels[pair[1]]), None)


def bands(levels: Mapping[str, float], low: float, high: float) -> list[Band]:
    """The axis cut into levels, those of no width left out; empty without levels, or where they are out of order."""
    if not levels or out_of_order(levels):
        return []
    names = [LEVELS[0], *(name for name in LEVELS[1:] if name in levels)]
    edges = [low, *(min(max(levels[name], low), high) for name in names[1:]), high]
    return [Band(name, start, end) for name, start, end in zip(names, edges, edges[1:], strict=False) if end > start]


def with_levels(profile: Profile, edited: Mapping[str, Mapping[str, float]]) -> Profile:
    """The profile with levels by mode in place of those that were fitted."""
    calibration = {mode: dict(held) for mode, held in (profile.calibration or {}).items()}
    for mode, levels in edited.items():
        held = {name: value for name, value in calibration.get(mode, {}).items() if name != "levels"}
        calibration[mode] = {**held, "levels": dict(levels)} if levels else held
    return replace(profile, calibration={mode: held for mode, held in calibration.items() if held} or None)
