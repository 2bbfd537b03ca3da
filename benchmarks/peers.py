"""Other ways to search the same documents, each as a step that answers one query. To add a peer, add a line to PEERS.

A peer is built of documents whose vectors are known, so that no model runs; an ImportError says that it is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Step
from m3retriever import Document, M3Vectors
from m3retriever.types import Where

K, DEPTH = 10, 200  # results, and candidates of each leg: our default
AT_ONCE = 256  # documents given to a peer at a time


@dataclass(frozen=True, eq=False)
class Known:
    """Documents and queries whose vectors are known; as an Encoder it looks them up by their texts."""

    documents: Sequence[Document]
    vectors: M3Vectors
    queries: Sequence[str]
    query_vectors: M3Vectors

    name, source = "known vectors", None

    @property
    def dim(self) -> int:
        """Of the vectors."""
        return self.vectors.dim

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """The vectors of known documents."""
        places = {document.text: row for row, document in enumerate(self.documents)}
        return self.vectors.take([places[text] for text in texts])

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """The vectors of known queries."""
        return self.query_vectors.take([self.queries.index(text) for text in texts])

    def text(self, number: int) -> str:
        """The query of a round."""
        return self.queries[number % len(self.queries)]


def chroma_dense(known: Known, folder: Path) -> Step:
    """langchain-chroma."""
    store = _langchain_chroma(known, folder)
    return lambda number: store.similarity_search(known.text(number), k=K)


def chroma_filtered(known: Known, folder: Path, where: Where) -> Step:
    """langchain-chroma under a filter."""
    store = _langchain_chroma(known, folder)
    return lambda number: store.similarity_search(known.text(number), k=K, filter=where)


def ensemble(known: Known, folder: Path) -> Step:
    """LangChain's EnsembleRetriever of BM25 and langchain-chroma, by reciprocal rank fusion."""
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.retrievers import BM25Retriever

    dense = _langchain_chroma(known, folder).as_retriever(search_kwargs={"k": K})
    words = BM25Retriever.from_texts(
        [document.text for document in known.documents],
        metadatas=[dict(document.metadata) for document in known.documents],
        ids=[document.id for document in known.documents],
        k=K,
    )
    both = EnsembleRetriever(retrievers=[words, dense], weights=[0.5, 0.5])
    return lambda number: both.invoke(known.text(number))


def qdrant_hybrid(known: Known, folder: Path) -> Step:
    """qdrant-client in local mode: dense and sparse by reciprocal rank fusion."""
    from qdrant_client import models

    client = _qdrant(known, folder, tokens=False)
    fused = models.FusionQuery(fusion=models.Fusion.RRF)
    return lambda number: client.query_points(
        "known", prefetch=_legs(known.encode_queries([known.text(number)])), query=fused, limit=K
    )


def qdrant_reranked(known: Known, folder: Path) -> Step:
    """The same, reranked by the token vectors."""
    client = _qdrant(known, folder, tokens=True)

    def step(number: int) -> object:
        query = known.encode_queries([known.text(number)])
        tokens = query.colbert.tolist()
        return client.query_points("known", prefetch=_legs(query), query=tokens, using="colbert", limit=K)

    return step


@dataclass(frozen=True)
class Peer:
    """What it is called, how it is built, and what it does not give."""

    name: str
    build: Callable[[Known, Path], Step]
    note: str


PEERS = (
    Peer("langchain-chroma, dense only", chroma_dense, "it gives no sparse and no ColBERT score; its search is approximate"),
    Peer(
        "LangChain EnsembleRetriever, BM25 + langchain-chroma", ensemble,
        "it gives no scores and no ColBERT, and BM25 takes no filter",
    ),
    Peer("qdrant-client local, dense + sparse, RRF", qdrant_hybrid, "it gives ranks fused to a score, and no ColBERT"),
    Peer("qdrant-client local, the same reranked by ColBERT", qdrant_reranked, "it gives the ColBERT score alone, in fp32"),
)  # fmt: skip


def _langchain_chroma(known: Known, folder: Path) -> Any:
    from chromadb.config import Settings
    from langchain_chroma import Chroma

    from m3retriever.langchain import M3Embeddings

    store = Chroma(
        "known", M3Embeddings(known), str(folder), client_settings=Settings(anonymized_telemetry=False, is_persistent=True),
        collection_configuration={"hnsw": {"space": "cosine"}},
    )  # fmt: skip
    for start in range(0, len(known.documents), AT_ONCE):
        part = known.documents[start : start + AT_ONCE]
        texts, metadatas = [document.text for document in part], [dict(document.metadata) for document in part]
        store.add_texts(texts, metadatas, [document.id for document in part])
    return store


def _qdrant(known: Known, folder: Path, *, tokens: bool) -> Any:
    from qdrant_client import QdrantClient, models

    cosine = {"size": known.dim, "distance": models.Distance.COSINE}
    vectors = {"dense": models.VectorParams(**cosine)}
    if tokens:
        best = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vectors["colbert"] = models.VectorParams(**cosine, multivector_config=best)
    client = QdrantClient(":memory:")
    client.create_collection("known", vectors_config=vectors, sparse_vectors_config={"sparse": models.SparseVectorParams()})
    for number, document in enumerate(known.documents):
        row = known.vectors[number]
        held: dict[str, Any] = {"dense": row.dense[0].tolist(), "sparse": _sparse(row)}
        if tokens:
            held["colbert"] = row.colbert.tolist()
        point = models.PointStruct(id=number, vector=held, payload={"text": document.text, **document.metadata})
        client.upsert("known", [point])
    return client


def _legs(query: M3Vectors) -> list[Any]:
    from qdrant_client import models

    return [
        models.Prefetch(query=query.dense[0].tolist(), using="dense", limit=DEPTH),
        models.Prefetch(query=_sparse(query), using="sparse", limit=DEPTH),
    ]


def _sparse(row: M3Vectors) -> Any:
    from qdrant_client import models

    return models.SparseVector(indices=row.sparse_ids.tolist(), values=row.sparse_weights.tolist())
