"""The Chroma collection underneath is an ordinary one: others open it, and search texts, metadata and dense vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb
import pytest
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.documents import Document
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.chroma import ChromaVectorStore

from m3retriever import HashingEncoder
from m3retriever.langchain import M3Embeddings, M3VectorStore

QUERY = "red apple pie"
DOCUMENTS = [
    Document("apple pie", id="pie", metadata={"lang": "en", "year": 2020}),
    Document("red apple tart and apple pie for all", id="tart", metadata={"lang": "de", "tags": ["sweet", "warm"]}),
    Document("red red red", id="red", metadata={"lang": "de"}),
    Document("trains leave at noon", id="far"),
]
EMBEDDINGS = M3Embeddings(HashingEncoder())


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A plain client of a folder that M3VectorStore wrote."""
    M3VectorStore.from_documents(DOCUMENTS, EMBEDDINGS, path=tmp_path).index.close()
    return chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))


def test_plain_chromadb_searches_it(client: Any) -> None:
    collection = client.get_collection("m3retriever")
    assert collection.count() == len(DOCUMENTS)
    got = collection.get(ids=["pie", "tart", "far"])
    by_id = dict(zip(got["ids"], zip(got["documents"], got["metadatas"], strict=True), strict=True))
    assert by_id["pie"] == ("apple pie", {"lang": "en", "year": 2020})
    assert by_id["tart"][1]["tags"] == ["sweet", "warm"]
    assert by_id["far"][1] is None
    assert collection.get(where={"lang": "en"})["ids"] == ["pie"]
    assert set(collection.get(where_document={"$contains": "apple"})["ids"]) == {"pie", "tart"}
    found = collection.query(query_embeddings=[EMBEDDINGS.embed_query("apple pie")], n_results=2, where={"lang": {"$ne": "fr"}})
    assert found["ids"] == [["pie", "tart"]]
    assert found["distances"][0][0] == pytest.approx(0, abs=1e-5)  # cosine, of a text with itself


def test_langchain_chroma_searches_it_and_gives_the_same_documents(client: Any, tmp_path: Path) -> None:
    chroma = Chroma(collection_name="m3retriever", client=client, embedding_function=EMBEDDINGS)
    theirs = chroma.similarity_search(QUERY, k=3)
    assert {document.id for document in chroma.similarity_search(QUERY, k=3, filter={"lang": "de"})} == {"tart", "red"}
    assert [document.id for document in chroma.similarity_search(QUERY, where_document={"$contains": "noon"})] == ["far"]
    assert chroma.get_by_ids(["pie"]) == [DOCUMENTS[0]]
    by_vector = chroma.similarity_search_by_vector(EMBEDDINGS.embed_query(QUERY), k=3)
    store = M3VectorStore.open(tmp_path, model=HashingEncoder())
    assert theirs == by_vector == store.similarity_search(QUERY, k=3, mode="dense")
    assert chroma.max_marginal_relevance_search(QUERY, k=2, filter={"lang": "de"})
    store.index.close()


def test_llama_indexs_chroma_store_searches_it(client: Any) -> None:
    theirs = ChromaVectorStore(chroma_collection=client.get_collection("m3retriever"))
    filters = MetadataFilters(filters=[MetadataFilter(key="lang", value="de")])
    found = theirs.query(VectorStoreQuery(query_embedding=EMBEDDINGS.embed_query(QUERY), similarity_top_k=5, filters=filters))
    assert found.ids == ["tart", "red"]
    assert [node.get_content() for node in found.nodes] == ["red apple tart and apple pie for all", "red red red"]
    assert found.nodes[1].metadata == {"lang": "de"}


def test_what_langchain_chroma_adds_is_found_in_every_mode(client: Any, tmp_path: Path) -> None:
    chroma = Chroma(collection_name="m3retriever", client=client, embedding_function=EMBEDDINGS)
    chroma.add_documents([Document("cherry cake", metadata={"lang": "fr"})], ids=["cake"])
    chroma.delete(["far"])
    store = M3VectorStore.open(tmp_path, model=HashingEncoder())
    for mode in ("hybrid", "dense", "sparse", "colbert"):
        [best] = store.similarity_search("cherry cake", 1, mode=mode)
        assert best == Document("cherry cake", id="cake", metadata={"lang": "fr"})
    assert store.index.ids() == ["cake", "pie", "red", "tart"]
    store.index.close()


def test_a_collection_of_langchain_chroma_becomes_ours(tmp_path: Path) -> None:
    chroma = Chroma.from_documents(
        DOCUMENTS[:3],
        EMBEDDINGS,
        ids=["pie", "tart", "red"],
        collection_name="theirs",
        persist_directory=str(tmp_path),
        client_settings=Settings(anonymized_telemetry=False, is_persistent=True, persist_directory=str(tmp_path)),
        collection_configuration={"hnsw": {"space": "cosine"}},
    )
    assert chroma.get_by_ids(["pie"])
    store = M3VectorStore.open(tmp_path, model=HashingEncoder(), collection="theirs")
    assert store.similarity_search(QUERY, 1, mode="colbert")[0].id == "tart"
    assert store.get_by_ids(["pie", "tart", "red"]) == DOCUMENTS[:3]
    store.index.close()
