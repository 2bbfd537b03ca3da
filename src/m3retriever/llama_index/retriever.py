"""M3Index as a LlamaIndex retriever: one class, which only translates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from llama_index.core.callbacks import CallbackManager
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from m3retriever.errors import InvalidArgumentError
from m3retriever.filters import both
from m3retriever.index import M3Index, check_index
from m3retriever.llama_index.events import tell_end, tell_start
from m3retriever.llama_index.filters import as_where
from m3retriever.llama_index.nodes import M3NodeWithScore, scored_node
from m3retriever.ranking import SearchMode, WeightsLike
from m3retriever.types import Hit, Profile, Where


class M3Retriever(BaseRetriever):
    """Gives any LlamaIndex query engine the hits of an M3Index, best first, as M3NodeWithScore.

    A query is searched by its text; an embedding that a QueryBundle brings is another model's. A bundle
    of several texts (HyDEQueryTransform makes one of a hypothetical answer and the question) is searched
    by each of them, and a node keeps the hit in which it scored best.

    What has no meaning is refused, when it is searched, with InvalidArgumentError. Event handlers hear
    of each search with all scores: `M3RetrievalEndEvent`.

    Parameters
    ----------
    index
        Where to search. The caller closes it.
    k, mode, weights, threshold, where, where_document, profile
        As in `M3Index.search`.
    filters
        LlamaIndex's MetadataFilters; a node has to pass these and `where`.
    callback_manager
        LlamaIndex's own.
    """

    def __init__(
        self,
        *,
        index: M3Index,
        k: int = 10,
        mode: SearchMode = "hybrid",
        weights: WeightsLike | None = None,
        threshold: float | Literal["profile"] | None = None,
        where: Where | None = None,
        where_document: Where | None = None,
        profile: Profile | str | Path | None = None,
        filters: MetadataFilters | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self.index, self.k, self.mode = check_index(index), k, mode
        self.weights, self.threshold, self.profile = weights, threshold, profile
        self.where, self.where_document, self.filters = where, where_document, filters

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        settings = self._settings()
        tell_start(query_bundle.query_str, settings)
        nodes = self._found(query_bundle, settings)
        tell_end(query_bundle.query_str, nodes)
        return list(nodes)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        settings = self._settings()
        tell_start(query_bundle.query_str, settings)
        nodes = await asyncio.to_thread(self._found, query_bundle, settings)
        tell_end(query_bundle.query_str, nodes)
        return list(nodes)

    def _settings(self) -> dict[str, Any]:
        names = ("k", "mode", "weights", "threshold", "where_document", "profile")
        where = both(self.where, as_where(self.filters))
        return {"where": where} | {name: getattr(self, name) for name in names}

    def _found(self, query: QueryBundle, settings: dict[str, Any]) -> list[M3NodeWithScore]:
        hits = self.index.search_many(_texts(query), **settings)
        return [scored_node(hit) for hit in _best(hits)[: self.k]]


def _texts(query: QueryBundle) -> list[str]:
    """The texts to search for."""
    texts = query.custom_embedding_strs
    if texts is None:
        return [query.query_str]
    if not texts:
        raise InvalidArgumentError("custom_embedding_strs holds at least one text; got none: leave it out to search query_str")
    return texts


def _best(found: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Each document's best hit among those of several queries, best first, ties by id."""
    if len(found) == 1:
        return list(found[0])
    best: dict[str, Hit] = {}
    for hits in found:
        for hit in hits:
            id = hit.document.id
            if id not in best or hit.score > best[id].score:
                best[id] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.document.id))
