"""How good rankings are on questions with known answers: means, and question by question."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np

from m3retriever import MODES, Document, InvalidArgumentError, ModeScores, Weights
from m3retriever.evaluation import Qrels, answerable, evaluate_run, interval, mean, run_of
from m3retriever.inspector.analysis.ranking import title_of
from m3retriever.measures import measure_named
from m3retriever.ranking import Ranking

TOP = 3  # hits that a reader looks at first
ROWS = 200  # questions in the table
MEASURES = 6  # at most, side by side
STEP = 32  # questions measured between two reports
BREAKS = re.compile(r"[\t\r\n]")

Verdict = Literal["exact", "related", "miss"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

RunOf: TypeAlias = Callable[[str], Mapping[str, float]]
"""From a question's id, {document id: score}."""


class GetsDocuments(Protocol):
    """What `titles_of` needs of an M3Index."""

    def get(self, ids: Sequence[str], *, skip_unknown: bool = False) -> list[Document]: ...


@dataclass(frozen=True, eq=False)
class Quality:
    """How good one ranking is on the questions of a set.

    Attributes
    ----------
    values : {measure: {question id: value}}
    first : {question id: its first hits, best first, as (document id, score)}, at most TOP
    """

    values: Mapping[str, Mapping[str, float]]
    first: Mapping[str, Sequence[tuple[str, float]]]


@dataclass(frozen=True)
class Mean:
    """The mean of a measure over the questions, and its 95 % interval."""

    mode: str
    measure: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Question:
    """One question's line in the table.

    Attributes
    ----------
    score : of the first hit; None where nothing was found, as `first`, its id
    values : of the measure, by mode and for "hybrid"
    """

    id: str
    text: str
    verdict: Verdict
    score: float | None
    values: Mapping[str, float]
    first: str | None


def measures_of(text: str) -> list[str]:
    """Measures named with commas, each once; InvalidArgumentError for one that there is not, for none and for too many."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or [""]:
        measure_named(name)
    if len(names) > MEASURES:
        raise InvalidArgumentError(f"at most {MEASURES} measures fit side by side; got {len(names)}")
    return names


def ranked(scores: Mapping[str, ModeScores], ranking: Ranking) -> RunOf:
    """What a ranking makes of raw scores; nothing of a question that has none."""
    nothing = ModeScores((), np.empty((0, len(MODES)), np.float32))
    return lambda query: run_of(scores.get(query, nothing), ranking)


def ordered(run: Mapping[str, float]) -> list[str]:
    """The ids of a run, best first, ties by id."""
    return sorted(run, key=lambda id: (-run[id], id))


def quality_of(
    find: RunOf, qrels: Qrels, measures: Sequence[str], *, on_step: Callable[[int], None] = lambda done: None
) -> Quality:
    """`evaluation.evaluate_run` over all questions with a relevant document, without keeping the runs.

    `on_step` is called with the number of questions measured since the last call.
    """
    values: dict[str, dict[str, float]] = {name: {} for name in measures}
    first: dict[str, list[tuple[str, float]]] = {}
    judged = answerable(qrels)
    for number, (query, grades) in enumerate(judged.items(), start=1):
        run = find(query)
        for name, by_query in evaluate_run({query: run}, {query: grades}, measures).items():
            values[name] |= by_query
        first[query] = [(id, run[id]) for id in ordered(run)[:TOP]]
        if number % STEP == 0:
            on_step(STEP)
    on_step(len(judged) % STEP)
    return Quality(values, first)


def means_of(mode: str, quality: Quality) -> list[Mean]:
    """The mean of each measure with its interval, as `m3retriever evaluate --json` gives them."""
    return [Mean(mode, name, mean(values), *interval(values)) for name, values in quality.values.items()]


def verdict(ids: Sequence[str], grades: Mapping[str, int]) -> Verdict:
    """What the first TOP hits hold: "exact" a document of the question's highest grade, "related" another relevant one."""
    found = max((grades.get(id, 0) for id in ids[:TOP]), default=0)
    if found <= 0:
        return "miss"
    return "exact" if found == max(grades.values()) else "related"


def has_levels(qrels: Qrels) -> bool:
    """Whether some question has relevant documents of different grades: without that no hit is only related."""
    return any(len({grade for grade in grades.values() if grade > 0}) > 1 for grades in qrels.values())


def question_rows(
    queries: Mapping[str, str], qrels: Qrels, qualities: Mapping[str, Quality], *, mode: str, measure: str
) -> list[Question]:
    """A line for each question, worst first by a measure of a mode; those alike in the order of the set."""
    chosen = qualities[mode]
    rows = []
    for query in chosen.values[measure]:
        hits = chosen.first[query]
        rows.append(
            Question(
                id=query,
                text=queries[query],
                verdict=verdict([id for id, _ in hits], qrels[query]),
                score=hits[0][1] if hits else None,
                values={name: quality.values[measure][query] for name, quality in qualities.items()},
                first=hits[0][0] if hits else None,
            )
        )
    return sorted(rows, key=lambda row: row.values[mode])


def verdict_counts(rows: Sequence[Question]) -> dict[Verdict, int]:
    """How many questions there are of each verdict."""
    counts = Counter(row.verdict for row in rows)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def titles_of(index: GetsDocuments, ids: Sequence[str]) -> dict[str, str]:
    """Titles by id; of a document in passages its first passage's, of one that the index lacks the id."""
    wanted = list(dict.fromkeys(ids))
    titles = {document.id: title_of(document) for document in index.get(wanted, skip_unknown=True)}
    passages = {f"{id}#1": id for id in wanted if id not in titles}
    parts = index.get(list(passages), skip_unknown=True)
    return dict(zip(wanted, wanted, strict=True)) | titles | {passages[part.id]: title_of(part) for part in parts}


def can_be_written(scores: Mapping[str, ModeScores]) -> bool:
    """Whether no id holds a tab or a line break, which a run in TREC's form cannot hold."""
    return not any(BREAKS.search("".join((query, *found.owners))) for query, found in scores.items())


def run_name(mode: str, weights: Weights) -> str:
    """A name for a run of a mode: "hybrid 0.40 0.20 0.40"."""
    shares = " ".join(f"{share:.2f}" for share in weights.normalized())
    return f"{mode} {shares}" if mode == "hybrid" else mode


def mean_table(means: Sequence[Mean]) -> list[dict[str, object]]:
    """The means as rows of a CSV."""
    return [{"mode": one.mode, "measure": one.measure, "mean": one.value, "low": one.low, "high": one.high} for one in means]


def question_table(
    rows: Sequence[Question], qualities: Mapping[str, Quality], titles: Mapping[str, str]
) -> list[dict[str, object]]:
    """All questions as rows of a CSV, with every measure of every mode."""
    return [
        {
            "id": row.id,
            "question": row.text,
            f"top_{TOP}": row.verdict,
            "score": row.score,
            "first": row.first,
            "title": titles.get(row.first or "", ""),
            **{
                f"{mode} {measure}": values[row.id]
                for mode, quality in qualities.items()
                for measure, values in quality.values.items()
            },
        }
        for row in rows
    ]
