"""The results of a query as a table: rows, places, the parts of a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from m3retriever import MODES, Document, Mode, ModeScores, Weights
from m3retriever.fusion import contributions, mode_ranks, top_k
from m3retriever.types import FloatArray

TITLE_CHARACTERS = 80
STRIP_TICKS = 2_000  # above this, Streamlit draws a chart as an image that cannot be pointed at


@dataclass(frozen=True)
class Row:
    """One document's line in the table of results."""

    rank: int
    id: str
    title: str
    score: float
    scores: Mapping[Mode, float]
    ranks: Mapping[Mode, int]
    above: bool


@dataclass(frozen=True)
class Tick:
    """One candidate on the score strip; `listed` where the table shows it."""

    score: float
    label: str
    above: bool
    listed: bool


@dataclass(frozen=True)
class Part:
    """What one mode adds to a score: `value` is score times weight."""

    mode: Mode
    score: float
    weight: float
    value: float
    rank: int


def title_of(document: Document) -> str:
    """The metadata's title, else the first line of the text that has a letter or a digit (a table's rule has none), else the
    first line, else the id."""
    title = document.metadata.get("title")
    if isinstance(title, str) and title.strip():
        return title.strip()
    lines = document.text.strip().splitlines()
    if not lines:
        return document.id
    return next((line for line in lines if any(map(str.isalnum, line))), lines[0]).strip()[:TITLE_CHARACTERS]


def top_ids(scores: ModeScores, fused: FloatArray, k: int) -> list[str]:
    """The ids of the k best, best first."""
    return [scores.ids[row] for row in top_k(scores, fused, k)]


def without(scores: ModeScores, ids: Set[str]) -> ModeScores:
    """The candidates but some."""
    rows = [row for row, id in enumerate(scores.ids) if id not in ids]
    kept = {name: tuple(getattr(scores, name)[row] for row in rows) for name in ("ids", "found_by", "owners")}
    return replace(scores, values=scores.values[rows], **kept)


def result_rows(
    scores: ModeScores, fused: FloatArray, titles: Mapping[str, str], *, k: int, threshold: float | None
) -> list[Row]:
    """The k best as lines of the table. A score equal to the threshold is above it, as in `search`."""
    ranks = mode_ranks(scores)
    return [
        Row(
            rank=rank,
            id=scores.ids[row],
            title=titles[scores.ids[row]],
            score=float(fused[row]),
            scores=scores.of(row),
            ranks={mode: ranks[mode][row] for mode in MODES},
            above=threshold is None or bool(fused[row] >= threshold),
        )
        for rank, row in enumerate(top_k(scores, fused, k), start=1)
    ]


def above_count(rows: Sequence[Row]) -> int:
    """How many of the rows reach the threshold."""
    return sum(row.above for row in rows)


def nearest_miss(rows: Sequence[Row]) -> Row | None:
    """The best row, where none reaches the threshold."""
    return rows[0] if rows and not rows[0].above else None


def strip_ticks(
    scores: ModeScores, fused: FloatArray, titles: Mapping[str, str], *, k: int, threshold: float | None
) -> list[Tick]:
    """The candidates by score, best first, at most STRIP_TICKS; labelled with title or id."""
    return [
        Tick(
            score=float(fused[row]),
            label=titles.get(scores.ids[row], scores.ids[row]),
            above=threshold is None or bool(fused[row] >= threshold),
            listed=place < k,
        )
        for place, row in enumerate(top_k(scores, fused, STRIP_TICKS))
    ]


def parts_of(row: Row, weights: Weights) -> list[Part]:
    """The three parts whose sum is the row's score, for the weighted sum of the modes."""
    values = np.array([[row.scores[mode] for mode in MODES]], np.float32)
    parts = contributions(ModeScores((row.id,), values), weights)[0]
    return [
        Part(mode, row.scores[mode], weight, float(part), row.ranks[mode])
        for mode, weight, part in zip(MODES, weights.normalized(), parts, strict=True)
    ]


def table(rows: Sequence[Row], grades: Mapping[str, int]) -> list[dict[str, object]]:
    """The rows for a spreadsheet, with all digits; the grade is empty where a document was not judged."""
    return [
        {
            "rank": row.rank,
            "id": row.id,
            "title": row.title,
            "score": row.score,
            **{str(mode): row.scores[mode] for mode in MODES},
            **{f"rank_{mode}": row.ranks[mode] for mode in MODES},
            "above_threshold": row.above,
            "grade": grades.get(row.id, ""),
        }
        for row in rows
    ]
