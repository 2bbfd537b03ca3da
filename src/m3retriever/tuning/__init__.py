"""Which weights suit these documents and these questions: found on some questions, judged on the others.

Everything works on scores taken once (`M3Index.score`): trying a setting is a matrix product, so hundreds
of them cost less than one search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Comparison, Qrels, compare_values, mean
from m3retriever.fusion import FUSIONS, POINTWISE, SUMMANDS
from m3retriever.tuning.learning import LEARNERS, route
from m3retriever.tuning.searches import TRIALS, BayesianSearch, GridSearch, Search, grid_of
from m3retriever.tuning.settings import STEP, Chosen, Grid, Setting, SettingsTable, simplex
from m3retriever.types import MODES, ModeScores, Weights

__all__ = ["BASELINES", "Found", "Setting", "SettingsTable", "Tuning", "fusions_of", "simplex", "steps_of", "tune"]

FOLDS = 5
SEED = 0  # of the folds
MIN_QUERIES = 10  # with fewer, what is held out says nothing
SIGNIFICANT = 0.05  # what is learned replaces what is searched for only where chance would do as well this rarely
LINEAR = "linear"  # the name of what the search finds
RELATIVE = "relative"  # and of what it finds among fusions that score a document by the other candidates
BASELINES: dict[str, Setting] = {
    "default": Setting(Weights()),
    **{mode: Setting(Weights.of({mode: 1.0})) for mode in MODES},
}


@dataclass(frozen=True)
class Found:
    """A setting, and what to expect of the way it was found.

    Attributes
    ----------
    setting : found on all questions: the one to use
    fitted : its mean over the questions it was found on, which flatters it
    held_out : {question: value}, each under the setting found without it: what to expect
    folds : the setting found in each fold; far apart they mean too few questions
    """

    setting: Setting
    fitted: float
    held_out: Mapping[str, float]
    folds: tuple[Setting, ...]


@dataclass(frozen=True)
class Tuning:
    """What tuning found.

    Attributes
    ----------
    measure : what was maximised
    found : under "linear" what the search found, under "relative" what it found among fusions that score a document
        by the other candidates, under each learner's name what it learned, and the chosen
    chosen : whose setting to use: "linear", the best of "relative" and the learners where it is significantly better
        on held-out values, or of BASELINES one that is better than that; these values flatter it a little, for they
        chose it
    against : for each baseline, the chosen's held-out values compared with it
    learned : for each of the others, its held-out values compared with those of "linear"
    grid : the mean of every weighted sum of the first grid over all questions, for a picture
    """

    measure: str
    found: Mapping[str, Found]
    chosen: str
    against: Mapping[str, Comparison]
    learned: Mapping[str, Comparison]
    grid: tuple[tuple[Weights, float], ...]

    @property
    def best(self) -> Setting:
        """The setting to use."""
        return self.found[self.chosen].setting

    @property
    def fitted(self) -> float:
        """Its mean over the questions it was found on."""
        return self.found[self.chosen].fitted

    @property
    def held_out(self) -> Mapping[str, float]:
        """{question: value} under settings found without the question."""
        return self.found[self.chosen].held_out

    @property
    def folds(self) -> tuple[Setting, ...]:
        """The setting of each fold."""
        return self.found[self.chosen].folds


def tune(
    scores: Mapping[str, ModeScores],
    qrels: Qrels,
    *,
    measure: str = "nDCG@10",
    step: float = STEP,
    fusions: Sequence[str] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    baselines: Mapping[str, Setting] | None = None,
    folds: int = FOLDS,
    search: Literal["grid", "optuna"] = "grid",
    trials: int = TRIALS,
    learners: Sequence[str] = (),
    on_step: Callable[[int], None] = lambda done: None,
) -> Tuning:
    """The setting that maximises the mean of a measure, and what to expect of it on other questions.

    For each fold a setting is found on the other folds' questions; what it makes of the fold's own questions
    is held out. Of settings that are nearly as good the most usual is taken (`settings.best_of`). Learners are
    fitted and held out on the same folds. Where the default or one mode alone does better than what was found
    does on held-out questions, it is chosen instead.

    Parameters
    ----------
    scores
        Raw scores of each question's candidates (`M3Index.score`); a judged question that is missing
        counts 0 for every setting. What goes by the query's text reads `ModeScores.query`.
    qrels
        {question: {document: grade}}; questions without a relevant document are left out.
    step
        Of the first grid: it must divide 1.
    fusions
        Names in `fusion.FUSIONS`; default: all that have what they need ("null_cdf" wants `parameters`).
    parameters
        By fusion, what it takes beside weights, such as `unrelated` for "null_cdf".
    baselines
        By name, beside the default and each mode alone.
    folds
        At least 2, and no more than there are questions.
    search
        "grid", or "optuna" for a Bayesian search that also varies depth and the constant of "rrf".
    trials
        Of the Bayesian search, for each fold and for all questions.
    learners
        Names in `learning.LEARNERS`: fusions whose weights depend on the query.
    on_step
        Called with 1 after each search was prepared and after each setting was found: `steps_of` times.

    Raises
    ------
    InvalidArgumentError
        Fewer than MIN_QUERIES answerable questions, or a parameter out of range.
    MissingExtraError
        `search="optuna"` without the extra.
    """
    table = SettingsTable(scores, qrels, measure)
    if fusions is None:
        fusions = [name for name in FUSIONS if name != "null_cdf" or name in (parameters or {})]
    _check(table, folds, fusions, learners)
    sums = grid_of(table, "weighted_sum", step, {})
    finders: dict[str, Callable[[Chosen], Setting]] = {}
    for name, some in _groups(fusions).items():
        finders[name] = _search(search, sums, some, step=step, trials=trials, parameters=parameters or {}).best
        on_step(1)
    finders |= {name: _learner(name, sums) for name in learners}
    found = {name: _found(table, finder, folds, on_step) for name, finder in finders.items()}
    learned = {name: compare_values(found[LINEAR].held_out, one.held_out) for name, one in found.items() if name != LINEAR}
    chosen = _chosen(learned)
    usual = _better_baseline(table, found[chosen], folds)
    if usual is not None:
        chosen, found[usual[0]] = usual
    against = {**BASELINES, **(baselines or {})}
    return Tuning(
        measure=measure,
        found=found,
        chosen=chosen,
        against={name: compare_values(table.by_query(one), found[chosen].held_out) for name, one in against.items()},
        learned=learned,
        grid=tuple(zip([one.weights for one in sums.settings], sums.means(table.everything).tolist(), strict=True)),
    )


def steps_of(fusions: Sequence[str], learners: Sequence[str] = (), *, folds: int = FOLDS) -> int:
    """Of `tune`: each search is prepared, and each search and learner finds a setting without each fold and on all."""
    searches = len(_groups(fusions))
    return searches + (searches + len(learners)) * (folds + 1)


def fusions_of(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The fusions to search among and the learners to try, of names; all fusions that may be searched where none is named.

    "learned" stands for all learned fusions, "routed" for weights by the kind of question.
    """
    learners = {"learned": ["logistic", "boosted"], "routed": ["routed"]}
    fusions = [name for name in names if name not in learners]
    return fusions or list(SUMMANDS), [one for name in names for one in learners.get(name, [])]


def _groups(fusions: Sequence[str]) -> dict[str, list[str]]:
    """Fusions that are searched together. Those that score a document by the other candidates are apart, if any others
    are asked for: their scores cannot be thresholded well, so they must be clearly better to be chosen."""
    alone = [name for name in fusions if name in POINTWISE]
    relative = [name for name in fusions if name not in POINTWISE]
    return {LINEAR: alone, RELATIVE: relative} if alone and relative else {LINEAR: [*fusions]}


def _check(table: SettingsTable, folds: int, fusions: Sequence[str], learners: Sequence[str]) -> None:
    count = len(table.queries)
    if count < MIN_QUERIES:
        raise InvalidArgumentError(f"tuning needs at least {MIN_QUERIES} questions with a relevant document; got {count}")
    if not 2 <= folds <= count:
        raise InvalidArgumentError(f"folds must be between 2 and the number of questions, {count}; got {folds}")
    if not fusions or (unknown := set(fusions) - set(FUSIONS)):
        got = sorted(unknown) if fusions else "none"
        raise InvalidArgumentError(f"fusion must be one of {', '.join(FUSIONS)}; got {got}")
    if unknown := set(learners) - set(LEARNERS):
        raise InvalidArgumentError(f"learners are {', '.join(LEARNERS)}; got {sorted(unknown)}")


def _search(
    name: str, sums: Grid, fusions: Sequence[str], *, step: float, trials: int, parameters: Mapping[str, Mapping[str, Any]]
) -> Search:
    if name == "grid":
        return GridSearch(sums, fusions, step=step, parameters=parameters)
    if name == "optuna":
        return BayesianSearch(sums.table, fusions, trials=trials, parameters=parameters)
    raise InvalidArgumentError(f"search must be grid or optuna; got {name!r}")


def _learner(name: str, sums: Grid) -> Callable[[Chosen], Setting]:
    """What fits a learner on some questions. Its weights are the best weighted sum's, for what asks for weights."""

    def learn(on: Chosen) -> Setting:
        parameters = route(sums, on) if name == "routed" else LEARNERS[name](*sums.table.part(on))
        return Setting(sums.best(on).weights, name, parameters)

    return learn


def _found(table: SettingsTable, find: Callable[[Chosen], Setting], folds: int, on_step: Callable[[int], None]) -> Found:
    """What is found on all questions, and on each fold's others: a question has no say in what it is judged by."""
    fold_of = np.random.default_rng(SEED).permutation(len(table.queries)) % folds
    found, held_out = [], np.empty(len(fold_of))
    for fold in range(folds):
        own = fold_of == fold
        found.append(find(~own))
        held_out[own] = table.values([found[-1]], own)[0]
        on_step(1)
    best = find(table.everything)
    on_step(1)
    values = dict(zip(table.queries, held_out.tolist(), strict=True))
    return Found(best, float(table.values([best]).mean()), values, tuple(found))


def _better_baseline(table: SettingsTable, found: Found, folds: int) -> tuple[str, Found] | None:
    """The best of BASELINES, by name, where it is better than what was found is on held-out questions."""
    values = {name: table.by_query(setting) for name, setting in BASELINES.items()}
    name = max(values, key=lambda one: mean(values[one]))
    if mean(values[name]) <= mean(found.held_out):
        return None
    setting = BASELINES[name]
    return name, Found(setting, mean(values[name]), values[name], (setting,) * folds)


def _chosen(learned: Mapping[str, Comparison]) -> str:
    """The learner of the highest held-out mean, of those significantly better than linear; else "linear"."""
    better = [name for name, one in learned.items() if one.difference > 0 and one.p_value < SIGNIFICANT]
    return max(better, key=lambda name: learned[name].second, default=LINEAR)
