"""M3VectorStore under LlamaIndex's own machinery: VectorStoreIndex, IngestionPipeline, query engines, evaluation."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever, VectorIndexRetriever
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import IndexNode, MetadataMode, QueryBundle, TextNode, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.chroma import ChromaVectorStore

from m3retriever import ChromaStore, Document, HashingEncoder, InvalidArgumentError, M3Index
from m3retriever.llama_index import M3Embedding, M3NodeWithScore, M3Rerank, M3Retriever, M3VectorStore

QUERY = "red apple pie"
DOCUMENTS = [
    LlamaDocument(text="Apple pie is baked. It is warm.", id_="pie", metadata={"lang": "en", "tags": ["sweet", "warm"]}),
    LlamaDocument(text="A red car stands before the old red house.", id_="car", metadata={"lang": "en", "page": None}),
    LlamaDocument(text="Red apple tart and apple pie for all.", id_="tart", metadata={"lang": "de"}),
    LlamaDocument(text="Trains leave at noon.", id_="train", metadata={"lang": "en"}),
]
FILTERS = MetadataFilters(filters=[MetadataFilter(key="lang", value="en")])


class Sentences(TransformComponent):
    """Splits at full stops: a splitter that downloads nothing."""

    def __call__(self, nodes: Any, **kwargs: Any) -> Any:
        return [
            TextNode(text=part.strip(), metadata=node.metadata, relationships={"1": node.as_related_node_info()})
            for node in nodes
            for part in node.get_content().split(".")
            if part.strip()
        ]


def built(index: M3Index, documents: list[LlamaDocument] | None = None, **options: Any) -> VectorStoreIndex:
    store = M3VectorStore(index)
    return VectorStoreIndex.from_documents(
        DOCUMENTS if documents is None else documents,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=store.embed_model,
        transformations=[Sentences()],
        **options,
    )


def texts(index: M3Index) -> list[str]:
    return sorted(document.text for document in index.get(index.ids()))


def sources(nodes: Any) -> set[str]:
    return {node.node.ref_doc_id for node in nodes}


@pytest.fixture
def loop() -> Iterator[None]:
    """An event loop for LlamaIndex's `use_async` outside of one, which else makes one and never closes it."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    yield
    own.close()
    asyncio.set_event_loop(None)


# -- VectorStoreIndex --------------------------------------------------------------------------------


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("use_async", [False, True])
def test_from_documents_encodes_every_text_once(empty_index: M3Index, counting: Any, use_async: bool) -> None:
    built(empty_index, use_async=use_async)
    assert len(empty_index) == counting.documents == 5
    assert sources(built(empty_index).as_retriever(similarity_top_k=9).retrieve(QUERY)) == {
        "pie",
        "car",
        "tart",
        "train",
    }


def test_from_vector_store_finds_what_is_there(empty_index: M3Index) -> None:
    built(empty_index)
    store = M3VectorStore(empty_index)
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    want = empty_index.search(QUERY, 2, mode="dense")
    assert [(node.node_id, node.score) for node in index.as_retriever().retrieve(QUERY)] == [
        (hit.document.id, hit.score) for hit in want
    ]


async def test_documents_are_inserted_updated_and_deleted(empty_index: M3Index) -> None:
    index = built(empty_index, DOCUMENTS[:1])
    index.insert(DOCUMENTS[1])
    await index.ainsert(DOCUMENTS[3])
    assert len(empty_index) == 4
    index.update_ref_doc(LlamaDocument(text="Pears. Plums.", id_="pie"))
    await index.aupdate_ref_doc(LlamaDocument(text="Busses leave.", id_="train"))
    assert texts(empty_index) == ["A red car stands before the old red house", "Busses leave", "Pears", "Plums"]
    index.delete_ref_doc("pie", delete_from_docstore=True)
    await index.adelete_ref_doc("train", delete_from_docstore=True)
    index.delete_ref_doc("unknown")
    assert texts(empty_index) == ["A red car stands before the old red house"]


async def test_a_refresh_stores_only_what_changed(empty_index: M3Index, counting: Any) -> None:
    index = built(empty_index)
    encoded = counting.documents
    changed = [DOCUMENTS[0], LlamaDocument(text="A blue car.", id_="car"), LlamaDocument(text="New.", id_="new")]
    assert index.refresh_ref_docs(changed) == [False, True, True]
    assert counting.documents == encoded + 2
    assert await index.arefresh_ref_docs(changed) == [False, False, False]
    assert counting.documents == encoded + 2
    assert {"A blue car", "New"} < set(texts(empty_index))
    assert "A red car stands before the old red house" not in texts(empty_index)


async def test_nodes_are_inserted_and_deleted(empty_index: M3Index) -> None:
    index = built(empty_index, [])
    nodes = [TextNode(id_="a", text="apple"), TextNode(id_="b", text="pie"), TextNode(id_="c", text="car")]
    index.insert_nodes(nodes[:2])
    await index.ainsert_nodes(nodes[2:])
    assert empty_index.ids() == ["a", "b", "c"]
    assert all(node.embedding is None for node in nodes)
    index.delete_nodes(["a", "unknown"])
    await index.adelete_nodes(["b"])
    assert empty_index.ids() == ["c"]
    index.delete_nodes([])
    assert empty_index.ids() == ["c"]


@pytest.mark.parametrize("mode", ["default", "sparse", "text_search", "hybrid", "mmr"])
def test_a_retriever_of_the_index_takes_every_setting(empty_index: M3Index, counting: Any, mode: str) -> None:
    index = built(empty_index)
    counting.documents = counting.queries = 0
    retriever = index.as_retriever(similarity_top_k=5, vector_store_query_mode=mode, filters=FILTERS, doc_ids=["pie", "tart"])
    found = retriever.retrieve(QUERY)
    assert sources(found) == {"pie"}
    assert asyncio.run(retriever.aretrieve(QUERY)) == found
    assert (counting.documents, counting.queries) == (0, 2)  # the query is encoded once a search, and nothing else is


@pytest.mark.parametrize("key", ["ref_doc_id", "doc_id", "document_id"])
def test_a_filter_by_llama_indexs_own_names_finds_a_documents_nodes(empty_index: M3Index, key: str) -> None:
    index = built(empty_index)
    for value, want in (("pie", {"Apple pie is baked", "It is warm"}), ("unknown", set())):
        filters = MetadataFilters(filters=[MetadataFilter(key=key, value=value)])
        assert {node.get_content() for node in index.as_retriever(similarity_top_k=9, filters=filters).retrieve(QUERY)} == want


def test_the_index_drops_the_texts_of_a_transformed_query_and_m3retriever_searches_them(empty_index: M3Index) -> None:
    """LlamaIndex only embeds these texts, where a store wants embeddings; ours does not, and its query has one text."""
    index, bundle = built(empty_index), QueryBundle("trains leave", custom_embedding_strs=["red apple tart"])
    for retriever in (
        index.as_retriever(similarity_top_k=1),
        index.as_retriever(similarity_top_k=1, vector_store_query_mode="hybrid"),
    ):
        assert sources(retriever.retrieve(bundle)) == sources(asyncio.run(retriever.aretrieve(bundle))) == {"train"}
    assert sources(M3Retriever(index=empty_index, k=1).retrieve(bundle)) == {"tart"}


WAITS: list[dict[str, Any]] = [
    {},
    {"mode": "sparse"},
    {"mode": "hybrid"},
    {"mode": "hybrid", "sparse_top_k": 2},
    {"mode": "mmr"},
    {"query_str": None, "query_embedding": HashingEncoder().encode_queries([QUERY]).dense[0].tolist()},
]


@pytest.mark.parametrize("fields", WAITS, ids=str)
async def test_aquery_leaves_the_event_loop_free_while_candidates_are_scored(
    waiting_store: Any, fields: dict[str, Any]
) -> None:
    store = M3VectorStore(M3Index(HashingEncoder(), waiting_store))
    store.add(copies(DOCUMENTS))
    query = VectorStoreQuery(**{"query_str": QUERY, "similarity_top_k": 2, **fields})
    assert (await waiting_store.during(store.aquery(query))).ids == store.query(query).ids != []


def test_options_of_the_store_come_through_the_index(empty_index: M3Index) -> None:
    index = built(empty_index)
    want = [hit.document.id for hit in empty_index.search(QUERY, 3, mode="colbert")]
    found = index.as_retriever(similarity_top_k=3, vector_store_kwargs={"mode": "colbert"}).retrieve(QUERY)
    assert [node.node_id for node in found] == want
    with pytest.raises(InvalidArgumentError, match="colour"):
        index.as_retriever(vector_store_kwargs={"colour": 1}).retrieve(QUERY)


def test_a_query_engine_of_the_index_answers_from_whole_nodes(empty_index: M3Index) -> None:
    engine = built(empty_index).as_query_engine(llm=MockLLM(), similarity_top_k=2, vector_store_query_mode="hybrid")
    want = [hit.document.id for hit in empty_index.search(QUERY, 2)]
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert [node.node_id for node in response.source_nodes] == want
        assert "Red apple tart and apple pie for all" in str(response)
        assert "lang: de" in str(response)
        assert "_node_content" not in str(response)


def test_an_index_of_index_nodes_leads_on(empty_index: M3Index) -> None:
    store = M3VectorStore(empty_index)
    leading = IndexNode(text="all about pies", index_id="pies", obj=TextNode(text="the recipe", id_="recipe"))
    index = VectorStoreIndex(
        [leading], storage_context=StorageContext.from_defaults(vector_store=store), embed_model=store.embed_model
    )
    assert [node.get_content() for node in index.as_retriever().retrieve("pies")] == ["the recipe"]
    assert [node.get_content() for node in M3Retriever(index=empty_index).retrieve("pies")] == ["the recipe"]


def test_index_nodes_among_text_nodes_are_searched_together_as_the_docstring_says(memory_index: M3Index) -> None:
    store = M3VectorStore(memory_index)
    nodes = [TextNode(id_="text", text="apple one"), IndexNode(id_="index", text="apple two", index_id="sub")]
    index = VectorStoreIndex(
        nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=store.embed_model
    )
    assert [node.node_id for node in index.as_retriever(similarity_top_k=9).retrieve(QUERY)] == ["index"]  # LlamaIndex's doing
    for retriever in (VectorIndexRetriever(index, similarity_top_k=9), M3Retriever(index=memory_index)):
        assert {node.node_id for node in retriever.retrieve(QUERY)} == {"text", "index"}


def test_nodes_kept_in_the_docstore_too_are_found(empty_index: M3Index) -> None:
    found = built(empty_index, store_nodes_override=True).as_retriever(similarity_top_k=9).retrieve(QUERY)
    assert len(found) == len(empty_index) == 5


# -- pipeline --------------------------------------------------------------------------------------


def pipeline(index: M3Index, docstore: SimpleDocumentStore, **options: Any) -> IngestionPipeline:
    store = M3VectorStore(index)
    steps = [Sentences(), store.embed_model]
    return IngestionPipeline(transformations=steps, vector_store=store, docstore=docstore, **options)


def copies(documents: list[LlamaDocument]) -> list[LlamaDocument]:
    return [document.model_copy(deep=True) for document in documents]


async def test_a_pipeline_run_twice_leaves_no_duplicates_and_replaces_what_changed(empty_index: M3Index, counting: Any) -> None:
    docstore = SimpleDocumentStore()
    assert len(pipeline(empty_index, docstore).run(documents=copies(DOCUMENTS))) == 5
    assert pipeline(empty_index, docstore).run(documents=copies(DOCUMENTS)) == []
    assert await pipeline(empty_index, docstore).arun(documents=copies(DOCUMENTS)) == []
    assert len(empty_index) == counting.documents == 5
    changed = [LlamaDocument(text="Plum pie is cold.", id_="pie"), *copies(DOCUMENTS[1:])]
    await pipeline(empty_index, docstore).arun(documents=changed)
    assert "Plum pie is cold" in texts(empty_index)
    assert "It is warm" not in texts(empty_index)
    assert len(empty_index) == 4


def test_a_pipeline_deletes_what_is_gone(empty_index: M3Index) -> None:
    docstore, options = SimpleDocumentStore(), {"docstore_strategy": DocstoreStrategy.UPSERTS_AND_DELETE}
    pipeline(empty_index, docstore, **options).run(documents=copies(DOCUMENTS))
    pipeline(empty_index, docstore, **options).run(documents=copies(DOCUMENTS[:1]))
    assert texts(empty_index) == ["Apple pie is baked", "It is warm"]


def test_a_pipeline_that_splits_nothing_stores_whole_documents_and_deletes_them(empty_index: M3Index) -> None:
    store, docstore = M3VectorStore(empty_index), SimpleDocumentStore()

    def run(documents: list[LlamaDocument]) -> None:
        IngestionPipeline(
            transformations=[store.embed_model],
            vector_store=store,
            docstore=docstore,
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        ).run(documents=copies(documents))

    run(DOCUMENTS)
    run([LlamaDocument(text="Plum pie", id_="pie"), DOCUMENTS[1]])
    assert empty_index.ids() == ["car", "pie"]
    assert texts(empty_index) == [DOCUMENTS[1].text, "Plum pie"]


def test_llama_indexs_own_splitter_works(empty_index: M3Index) -> None:
    splitter = SentenceSplitter(chunk_size=20, chunk_overlap=0, tokenizer=str.split, chunking_tokenizer_fn=lambda text: [text])
    store = M3VectorStore(empty_index)
    long = LlamaDocument(text="apple " * 50, id_="long", metadata={"lang": "en"})
    nodes = IngestionPipeline(transformations=[splitter, store.embed_model], vector_store=store).run(documents=[long])
    assert len(nodes) > 2
    back = store.get_nodes([node.node_id for node in nodes])
    assert [(node.hash, node.relationships) for node in back] == [(node.hash, node.relationships) for node in nodes]


# -- query engines, fusion, evaluation ----------------------------------------------------------------


def test_a_reranker_in_a_query_engine_keeps_the_scores(empty_index: M3Index) -> None:
    built(empty_index)
    engine = RetrieverQueryEngine.from_args(
        M3Retriever(index=empty_index, mode="sparse"),
        llm=MockLLM(),
        node_postprocessors=[M3Rerank(empty_index.encoder, top_n=2, mode="colbert")],
    )
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert len(response.source_nodes) == 2
        for node in response.source_nodes:
            assert isinstance(node, M3NodeWithScore)
            assert node.score == node.scores["colbert"]


@pytest.mark.parametrize("mode", ["simple", "reciprocal_rerank", "relative_score", "dist_based_score"])
@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("use_async", [False, True])
def test_fusion_of_two_retrievers_meets_the_same_nodes(empty_index: M3Index, mode: Any, use_async: bool) -> None:
    index = built(empty_index)
    fusion = QueryFusionRetriever(
        [M3Retriever(index=empty_index, k=9), index.as_retriever(similarity_top_k=9)],
        llm=MockLLM(),
        num_queries=1,
        mode=mode,
        similarity_top_k=9,
        use_async=use_async,
    )
    found = fusion.retrieve(QUERY)
    assert sorted(node.node_id for node in found) == empty_index.ids()  # each once: the hashes agree
    assert found[0].node.ref_doc_id == "tart"


async def test_the_evaluator_measures_both_retrievers(empty_index: M3Index) -> None:
    index = built(empty_index)
    wanted = [hit.document.id for hit in empty_index.search(QUERY, 1)]
    for retriever in (M3Retriever(index=empty_index), index.as_retriever()):
        evaluator = RetrieverEvaluator.from_metric_names(["mrr", "hit_rate"], retriever=retriever)
        result = await evaluator.aevaluate(query=QUERY, expected_ids=wanted)
        assert result.metric_vals_dict == {"mrr": 1.0, "hit_rate": 1.0}
        result = await evaluator.aevaluate(query=QUERY, expected_ids=["unknown"])
        assert result.metric_vals_dict == {"mrr": 0.0, "hit_rate": 0.0}


# -- LlamaIndex's own Chroma store ---------------------------------------------------------------------

ENCODER = HashingEncoder()


def theirs(path: Path) -> ChromaVectorStore:
    collection = chromadb.PersistentClient(str(path)).get_or_create_collection(
        "m3retriever", configuration={"hnsw": {"space": "cosine"}}
    )
    return ChromaVectorStore(chroma_collection=collection)


def test_llama_indexs_chroma_store_reads_filters_and_deletes_nodes_of_ours(tmp_path: Path) -> None:
    with M3Index(ENCODER, ChromaStore(tmp_path)) as index:
        built(index)
        nodes = M3VectorStore(index).get_nodes()
    store = theirs(tmp_path)
    back = sorted(store.get_nodes(None), key=lambda node: node.node_id)
    assert [node.to_dict() for node in back] == [node.to_dict() for node in nodes]
    german = MetadataFilters.from_dicts([{"key": "lang", "value": "de"}])
    vector = M3Embedding(ENCODER).get_query_embedding(QUERY)
    [tart] = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=5, filters=german)).nodes or []
    assert (tart.metadata, tart.ref_doc_id) == ({"lang": "de"}, "tart")
    store.delete("pie")
    with M3Index(ENCODER, ChromaStore(tmp_path)) as index:
        assert {node.ref_doc_id for node in M3VectorStore(index).get_nodes()} == {"car", "tart", "train"}


def test_a_collection_of_llama_indexs_chroma_store_gains_the_other_modes(tmp_path: Path) -> None:
    own = [node for node in Sentences()(copies(DOCUMENTS)) if "tags" not in node.metadata]  # which it cannot store
    for node in own:  # by default LlamaIndex encodes the metadata too, but stores the text without it: no vectors of the text
        node.excluded_embed_metadata_keys = list(node.metadata)
    VectorStoreIndex(
        own, storage_context=StorageContext.from_defaults(vector_store=theirs(tmp_path)), embed_model=M3Embedding(ENCODER)
    )
    with M3Index(ENCODER, ChromaStore(tmp_path)) as index:
        store = M3VectorStore(index)
        back = {node.node_id: node for node in store.get_nodes()}
        assert {id: (node.hash, node.metadata) for id, node in back.items()} == {
            node.node_id: (node.hash, node.metadata) for node in own
        }
        result = store.query(VectorStoreQuery(query_str=QUERY, mode=VectorStoreQueryMode.HYBRID, similarity_top_k=1))
        assert [node.ref_doc_id for node in result.nodes or []] == ["tart"]


def test_a_filter_of_llama_index_holds_for_documents_of_langchain_too(memory_index: M3Index) -> None:
    M3VectorStore(memory_index).add([TextNode(id_="llama", text="red apple", metadata={"lang": "en"})])
    memory_index.add([Document("chain", "red pie", {"lang": "en"}), Document("other", "red", {"lang": "de"})])  # as LangChain's
    found = M3VectorStore(memory_index).query(VectorStoreQuery(query_str=QUERY, similarity_top_k=9, filters=FILTERS))
    texts = {node.get_content(MetadataMode.LLM) for node in found.nodes or []}
    assert texts == {"lang: en\n\nred apple", "lang: en\n\nred pie"}
