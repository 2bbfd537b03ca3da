"""What speed costs: the answers of an index against scoring every document, with token vectors as they were encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from m3retriever.evaluation import run_of
from m3retriever.fusion import top_k
from m3retriever.ranking import SEARCH_MODES, Ranking
from m3retriever.scoring import score
from m3retriever.types import MODES, Document, Encoder, FloatArray, ModeScores, Profile, Store

QUESTIONS = 50  # drawn at random; each is scored against the whole index
K = 10
SEED = 0


class Holds(Protocol):
    """What this needs of an M3Index."""

    @property
    def encoder(self) -> Encoder: ...
    @property
    def store(self) -> Store: ...
    @property
    def profile(self) -> Profile: ...
    def ids(self) -> list[str]: ...
    def score(self, query: str, *, depth: int | None = None) -> ModeScores: ...
    def get(self, ids: Sequence[str], *, skip_unknown: bool = False) -> list[Document]: ...


@dataclass(frozen=True)
class Exactness:
    """How near a search comes to scoring everything exactly.

    Attributes
    ----------
    questions : how many were tried
    k : how many of the best documents were compared
    found : by mode and "hybrid", the mean share of the k best of the whole index that the search returns among its k:
        what the approximate search and the depth cost
    kept : the mean share of the hybrid's k best that stay the k best with token vectors encoded anew: what storing
        them in 8 bits costs
    difference : the largest difference of a ColBERT score from that
    """

    questions: int
    k: int
    found: Mapping[str, float]
    kept: float
    difference: float


def exactness(
    index: Holds,
    queries: Mapping[str, str],
    *,
    k: int = K,
    questions: int = QUESTIONS,
    profile: Profile | None = None,
    on_step: Callable[[int], None] = lambda done: None,
) -> Exactness:
    """The index against the exact answers, on up to `questions` of the queries.

    `profile` is what ranks them, by default the index's own; `on_step` is called with 1 after each question.
    """
    profile = profile or index.profile
    texts = list(queries.values())
    drawn = [texts[row] for row in np.random.default_rng(SEED).permutation(len(texts))[:questions]]
    ids = index.ids()
    rankings = {mode: Ranking.of(profile, mode, None, None) for mode in SEARCH_MODES}
    found: dict[str, list[float]] = {mode: [] for mode in SEARCH_MODES}
    kept, differences = [], [0.0]
    for text in drawn:
        query = index.encoder.encode_queries([text])
        values = index.store.score(query, ids).values
        everything, near = ModeScores(tuple(ids), values, query=text), index.score(text, depth=profile.depth)
        for mode, ranking in rankings.items():
            exact = _best(run_of(everything, ranking), k)
            if exact:
                found[mode].append(len(exact & _best(run_of(near, ranking), k)) / len(exact))
        row = top_k(near, rankings["hybrid"].fuse(near), 2 * k)
        candidates = index.get([near.ids[place] for place in row], skip_unknown=True)
        if candidates:
            anew = score(query, index.encoder.encode_documents([document.text for document in candidates]))
            share, difference = _against(candidates, anew, near, rankings["hybrid"], k)
            kept.append(share)
            differences.append(difference)
        on_step(1)
    means = {mode: float(np.mean(shares)) if shares else 1.0 for mode, shares in found.items()}
    return Exactness(len(drawn), k, means, float(np.mean(kept)) if kept else 1.0, max(differences))


def _against(
    documents: Sequence[Document], anew: FloatArray, stored: ModeScores, ranking: Ranking, k: int
) -> tuple[float, float]:
    """Of one question's best documents: the share of the k best that stay so, and the largest ColBERT difference."""
    place = {id: row for row, id in enumerate(stored.ids)}
    held = stored.values[[place[document.id] for document in documents]]
    ids = tuple(document.id for document in documents)
    before, after = (
        _best(run_of(ModeScores(ids, values, query=stored.query), ranking), k) for values in (held, anew)
    )  # fmt: skip
    difference = float(np.abs(held - anew)[:, MODES.index("colbert")].max())
    return len(before & after) / len(before), difference


def _best(run: Mapping[str, float], k: int) -> set[str]:
    return set(sorted(run, key=lambda id: (-run[id], id))[:k])
