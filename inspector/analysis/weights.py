"""What tuning found, as the page Tune shows it: the map's cells, how far folds lie apart, why a setting was chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m3retriever import MODES, Mode, Weights
from m3retriever.evaluation import Comparison, mean
from m3retriever.fusion import SUMMANDS
from m3retriever.quality_page.fits import NEAR, USUAL, best_mark
from m3retriever.quality_page.ternary import Grid, corners, limits, point, spacing, step_of
from m3retriever.tuning import BASELINES, LINEAR, RELATIVE, Setting, Tuning

OVERLAP = 0.4  # pixels by which cells are larger, so that no gap shows between them
SAME = 1e-6  # shares that differ by less are the same


@dataclass(frozen=True)
class Cell:
    """One weighting on the map: its place and hexagon in pixels, its shares, and the step of the ramp for its value."""

    place: tuple[float, float]
    corners: tuple[tuple[float, float], ...]
    shares: tuple[float, float, float]
    value: float
    step: int


@dataclass(frozen=True)
class Spot:
    """A named place on the map; `value` is None where it is not known."""

    name: str
    place: tuple[float, float]
    shares: tuple[float, float, float]
    value: float | None


@dataclass(frozen=True)
class Reason:
    """Why a setting was chosen: `kind` ends the key of its words, the other names fill them in."""

    kind: str
    name: str
    p_value: float | None = None


def cells(grid: Grid) -> list[Cell]:
    """Every weighting of the map."""
    low, high = limits(grid)
    apart = spacing(len(grid)) + OVERLAP
    return [
        Cell(place, tuple(corners(place, apart)), shares_of(weights), value, step_of(value, low, high))
        for weights, value in grid
        for place in [point(weights)]
    ]


def shares_of(weights: Weights) -> tuple[float, float, float]:
    """Of dense, sparse and colbert, which sum to 1."""
    dense, sparse, colbert = weights.normalized()
    return dense, sparse, colbert


def spots(tuning: Tuning, current: Weights) -> list[Spot]:
    """The best weights and the sliders'. A value is the map's own, of the weighted sum."""
    best = best_mark(tuning)
    return [
        Spot("best", point(best.weights), shares_of(best.weights), best.value),
        Spot("current", point(current), shares_of(current), value_at(tuning.grid, current)),
    ]


def value_at(grid: Grid, weights: Weights) -> float | None:
    """The map's value where one of its cells has these weights."""
    wanted = shares_of(weights)
    for held, value in grid:
        if all(abs(one - other) < SAME for one, other in zip(shares_of(held), wanted, strict=True)):
            return value
    return None


def near(grid: Grid) -> int:
    """How many weightings come within NEAR of the highest value."""
    highest = max(value for _, value in grid)
    return sum(value >= highest - NEAR for _, value in grid)


def fold_ranges(folds: Sequence[Setting]) -> dict[Mode, tuple[float, float]]:
    """The lowest and the highest share of each mode over the folds that have weights."""
    held = [shares_of(one.weights) for one in folds if one.fusion in SUMMANDS]
    return {mode: (min(column), max(column)) for mode, column in zip(MODES, zip(*held, strict=True), strict=False)}


def fold_fusions(folds: Sequence[Setting]) -> list[tuple[str, int]]:
    """The fusions that the folds chose, the most frequent first, with how often."""
    return Counter(one.fusion for one in folds).most_common()


def reason(tuning: Tuning) -> Reason:
    """Why this setting: a learner or rank fusion that is surely better, a baseline that is better, or what was searched."""
    if tuning.chosen in BASELINES:
        return Reason("usual" if tuning.chosen == USUAL else "alone", tuning.chosen)
    if tuning.chosen != LINEAR:
        name = tuning.best.fusion if tuning.chosen == RELATIVE else tuning.chosen
        return Reason("better", name, tuning.learned[tuning.chosen].p_value)
    if tuning.best.fusion != "weighted_sum":
        return Reason("fusion", tuning.best.fusion)
    same = all(abs(a - b) < SAME for a, b in zip(shares_of(tuning.best.weights), shares_of(Weights()), strict=True))
    return Reason("kept" if same else "moved", tuning.best.fusion)


def rows(compared: Mapping[str, Comparison]) -> list[dict[str, object]]:
    """Comparisons as lines of a table: the first mean, the second, their difference, wins, losses, ties and p."""
    return [
        {
            "name": name,
            "first": one.first,
            "second": one.second,
            "difference": one.difference,
            "wins": one.wins,
            "losses": one.losses,
            "ties": one.ties,
            "p": one.p_value,
        }
        for name, one in compared.items()
    ]


def held_out(tuning: Tuning) -> float:
    """The mean over questions of values under settings found without them."""
    return mean(tuning.held_out)
