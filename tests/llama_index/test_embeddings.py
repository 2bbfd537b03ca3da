"""M3Embedding, M3SparseEmbedding and StoreEmbedding: the encoder's vectors as LlamaIndex wants them."""

from typing import Any

import numpy as np
import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, SparseEmbeddingEndEvent
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from m3retriever import HashingEncoder, InvalidArgumentError
from m3retriever.llama_index import M3Embedding, M3SparseEmbedding, StoreEmbedding

TEXTS = ["red apple pie", "a train", "", "apple apple car"]
ENCODER = HashingEncoder()
VECTORS = ENCODER.encode_documents(TEXTS)


def test_dense_vectors_are_the_encoders_as_real_floats() -> None:
    model = M3Embedding(ENCODER)
    vectors = model.get_text_embedding_batch(TEXTS)
    assert vectors == VECTORS.dense.tolist()
    assert {type(value) for vector in vectors for value in vector} == {float}
    assert model.get_text_embedding(TEXTS[0]) == vectors[0]
    assert model.get_query_embedding(TEXTS[0]) == ENCODER.encode_queries(TEXTS[:1]).dense[0].tolist()
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-6)


def test_sparse_vectors_are_the_encoders_as_plain_dicts() -> None:
    model = M3SparseEmbedding(ENCODER)
    rows = model.get_text_embedding_batch(TEXTS)
    assert rows == [VECTORS.sparse_row(row) for row in range(len(TEXTS))]
    assert {(type(token), type(weight)) for row in rows for token, weight in row.items()} == {(int, float)}
    assert rows[2] == {}
    assert model.get_text_embedding(TEXTS[0]) == model.get_query_embedding(TEXTS[0]) == rows[0]


@pytest.mark.parametrize("kind", [M3Embedding, M3SparseEmbedding])
async def test_async_gives_what_sync_gives(kind: Any) -> None:
    model = kind(ENCODER, embed_batch_size=3)
    assert await model.aget_text_embedding_batch(TEXTS) == model.get_text_embedding_batch(TEXTS)
    assert await model.aget_text_embedding(TEXTS[0]) == model.get_text_embedding(TEXTS[0])
    assert await model.aget_query_embedding(TEXTS[0]) == model.get_query_embedding(TEXTS[0])


@pytest.mark.parametrize("kind", [M3Embedding, M3SparseEmbedding])
@pytest.mark.parametrize("method", ["aget_text_embedding", "aget_query_embedding", "aget_text_embedding_batch"])
async def test_async_leaves_the_event_loop_free(waiting: Any, kind: Any, method: str) -> None:
    text: Any = TEXTS if method.endswith("batch") else TEXTS[0]
    assert len(await waiting.during(getattr(kind(waiting), method)(text))) > 0


@pytest.mark.parametrize("kind", [M3Embedding, M3SparseEmbedding])
def test_a_batch_is_encoded_in_one_call(counting: Any, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    sizes: list[int] = []
    encode = counting.encode_documents
    monkeypatch.setattr(counting, "encode_documents", lambda texts: sizes.append(len(texts)) or encode(texts))
    assert len(kind(counting).get_text_embedding_batch(["text"] * 300)) == 300
    assert sizes == [256, 44]


@pytest.mark.parametrize("kind", [M3Embedding, M3SparseEmbedding])
def test_the_model_is_named_and_may_be_given_by_name(kind: Any) -> None:
    by_name = kind("hashing", embed_batch_size=7)
    assert (by_name.model_name, by_name.embed_batch_size) == (ENCODER.name, 7)
    assert by_name.get_text_embedding(TEXTS[0]) == kind(ENCODER).get_text_embedding(TEXTS[0])
    assert by_name.to_payload()["model_name"] == ENCODER.name
    assert by_name.to_payload()["class_name"] == kind.__name__


def test_the_sparse_similarity_is_the_dot_product() -> None:
    model = M3SparseEmbedding(ENCODER)
    assert model.similarity({1: 0.5, 2: 2.0}, {2: 0.25, 3: 1.0, 4: 9.0}) == 0.5  # the cosine would be 0.026
    assert model.similarity({}, {1: 1.0}) == 0.0
    query, text = model.get_query_embedding("red apple"), model.get_text_embedding("red apple pie")
    assert model.similarity(query, text) == model.similarity(text, query) == pytest.approx(2 * 0.3 * 0.3)


@pytest.mark.model
@pytest.mark.parametrize("kind", [M3Embedding, M3SparseEmbedding])
def test_a_lone_surrogate_is_replaced_as_in_a_search(kind: Any) -> None:
    """A tokenizer refuses one, so encoders of a model clean their texts; HashingEncoder has no tokenizer."""
    model = kind("mini")
    assert (
        model.get_query_embedding("apple \ud800") == model.get_query_embedding("apple ?") != model.get_query_embedding("apple")
    )
    assert model.get_text_embedding_batch(["apple \ud800"]) == model.get_text_embedding_batch(["apple ?"])


def test_nodes_are_embedded_in_a_pipeline_step() -> None:
    [node] = M3Embedding(ENCODER)([TextNode(text=TEXTS[0])])
    assert node.embedding == VECTORS.dense[0].tolist()


def test_handlers_and_caches_of_llama_index_work(recorder: Any) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    cache = SimpleKVStore()
    model = M3Embedding(ENCODER, callback_manager=CallbackManager([debug]), embeddings_cache=cache)
    first = model.get_text_embedding(TEXTS[0])
    assert model.get_text_embedding(TEXTS[0]) == first
    assert len(cache.get_all("embeddings")) == 1
    [_, (_, end)] = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert end.payload is not None
    assert end.payload[EventPayload.EMBEDDINGS] == [first]
    assert [event.embeddings for event in recorder.of(EmbeddingEndEvent)] == [[first], [first]]
    sparse = M3SparseEmbedding(ENCODER).get_text_embedding(TEXTS[0])
    assert [event.embeddings for event in recorder.of(SparseEmbeddingEndEvent)] == [[sparse]]


async def test_the_stand_in_gives_every_text_the_same_number() -> None:
    model = StoreEmbedding()
    assert model.get_text_embedding_batch(TEXTS) == [[1.0]] * len(TEXTS)
    assert await model.aget_text_embedding_batch(TEXTS) == [[1.0]] * len(TEXTS)
    vector = model.get_text_embedding("a")
    vector.append(2.0)
    assert model.get_text_embedding("a") == [1.0]


async def test_the_stand_in_refuses_to_embed_a_query() -> None:
    with pytest.raises(InvalidArgumentError, match="M3Embedding"):
        StoreEmbedding().get_query_embedding("apple")
    with pytest.raises(InvalidArgumentError, match="M3Embedding"):
        await StoreEmbedding().aget_query_embedding("apple")
