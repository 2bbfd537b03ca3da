"""How good is a ranking: qrels and runs in, values per query, means, confidence and comparisons out.

Qrels and runs are mappings {query id: {document id: number}}. Ties in a run are broken by document id;
a judged query that the run lacks counts 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.measures import measure_named, ranks_of, relevant_of

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
Run: TypeAlias = Mapping[str, Mapping[str, float]]

RESAMPLES = 2_000  # of the bootstrap: the ends of an interval then move by less than its own tenth
PERMUTATIONS = 10_000  # of the randomisation test: the smallest p it can give is 0.0001
SEED = 0  # the same input gives the same interval and the same p


def evaluate_run(run: Run, qrels: Qrels, measures: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each measure's value for each judged query: {measure: {query id: value}}.

    A query without a relevant document (grade > 0) is left out: no ranking could do better than another.

    `evaluate_run({"q": {"a": 1.0, "b": 2.0}}, {"q": {"a": 1}}, ["RR"])` is `{"RR": {"q": 0.5}}`.
    """
    named = {name: measure_named(name) for name in measures}
    values: dict[str, dict[str, float]] = {name: {} for name in named}
    for query, judged in answerable(qrels).items():
        found = run.get(query, {})
        scores = np.fromiter(found.values(), np.float64, len(found))[:, None]
        relevant, grades = relevant_of(judged)
        ranks = ranks_of(relevant, list(found), scores)
        for name, (measure, k) in named.items():
            values[name][query] = float(measure(ranks, grades, k)[0])
    return values


def answerable(qrels: Qrels) -> dict[str, Mapping[str, int]]:
    """The queries that have a relevant document (grade > 0), with their judgements."""
    return {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries; 0 where there are none."""
    return math.fsum(values.values()) / len(values) if values else 0.0


def interval(values: Mapping[str, float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Bootstrap percentile interval of the mean over queries (Efron, 1979): where it would lie on other queries
    drawn from where these were drawn."""
    if not 0 < confidence < 1:
        raise InvalidArgumentError(f"confidence must be between 0 and 1; got {confidence!r}")
    if not values:
        return 0.0, 0.0
    given = np.fromiter(values.values(), np.float64, len(values))
    random = np.random.default_rng(SEED)
    means = [given[random.integers(len(given), size=len(given))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two rankings of the same queries, the second against the first.

    Attributes
    ----------
    queries : how many were compared
    first, second : the means
    wins, losses, ties : queries for which the second is better, worse, the same
    p_value : how often chance alone would give a difference as large; two-sided
    """

    queries: int
    first: float
    second: float
    wins: int
    losses: int
    ties: int
    p_value: float

    @property
    def difference(self) -> float:
        """The second mean less the first."""
        return self.second - self.first


def compare(first: Run, second: Run, qrels: Qrels, measure: str = "nDCG@10") -> Comparison:
    """Is the second run better than the first? Paired over queries, with Fisher's randomisation test."""
    before, after = (evaluate_run(run, qrels, [measure])[measure] for run in (first, second))
    return compare_values(before, after)


def compare_values(first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """`compare`, of the values by query that a measure has given; both have the same queries."""
    if set(first) != set(second):
        raise InvalidArgumentError(f"a comparison is over the same queries; got {len(first)} and {len(second)}, not all alike")
    differences = np.array([second[query] - first[query] for query in first])
    return Comparison(
        queries=len(first),
        first=mean(first),
        second=mean(second),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
        p_value=randomisation_p(differences),
    )


def randomisation_p(differences: np.ndarray) -> float:
    """Share of random sign changes whose sum is as large: Fisher's paired randomisation test, two-sided.

    Smucker et al. (2007) recommend it for retrieval. With the observed signs counted as one of them, so
    never 0. 1 where nothing differs.
    """
    differing = differences[differences != 0]
    if not len(differing):
        return 1.0
    random, observed, extreme = np.random.default_rng(SEED), abs(differing.sum()), 0
    block = max(1, 5_000_000 // len(differing))
    for start in range(0, PERMUTATIONS, block):
        signs = random.integers(0, 2, (min(block, PERMUTATIONS - start), len(differing))) * 2 - 1
        extreme += int((np.abs(signs @ differing) >= observed * (1 - 1e-12)).sum())
    return (extreme + 1) / (PERMUTATIONS + 1)
