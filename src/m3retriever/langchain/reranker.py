"""BGE-M3 as a LangChain compressor: it scores what any retriever found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, PrivateAttr, SkipValidation

from m3retriever.encoders import DEFAULT_MODEL, as_encoder
from m3retriever.ranking import SearchMode, WeightsLike
from m3retriever.reranking import Reranked, rerank
from m3retriever.types import Encoder, Profile


class M3Reranker(BaseDocumentCompressor):
    """Orders the documents of any retriever by BGE-M3's scores, best first; nothing is stored.

    Use it as LangChain's compressor, or as a step of a chain:
    `retriever | (lambda documents: reranker.compress_documents(documents, query))`. What comes back are
    copies, whose metadata holds the score that ranked them as `relevance_score`.

    Parameters
    ----------
    model
        A name or folder for `load_encoder`, or an Encoder, such as `index.encoder`, to share its model.
    top_n
        How many to keep; None keeps all.
    mode, weights, threshold, profile
        As in `m3retriever.rerank`; what has no meaning is refused there, at the call.
    return_scores
        Whether the metadata also holds `scores` and `ranks` by mode.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: SkipValidation[str | Encoder] = DEFAULT_MODEL
    top_n: SkipValidation[int | None] = None
    mode: SkipValidation[SearchMode] = "hybrid"
    weights: SkipValidation[WeightsLike | None] = None
    threshold: SkipValidation[float | Literal["profile"] | None] = None
    profile: SkipValidation[Profile | str | Path | None] = None
    return_scores: bool = False
    _encoder: Encoder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the model once, when the reranker is made."""
        self._encoder = as_encoder(self.model)

    @property
    def encoder(self) -> Encoder:
        """What gives the vectors."""
        return self._encoder

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Copies of the documents in the order of their scores; no model of LangChain runs, so no callback is called."""
        ranked = rerank(
            self.encoder,
            query,
            [document.page_content for document in documents],
            k=self.top_n,
            mode=self.mode,
            weights=self.weights,
            threshold=self.threshold,
            profile=self.profile,
        )
        return [self._copy(documents[one.place], one) for one in ranked]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents`, in a thread."""
        return await asyncio.to_thread(self.compress_documents, documents, query, callbacks)

    def _copy(self, document: Document, ranked: Reranked) -> Document:
        scores = {"scores": dict(ranked.scores), "ranks": dict(ranked.ranks)} if self.return_scores else {}
        metadata = {**deepcopy(document.metadata), "relevance_score": ranked.score, **scores}
        return document.model_copy(update={"metadata": metadata})
