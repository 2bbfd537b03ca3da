"""The dense leg: when Chroma's HNSW answers it, and when the vectors are scanned exactly.

HNSW is quick on a large collection and may miss a little; a scan of int8 codes, a kilobyte a document at
d = 1024, misses nothing. "auto" scans where that is quick (EXACT_VALUES), where a filter lets so few
documents through that HNSW would have to be asked for too many, where more candidates are wanted than
HNSW was made for, where the engine's vector index is behind, and where HNSW's own recall, measured on
documents of the collection, is below LEAST_RECALL.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.observing.spans import span
from m3retriever.scoring import dense_score
from m3retriever.stores.allowed import Allowed
from m3retriever.stores.legs import exact_dense_leg, hnsw_dense_leg
from m3retriever.vectors import FloatArray, IntArray

if TYPE_CHECKING:
    from m3retriever.stores.snapshot import Snapshot

DenseSearch = Literal["auto", "exact", "hnsw"]
Nearest = Callable[[FloatArray, int], list[str]]

EXACT_VALUES = 1 << 25  # values whose codes a scan reads in about as long as HNSW takes: 32k documents at d = 1024
MORE = 5  # documents that HNSW is asked for beyond what is needed, at least
LEAST_RECALL = 0.99
RECALL_AT = 100
RECALL_SAMPLE = 20  # documents whose vectors are the queries
GROWTH = 1.25  # by which a collection may grow, or shrink, until recall is measured again
RECORD = "hnsw_recall"  # in the payload: how many documents there were, and the recall


def check_dense_search(given: str) -> None:
    """ "auto", "exact" or "hnsw"."""
    if given not in get_args(DenseSearch):
        raise InvalidArgumentError(f"dense must be one of {', '.join(get_args(DenseSearch))}; got {given!r}")


class DenseLeg:
    """Decides, search by search, how the dense candidates are found, and keeps an eye on HNSW's recall."""

    def __init__(self, how: DenseSearch) -> None:
        self._how = how
        self._measured: tuple[int, float] | None = None
        self._guard = threading.Lock()

    def search(
        self, snapshot: Snapshot, vector: FloatArray, allowed: Allowed, depth: int, nearest: Nearest | None, ef_search: int
    ) -> IntArray:
        """The best of the allowed slots by dense score; nearly, where HNSW is asked.

        `nearest` asks HNSW for a number of ids, None where its index is behind; `ef_search` is its candidate list.
        """
        with span("dense", depth=depth, allowed=len(allowed)) as leg:
            slots = self._search(snapshot, vector, allowed, depth, nearest, ef_search)
            leg.set(candidates=len(slots))
        return slots

    def _search(
        self, snapshot: Snapshot, vector: FloatArray, allowed: Allowed, depth: int, nearest: Nearest | None, ef_search: int
    ) -> IntArray:
        enough = math.ceil(depth * len(snapshot) / max(1, len(allowed)))
        if nearest is None or self._how == "exact" or 2 * enough > ef_search:
            return exact_dense_leg(snapshot, vector, allowed, depth)
        if self._how == "auto":
            small = len(allowed) * len(vector) <= EXACT_VALUES or ef_search < 2 * RECALL_AT
            if small or self.recall(snapshot, nearest) < LEAST_RECALL:
                return exact_dense_leg(snapshot, vector, allowed, depth)
        found = nearest(vector, enough + max(enough // 2, MORE))  # some more, so that ties are decided by id
        return hnsw_dense_leg(snapshot, vector, allowed, depth, found)

    def recall(self, snapshot: Snapshot, nearest: Nearest) -> float:
        """HNSW's recall@100 on documents of the collection, in [0, 1], as it was when the collection was about as large."""
        with self._guard:
            for known in (self._measured, _recorded(snapshot)):
                if known is not None and known[0] / GROWTH <= len(snapshot) <= known[0] * GROWTH:
                    return known[1]
            self._measured = len(snapshot), measured_recall(snapshot, nearest)
            return self._measured[1]

    def to_record(self, snapshot: Snapshot, nearest: Nearest | None, ef_search: int) -> str | None:
        """After documents were added: what to write down as RECORD where the collection has changed by much in size."""
        small = len(snapshot) * int(snapshot.meta("dim") or 0) <= EXACT_VALUES
        if self._how != "auto" or nearest is None or small or ef_search < 2 * RECALL_AT:
            return None
        before = self._measured
        self.recall(snapshot, nearest)
        measured = self._measured
        return None if measured is None or measured == before else f"{measured[0]} {measured[1]!r}"


def measured_recall(snapshot: Snapshot, nearest: Nearest) -> float:
    """What share of the true RECALL_AT nearest HNSW finds, in the mean over some of the documents as queries."""
    live = np.flatnonzero(snapshot.live())
    shares = []
    for slot in live[np.linspace(0, len(live) - 1, RECALL_SAMPLE).astype(np.int64)]:
        [vector] = snapshot.dense(np.array([slot]))
        found = snapshot.slots(nearest(vector, RECALL_AT))
        found = found[found >= 0]
        scores = dense_score(vector, snapshot.dense(found)) if len(found) else np.empty(0)
        shares.append((scores >= _border(snapshot, vector, live)).sum() / min(RECALL_AT, len(live)))
    return float(np.mean(shares))


def _border(snapshot: Snapshot, vector: FloatArray, live: IntArray) -> float:
    everything = Allowed(snapshot.live(), everything=True)
    last = exact_dense_leg(snapshot, vector, everything, min(RECALL_AT, len(live)))[-1:]
    return float(dense_score(vector, snapshot.dense(last))[0])


def _recorded(snapshot: Snapshot) -> tuple[int, float] | None:
    written = (snapshot.meta(RECORD) or "").split()
    return (int(written[0]), float(written[1])) if len(written) == 2 else None
