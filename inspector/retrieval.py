"""The open index and what is cached about it: scores are computed once, then weights move for free."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import streamlit as st

from m3retriever import Explanation, M3Index, M3Vectors, ModeScores, Profile, StoreError
from m3retriever.documents import one_filter
from m3retriever.evaluation import BATCH, owned
from m3retriever.explanation import Deeper, deeper, explain, filtered_out
from m3retriever.filters import predicate
from m3retriever.index import DEEPEST
from m3retriever.inspector.source import Source
from m3retriever.passages import parents_of
from m3retriever.ranking import Ranking
from m3retriever.types import KeptStore, Where

CANDIDATES_KEPT = 2_000_000  # about 100 bytes each: 5,000 queries at the usual depth
STATES_KEPT = 3  # of an index, or of several
QUERY_CHARACTERS = 2_000  # more is a document; it would also fill the address bar

Step = Callable[[int], None]


def open_index(source: Source) -> M3Index:
    """The index, opened once per process.

    Raises
    ------
    StoreError
        There is no such index, or it is gone. Opening it would make an empty one, and load a model for nothing.
    """
    if not source.place.exists():
        raise StoreError(f"there is no index in {source.name}: add documents first, or give another path or collection")
    return _open_index(source)


@st.cache_resource(show_spinner=False)
def _open_index(source: Source) -> M3Index:
    return M3Index.open(
        source.path, model=source.model, collection=source.collection, profile=source.profile, read_only=source.read_only
    )


@dataclass(frozen=True)
class State:
    """What scores depend on beside the query: the index, its revision, and the model's fingerprint and precision."""

    source: Source
    revision: int
    model: str
    precision: str | None


def state_of(index: M3Index, source: Source) -> State:
    """The index as it is now; the revision grows when it changes, also from another process."""
    revision = index.store.revision() if isinstance(index.store, KeptStore) else 0
    return State(source, revision, index.encoder.name, getattr(index.encoder, "precision", None))


class Kept:
    """Query vectors and raw scores of one state of an index, the latest used; safe to use from several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[object, ...], M3Vectors | ModeScores] = OrderedDict()
        self._size, self._lock = 0, threading.Lock()

    def get(self, *key: object) -> M3Vectors | ModeScores | None:
        """What is kept under a key."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, value: M3Vectors | ModeScores, *key: object) -> None:
        """Keep a value, and let the oldest go."""
        with self._lock:
            self._size += len(value) - len(self._held.get(key, ()))
            self._held[key] = value
            while self._size > CANDIDATES_KEPT and len(self._held) > 1:
                self._size -= len(self._held.popitem(last=False)[1])


@st.cache_resource(show_spinner=False, max_entries=STATES_KEPT)
def _kept(state: State) -> Kept:
    return Kept()


def query_vectors(index: M3Index, source: Source, query: str) -> M3Vectors:
    """A query's vectors; the model sees each query once."""
    kept = _kept(state_of(index, source))
    found = kept.get("vectors", query)
    if not isinstance(found, M3Vectors):
        found = index.encoder.encode_queries([query])
        kept.put(found, "vectors", query)
    return found


def raw_scores(index: M3Index, source: Source, query: str, *, k: int, where: Where | None = None) -> ModeScores:
    """The candidates of a query in every mode: those that `index.search(query, k, where=where)` ranks."""
    kept, depth = _kept(state_of(index, source)), max(index.profile.depth, k)
    key = "scores", query, depth, json.dumps(where, sort_keys=True)
    found = kept.get(*key)
    if not isinstance(found, ModeScores):
        vectors = query_vectors(index, source, query)
        found = replace(index.store.search(vectors, depth=depth, where=one_filter(where, None)), query=query)
        kept.put(found, *key)
    return found


def missing(index: M3Index, source: Source, queries: Sequence[str], *, depth: int | None = None) -> list[str]:
    """The queries whose scores are not kept yet, in this order, each once."""
    kept, depth = _kept(state_of(index, source)), depth or index.profile.depth
    return [one for one in dict.fromkeys(queries) if kept.get("scores", one, depth, "null") is None]


def scores_of(
    index: M3Index,
    source: Source,
    queries: Mapping[str, str],
    *,
    depth: int | None = None,
    on_step: Step = lambda done: None,
) -> dict[str, ModeScores]:
    """{query id: raw scores} of many queries: `evaluation.score_all`, each text scored once.

    `depth` is by default that of the index's profile. `on_step` is called with the number of texts scored after
    each batch; what was scored before it raises is kept.
    """
    kept, depth = _kept(state_of(index, source)), depth or index.profile.depth
    held = {
        text: found for text in queries.values() if isinstance(found := kept.get("scores", text, depth, "null"), ModeScores)
    }
    lacking = [text for text in dict.fromkeys(queries.values()) if text not in held]
    for start in range(0, len(lacking), BATCH):
        batch = lacking[start : start + BATCH]
        for text, found in zip(batch, index.score_many(batch, depth=depth), strict=True):
            kept.put(found, "scores", text, depth, "null")
            held[text] = found
        on_step(len(batch))
    parents = parents_of(index)
    return {id: owned(held[text], parents) for id, text in queries.items()}


def explained(
    index: M3Index,
    source: Source,
    query: str,
    id: str,
    *,
    profile: Profile,
    k: int,
    threshold: float | None,
    where: Where | None,
) -> Explanation:
    """`index.explain`, on scores that are kept; UnknownDocumentError where no document has the id."""
    [document] = index.get([id])
    candidates = raw_scores(index, source, query, k=k, where=where)
    ranking = Ranking.of(profile, "hybrid", None, threshold)
    if where is not None and not (id in index.ids(where, among=[id]) and predicate(where, patterns=True)(document)):
        return filtered_out(query, id, candidates=candidates, ranking=ranking, k=k)
    own = index.store.score(query_vectors(index, source, query), [id])
    lost = id not in candidates.ids
    found = _deeper(index, state_of(index, source), query, id, max(index.profile.depth, k), ranking, where) if lost else None
    return explain(
        query,
        document,
        own=replace(own, query=query),
        candidates=candidates,
        ranking=ranking,
        k=k,
        deeper=found,
    )


def _deeper(
    index: M3Index, state: State, query: str, id: str, depth: int, ranking: Ranking, where: Where | None
) -> Deeper | None:
    """Where a deeper search finds a document; each depth is searched once for all weights."""
    filtered, limit = json.dumps(where, sort_keys=True), min(len(index), DEEPEST)
    return deeper(id, lambda wanted: _candidates(index, state, query, wanted, filtered), ranking, depth, limit)


@st.cache_resource(show_spinner=False, max_entries=12)
def _candidates(_index: M3Index, state: State, query: str, depth: int, where: str) -> ModeScores:
    vectors = query_vectors(_index, state.source, query)
    return replace(_index.store.search(vectors, depth=depth, where=one_filter(json.loads(where), None)), query=query)
