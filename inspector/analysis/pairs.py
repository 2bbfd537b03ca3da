"""Texts scored with each other: one pair in every mode, and many with many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3retriever import M3Vectors, ModeScores, Profile
from m3retriever.calibration import calibration_of
from m3retriever.ranking import SEARCH_MODES, Ranking, SearchMode
from m3retriever.scoring import score
from m3retriever.types import FloatArray

LINES = 30  # texts of a matrix


@dataclass(frozen=True)
class PairScore:
    """One score of a pair, and what the profile says it means: `level` and `probability` are None where it says nothing."""

    mode: SearchMode
    score: float
    level: str | None
    probability: float | None


def pair_scores(values: FloatArray, query: str, profile: Profile) -> list[PairScore]:
    """The hybrid score and each mode's, of the raw ones in `values`, (3,): those that `reranking.rerank` gives."""
    raw = ModeScores(("",), values[None], query=query)
    return [_pair_score(float(Ranking.of(profile, mode, None, None).fuse(raw)[0]), mode, profile) for mode in SEARCH_MODES]


def _pair_score(value: float, mode: SearchMode, profile: Profile) -> PairScore:
    meaning = calibration_of(profile, mode)
    if meaning is None:
        return PairScore(mode, value, None, None)
    return PairScore(mode, value, meaning.level(value), meaning.probability(value))


def lines_of(text: str) -> list[str]:
    """The lines of a text that say something, without the blanks around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def raw_matrix(queries: Sequence[M3Vectors], documents: Sequence[M3Vectors]) -> FloatArray:
    """Every query with every document in every mode: (q, d, 3), columns in the order of MODES."""
    together = M3Vectors.concat(documents)
    return np.stack([score(query, together) for query in queries])


def matrix(values: FloatArray, queries: Sequence[str], profile: Profile, mode: SearchMode) -> FloatArray:
    """The scores of one mode, or fused as the profile says, of raw ones (q, d, 3): (q, d)."""
    ranking = Ranking.of(profile, mode, None, None)
    ids = tuple(f"{place:09}" for place in range(values.shape[1]))
    rows = [ModeScores(ids, row, query=query) for row, query in zip(values, queries, strict=True)]
    return np.stack([ranking.fuse(row) for row in rows])
