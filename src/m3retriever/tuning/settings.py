"""What turns three scores into one, and what a measure says of it on questions whose scores were taken once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Qrels, answerable
from m3retriever.fusion import SUMMANDS, fuse, fusion_named, mode_ranks
from m3retriever.measures import measure_named, ranks_of, relevant_of
from m3retriever.types import MODES, FloatArray, ModeScores, Weights

STEP = 0.05  # of a grid: 231 weights
REFINEMENT = 4  # a second grid, around the best of the first, is as many times finer
SAME = 1e-9  # means that differ by less are equal: rounding
ROUNDING = 9  # decimals of weights
# In standard errors. On halves of 100 questions, against taking the best mean: where the default was best, a loss of .0031
# nDCG@10 on the others became .0024; where it was not, a gain of .0049 stayed at .0050 (clinc150, cranfield).
CAUTION = 0.25
NOTHING = ModeScores((), np.empty((0, len(MODES)), np.float32))

Chosen: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
"""(q,) bool: some of a table's questions."""


@dataclass(frozen=True)
class Setting:
    """What turns three scores into one.

    Attributes
    ----------
    weights, fusion, parameters : as in a Profile
    depth : how many candidates the dense and the sparse search each bring in; None for as many as there are
    """

    weights: Weights
    fusion: str = "weighted_sum"
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    depth: int | None = None

    def __str__(self) -> str:
        weights = "/".join(f"{weight:.3f}".rstrip("0").rstrip(".") for weight in self.weights.normalized())
        numbers = [f"{name} {value}" for name, value in self.parameters.items() if isinstance(value, int | float)]
        parts = [weights if self.fusion in SUMMANDS else "", "" if self.fusion == "weighted_sum" else self.fusion]
        parts += numbers if self.fusion in SUMMANDS else []
        parts += [] if self.depth is None else [f"depth {self.depth}"]
        return " ".join(filter(None, parts))


class SettingsTable:
    """What a measure says of any setting, for every question: made once from cached scores.

    Attributes
    ----------
    queries : the answerable questions
    """

    def __init__(self, scores: Mapping[str, ModeScores], qrels: Qrels, measure: str) -> None:
        self._measure, self._k = measure_named(measure)
        self._qrels = answerable(qrels)
        self.queries = tuple(self._qrels)
        self._judged = [relevant_of(self._qrels[query]) for query in self.queries]
        self._scores: dict[int | None, list[ModeScores]] = {None: [scores.get(query, NOTHING) for query in self.queries]}

    @cached_property
    def deepest(self) -> int:
        """The smallest depth at which no candidate is missing; 0 without candidates."""
        return max((int(depths.max(initial=0)) for depths in self._depths), default=0)

    @property
    def everything(self) -> Chosen:
        """All questions."""
        return np.ones(len(self.queries), bool)

    def values(self, settings: Sequence[Setting], on: Chosen | None = None) -> FloatArray:
        """(s, q): each setting's value for each question, or for the chosen ones."""
        rows = np.flatnonzero(self.everything if on is None else on).tolist()
        result = np.empty((len(settings), len(rows)))
        for alike in _alike(settings):
            first = settings[alike[0]]
            weights = np.array([tuple(settings[number].weights.normalized()) for number in alike])
            held = self._at(first.depth)
            for column, row in enumerate(rows):
                relevant, grades = self._judged[row]
                ranks = ranks_of(relevant, *_by_document(held[row], _fused(held[row], first, weights)))
                result[alike, column] = self._measure(ranks, grades, self._k)
        return result

    def by_query(self, setting: Setting) -> dict[str, float]:
        """One setting's value for each question."""
        return dict(zip(self.queries, self.values([setting])[0].tolist(), strict=True))

    def part(self, on: Chosen) -> tuple[dict[str, ModeScores], dict[str, Mapping[str, int]]]:
        """Scores and judgements of the chosen questions."""
        queries = [self.queries[row] for row in np.flatnonzero(on)]
        held = dict(zip(self.queries, self._scores[None], strict=True))
        return {query: held[query] for query in queries}, {query: self._qrels[query] for query in queries}

    def _at(self, depth: int | None) -> list[ModeScores]:
        if depth is not None and depth not in self._scores:
            pairs = zip(self._scores[None], self._depths, strict=True)
            self._scores[depth] = [_kept(held, depths <= depth) for held, depths in pairs]
        return self._scores[depth]

    @cached_property
    def _depths(self) -> list[FloatArray]:
        return [entry_depths(held) for held in self._scores[None]]


class Grid:
    """The values of many settings for every question, kept, so that any part of the questions chooses for free."""

    def __init__(self, table: SettingsTable, settings: Sequence[Setting]) -> None:
        self.table, self.settings = table, list(settings)
        self.values = table.values(self.settings)

    def best(self, on: Chosen) -> Setting:
        """The best setting for the chosen questions; as `best_of` sees it."""
        return best_of(self.settings, self.values[:, on])

    def means(self, on: Chosen) -> FloatArray:
        """Each setting's mean over the chosen questions, (s,)."""
        means: FloatArray = self.values[:, on].mean(axis=1)
        return means


def simplex(step: float = STEP) -> list[Weights]:
    """All weights that are multiples of a step and sum to 1; 1 / step must be whole, as in 0.05 or 0.1."""
    parts = round(1 / step) if 0 < step <= 1 else 0
    if not parts or abs(parts * step - 1) > 1e-9:
        raise InvalidArgumentError(f"step must divide 1, such as 0.05 or 0.1; got {step!r}")
    triples = ((a, b, parts - a - b) for a, b in product(range(parts + 1), repeat=2) if a + b <= parts)
    return [Weights(*(part / parts for part in triple)) for triple in triples]


def around(weights: Weights, step: float) -> list[Weights]:
    """Points of a finer grid, within one step of the first, that lie on the simplex."""
    center = np.array(tuple(weights.normalized()))
    fine = step / REFINEMENT
    moves = np.arange(-REFINEMENT, REFINEMENT + 1) * fine
    points = [center + np.array([a, b, -a - b]) for a, b in product(moves, repeat=2) if abs(a + b) <= step + SAME]
    return [Weights(*np.clip(point, 0, 1).tolist()) for point in points if (point >= -SAME).all()]


def best_of(settings: Sequence[Setting], values: FloatArray) -> Setting:
    """The setting to prefer, by values (s, q) for the questions: what is hardly worse than the best, and most usual.

    Hardly worse: by at most CAUTION standard errors of the difference from the highest mean, question by question
    (Breiman et al., 1984, take one). Most usual: a plain weighted sum rather than another fusion, then the weights
    nearest to the default, then the deepest. A few questions thus move the weights less than many.
    """
    means = values.mean(axis=1)
    behind = values[int(means.argmax())] - values
    noise = behind.std(axis=1, ddof=1) / np.sqrt(values.shape[1]) if values.shape[1] > 1 else 0.0
    good = np.flatnonzero(behind.mean(axis=1) <= CAUTION * noise + SAME)
    usual = np.array(tuple(Weights().normalized()))

    def unusual(row: int) -> tuple[bool, float, float]:
        setting = settings[row]
        distance = round(float(np.abs(np.array(tuple(setting.weights.normalized())) - usual).sum()), ROUNDING)
        return setting.fusion != "weighted_sum", distance, -np.inf if setting.depth is None else -setting.depth

    return settings[min(good.tolist(), key=lambda row: (unusual(row), -means[row]))]


def shallower(scores: ModeScores, depth: int) -> ModeScores:
    """The candidates that a search of this depth would have brought in, of those that a deeper one did."""
    return _kept(scores, entry_depths(scores) <= depth)


def entry_depths(scores: ModeScores) -> FloatArray:
    """The smallest depth that brings each candidate in, (n,): its rank by dense or, where it shares a token, by sparse."""
    ranks = mode_ranks(scores)
    sparse = np.where(scores.column("sparse") > 0, np.array(ranks["sparse"], np.float64), np.inf)
    depths: FloatArray = np.minimum(np.array(ranks["dense"], np.float64), sparse)
    return depths


def _kept(scores: ModeScores, mask: Chosen) -> ModeScores:
    rows = np.flatnonzero(mask).tolist()
    ids, found_by, owners = (tuple(each[row] for row in rows) for each in (scores.ids, scores.found_by, scores.owners))
    return replace(scores, ids=ids, values=scores.values[rows], found_by=found_by, owners=owners)


def _alike(settings: Iterable[Setting]) -> list[list[int]]:
    """Numbers of settings that differ in their weights alone."""
    groups: list[tuple[Setting, list[int]]] = []
    for number, setting in enumerate(settings):
        for first, numbers in groups:
            same = (first.fusion, first.depth) == (setting.fusion, setting.depth)
            if same and (first.parameters is setting.parameters or first.parameters == setting.parameters):
                numbers.append(number)
                break
        else:
            groups.append((setting, [number]))
    return [numbers for _, numbers in groups]


def _fused(scores: ModeScores, setting: Setting, weights: FloatArray) -> FloatArray:
    """(n, w): one question's candidates under many weights; a weighted mean is a matrix product."""
    fusion_named(setting.fusion)
    if setting.fusion in SUMMANDS:
        parts: FloatArray = SUMMANDS[setting.fusion](scores, **setting.parameters) @ weights.T
        return parts
    return np.stack([fuse(scores, Weights(*row), setting.fusion, setting.parameters) for row in weights], axis=1)


def _by_document(scores: ModeScores, fused: FloatArray) -> tuple[Sequence[str], FloatArray]:
    """Documents and their scores (m, w): of passages, a document has the score of its best."""
    if scores.owners == scores.ids:
        return scores.ids, fused
    names, places = np.unique(np.array(scores.owners, dtype=object), return_inverse=True)
    best = np.full((len(names), fused.shape[1]), -np.inf)
    np.maximum.at(best, places, fused)
    return names.tolist(), best
