"""An exact store in memory: the yardstick that every other store is compared with."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from m3retriever.checks import check_depth, check_documents, check_query, check_vectors, clean_metadata
from m3retriever.errors import EncoderMismatchError, UnknownDocumentError
from m3retriever.filters import check_where, matches
from m3retriever.scoring import dense_score, score, sparse_scores
from m3retriever.stores.candidates import best, union
from m3retriever.types import Document, ModeScores, Where
from m3retriever.vectors import M3Vectors


class MemoryStore:
    """Keeps everything in memory and scores every document exactly. For tests and small collections."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Document, M3Vectors]] = {}
        self._model: str | None = None
        self._dim: int | None = None
        self._lock = threading.RLock()
        self._table: tuple[list[Document], M3Vectors] | None = None  # all rows as columns, until the next change

    def bind(self, model: str, dim: int) -> None:
        """Remember the model; EncoderMismatchError for another than the one whose vectors are held."""
        if self._rows and self._model not in (None, model):
            raise EncoderMismatchError(f"this store holds vectors of {self._model!r}; got {model!r}: use a new store")
        self._model, self._dim = model, dim

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other threads from changing anything meanwhile."""
        with self._lock:
            yield

    def add(self, documents: Sequence[Document], vectors: M3Vectors) -> None:
        check_documents(documents)
        check_vectors(documents, vectors, self._dim)
        with self._lock:
            for document, row in zip(documents, vectors, strict=True):
                kept = Document(document.id, document.text, clean_metadata(document.metadata))
                self._rows[document.id] = kept, row.copy()  # the caller may change its arrays
            if documents:
                self._dim, self._table = vectors.dim, None

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            self._known(ids)
            for id in ids:
                self._rows.pop(id, None)
            self._table = None

    def ids(self, where: Where | None = None) -> list[str]:
        """Ids of the documents that pass the filter, all of them without one, ascending."""
        check_where(where)
        with self._lock:
            return sorted(id for id, (document, _) in self._rows.items() if matches(where, document))

    def get(self, ids: Sequence[str]) -> list[Document]:
        with self._lock:
            return [_copy(document) for document, _ in self._known(ids)]

    def vectors(self, ids: Sequence[str]) -> M3Vectors:
        """The vectors of these documents, in this order."""
        with self._lock:
            return M3Vectors.concat([vectors for _, vectors in self._known(ids)], dim=self._dim or 0).copy()

    def search(self, query: M3Vectors, *, depth: int, where: Where | None = None) -> ModeScores:
        check_where(where)
        check_depth(depth)
        check_query(query, self._dim)
        documents, vectors = self._columns()
        allowed = np.array([row for row, document in enumerate(documents) if matches(where, document)], np.int64)
        if not len(allowed):
            return ModeScores((), np.empty((0, 3), np.float32))

        def ids(rows: np.ndarray) -> list[str]:
            return [documents[row].id for row in rows]

        dense = dense_score(query.dense[0], vectors.dense)[allowed]
        sparse = sparse_scores(query, vectors.sparse_ids, vectors.sparse_weights, vectors.sparse_offsets)[allowed]
        rows, found_by = union(
            best(dense, allowed, depth, ids),
            best(sparse[sparse > 0], allowed[sparse > 0], depth, ids),
        )
        return ModeScores(tuple(ids(rows)), score(query, vectors.take(rows)), found_by)

    def score(self, query: M3Vectors, ids: Sequence[str]) -> ModeScores:
        check_query(query, self._dim)
        return ModeScores(tuple(ids), score(query, self.vectors(ids)))

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Nothing to release."""

    def _columns(self) -> tuple[list[Document], M3Vectors]:
        with self._lock:
            if self._table is None:
                rows = [self._rows[id] for id in sorted(self._rows)]
                self._table = [document for document, _ in rows], M3Vectors.concat([v for _, v in rows], dim=self._dim or 0)
            return self._table

    def _known(self, ids: Sequence[str]) -> list[tuple[Document, M3Vectors]]:
        if missing := [id for id in ids if id not in self._rows]:
            raise UnknownDocumentError(missing, asked=len(ids))
        return [self._rows[id] for id in ids]


def _copy(document: Document) -> Document:
    return Document(document.id, document.text, clean_metadata(document.metadata))
