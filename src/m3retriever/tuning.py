"""Which weights suit these documents and these questions: found on some questions, judged on the others.

Everything works on scores taken once (`M3Index.score`): trying a setting is a matrix product, so hundreds
of them cost less than one search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Comparison, Qrels, answerable, compare_values
from m3retriever.fusion import FUSIONS, SUMMANDS, fusion_named
from m3retriever.measures import measure_named, ranks_of, relevant_of
from m3retriever.types import MODES, FloatArray, ModeScores, Weights

STEP = 0.05  # of the first grid: 231 weights
REFINEMENT = 4  # the second grid, around the best of the first, is as many times finer
FOLDS = 5
SEED = 0  # of the folds
MIN_QUERIES = 10  # with fewer, what is held out says nothing
SAME = 1e-9  # means that differ by less are equal: rounding


@dataclass(frozen=True)
class Setting:
    """What turns three scores into one."""

    weights: Weights
    fusion: str = "weighted_sum"

    def __str__(self) -> str:
        shown = "/".join(f"{weight:.3f}".rstrip("0").rstrip(".") for weight in self.weights.normalized())
        return shown if self.fusion == "weighted_sum" else f"{shown} {self.fusion}"


@dataclass(frozen=True)
class Tuning:
    """What tuning found.

    Attributes
    ----------
    measure : what was maximised
    best : the setting that is best over all questions: the one to use
    fitted : its mean over the questions it was chosen on, which flatters it
    held_out : {question: value}, each under the setting chosen without it: what to expect
    folds : the setting chosen in each fold; far apart they mean too few questions
    against : for each baseline, the held-out values compared with it
    grid : the mean of every weighted sum of the first grid over all questions, for a picture
    """

    measure: str
    best: Setting
    fitted: float
    held_out: Mapping[str, float]
    folds: tuple[Setting, ...]
    against: Mapping[str, Comparison]
    grid: tuple[tuple[Weights, float], ...]


def simplex(step: float = STEP) -> list[Weights]:
    """All weights that are multiples of a step and sum to 1; 1 / step must be whole, as in 0.05 or 0.1."""
    parts = round(1 / step) if 0 < step <= 1 else 0
    if not parts or abs(parts * step - 1) > 1e-9:
        raise InvalidArgumentError(f"step must divide 1, such as 0.05 or 0.1; got {step!r}")
    triples = ((a, b, parts - a - b) for a, b in product(range(parts + 1), repeat=2) if a + b <= parts)
    return [Weights(*(part / parts for part in triple)) for triple in triples]


def tune(
    scores: Mapping[str, ModeScores],
    qrels: Qrels,
    *,
    measure: str = "nDCG@10",
    step: float = STEP,
    fusions: Sequence[str] = tuple(FUSIONS),
    baselines: Mapping[str, Setting] | None = None,
    folds: int = FOLDS,
) -> Tuning:
    """The setting that maximises the mean of a measure, and what to expect of it on other questions.

    For each fold a setting is chosen on the other folds' questions: the best of a grid, then of a finer
    grid around it; what it makes of the fold's own questions is held out. Equals go to the setting
    nearest to BGE-M3's own weights.

    Parameters
    ----------
    scores
        Raw scores of each question's candidates (`M3Index.score`); a judged question that is missing
        counts 0 for every setting.
    qrels
        {question: {document: grade}}; questions without a relevant document are left out.
    step
        Of the first grid: it must divide 1.
    fusions
        Names in `fusion.FUSIONS`.
    baselines
        By name, beside the default and each mode alone.
    folds
        At least 2, and no more than there are questions.

    Raises
    ------
    InvalidArgumentError
        Fewer than MIN_QUERIES answerable questions, or a parameter out of range.
    """
    table = SettingsTable(scores, qrels, measure)
    if len(table.queries) < MIN_QUERIES:
        raise InvalidArgumentError(
            f"tuning needs at least {MIN_QUERIES} questions with a relevant document; got {len(table.queries)}"
        )
    if not 2 <= folds <= len(table.queries):
        raise InvalidArgumentError(f"folds must be between 2 and the number of questions, {len(table.queries)}; got {folds}")
    search = _Search(table, [Setting(weights, fusion) for fusion in fusions for weights in simplex(step)], step)
    best = search.best(np.ones(len(table.queries), bool))
    chosen, held_out = _cross_validated(search, folds)
    measured = dict(zip(table.queries, held_out.tolist(), strict=True))
    against = {**BASELINES, **(baselines or {})}
    return Tuning(
        measure=measure,
        best=best,
        fitted=float(table.values([best]).mean()),
        held_out=measured,
        folds=tuple(chosen),
        against={name: compare_values(table.by_query(setting), measured) for name, setting in against.items()},
        grid=search.weighted_sums(),
    )


BASELINES: dict[str, Setting] = {
    "default": Setting(Weights()),
    **{mode: Setting(Weights.of({mode: 1.0})) for mode in MODES},
}


class SettingsTable:
    """What a measure says of any setting, for every question: made once from cached scores.

    Attributes
    ----------
    queries : the answerable questions
    """

    def __init__(self, scores: Mapping[str, ModeScores], qrels: Qrels, measure: str) -> None:
        self._measure, self._k = measure_named(measure)
        judged = answerable(qrels)
        self.queries = tuple(judged)
        self._judged = [relevant_of(judged[query]) for query in self.queries]
        nothing = ModeScores((), np.empty((0, len(MODES)), np.float32))
        self._scores = [scores.get(query, nothing) for query in self.queries]

    def values(self, settings: Sequence[Setting]) -> FloatArray:
        """(s, q): each setting's value for each question."""
        result = np.empty((len(settings), len(self.queries)))
        for fusion in dict.fromkeys(setting.fusion for setting in settings):
            fusion_named(fusion)
            rows = [row for row, setting in enumerate(settings) if setting.fusion == fusion]
            weights = np.array([tuple(settings[row].weights.normalized()) for row in rows])
            for column, (scores, (relevant, grades)) in enumerate(zip(self._scores, self._judged, strict=True)):
                ranks = ranks_of(relevant, scores.ids, SUMMANDS[fusion](scores) @ weights.T)
                result[rows, column] = self._measure(ranks, grades, self._k)
        return result

    def by_query(self, setting: Setting) -> dict[str, float]:
        """One setting's value for each question."""
        return dict(zip(self.queries, self.values([setting])[0].tolist(), strict=True))


class _Search:
    """The grid's values, kept, so that every fold chooses from them for free."""

    def __init__(self, table: SettingsTable, grid: Sequence[Setting], step: float) -> None:
        self.table, self.grid, self.step = table, grid, step
        self.values = table.values(grid)

    def best(self, on: np.ndarray) -> Setting:
        """The best setting for some questions, (q,) bool: of the grid, then of a finer one around it."""
        coarse = _argbest(self.grid, self.values[:, on].mean(axis=1))
        near = [coarse, *(Setting(weights, coarse.fusion) for weights in _around(coarse.weights, self.step))]
        return _argbest(near, self.table.values(near)[:, on].mean(axis=1))

    def weighted_sums(self) -> tuple[tuple[Weights, float], ...]:
        """The means over all questions of the weighted sums of raw scores."""
        means = zip(self.grid, self.values.mean(axis=1).tolist(), strict=True)
        return tuple((setting.weights, value) for setting, value in means if setting.fusion == "weighted_sum")


def _cross_validated(search: _Search, folds: int) -> tuple[list[Setting], FloatArray]:
    """The setting each fold chose without its own questions, and the questions' values under it."""
    fold_of = np.random.default_rng(SEED).permutation(len(search.table.queries)) % folds
    chosen, held_out = [], np.empty(len(fold_of))
    for fold in range(folds):
        setting = search.best(fold_of != fold)
        chosen.append(setting)
        held_out[fold_of == fold] = search.table.values([setting])[0, fold_of == fold]
    return chosen, held_out


def _argbest(settings: Sequence[Setting], means: FloatArray) -> Setting:
    """The setting of the highest mean; of equals the one nearest to the default, then a plain weighted sum."""
    usual = np.array(tuple(Weights().normalized()))
    equals = [setting for setting, value in zip(settings, means.tolist(), strict=True) if value >= means.max() - SAME]

    def distance(setting: Setting) -> tuple[float, bool]:
        weights = np.array(tuple(setting.weights.normalized()))
        return float(np.abs(weights - usual).sum()), setting.fusion != "weighted_sum"

    return min(equals, key=distance)


def _around(weights: Weights, step: float) -> list[Weights]:
    """Points of a finer grid, within one step of the first, that lie on the simplex."""
    center = np.array(tuple(weights.normalized()))
    fine = step / REFINEMENT
    moves = np.arange(-REFINEMENT, REFINEMENT + 1) * fine
    points = [center + np.array([a, b, -a - b]) for a, b in product(moves, repeat=2) if abs(a + b) <= step + SAME]
    return [Weights(*np.clip(point, 0, 1).tolist()) for point in points if (point >= -SAME).all()]
