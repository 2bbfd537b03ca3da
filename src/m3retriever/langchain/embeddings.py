"""An M3 encoder as LangChain's embeddings: the dense vectors, and the sparse ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.embeddings import Embeddings

from m3retriever.encoders import DEFAULT_MODEL, as_encoder
from m3retriever.errors import InvalidArgumentError
from m3retriever.types import Encoder
from m3retriever.vectors import M3Vectors


class M3Embeddings(Embeddings):
    """Dense vectors of norm 1, for whatever in LangChain takes embeddings.

    `M3Embeddings().embed_query("what is due?")` gives a list of float. For search in all three modes
    use M3VectorStore, which encodes by itself; this class is also what its `from_texts` takes.

    Parameters
    ----------
    model
        A name or folder for `load_encoder`, or an Encoder, which is used as it is.

    Attributes
    ----------
    encoder : what gives the vectors
    """

    def __init__(self, model: str | Encoder = DEFAULT_MODEL) -> None:
        self.encoder = as_encoder(model)

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text; no texts give no vectors."""
        return _dense(self.encoder.encode_documents(_listed(texts)))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return _dense(self.encoder.encode_queries([text]))[0]

    async def aembed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """`embed_documents`, in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query`, in a thread."""
        return await asyncio.to_thread(self.embed_query, text)


@dataclass(frozen=True)
class SparseVector:
    """The tokens of a text that count, ascending, and how much each counts."""

    indices: list[int]
    values: list[float]


class M3SparseEmbeddings:
    """Sparse vectors with the methods that langchain-qdrant's `sparse_embedding` wants; that package is not needed.

    Their dot product is the sparse score of M3Index. `M3SparseEmbeddings(embeddings.encoder)` shares the
    model with an M3Embeddings.

    Parameters
    ----------
    model
        As for M3Embeddings.
    """

    def __init__(self, model: str | Encoder = DEFAULT_MODEL) -> None:
        self.encoder = as_encoder(model)

    def embed_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        """One sparse vector a text; no texts give no vectors."""
        return _sparse(self.encoder.encode_documents(_listed(texts)))

    def embed_query(self, text: str) -> SparseVector:
        """The sparse vector of a query."""
        return _sparse(self.encoder.encode_queries([text]))[0]

    async def aembed_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        """`embed_documents`, in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> SparseVector:
        """`embed_query`, in a thread."""
        return await asyncio.to_thread(self.embed_query, text)


def _listed(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise InvalidArgumentError(f"texts is a list of str; got the str {texts!r}: write [{texts!r}]")
    return list(texts)


def _dense(vectors: M3Vectors) -> list[list[float]]:
    rows: list[list[float]] = vectors.dense.tolist()
    return rows


def _sparse(vectors: M3Vectors) -> list[SparseVector]:
    rows = [vectors.sparse_row(row) for row in range(len(vectors))]
    return [SparseVector(list(row), list(row.values())) for row in rows]
