"""Measures of retrieval quality, named and defined as in ir_measures and trec_eval.

Qrels and runs are mappings {query id: {document id: number}}. Ties in a run are broken by document id;
a judged query that the run lacks counts 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from m3retriever.errors import InvalidArgumentError

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
Run: TypeAlias = Mapping[str, Mapping[str, float]]
Measure: TypeAlias = Callable[[Mapping[str, int], Sequence[str], int], float]

NO_CUT = 1_000_000  # a measure without @k looks at the whole ranking


def ndcg(judged: Mapping[str, int], ranking: Sequence[str], k: int) -> float:
    """Gain (the grade) discounted by log2(rank + 1), over the best that k places allow (Järvelin & Kekäläinen, 2002)."""
    best = _dcg(sorted(judged.values(), reverse=True)[:k])
    return _dcg([judged.get(id, 0) for id in ranking[:k]]) / best if best else 0.0


def recall(judged: Mapping[str, int], ranking: Sequence[str], k: int) -> float:
    """Share of the relevant documents (grade > 0) among the first k."""
    relevant = {id for id, grade in judged.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def precision(judged: Mapping[str, int], ranking: Sequence[str], k: int) -> float:
    """Share of relevant documents among the first k places, filled or not."""
    return sum(judged.get(id, 0) > 0 for id in ranking[:k]) / k


def success(judged: Mapping[str, int], ranking: Sequence[str], k: int) -> float:
    """1 where a relevant document is among the first k, else 0."""
    return float(any(judged.get(id, 0) > 0 for id in ranking[:k]))


def reciprocal_rank(judged: Mapping[str, int], ranking: Sequence[str], k: int) -> float:
    """1 / rank of the first relevant document among the first k; 0 where there is none."""
    return next((1 / rank for rank, id in enumerate(ranking[:k], start=1) if judged.get(id, 0) > 0), 0.0)


def average_precision(judged: Mapping[str, int], ranking: Sequence[str], k: int) -> float:
    """Mean over the relevant documents of the precision at their rank; 0 for those not among the first k."""
    hits, total = 0, 0.0
    for rank, id in enumerate(ranking[:k], start=1):
        if judged.get(id, 0) > 0:
            hits += 1
            total += hits / rank
    relevant = sum(grade > 0 for grade in judged.values())
    return total / relevant if relevant else 0.0


MEASURES: dict[str, Measure] = {
    "nDCG": ndcg,
    "R": recall,
    "P": precision,
    "Success": success,
    "RR": reciprocal_rank,
    "AP": average_precision,
}
NEEDS_CUT = {"R", "P", "Success"}


def evaluate_run(run: Run, qrels: Qrels, measures: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each measure's value for each judged query: {measure: {query id: value}}.

    A query without a relevant document (grade > 0) is left out: no ranking could do better than another.

    `evaluate_run({"q": {"a": 1.0, "b": 2.0}}, {"q": {"a": 1}}, ["RR"])` is `{"RR": {"q": 0.5}}`.
    """
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    rankings = {query: _ranking(run.get(query, {})) for query in judged}
    values: dict[str, dict[str, float]] = {}
    for name in measures:
        measure, k = _parse(name)
        values[name] = {query: measure(grades, rankings[query], k) for query, grades in judged.items()}
    return values


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries; 0 where there are none."""
    return math.fsum(values.values()) / len(values) if values else 0.0


def _parse(name: str) -> tuple[Measure, int]:
    match = re.fullmatch(r"([A-Za-z]+)(?:@([1-9]\d*))?", name)
    if match is None or match[1] not in MEASURES or (match[1] in NEEDS_CUT and not match[2]):
        raise InvalidArgumentError(f"a measure is {', '.join(MEASURES)} with @k, such as nDCG@10 or R@100; got {name!r}")
    return MEASURES[match[1]], int(match[2] or NO_CUT)


def _ranking(scored: Mapping[str, float]) -> list[str]:
    return sorted(scored, key=lambda id: (-scored[id], id))


def _dcg(grades: Sequence[int]) -> float:
    return math.fsum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1) if grade > 0)
