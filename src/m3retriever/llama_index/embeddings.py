"""BGE-M3's vectors for LlamaIndex: dense, sparse, and none at all where M3VectorStore makes them itself."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding, SparseEmbedding
from pydantic import Field, PrivateAttr

from m3retriever.encoders import DEFAULT_MODEL, as_encoder
from m3retriever.errors import InvalidArgumentError
from m3retriever.types import Encoder

BATCH = 256  # texts a call: the encoder sorts them by length and packs them itself
CONSTANT = [1.0]  # what StoreEmbedding gives for every text


class M3Embedding(BaseEmbedding):
    """Dense vectors of norm 1, as lists of float. The async methods encode in a thread.

    Parameters
    ----------
    model
        A name for `m3retriever.load_encoder`, or an Encoder: an index's own is `index.encoder`.
    kwargs
        LlamaIndex's own fields, such as `embed_batch_size` or `callback_manager`.
    """

    embed_batch_size: int = Field(default=BATCH, gt=0, le=2048)
    _encoder: Encoder = PrivateAttr()

    def __init__(self, model: str | Encoder = DEFAULT_MODEL, **kwargs: Any) -> None:
        encoder = as_encoder(model)
        super().__init__(model_name=encoder.name, **kwargs)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        return "M3Embedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._encoder.encode_queries([query]).dense[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode_documents(texts).dense.tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class M3SparseEmbedding(BaseSparseEmbedding):
    """Sparse vectors, {token id: weight}. Takes what `M3Embedding` takes, and is as async."""

    embed_batch_size: int = Field(default=BATCH, gt=0, le=2048)
    _encoder: Encoder = PrivateAttr()

    def __init__(self, model: str | Encoder = DEFAULT_MODEL, **kwargs: Any) -> None:
        encoder = as_encoder(model)
        super().__init__(model_name=encoder.name, **kwargs)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        return "M3SparseEmbedding"

    def similarity(self, embedding1: SparseEmbedding, embedding2: SparseEmbedding) -> float:
        """The dot product, which is BGE-M3's sparse score (LlamaIndex's own default is the cosine)."""
        short, long = sorted((embedding1, embedding2), key=len)
        return float(sum(weight * long[token] for token, weight in short.items() if token in long))

    def _get_query_embedding(self, query: str) -> SparseEmbedding:
        return self._encoder.encode_queries([query]).sparse_row(0)

    def _get_text_embedding(self, text: str) -> SparseEmbedding:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[SparseEmbedding]:
        vectors = self._encoder.encode_documents(texts)
        return [vectors.sparse_row(row) for row in range(len(vectors))]

    async def _aget_query_embedding(self, query: str) -> SparseEmbedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> SparseEmbedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[SparseEmbedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class StoreEmbedding(BaseEmbedding):
    """Stands where LlamaIndex wants an embedding model, for nodes that go into an M3VectorStore.

    VectorStoreIndex and IngestionPipeline embed every node before they add it; M3VectorStore makes all
    vectors itself, from the text, and would make them a second time. This gives every text the same one
    number, at once. M3VectorStore never looks at it, and no other store can search by it: a query is
    refused, so that no app does so unaware.
    """

    model_name: str = "left to M3VectorStore"
    embed_batch_size: int = Field(default=2048, gt=0, le=2048)

    @classmethod
    def class_name(cls) -> str:
        return "StoreEmbedding"

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(CONSTANT)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return list(CONSTANT)

    def _get_query_embedding(self, query: str) -> list[float]:
        raise InvalidArgumentError(
            "StoreEmbedding makes no vectors, for M3VectorStore makes them itself; "
            "what embeds queries by itself, or another store, needs M3Embedding"
        )

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)
