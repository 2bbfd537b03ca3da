"""How good is a ranking: qrels and runs in, values per query, means, confidence and comparisons out.

Qrels and runs are mappings {query id: {document id: number}}. Ties in a run are broken by document id;
a judged query that the run lacks counts 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.io import GoldenQuestion
from m3retriever.measures import measure_named, ranks_of, relevant_of
from m3retriever.passages import parents_of
from m3retriever.ranking import SEARCH_MODES, Ranking
from m3retriever.types import MODES, ModeScores, Profile, Where

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
Run: TypeAlias = Mapping[str, Mapping[str, float]]

DEFAULT_MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10")
RESAMPLES = 2_000  # of the bootstrap: the ends of an interval then move by less than its own tenth
PERMUTATIONS = 10_000  # of the randomisation test: the smallest p it can give is 0.0001
BATCH = 32  # queries encoded together
SEED = 0  # the same input gives the same interval and the same p


class Searches(Protocol):
    """What `evaluate` needs of an M3Index."""

    @property
    def profile(self) -> Profile: ...
    def score_many(self, queries: Sequence[str], *, depth: int | None = None) -> list[ModeScores]: ...
    def ids(self, where: Where | None = None) -> list[str]: ...


class FindsDocuments(Protocol):
    """What `judged_by` needs of an M3Index."""

    def ids(
        self, where: Where | None = None, *, where_document: Where | None = None, among: Sequence[str] | None = None
    ) -> list[str]: ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good each mode and the hybrid are on the same questions.

    Attributes
    ----------
    queries : the judged queries that have a relevant document
    values : {mode or "hybrid": {measure: {query: value}}}
    runs : {mode or "hybrid": run}, from which the values come
    """

    queries: tuple[str, ...]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    runs: Mapping[str, Run]

    def mean(self, mode: str, measure: str) -> float:
        """The mean over the queries."""
        return mean(self.values[mode][measure])

    def interval(self, mode: str, measure: str, *, confidence: float = 0.95) -> tuple[float, float]:
        """The bootstrap interval of the mean."""
        return interval(self.values[mode][measure], confidence=confidence)


def evaluate(
    index: Searches,
    queries: Mapping[str, str],
    qrels: Qrels,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    on_step: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Every mode alone and the hybrid of the index's profile, on judged questions; each is scored once.

    Parameters
    ----------
    queries
        {query id: text}; those without a relevant document in `qrels` are left out. A judged query whose
        text is missing is refused.
    measures
        By name, such as nDCG@10.
    on_step
        Called with the number of queries scored, after each batch of them.
    """
    for name in measures:
        measure_named(name)
    judged = by_owner(qrels, parents_of(index))
    scores = score_all(index, queries, answerable(judged), on_step=on_step)
    return evaluate_scores(scores, judged, measures, profile=index.profile)


def by_owner(qrels: Qrels, parents: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """The judgements with documents for their passages, by {passage id: document id}; of several the highest grade."""
    judged: dict[str, dict[str, int]] = {}
    for query, grades in qrels.items():
        own = judged.setdefault(query, {})
        for id, grade in grades.items():
            owner = parents.get(id, id)
            own[owner] = max(grade, own.get(owner, grade))
    return judged


def score_all(
    index: Searches,
    queries: Mapping[str, str],
    wanted: Collection[str] | None = None,
    *,
    depth: int | None = None,
    on_step: Callable[[int], None] = lambda done: None,
) -> dict[str, ModeScores]:
    """{query id: raw scores of its candidates}, of all queries or those wanted: what evaluating, tuning and calibrating
    work on. A wanted query whose text is missing is refused. `depth` as in `M3Index.score`."""
    wanted = queries if wanted is None else wanted
    if unknown := [query for query in wanted if query not in queries]:
        raise InvalidArgumentError(
            f"every judged query needs its text; got none for {unknown[0]!r} ({len(unknown)} of {len(wanted)} judged)"
        )
    parents, scores, listed = parents_of(index), dict[str, ModeScores](), list(wanted)
    for start in range(0, len(listed), BATCH):
        batch = listed[start : start + BATCH]
        found = index.score_many([queries[query] for query in batch], depth=depth)
        scores |= {query: owned(one, parents) for query, one in zip(batch, found, strict=True)}
        on_step(len(batch))
    return scores


def owned(scores: ModeScores, parents: Mapping[str, str]) -> ModeScores:
    """The scores with the documents that the candidates are passages of, by {passage id: document id}."""
    return replace(scores, owners=tuple(parents.get(id, id) for id in scores.ids)) if parents else scores


def evaluate_scores(
    scores: Mapping[str, ModeScores], qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES, *, profile: Profile
) -> Evaluation:
    """`evaluate`, on scores taken before."""
    judged = answerable(qrels)
    nothing = ModeScores((), np.empty((0, len(MODES)), np.float32))
    rankings = {mode: Ranking.of(profile, mode, None, None) for mode in SEARCH_MODES}
    runs: dict[str, Run] = {
        mode: {query: run_of(scores.get(query, nothing), ranking) for query in judged} for mode, ranking in rankings.items()
    }
    return Evaluation(tuple(judged), {mode: evaluate_run(run, judged, measures) for mode, run in runs.items()}, runs)


def judged_by(
    index: FindsDocuments,
    questions: Sequence[GoldenQuestion],
    *,
    on_missing: Callable[[str, str], None] | None = None,
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Queries and qrels of golden questions, whose answers are ids or texts: every document that holds such a text.

    A passage that is named, or holds such a text, stands for its document. An answer that the index does not have
    is an InvalidArgumentError that names the question, or goes to `on_missing`, (question id, answer), and is left out.
    Documents that were judged not to answer need not be here.
    """
    parents = parents_of(index)
    split = set(parents.values())
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for question in questions:
        if question.id in queries:
            raise InvalidArgumentError(f"ids of questions must be unique; {question.id!r} comes more than once")
        judged = question.judged
        known = set(index.ids(among=list(judged))) | (split & set(judged))
        grades: dict[str, int] = {}
        for answer, grade in judged.items():
            if answer in known:
                holding = [answer]
            else:  # a grade is of an id; what is only listed may be a text
                holding = [] if answer in question.grades else index.ids(where_document={"$contains": answer})
            if grade and not holding:
                if on_missing is None:
                    raise InvalidArgumentError(
                        f"question {question.id!r}: no document has the id or holds the text {answer[:80]!r}"
                    )
                on_missing(question.id, answer)
            for id in holding:
                owner = parents.get(id, id)
                grades[owner] = max(grade, grades.get(owner, grade))
        queries[question.id], qrels[question.id] = question.question, dict(sorted(grades.items()))
    return queries, qrels


def run_of(scores: ModeScores, ranking: Ranking) -> dict[str, float]:
    """{document id: score}: one query's candidates under a ranking, without those that it would not return.

    A document in passages has the score of its best one.
    """
    fused = ranking.fuse(scores)
    run: dict[str, float] = {}
    for row in ranking.eligible(scores, fused, range(len(scores))):
        id, score = scores.owners[row], float(fused[row])
        run[id] = max(score, run.get(id, score))
    return run


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
