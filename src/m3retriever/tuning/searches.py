"""Two ways to look for the best setting: every point of a grid, or what earlier trials make look promising."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m3retriever.errors import InvalidArgumentError, MissingExtraError
from m3retriever.tuning.settings import Chosen, Grid, Setting, SettingsTable, around, best_of, simplex
from m3retriever.types import FloatArray, Weights

if TYPE_CHECKING:
    import optuna

Parameters = Mapping[str, Mapping[str, Any]]  # by fusion, what it takes beside weights

TRIALS = 100  # of a Bayesian search: on three collections this came within 0.004 nDCG@10 of the grid, held out
SEED = 0
CONSTANTS = (1, 200)  # of reciprocal rank fusion: 60 is usual, 1 is nearly "the first place wins"
DEPTHS = (10, 20, 50, 100, 200, 500, 1000)  # what is tried, where the scores go deeper


class Search(Protocol):
    """What finds a setting for some of a table's questions and looks at no others."""

    def best(self, on: Chosen) -> Setting: ...


class GridSearch:
    """The best of a grid over weights and fusions, then of a finer one around it.

    Parameters
    ----------
    sums
        The grid of weighted sums of raw scores, for which nothing is computed again.
    """

    def __init__(self, sums: Grid, fusions: Sequence[str], *, step: float, parameters: Parameters) -> None:
        self.table, self.step = sums.table, step
        self.grids = [sums if fusion == "weighted_sum" else grid_of(sums.table, fusion, step, parameters) for fusion in fusions]

    def best(self, on: Chosen) -> Setting:
        """The best setting for the chosen questions."""
        settings = [setting for grid in self.grids for setting in grid.settings]
        coarse = best_of(settings, np.concatenate([grid.values[:, on] for grid in self.grids]))
        fine = [Setting(weights, coarse.fusion, coarse.parameters) for weights in around(coarse.weights, self.step)]
        return best_of([coarse, *fine], self.table.values([coarse, *fine], on))


def grid_of(table: SettingsTable, fusion: str, step: float, parameters: Parameters) -> Grid:
    """All weights that are multiples of a step, under one fusion."""
    own = parameters.get(fusion, {})
    return Grid(table, [Setting(weights, fusion, own) for weights in simplex(step)])


class BayesianSearch:
    """The best of so many trials over weights, fusion, the constant of rank fusion and depth, by Optuna.

    Each trial is drawn where the earlier ones were good (tree-structured Parzen estimator, Bergstra et al., 2011),
    with a fixed seed: the same input gives the same result. The default setting is the first trial.

    Raises
    ------
    MissingExtraError
        Without the extra `optuna`.
    """

    def __init__(self, table: SettingsTable, fusions: Sequence[str], *, trials: int, parameters: Parameters) -> None:
        try:
            import optuna  # noqa: F401  # so that it is missed before anything is computed
        except ImportError as error:
            raise MissingExtraError("optuna", extra="optuna") from error
        if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
            raise InvalidArgumentError(f"trials must be an integer >= 1; got {trials!r}")
        self.table, self.fusions, self.trials, self.parameters = table, list(fusions), trials, parameters
        self.depths = [*(depth for depth in DEPTHS if depth < table.deepest), None]
        self._known: dict[Setting, FloatArray] = {}  # folds have their first trials in common

    def best(self, on: Chosen) -> Setting:
        """The best setting for the chosen questions."""
        import optuna

        tried: list[Setting] = []

        def objective(trial: optuna.Trial) -> float:
            tried.append(self._suggested(trial))
            return float(self._values(tried[-1])[on].mean())

        with _quiet():
            study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED))
            study.enqueue_trial(self._first())
            study.optimize(objective, n_trials=self.trials)
        return best_of(tried, np.stack([self._values(setting)[on] for setting in tried]))

    def _suggested(self, trial: optuna.Trial) -> Setting:
        fusion = trial.suggest_categorical("fusion", self.fusions)
        dense = trial.suggest_float("dense", 0, 1)
        sparse = trial.suggest_float("sparse_of_rest", 0, 1) * (1 - dense)
        place = trial.suggest_categorical("depth", list(range(len(self.depths))))
        parameters = dict(self.parameters.get(fusion, {}))
        if fusion == "rrf":
            parameters["constant"] = trial.suggest_int("constant", *CONSTANTS, log=True)
        weights = Weights(*(round(max(0.0, weight), 4) for weight in (dense, sparse, 1 - dense - sparse)))
        return Setting(weights, fusion, parameters, self.depths[place])

    def _first(self) -> dict[str, Any]:
        """The default setting as a trial: its weights under the first fusion, at full depth."""
        usual = Weights().normalized()
        rest = usual.sparse / (1 - usual.dense)
        return {"fusion": self.fusions[0], "dense": usual.dense, "sparse_of_rest": rest, "depth": len(self.depths) - 1}

    def _values(self, setting: Setting) -> FloatArray:
        if setting not in self._known:
            self._known[setting] = self.table.values([setting])[0]
        return self._known[setting]


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells every trial on standard error; not here."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
