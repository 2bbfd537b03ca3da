"""M3Index as a LlamaIndex retriever: one class, which only translates, and the node it returns."""

from __future__ import annotations

from typing import Any, Literal

from llama_index.core.callbacks import CallbackManager
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from m3retriever.errors import InvalidArgumentError
from m3retriever.index import M3Index
from m3retriever.ranking import SearchMode, WeightsLike
from m3retriever.types import Hit, Mode, Where


class M3NodeWithScore(NodeWithScore):
    """A node with the score that ranked it, and beside it what that score came from.

    The node itself is as stored: scores in its metadata would change its hash and reach the prompt.

    Attributes
    ----------
    scores : the raw score in every mode
    ranks : the place (from 1) the node has when ranked by that mode alone
    found_by : the modes whose own search brought it in, sorted
    """

    scores: dict[Mode, float]
    ranks: dict[Mode, int]
    found_by: list[Mode]

    @classmethod
    def class_name(cls) -> str:
        return "M3NodeWithScore"


class M3Retriever(BaseRetriever):
    """Gives any LlamaIndex query engine the hits of an M3Index, best first.

    What has no meaning is refused by the index, when it is searched, with InvalidArgumentError.

    Parameters
    ----------
    index
        Where to search. The caller closes it.
    k, mode, weights, threshold, where
        As in `M3Index.search`.
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
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self.index, self.k, self.mode = index, k, mode
        self.weights, self.threshold, self.where = weights, threshold, where

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self.index.search(_text(query_bundle), **self._settings())
        return [_node(hit) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = await self.index.asearch(_text(query_bundle), **self._settings())
        return [_node(hit) for hit in hits]

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("k", "mode", "weights", "threshold", "where")}


def _text(query: QueryBundle) -> str:
    """The one text to search for. A bundle's embedding is another model's, and not used."""
    texts = query.custom_embedding_strs
    if texts is None:
        return query.query_str
    if len(texts) != 1:
        raise InvalidArgumentError(
            f"a query is searched as one text; got {len(texts)} custom_embedding_strs: "
            "give one (HyDEQueryTransform(include_original=False)) or none"
        )
    return texts[0]


def _node(hit: Hit) -> M3NodeWithScore:
    document = hit.document
    return M3NodeWithScore(
        node=TextNode(id_=document.id, text=document.text, metadata=dict(document.metadata)),
        score=hit.score,
        scores=dict(hit.scores),
        ranks=dict(hit.ranks),
        found_by=sorted(hit.found_by),
    )
