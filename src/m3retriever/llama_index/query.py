"""A VectorStoreQuery, as LlamaIndex's retrievers make them, as a search of the index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from m3retriever.errors import InvalidArgumentError
from m3retriever.filters import ID, about_text, both
from m3retriever.fusion import top_k
from m3retriever.index import M3Index
from m3retriever.llama_index.filters import as_where, nothing
from m3retriever.llama_index.nodes import SOURCE
from m3retriever.ranking import Ranking, SearchMode, WeightsLike
from m3retriever.types import MODES, Hit, ModeScores, Where

SEARCHED: dict[VectorStoreQueryMode, SearchMode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.SPARSE: "sparse",
    VectorStoreQueryMode.TEXT_SEARCH: "sparse",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.MMR: "dense",
}
FILTERS = ("where", "where_document")
RANKERS = ("mode", "weights")
DIVERSE = ("mmr_threshold", "mmr_prefetch_factor")
OPTIONS = (*FILTERS, *RANKERS, *DIVERSE)  # the keywords that vector_store_kwargs may hold
DIVERSE_AMONG, DIVERSE_FACTOR = 50, 4  # MMR picks from so many hits, and from so many times k: as LlamaIndex's Chroma store
DEFAULT_MMR_THRESHOLD = 0.5  # LlamaIndex's own


def find(index: M3Index, query: VectorStoreQuery, options: Mapping[str, Any]) -> list[Hit]:
    """The hits for a query, best first; in MMR mode in the order picked.

    How each field is read is said at `M3VectorStore.query`. InvalidArgumentError for what has no meaning.
    """
    asked = _mode_of(query)
    _check(query, options, asked)
    where = both(where_of(query), options.get("where"), about_text(options.get("where_document")))
    if not query.query_str and query.query_embedding is not None:
        return _by_vector(index, query, options, asked, where)
    if query.query_str is None:
        raise InvalidArgumentError("a query has a query_str or a query_embedding; got neither")
    settings = {"mode": options.get("mode", SEARCHED[asked]), "weights": options.get("weights"), "where": where}
    if asked == VectorStoreQueryMode.HYBRID:
        return _hybrid(index, query, settings, given=not options.keys().isdisjoint(RANKERS))
    if asked == VectorStoreQueryMode.MMR:
        return _diverse(index, query, settings, options)
    return index.search(query.query_str, _top_k(query, asked), **settings)


def where_of(query: VectorStoreQuery) -> Where | None:
    """Filters, node_ids and doc_ids as one filter: a node has to pass all three.

    An empty list of node_ids is none, for VectorStoreIndex gives one where the store keeps the texts.
    An empty list of doc_ids allows no document.
    """
    nodes: Where | None = {ID: {"$in": list(query.node_ids)}} if query.node_ids else None
    return both(as_where(query.filters), nodes, None if query.doc_ids is None else of_sources(query.doc_ids))


def of_sources(doc_ids: list[str]) -> Where:
    """The nodes of these documents."""
    return {SOURCE: {"$in": list(doc_ids)}} if doc_ids else nothing(SOURCE)


def _mode_of(query: VectorStoreQuery) -> VectorStoreQueryMode:
    try:
        asked = VectorStoreQueryMode(query.mode)
    except ValueError:
        asked = None
    if asked is None or asked not in SEARCHED:
        known = ", ".join(mode.value for mode in SEARCHED)
        raise InvalidArgumentError(f"the query mode must be one of {known}; got {query.mode!r}")
    return asked


def _check(query: VectorStoreQuery, options: Mapping[str, Any], asked: VectorStoreQueryMode) -> None:
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise InvalidArgumentError(f"a query takes the keywords {', '.join(OPTIONS)}; got {unknown}")
    if not options.keys().isdisjoint(DIVERSE) and asked != VectorStoreQueryMode.MMR:
        raise InvalidArgumentError(f"{' and '.join(DIVERSE)} go with the query mode 'mmr'; got mode {asked.value!r}")
    if query.embedding_field is not None or query.output_fields is not None:
        raise InvalidArgumentError("embedding_field and output_fields have no meaning here: nodes come whole, in all modes")


def _top_k(query: VectorStoreQuery, asked: VectorStoreQueryMode) -> int:
    """How many nodes are wanted, as LlamaIndex documents the three numbers."""
    own = {
        VectorStoreQueryMode.SPARSE: query.sparse_top_k,
        VectorStoreQueryMode.TEXT_SEARCH: query.sparse_top_k,
        VectorStoreQueryMode.HYBRID: query.hybrid_top_k,
    }.get(asked)
    return query.similarity_top_k if own is None else own


def _by_vector(
    index: M3Index, query: VectorStoreQuery, options: Mapping[str, Any], asked: VectorStoreQueryMode, where: Where | None
) -> list[Hit]:
    if asked != VectorStoreQueryMode.DEFAULT or set(options) - set(FILTERS):
        raise InvalidArgumentError(
            f"a query_embedding alone finds by dense scores, in the query mode 'default'; got mode {asked.value!r} and "
            f"{sorted(options)}: give query_str"
        )
    return index.search_by_vector(
        query.query_embedding if query.query_embedding is not None else (), query.similarity_top_k, where=where
    )


def _hybrid(index: M3Index, query: VectorStoreQuery, settings: dict[str, Any], *, given: bool) -> list[Hit]:
    text, k = query.query_str or "", _top_k(query, VectorStoreQueryMode.HYBRID)
    if query.alpha is not None:
        if given:
            raise InvalidArgumentError("alpha stands for weights: give one of them, and no mode")
        settings = {**settings, **_blend(query.alpha)}
    if query.sparse_top_k is None:
        return index.search(text, k, **settings)
    where = settings["where"]
    dense = index.search(text, query.similarity_top_k, mode="dense", where=where)
    sparse = index.search(text, query.sparse_top_k, mode="sparse", where=where)
    hits = {"dense": dense, "sparse": sparse}.get(settings["mode"], [*dense, *sparse])
    return _ranked(text, hits, Ranking.of(index.profile, settings["mode"], settings["weights"], None), k)


def _blend(alpha: float) -> dict[str, Any]:
    """What alpha asks for: 0 the sparse search, 1 the dense one, between them both in that proportion."""
    if not isinstance(alpha, Real) or isinstance(alpha, bool) or not 0 <= float(alpha) <= 1:
        raise InvalidArgumentError(f"alpha must be between 0 (sparse only) and 1 (dense only); got {alpha!r}")
    if alpha in (0, 1):
        return {"mode": "dense" if alpha else "sparse"}
    weights: WeightsLike = (alpha, 1 - alpha, 0.0)
    return {"mode": "hybrid", "weights": weights}


def _ranked(query: str, hits: list[Hit], ranking: Ranking, k: int) -> list[Hit]:
    """Hits of several searches for one query as the k best of one, ties by id."""
    by_id = {hit.document.id: hit for hit in hits}
    if not by_id:
        return []
    found = list(by_id.values())
    values = np.array([[hit.scores[mode] for mode in MODES] for hit in found], np.float32)
    scores = ModeScores(tuple(by_id), values, query=query)
    fused = ranking.fuse(scores)
    rows = ranking.eligible(scores, fused, top_k(scores, fused, k))
    return [replace(found[row], score=float(fused[row]), probability=None) for row in rows]


def _diverse(index: M3Index, query: VectorStoreQuery, settings: dict[str, Any], options: Mapping[str, Any]) -> list[Hit]:
    threshold = options.get("mmr_threshold", query.mmr_threshold)
    balance = DEFAULT_MMR_THRESHOLD if threshold is None else threshold
    if not isinstance(balance, int | float) or not 0 <= balance <= 1:
        raise InvalidArgumentError(f"mmr_threshold must be between 0 (all unlike) and 1 (all relevant); got {balance!r}")
    k = query.similarity_top_k
    factor = options.get("mmr_prefetch_factor")
    if factor is not None and (not isinstance(factor, Real) or not float(factor) >= 1):
        raise InvalidArgumentError(f"mmr_prefetch_factor must be a number >= 1; got {factor!r}")
    among = max(DIVERSE_AMONG, DIVERSE_FACTOR * k) if factor is None else int(k * float(factor))
    return index.search_diverse(query.query_str or "", k, among=among, balance=float(balance), **settings)
