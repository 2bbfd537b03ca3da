"""One index on disk under both frameworks: what goes in through one is found through the other, and by Chroma's own clients."""

import chromadb
import pytest
from chromadb.config import Settings
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

from m3retriever import HashingEncoder, M3Index, langchain, llama_index

ENCODER = HashingEncoder()
MODES = ("hybrid", "dense", "sparse", "colbert")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index"


def opened(path):
    return M3Index.open(path, model=ENCODER)


def node(id, text, **metadata):
    relationships = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="source")}
    return TextNode(id_=id, text=text, metadata=metadata, relationships=relationships, excluded_llm_metadata_keys=["page"])


def by_llama_index(index, text, **query):
    return llama_index.M3VectorStore(index).query(VectorStoreQuery(query_str=text, similarity_top_k=5, **query))


def test_a_document_of_langchain_is_found_through_llama_index_in_another_session(path):
    with opened(path) as index:
        langchain.M3VectorStore(index).add_documents(
            [
                LangChainDocument("the red fox", id="fox", metadata={"tenant": "a"}),
                LangChainDocument("a blue whale", id="whale"),
            ]
        )
    with opened(path) as index:
        found = by_llama_index(index, "red fox")
        assert found.ids[0] == "fox"
        assert (found.nodes[0].text, found.nodes[0].metadata) == ("the red fox", {"tenant": "a"})
        for mode in MODES:
            [first, *_] = llama_index.M3Retriever(index=index, mode=mode).retrieve("red fox")
            assert (first.node_id, first.node.text) == ("fox", "the red fox")


def test_a_node_of_llama_index_is_found_through_langchain_in_another_session(path):
    went = node("fox", "the red fox", tenant="a", page=3)
    with opened(path) as index:
        llama_index.M3VectorStore(index).add([went, node("whale", "a blue whale")])
    with opened(path) as index:
        store = langchain.M3VectorStore(index)
        for mode in MODES:
            [first, *_] = store.similarity_search("red fox", mode=mode)
            assert (first.id, first.page_content) == ("fox", "the red fox")
        assert first.metadata["tenant"] == "a"
        assert first.metadata["page"] == 3
        assert not [key for key in first.metadata if key.startswith("_node")]
        [again, *_] = llama_index.M3Retriever(index=index).retrieve("red fox")
        assert again.node.hash == went.hash
        assert again.node == went


def test_both_give_the_same_scores_to_the_last_bit(path):
    with opened(path) as index:
        langchain.M3VectorStore(index).add_texts(["the red fox", "a blue whale", "red wine"], ids=["a", "b", "c"])
        theirs = {one.node_id: one.score for one in llama_index.M3Retriever(index=index).retrieve("red fox")}
        ours = {one.id: score for one, score in langchain.M3VectorStore(index).similarity_search_with_score("red fox")}
        assert ours == theirs == {hit.document.id: hit.score for hit in index.search("red fox")}


def test_each_deletes_and_replaces_what_the_other_added(path):
    with opened(path) as index:
        chain, llama = langchain.M3VectorStore(index), llama_index.M3VectorStore(index)
        chain.add_texts(["the red fox"], ids=["fox"])
        llama.add([node("whale", "a blue whale"), node("fox", "a red fox, again", tenant="b")])
        assert chain.get_by_ids(["fox"])[0].page_content == "a red fox, again"
        chain.delete(["whale"])
        assert llama.get_nodes(["whale"]) == []
        chain.add_texts(["a fox of langchain's"], [{"tenant": "c"}], ids=["fox"])
        [back] = llama.get_nodes(["fox"])
        assert (back.text, back.metadata) == ("a fox of langchain's", {"tenant": "c"})
        llama.delete_nodes(["fox"])
        assert len(index) == 0


def test_the_collection_is_an_ordinary_one_for_every_other_client(path):
    from langchain_chroma import Chroma
    from llama_index.vector_stores.chroma import ChromaVectorStore

    with opened(path) as index:
        langchain.M3VectorStore(index).add_texts(["the red fox"], [{"tenant": "a"}], ids=["fox"])
        llama_index.M3VectorStore(index).add([node("whale", "a blue whale", tenant="b")])
    client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    collection = client.get_collection("m3retriever", embedding_function=None)
    assert sorted(collection.get(where={"tenant": {"$in": ["a", "b"]}})["documents"]) == ["a blue whale", "the red fox"]
    [[nearest, _]] = collection.query(ENCODER.encode_queries(["red fox"]).dense, n_results=2)["ids"]
    assert nearest == "fox"
    theirs = Chroma(client=client, collection_name="m3retriever", embedding_function=langchain.M3Embeddings(ENCODER))
    assert [one.page_content for one in theirs.similarity_search("whale", k=1)] == ["a blue whale"]
    query = VectorStoreQuery(query_embedding=ENCODER.encode_queries(["blue whale"]).dense[0].tolist(), similarity_top_k=2)
    found = ChromaVectorStore(chroma_collection=collection).query(query)
    assert (found.ids[0], found.nodes[0].get_content(), found.nodes[0].metadata["tenant"]) == ("whale", "a blue whale", "b")
    client.close()
