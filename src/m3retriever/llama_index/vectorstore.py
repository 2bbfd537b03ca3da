"""M3Index as a LlamaIndex vector store: VectorStoreIndex, IngestionPipeline and their kin work on it unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from pydantic import PrivateAttr

from m3retriever.errors import InvalidArgumentError
from m3retriever.index import M3Index, check_index
from m3retriever.llama_index.embeddings import StoreEmbedding
from m3retriever.llama_index.events import tell_end, tell_start
from m3retriever.llama_index.filters import as_where
from m3retriever.llama_index.nodes import M3NodeWithScore, listed_nodes, scored_node, to_document, to_node
from m3retriever.llama_index.query import find, of_sources
from m3retriever.twins import in_thread


class M3VectorStore(BasePydanticVectorStore):
    """Nodes in an M3Index: added, deleted, filtered and searched as in any vector store, in three modes.

    The store encodes every text itself. LlamaIndex asks for an embedding model all the same: give it
    the store's own `embed_model`, or every text is encoded twice, the first time for nothing.

        store = M3VectorStore(M3Index.open("index"))
        index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)

    Documents that came into the M3Index another way, through LangChain for instance, are found too.
    The texts that a query transform such as HyDE adds do not reach a store that embeds queries itself:
    LlamaIndex passes on the question alone. Search such queries with M3Retriever.

    The async methods run in a thread and leave the event loop free. A search tells event handlers the
    scores of every mode (`M3RetrievalEndEvent`); VectorStoreIndex's own retriever passes on only the one
    that ranked.

    Where IndexNodes or ImageNodes are among the nodes, `VectorStoreIndex.as_retriever` asks for these alone,
    by node_ids: search such an index with LlamaIndex's `VectorIndexRetriever(index)` or with M3Retriever.

    Parameters
    ----------
    index
        Where the nodes go. The caller closes it.
    metadata_mode
        Which text of a node is encoded and stored. NONE, the default: the node's text as it is, so that
        LangChain and M3Index show the same text. EMBED: with the metadata in front, which is what
        LlamaIndex's embedding models read; titles and the like are then found by every mode. Nodes
        come back unchanged either way, through this class and M3Retriever; other clients of the
        collection see the text with its metadata.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    flat_metadata: bool = False
    metadata_mode: MetadataMode = MetadataMode.NONE
    _index: M3Index = PrivateAttr()

    def __init__(self, index: M3Index, *, metadata_mode: MetadataMode | str = MetadataMode.NONE) -> None:
        super().__init__(stores_text=True)
        self.metadata_mode = as_metadata_mode(metadata_mode)
        self._index = check_index(index)

    @classmethod
    def class_name(cls) -> str:
        return "M3VectorStore"

    @property
    def client(self) -> M3Index:
        """The M3Index."""
        return self._index

    @property
    def embed_model(self) -> StoreEmbedding:
        """What to give as `embed_model` where LlamaIndex wants one; see `StoreEmbedding`."""
        return StoreEmbedding()

    # -- nodes -------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Encode and store nodes and return their ids; one whose id is known is replaced. Takes no keywords.

        The nodes are not changed; embeddings they have are another model's and not looked at.
        InvalidDocumentError, before anything is stored, for metadata that cannot be stored.
        """
        _refuse("add", kwargs)
        nodes = listed_nodes(nodes)
        self._index.add([to_document(node, metadata_mode=self.metadata_mode) for node in nodes])
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove all nodes of a document, and the document where it was stored whole; of an unknown one nothing."""
        _refuse("delete", delete_kwargs)
        self._index.delete_where(of_sources([ref_doc_id]))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Remove nodes by id, by filter, or those that both name. Unknown ids are passed over.

        InvalidArgumentError where neither is given, for that is `clear`.
        """
        _refuse("delete_nodes", delete_kwargs)
        where = as_where(filters)
        if node_ids is None and where is None:
            raise InvalidArgumentError("delete_nodes takes node_ids or filters; got neither: to remove every node use clear")
        self._index.delete_where(where, among=node_ids)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, in this order, by filter, or those that both name; all of them where neither is given.

        Unknown ids are passed over. Without node_ids they come in the order of their ids.
        """
        return [to_node(document) for document in self._index.find(as_where(filters), among=node_ids)]

    def clear(self) -> None:
        """Remove every document of the M3Index, whoever added it."""
        self._index.delete(self._index.ids(), skip_unknown=True)

    # -- searching ---------------------------------------------------------------------------------

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes for a query, best first, with the scores that ranked them, higher is better.

        Parameters
        ----------
        query
            `query_str` is searched; a `query_embedding` counts only where there is no text, in mode DEFAULT.
            `filters`, `node_ids` and `doc_ids` hold together, in every mode; an empty list of node_ids is
            none (VectorStoreIndex gives one), an empty list of doc_ids finds nothing.

            The mode DEFAULT searches by dense scores, which is what LlamaIndex means by it; SPARSE and
            TEXT_SEARCH by sparse ones (`sparse_top_k` nodes, or `similarity_top_k`); HYBRID by all three, with
            the weights of the profile (`hybrid_top_k` nodes, or `similarity_top_k`); MMR picks nodes
            unlike each other among the best by dense score. Other modes are refused.

            In HYBRID, `alpha` blends the two searches that LlamaIndex knows: weights (alpha, 1 - alpha, 0),
            0 being the sparse search alone and 1 the dense one. ColBERT has no part in it, for no value of
            alpha speaks of it: leave alpha out to have all three. With `sparse_top_k` only the best so many
            by sparse score and the best `similarity_top_k` by dense score are ranked, which takes two
            searches; without it as many as the profile's depth says, which is better.
        kwargs
            LlamaIndex's `vector_store_kwargs`: `where` and `where_document`, which hold beside the filters;
            `mode` and `weights` as in `M3Index.search`, instead of what the query mode says; in MMR
            `mmr_threshold` from 0 (all unlike) to 1 (all relevant) and `mmr_prefetch_factor`.
        """
        tell_start(query.query_str or "", _told(query, kwargs))
        return _result(query, self._scored(query, kwargs))

    # -- async twins -------------------------------------------------------------------------------

    async_add = in_thread(add)
    adelete = in_thread(delete)
    adelete_nodes = in_thread(delete_nodes)
    aget_nodes = in_thread(get_nodes)
    aclear = in_thread(clear)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query`, in a thread; events are sent from the event loop."""
        tell_start(query.query_str or "", _told(query, kwargs))
        return _result(query, await asyncio.to_thread(self._scored, query, kwargs))

    # -- steps -------------------------------------------------------------------------------------

    def _scored(self, query: VectorStoreQuery, options: Mapping[str, Any]) -> list[M3NodeWithScore]:
        return [scored_node(hit) for hit in find(self._index, query, options)]


def as_metadata_mode(given: MetadataMode | str) -> MetadataMode:
    """A MetadataMode as it is, or by its value."""
    try:
        return MetadataMode(given)
    except ValueError:
        known = ", ".join(mode.value for mode in MetadataMode)
        raise InvalidArgumentError(f"metadata_mode must be one of {known}; got {given!r}") from None


def _refuse(method: str, keywords: Mapping[str, Any]) -> None:
    if keywords:
        raise InvalidArgumentError(f"M3VectorStore.{method} takes no further keywords; got {sorted(keywords)}")


def _told(query: VectorStoreQuery, options: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says of a query: what was asked for, in LlamaIndex's words."""
    given = {
        "similarity_top_k": query.similarity_top_k,
        "sparse_top_k": query.sparse_top_k,
        "hybrid_top_k": query.hybrid_top_k,
        "alpha": query.alpha,
        "doc_ids": query.doc_ids,
        "node_ids": query.node_ids or None,
        "filters": query.filters,
        **options,
    }
    asked = query.mode.value if isinstance(query.mode, VectorStoreQueryMode) else query.mode
    return {"query_mode": asked} | {name: value for name, value in given.items() if value is not None}


def _result(query: VectorStoreQuery, nodes: Sequence[M3NodeWithScore]) -> VectorStoreQueryResult:
    tell_end(query.query_str or "", nodes)
    return VectorStoreQueryResult(
        nodes=[scored.node for scored in nodes],
        similarities=[scored.get_score() for scored in nodes],
        ids=[scored.node_id for scored in nodes],
    )
