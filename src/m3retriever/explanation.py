"""Why a document has the place it has, or has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from m3retriever.fusion import mode_ranks, top_k
from m3retriever.ranking import Ranking
from m3retriever.types import Document, Mode, ModeScores

Stage = Literal["hit", "below k", "below threshold", "not a candidate", "filtered out"]


@dataclass(frozen=True)
class SharedToken:
    """A token that query and document share: its part of the sparse score is the product."""

    token: str
    query_weight: float
    document_weight: float

    @property
    def product(self) -> float:
        """What this token adds to the sparse score."""
        return self.query_weight * self.document_weight


@dataclass(frozen=True)
class Deeper:
    """Where a search finds a document that is no candidate at the depth asked for.

    Attributes
    ----------
    depth : the depth at which the dense or the sparse search brings it in
    rank : its place among the candidates of a search that deep, or deeper
    ranks : the same when ranked by one mode alone
    """

    depth: int
    rank: int
    ranks: Mapping[Mode, int]


@dataclass(frozen=True)
class Explanation:
    """One document seen from one query.

    Of a document that does not pass the filter it says that, and nothing else: `document` has its id alone, there is no
    score, rank, token or part, and `best` and `last` are those of documents that pass. Who may ask only with a filter
    learns which ids are in the index, for an unknown id is an error, but nothing of what others store under them.

    Attributes
    ----------
    stage : where it stands: a hit, or the first stage that cut it
    score : the fused score (the mode's own when one mode was asked for); where it is no candidate, the
        score it would have among them; None where it is filtered out
    rank : its place (from 1) among the candidates; None where it is none of them
    scores : raw, by mode
    contributions : the parts whose sum is the score; empty for a fusion that is no sum
    ranks : its place among the candidates when ranked by one mode alone; empty where it is none
    found_by : the modes whose own search brought it in
    best, last : the scores of the first hit and of the k-th; None where there are fewer
    threshold : the threshold in force
    shared_tokens : what query and document have in common, largest product first
    deeper : of a document that is no candidate, where a deeper search finds it; None where none does
    """

    query: str
    document: Document
    stage: Stage
    score: float | None
    rank: int | None
    scores: Mapping[Mode, float]
    contributions: Mapping[Mode, float]
    ranks: Mapping[Mode, int]
    found_by: frozenset[Mode]
    best: float | None
    last: float | None
    threshold: float | None
    shared_tokens: tuple[SharedToken, ...]
    deeper: Deeper | None = None

    @property
    def advice(self) -> str:
        """What would bring the document in, in one sentence."""
        if self.stage == "hit":
            return f"it is hit number {self.rank}"
        if self.stage == "filtered out":
            return "it does not pass the filter"
        if self.stage == "not a candidate":
            if self.deeper is None:
                return "neither the dense nor the sparse search finds it, even far deeper: search for words it contains"
            return (
                f"neither the dense nor the sparse search found it: raise the profile's depth to {self.deeper.depth}, or "
                "search for words it contains"
            )
        if self.threshold == math.inf:
            return f"its score is {self.score:.4f}, and no score is as probable as the threshold asks for"
        if self.stage == "below threshold":
            return f"its score {self.score:.4f} is below the threshold {self.threshold:.4f}"
        return f"it has place {self.rank}: raise k to {self.rank}, or give more weight to {self._strongest()}"

    def _strongest(self) -> str:
        return min(self.ranks, key=lambda mode: self.ranks[mode])


def explain(
    query: str,
    document: Document,
    *,
    own: ModeScores,
    candidates: ModeScores,
    ranking: Ranking,
    k: int,
    shared: tuple[SharedToken, ...] = (),
    deeper: Deeper | None = None,
) -> Explanation:
    """Where a document that passes the filter stands among a query's candidates; `own` holds its scores, candidate or not."""
    row = candidates.ids.index(document.id) if document.id in candidates.ids else None
    everyone = candidates if row is not None else _with(candidates, own)
    everyones = ranking.fuse(everyone)
    fused = everyones[: len(candidates)]
    rows = top_k(candidates, fused, len(candidates))
    eligible = ranking.eligible(candidates, fused, rows)
    stage: Stage = "hit"
    if row is None:
        stage = "not a candidate"
    elif row not in eligible:
        stage = "below threshold" if ranking.mode != "sparse" or fused[row] > 0 else "not a candidate"
    elif eligible.index(row) >= k:
        stage = "below k"
    ranks = mode_ranks(candidates) if row is not None else {}
    return Explanation(
        query=query,
        document=document,
        stage=stage,
        score=float(everyones[row if row is not None else -1]),
        rank=rows.index(row) + 1 if row is not None else None,
        scores=own.of(0),
        contributions=ranking.parts(own),
        ranks={mode: places[row] for mode, places in ranks.items()} if row is not None else {},
        found_by=candidates.found_by[row] if row is not None else frozenset(),
        best=float(fused[eligible[0]]) if eligible else None,
        last=float(fused[eligible[k - 1]]) if len(eligible) >= k else None,
        threshold=ranking.threshold,
        shared_tokens=shared,
        deeper=deeper,
    )


def filtered_out(query: str, id: str, *, candidates: ModeScores, ranking: Ranking, k: int) -> Explanation:
    """What there is to say of a document that does not pass the filter: that, and what the hits score."""
    fused = ranking.fuse(candidates)
    rows = top_k(candidates, fused, len(candidates))
    eligible = ranking.eligible(candidates, fused, rows)
    return Explanation(
        query=query,
        document=Document(id, ""),
        stage="filtered out",
        score=None,
        rank=None,
        scores={},
        contributions={},
        ranks={},
        found_by=frozenset(),
        best=float(fused[eligible[0]]) if eligible else None,
        last=float(fused[eligible[k - 1]]) if len(eligible) >= k else None,
        threshold=ranking.threshold,
        shared_tokens=(),
    )


def deeper(id: str, search: Callable[[int], ModeScores], ranking: Ranking, depth: int, limit: int) -> Deeper | None:
    """Where a document is found that a search of this depth does not find; None where none does down to the limit.

    `search` gives a query's candidates at a depth; it is called with few of them, each four times the last.
    """
    while depth < limit:
        depth = min(4 * depth, limit)
        candidates = search(depth)
        if id not in candidates.ids:
            continue
        row = candidates.ids.index(id)
        ranks = {mode: places[row] for mode, places in mode_ranks(candidates).items()}
        rank = top_k(candidates, ranking.fuse(candidates), len(candidates)).index(row) + 1
        least = min(ranks[mode] for mode in candidates.found_by[row])
        return Deeper(least if id in search(least).ids else depth, rank, ranks)
    return None


def shared_tokens(
    query: Mapping[int, float], document: Mapping[int, float], names: Mapping[int, str]
) -> tuple[SharedToken, ...]:
    """The tokens that both have, by {token id: weight}, largest product first; a token without a name is called by its id."""
    shared = [
        SharedToken(names.get(token, str(token)), weight, document[token])
        for token, weight in query.items()
        if token in document
    ]
    return tuple(sorted(shared, key=lambda token: -token.product))


def _with(candidates: ModeScores, own: ModeScores) -> ModeScores:
    """The candidates and, last, a document that is none of them: what its score would be among them."""
    values = np.concatenate([candidates.values, own.values])
    return ModeScores((*candidates.ids, *own.ids), values, (*candidates.found_by, *own.found_by), candidates.query)
