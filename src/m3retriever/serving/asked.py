"""Encoders that give vectors made before: the service's queue makes them, the library's own functions then score with them."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

from m3retriever.types import Encoder, M3Vectors, Tokenizes

asked: ContextVar[M3Vectors] = ContextVar("m3retriever_asked")
"""The vectors of the one query that an index is asked in this context."""


class AskedBefore:
    """In an index that is served: the query's vectors are those in `asked`, so that a search never waits for the model.

    Without them, a call of the index is a LookupError: a programming error, for it would go past the queue.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.name, self.dim = encoder.name, encoder.dim
        self.precision: str | None = getattr(encoder, "precision", None)
        if isinstance(encoder, Tokenizes):
            self.tokenize = encoder.tokenize

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """As the encoder's own: for documents that another client adds while the index is open."""
        return self._encoder.encode_documents(texts, progress=progress)

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """The vectors in `asked`."""
        return asked.get()


class Prepared:
    """For one reranking: the query's vectors and the documents', as an Encoder of exactly these."""

    def __init__(self, encoder: Encoder, query: M3Vectors, documents: M3Vectors) -> None:
        self._query, self._documents = query, documents
        self.name, self.dim = encoder.name, encoder.dim
        self.precision: str | None = getattr(encoder, "precision", None)

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """Those of the documents."""
        return self._documents

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """Those of the query."""
        return self._query
