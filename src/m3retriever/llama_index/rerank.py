"""BGE-M3 as a reranker: nodes that any retriever found, scored in all three modes and put in a new order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import llama_index.core.instrumentation as instrument
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import PrivateAttr, SkipValidation

from m3retriever.encoders import DEFAULT_MODEL, as_encoder
from m3retriever.errors import InvalidArgumentError
from m3retriever.llama_index.nodes import M3NodeWithScore
from m3retriever.llama_index.vectorstore import as_metadata_mode
from m3retriever.ranking import SearchMode, WeightsLike
from m3retriever.reranking import Reranked, rerank
from m3retriever.types import Encoder, Profile

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not re-exported by name


class M3Rerank(BaseNodePostprocessor):
    """Orders the nodes that any retriever found by M3's scores, best first, as M3NodeWithScore.

    The nodes that come in, their scores and their order stay as they are. They are compared with the
    question itself (`query_str`), also where a transformed query found them. What has no meaning is
    refused, when nodes are to be ordered, with InvalidArgumentError.

    Parameters
    ----------
    model
        A name for `m3retriever.load_encoder`, or an Encoder: an index's own is `index.encoder`.
    top_n
        How many nodes to keep, at least 1; default: all.
    mode, weights, threshold, profile
        As in `m3retriever.rerank`.
    metadata_mode
        Which text of a node is read: NONE, the default, its own; EMBED with the metadata in front.
    callback_manager
        LlamaIndex's own.
    """

    top_n: SkipValidation[int | None] = None
    mode: SkipValidation[SearchMode] = "hybrid"
    weights: SkipValidation[WeightsLike | None] = None
    threshold: SkipValidation[float | Literal["profile"] | None] = None
    profile: SkipValidation[Profile | str | Path | None] = None
    metadata_mode: MetadataMode = MetadataMode.NONE
    _encoder: Encoder = PrivateAttr()

    def __init__(
        self,
        model: str | Encoder = DEFAULT_MODEL,
        *,
        top_n: int | None = None,
        mode: SearchMode = "hybrid",
        weights: WeightsLike | None = None,
        threshold: float | Literal["profile"] | None = None,
        profile: Profile | str | Path | None = None,
        metadata_mode: MetadataMode | str = MetadataMode.NONE,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager or CallbackManager())
        self.top_n, self.mode, self.weights, self.threshold, self.profile = top_n, mode, weights, threshold, profile
        self.metadata_mode = as_metadata_mode(metadata_mode)
        self._encoder = as_encoder(model)

    @classmethod
    def class_name(cls) -> str:
        return "M3Rerank"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        query = self._tell_start(nodes, query_bundle)
        return self._tell_end(self._ranked(nodes, query))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._tell_start(nodes, query_bundle)
        return self._tell_end(await asyncio.to_thread(self._ranked, nodes, query))

    def _ranked(self, nodes: Sequence[NodeWithScore], query: str) -> list[NodeWithScore]:
        ranked = rerank(
            self._encoder,
            query,
            [scored.node.get_content(self.metadata_mode) for scored in nodes],
            k=self.top_n,
            mode=self.mode,
            weights=self.weights,
            threshold=self.threshold,
            profile=self.profile,
        )
        return [_scored(nodes[one.place], one) for one in ranked]

    def _tell_start(self, nodes: list[NodeWithScore], query: QueryBundle | None) -> str:
        if query is None:
            raise InvalidArgumentError("M3Rerank compares nodes with a query; got none: give query_str or query_bundle")
        top_n = self.top_n if isinstance(self.top_n, int) else len(nodes)
        dispatcher.event(ReRankStartEvent(query=query, nodes=list(nodes), top_n=top_n, model_name=self._encoder.name))
        return query.query_str

    def _tell_end(self, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        dispatcher.event(ReRankEndEvent(nodes=nodes))
        return nodes


def _scored(found: NodeWithScore, ranked: Reranked) -> M3NodeWithScore:
    """The same node under its new scores; which searches found it stays known."""
    return M3NodeWithScore(
        node=found.node,
        score=ranked.score,
        scores=dict(ranked.scores),
        ranks=dict(ranked.ranks),
        found_by=found.found_by if isinstance(found, M3NodeWithScore) else [],
    )
