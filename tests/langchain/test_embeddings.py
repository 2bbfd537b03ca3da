"""M3Embeddings and M3SparseEmbeddings: the encoder's vectors, as plain Python numbers, without blocking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from m3retriever import (
    ChromaStore,
    Document,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    M3Vectors,
    MemoryStore,
    ModelLoadError,
)
from m3retriever.langchain import M3Embeddings, M3SparseEmbeddings, M3VectorStore, SparseVector


class UnevenEncoder(HashingEncoder):
    """Gives each word a weight of its own."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        vectors = super().encode_documents(texts, progress=progress)
        return replace(vectors, sparse_weights=0.1 + vectors.sparse_ids % 11 / 20)


TEXTS = ["red apple pie", "the train to the sea", ""]


def test_vectors_are_the_encoders_own_as_real_floats() -> None:
    encoder = HashingEncoder()
    embeddings = M3Embeddings(encoder)
    assert embeddings.encoder is encoder
    rows = embeddings.embed_documents(TEXTS)
    assert rows == encoder.encode_documents(TEXTS).dense.tolist()
    assert {type(value) for row in rows for value in row} == {float}
    assert embeddings.embed_query(TEXTS[0]) == rows[0]
    assert len(rows[0]) == encoder.dim


def test_a_model_is_loaded_by_its_name() -> None:
    assert M3Embeddings("hashing").encoder.name == M3SparseEmbeddings("hashing").encoder.name == HashingEncoder().name
    with pytest.raises(ModelLoadError, match="no such folder"):
        M3Embeddings("./no such model")


async def test_async_gives_what_sync_gives() -> None:
    for embeddings in (M3Embeddings(HashingEncoder()), M3SparseEmbeddings(HashingEncoder())):
        assert await embeddings.aembed_documents(TEXTS) == embeddings.embed_documents(TEXTS)
        assert await embeddings.aembed_query(TEXTS[1]) == embeddings.embed_query(TEXTS[1])


@pytest.mark.parametrize("kind", [M3Embeddings, M3SparseEmbeddings])
async def test_async_leaves_the_event_loop_free(kind: Any, slow_encoder: HashingEncoder, beats_during: Any) -> None:
    embeddings = kind(slow_encoder)
    assert await beats_during(embeddings.aembed_documents(TEXTS)) >= 5
    assert await beats_during(embeddings.aembed_query(TEXTS[0])) >= 5


@pytest.mark.parametrize("kind", [M3Embeddings, M3SparseEmbeddings])
async def test_no_texts_give_no_vectors(kind: Any) -> None:
    assert kind(HashingEncoder()).embed_documents([]) == []
    assert await kind(HashingEncoder()).aembed_documents([]) == []


@pytest.mark.parametrize("kind", [M3Embeddings, M3SparseEmbeddings])
def test_one_str_is_not_a_list_of_texts(kind: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="list of str"):
        kind(HashingEncoder()).embed_documents("apple")


def test_sparse_vectors_have_ascending_indices_and_a_value_each() -> None:
    vectors = M3SparseEmbeddings(HashingEncoder()).embed_documents(["b a b", ""])
    assert vectors[1] == SparseVector([], [])
    assert vectors[0].indices == sorted(set(vectors[0].indices))
    assert vectors[0].values == pytest.approx([0.3, 0.3])
    assert {type(index) for index in vectors[0].indices} == {int}
    assert {type(value) for value in vectors[0].values} == {float}


@pytest.mark.parametrize("kind", ["memory", "chroma"])
def test_the_dot_product_of_sparse_vectors_is_the_sparse_score(kind: str, tmp_path: Path, documents: list[Document]) -> None:
    index = M3Index(UnevenEncoder(), MemoryStore() if kind == "memory" else ChromaStore(tmp_path))
    index.add(documents)
    sparse = M3SparseEmbeddings(index.encoder)
    query = sparse.embed_query("red apple pie and a house")
    hits = index.search("red apple pie and a house", mode="sparse")
    for hit, document in zip(hits, sparse.embed_documents([hit.document.text for hit in hits]), strict=True):
        weights = dict(zip(query.indices, query.values, strict=True))
        pairs = zip(document.indices, document.values, strict=True)
        assert sum(weights.get(token, 0) * value for token, value in pairs) == pytest.approx(hit.score, abs=1e-6)
    assert len(hits) == 4
    index.close()


def test_the_store_shares_its_encoder_with_its_embeddings(index: M3Index) -> None:
    store = M3VectorStore(index)
    assert store.embeddings.encoder is index.encoder
    query = store.embeddings.embed_query("red apple pie")
    assert np.dot(query, index.vectors(["pie"]).dense[0]) == pytest.approx(
        index.score("red apple pie", ids=["pie"]).values[0, 0]
    )


class Suite:
    @property
    def embeddings_class(self) -> type[M3Embeddings]:
        return M3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "hashing"}


class TestUnitSuite(Suite, EmbeddingsUnitTests):
    """LangChain's own."""


class TestIntegrationSuite(Suite, EmbeddingsIntegrationTests):
    """LangChain's own."""
