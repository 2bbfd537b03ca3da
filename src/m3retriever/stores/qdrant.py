"""QdrantStore: texts, metadata and all three views of them in one Qdrant collection, on a server or in local mode.

Every document is one point with three named vectors (`qdrant_collection` draws it), so a document is whole or is not
there. Follow a search: `search` here, the filter (`qdrant_filter`, and `qdrant_reading` for what that leaves to us),
both legs and the scores (`qdrant_search`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3retriever.checks import check_depth, check_documents, check_query, check_vectors, listed_ids
from m3retriever.errors import EncoderMismatchError, InvalidArgumentError, StoreError, UnknownDocumentError, shown
from m3retriever.filters import check_where
from m3retriever.observing.spans import span
from m3retriever.stores import qdrant_collection, qdrant_search
from m3retriever.stores.names import collection_name
from m3retriever.stores.qdrant_collection import Layout, Settings
from m3retriever.stores.qdrant_connection import (
    GRPC_PORT,
    TIMEOUT,
    Address,
    Connection,
    collections_in_folder,
)
from m3retriever.stores.qdrant_filter import point_id
from m3retriever.stores.qdrant_points import (
    OF_DOCUMENT,
    OUR_ID,
    SIZES,
    STAMP,
    check_sizes,
    document_of,
    points,
    sizes_of,
    vectors_of,
)
from m3retriever.stores.qdrant_reading import PAGE, TEXTS_PAGE, VECTORS_PAGE, allowed, passing_ids, points_of
from m3retriever.stores.qdrant_search import DenseSearch, check_dense_search
from m3retriever.types import Document, Mode, ModeScores, Where
from m3retriever.vectors import IntArray, M3Vectors

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

STAMP_BITS = 40  # of a revision, for the number of points

_stamping = threading.Lock()
_last = 0


class QdrantStore:
    """Documents in Qdrant, scored in all three modes.

    Parameters
    ----------
    url
        A server's REST address, "http://localhost:6333" or "https://host:6333"; https for TLS.
    path
        Or a folder: Qdrant's local mode, for tests and small collections. It keeps every vector in this process's
        memory, scans all of them, and gives the folder to one store at a time, one that only reads included. It reads
        points back with pickle: open no folder that you would not run.
    client
        Or a `qdrant_client.QdrantClient` of your own, which stays open.
    collection
        Its name, 3 to 255 characters from [a-zA-Z0-9._-]; default: "m3retriever". It is made with the first document.
    api_key
        The server's key; default: QDRANT_API_KEY in the environment. Over plain http only to this machine.
    timeout
        Seconds that a call to the server may take.
    shards, replicas, write_consistency, quantized, on_disk
        How a new collection is made; see `qdrant_collection.Layout`. Of one that exists they change nothing.
    prefer_grpc, grpc_port
        Speak gRPC with the server: a fifth of the bytes for vectors.
    dense
        How dense candidates are found: "hnsw" by Qdrant's index, whose list of candidates is 16 depths long (.997 of the
        best 100 of 20,000 in docs/scale.md; exactly where a collection or filter is small), "exact" by a scan of every
        original. Scores are exact either way.
    read_only
        Refuse every write.

    Notes
    -----
    Scores come from the original vectors, never from int8 codes: sums of float32 products, in the order that Qdrant's
    kernels take them, about 1e-6 from `scoring`'s at 1,024 dimensions, and the same whichever other candidates there are
    (in local mode NumPy's product may change a last bit with the number of points). Candidates that tie where `depth` ends
    are told apart by scores taken here, then by id.

    A filter is answered by Qdrant wherever it can say it exactly. $regex, conditions on the text, $text_match and $gt to
    $lte between texts it cannot: the documents that the rest of an $and lets through are read page by page and looked at
    here, once per search, with Python's `re`; 200,000 may pass. Ranges of numbers Qdrant reads from the payload of every
    point that HNSW visits: about .4 s a search among 30,000 on its engine, where other filters took .04 and `dense="exact"` .1.

    An upsert is whole for each document, a batch of several is not: while it is under way, others see some of it, and a
    search may see a document's old dense and new sparse score. One that is deleted meanwhile is left
    out. When `add` returns, all of it is there.

    Raises
    ------
    StoreError
        Qdrant does not answer, the collection is not ours, or there is none to read.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        path: str | Path | None = None,
        client: QdrantClient | None = None,
        collection: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        shards: int | None = None,
        replicas: int | None = None,
        write_consistency: int | None = None,
        quantized: Sequence[Mode] = ("dense",),
        on_disk: bool = True,
        prefer_grpc: bool = False,
        grpc_port: int = GRPC_PORT,
        dense: DenseSearch = "hnsw",
        read_only: bool = False,
    ) -> None:
        check_dense_search(dense)
        _check_timeout(timeout)
        self._layout = Layout(shards, replicas, write_consistency, quantized, on_disk)
        address = Address.of(url, path, client)
        if read_only and path is not None and not self.exists(path=path, collection=collection):
            raise StoreError(f"there is no collection {collection_name(collection)!r} in {address} to be read")
        self.source: str | None = None  # how to load the model again; kept with the first document
        self._read_only, self._dense = read_only, dense
        self._model: tuple[str, int] | None = None
        self._settings: Settings | None = None
        self._indexed = False
        self._writes = threading.Lock()  # settings and indexes are made once, whichever threads add
        self._connection = Connection(
            address, collection, api_key=api_key, timeout=timeout, prefer_grpc=prefer_grpc, grpc_port=grpc_port
        )
        try:
            if self._known() is None and read_only:
                raise StoreError(f"there is no collection {self._connection.name!r} in {address} to be read")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def exists(
        url: str | None = None,
        *,
        path: str | Path | None = None,
        client: QdrantClient | None = None,
        collection: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
    ) -> bool:
        """Whether there is such a collection; looks without creating anything. StoreError where the server does not answer."""
        address = Address.of(url, path, client)
        if address.path is not None:
            return collection_name(collection) in collections_in_folder(address.path)
        connection = Connection(address, collection, api_key=api_key, timeout=timeout)
        try:
            return connection.exists()
        finally:
            connection.close()

    # -- what it holds ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return 0 if self._known() is None else int(self._connection.call("count", exact=True).count)

    def ids(self, where: Where | None = None) -> list[str]:
        """Ids of the documents that pass the filter, all of them without one, ascending."""
        check_where(where)
        if self._known() is None:
            return []
        with self._connection.alone():
            return passing_ids(self._connection, where)

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The documents, in this order; UnknownDocumentError names those that are not here."""
        return [document_of(record.payload) for record in self._points(ids, OF_DOCUMENT, page=TEXTS_PAGE)]

    def vectors(self, ids: Sequence[str]) -> M3Vectors:
        """The documents' vectors, in this order, to the last bit as they were stored."""
        records = self._points(ids, [OUR_ID], page=VECTORS_PAGE, vectors=True)
        return vectors_of([record.vector for record in records], self._dim() or 0)

    def sizes(self, ids: Sequence[str]) -> IntArray:
        """How many sparse tokens and token vectors each document has, (n, 2), without reading them."""
        records = self._points(ids, [OUR_ID, SIZES])
        return np.array([sizes_of(record.payload) for record in records], np.int64).reshape(-1, 2)

    def settings(self) -> dict[str, str | None]:
        """The model's name, how to load it, and the dimension; None until a document is added."""
        held = self._known()
        if held is None:
            return {"model": None, "source": None, "dim": None}
        return {"model": held.model, "source": held.source, "dim": str(held.dim)}

    def revision(self) -> int:
        """A number that is another one after every change that a QdrantStore made; 0 for no documents.

        Made of the time at which the newest document was written and the number of documents. While clocks agree, no
        two states share it. It does not see a write by a machine whose clock is behind the newest document's, nor what
        another client changes without adding or removing points.
        """
        if self._known() is None:
            return 0
        from qdrant_client import models

        newest = models.OrderBy(key=STAMP, direction=models.Direction.DESC)
        records, _ = self._connection.call("scroll", order_by=newest, limit=1, with_payload=[STAMP])
        stamp = int((records[0].payload or {}).get(STAMP) or 0) if records else 0
        return (stamp << STAMP_BITS) + len(self)

    def missing(self) -> list[str]:
        """Ids whose vectors are not those of their texts: none, for a document and its vectors are one point."""
        self._connection.check_open()
        return []

    def writer(self) -> str | None:
        """Which other process is writing, in words: Qdrant does not say, and lets several write."""
        return None

    def bind(self, model: str, dim: int) -> None:
        """Say which model the vectors come from; EncoderMismatchError where the collection holds another's."""
        held = self._known()
        if held is not None:
            self._check_dim(held, dim)
            self._check_model(held, model)
        self._model = model, dim

    def remember(self) -> None:
        """Keep the model that was bound, in an index that is still empty: `add` does so with the first document."""
        self._check_writable()
        if self._model is not None:
            self._keep_settings(self._model[1])

    # -- changing it -----------------------------------------------------------------------------

    def add(self, documents: Sequence[Document], vectors: M3Vectors) -> None:
        """Store documents with their vectors; one whose id is known is replaced, metadata and vectors included.

        All of them are checked before any is sent. They are sent in batches; where one fails, those before it are stored.
        """
        self._check_writable()
        documents = list(documents)
        check_documents(documents)
        check_vectors(documents, vectors, self._dim())
        if not documents:
            return
        check_sizes(documents, vectors)
        with span("store", documents=len(documents)), self._connection.alone():
            self._keep_settings(vectors.dim)
            for batch in points(documents, vectors, _stamp):
                self._connection.call("upsert", points=batch, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; UnknownDocumentError, before anything is changed, where an id is not here."""
        self._check_writable()
        ids = list(dict.fromkeys(listed_ids(ids)))
        with self._connection.alone():
            self._points(ids, [OUR_ID])
            for start in range(0, len(ids), PAGE):
                page = [point_id(id) for id in ids[start : start + PAGE]]
                self._connection.call("delete", points_selector=page, wait=True)

    def close(self) -> None:
        """Let go of the server or the folder. A closed store cannot be used."""
        self._connection.close()

    # -- searching -------------------------------------------------------------------------------

    def search(self, query: M3Vectors, *, depth: int, where: Where | None = None) -> ModeScores:
        """The best `depth` of the dense and of the sparse search, each scored in every mode."""
        check_depth(depth)
        check_where(where)
        with self._connection.alone():
            self._check_query(query)
            if self._known() is None:
                return _nothing()
            passing, count = allowed(self._connection, where)
            if count == 0:
                return _nothing()
            return qdrant_search.search(self._connection, query, depth, passing, self._dense)

    def score(self, query: M3Vectors, ids: Sequence[str]) -> ModeScores:
        """Any documents' scores in every mode, found by a search or not."""
        ids = listed_ids(ids)
        with self._connection.alone():
            self._check_query(query)
            if self._known() is None and ids:
                raise UnknownDocumentError(ids, asked=len(ids))
            unique = list(dict.fromkeys(ids))
            values, there = qdrant_search.score(self._connection, query, [point_id(id) for id in unique])
            place = {id: row for row, id in enumerate(unique)}
            if missing := [id for id in ids if not there[place[id]]]:
                raise UnknownDocumentError(missing, asked=len(ids))
            return ModeScores(tuple(ids), values[[place[id] for id in ids]].reshape(-1, 3))

    # -- steps -------------------------------------------------------------------------------------

    def _points(self, ids: Sequence[str], fields: list[str], *, page: int = PAGE, vectors: bool = False) -> list[Any]:
        """The points of these documents, in this order; UnknownDocumentError where one is not here."""
        ids = listed_ids(ids)
        if self._known() is None and ids:
            raise UnknownDocumentError(ids, asked=len(ids))
        with self._connection.alone():
            return points_of(self._connection, ids, fields, page=page, vectors=vectors)

    def _known(self) -> Settings | None:
        """The collection's settings, read until there is one; another process may make it."""
        self._connection.check_open()
        if self._settings is None:
            self._settings = qdrant_collection.read_settings(self._connection)
        return self._settings

    def _keep_settings(self, dim: int) -> None:
        """Make the collection, or refuse vectors of another model; in one that is empty, remember whose they will be."""
        with self._connection.alone(), self._writes:
            model = None if self._model is None else self._model[0]
            held = qdrant_collection.read_settings(self._connection)
            if held is None:
                held = qdrant_collection.create(self._connection, Settings(dim, model, self.source), self._layout)
            elif not self._indexed:
                qdrant_collection.index_payload(self._connection)
                qdrant_collection.warn_of_another_layout(self._connection, self._layout)
            self._indexed = True
            self._check_dim(held, dim)
            if model is not None:
                self._check_model(held, model)
                source = self.source or (held.source if held.model == model else None)
                held = qdrant_collection.rename(self._connection, held, model=model, source=source)
            self._settings = held

    def _dim(self) -> int | None:
        held = self._known()
        return held.dim if held is not None else self._model[1] if self._model is not None else None

    def _check_query(self, query: M3Vectors) -> None:
        held = self._known()
        check_query(query, self._dim())
        if held is not None and self._model is not None and held.model != self._model[0]:
            self._check_model(held, self._model[0])

    def _check_dim(self, held: Settings, dim: int) -> None:
        if held.dim != dim:
            raise EncoderMismatchError(
                f"the collection {self._connection.name!r} holds vectors of dimension {held.dim}; got {dim}: use the model it "
                "was made with, or another collection"
            )

    def _check_model(self, held: Settings, model: str) -> None:
        if held.model not in (None, model) and len(self):
            raise EncoderMismatchError(
                f"this index was made with the model {held.model!r}; got {model!r}: open it with that model, "
                "or index the documents again into another collection"
            )

    def _check_writable(self) -> None:
        self._connection.check_open()
        if self._read_only:
            raise StoreError("this index was opened to be read only: open it without read_only to change it")


def _nothing() -> ModeScores:
    return ModeScores((), np.empty((0, 3), np.float32))


def _stamp() -> int:
    """The time in nanoseconds, later with every call."""
    global _last
    with _stamping:
        _last = max(_last + 1, time.time_ns())
        return _last


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise InvalidArgumentError(f"timeout is a number of seconds > 0; got {shown(timeout)}")
