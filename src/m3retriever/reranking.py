"""Scoring texts that some other search found, in all three modes, without storing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from m3retriever.checks import check_k
from m3retriever.errors import InvalidArgumentError
from m3retriever.fusion import mode_ranks, top_k
from m3retriever.profile import as_profile, check_profile
from m3retriever.ranking import Ranking, SearchMode, WeightsLike
from m3retriever.scoring import score
from m3retriever.types import MODES, Encoder, Mode, ModeScores, Profile


@dataclass(frozen=True)
class Reranked:
    """One of the texts, scored.

    Attributes
    ----------
    place : where it stood among the texts that came, from 0
    score : the fused score, or the mode's own
    scores : the raw score in every mode
    ranks : its place (from 1) among the texts when ranked by that mode alone
    probability : of being relevant, where the profile holds a calibration of what ranked it
    relevance : in [0, 1]: the probability, or without one a similarity; see `Ranking.relevance`
    """

    place: int
    score: float
    scores: Mapping[Mode, float]
    ranks: Mapping[Mode, int]
    probability: float | None
    relevance: float


def rerank(
    encoder: Encoder,
    query: str,
    texts: Iterable[str],
    *,
    k: int | None = None,
    mode: SearchMode = "hybrid",
    weights: WeightsLike | None = None,
    threshold: float | Literal["profile"] | None = None,
    profile: Profile | str | Path | None = None,
) -> list[Reranked]:
    """The texts in the order of their scores, best first; texts that tie stay in the order they came in.

    Every text is encoded and scored exactly; nothing is stored. `mode`, `weights`, `threshold` and
    `profile` as in `M3Index.search`; k None keeps all. No texts give no result.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise InvalidArgumentError(f"texts is a list of str; got {texts!r}")
    texts = list(texts)
    if not all(isinstance(text, str) for text in texts):
        raise InvalidArgumentError(f"texts is a list of str; got {texts!r}")
    if not isinstance(query, str):
        raise InvalidArgumentError(f"a query is a str; got {query!r}")
    if k is not None:
        check_k(k)
    chosen = as_profile(profile) if profile is not None else Profile()
    check_profile(chosen, encoder.name, getattr(encoder, "precision", None))
    ranking = Ranking.of(chosen, mode, weights, threshold)
    if not texts:
        return []
    values = score(encoder.encode_queries([query]), encoder.encode_documents(texts))
    scores = ModeScores(tuple(f"{place:09}" for place in range(len(texts))), values, query=query)  # ids that keep the order
    fused, ranks = ranking.fuse(scores), mode_ranks(scores)
    floor = -np.inf if ranking.threshold is None else ranking.threshold
    rows = [row for row in top_k(scores, fused, len(scores)) if fused[row] >= floor][:k]
    return [_reranked(row, float(fused[row]), scores, ranks, ranking) for row in rows]


def _reranked(row: int, score: float, scores: ModeScores, ranks: Mapping[Mode, list[int]], ranking: Ranking) -> Reranked:
    by_mode = scores.of(row)
    return Reranked(row, score, by_mode, {mode: ranks[mode][row] for mode in MODES}, *ranking.judged(score, by_mode))
