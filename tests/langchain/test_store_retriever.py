"""M3VectorStore.as_retriever: every search type, settings of a call before those of the retriever."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document as LangChainDocument
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.vectorstores import VectorStoreRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

from m3retriever import InvalidFilterError, M3Index
from m3retriever.langchain import M3VectorStore, M3VectorStoreRetriever
from m3retriever.ranking import SearchMode

QUERY = "red apple pie"
MODES = get_args(SearchMode)
SEARCH_TYPES = ("similarity", "similarity_score_threshold", "mmr", *MODES)


class Recorder(BaseCallbackHandler):
    """Keeps what it is told of retrievers."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_retriever_start(self, serialized: Any, query: str, **told: Any) -> None:
        self.told.append((query, sorted(told["tags"]), told["metadata"]))

    def on_retriever_end(self, documents: Any, **told: Any) -> None:
        self.told.append(list(documents))


def ids(documents: list[LangChainDocument]) -> list[str | None]:
    return [document.id for document in documents]


def settings_for(search_type: str, **more: Any) -> dict[str, Any]:
    threshold = {"score_threshold": 0} if search_type == "similarity_score_threshold" else {}
    return {"search_type": search_type, "search_kwargs": {**threshold, **more}}


async def both(retriever: Any, *given: Any, **settings: Any) -> list[LangChainDocument]:
    """What invoke gives, having checked that ainvoke gives the same."""
    result: list[LangChainDocument] = retriever.invoke(*given, **settings)
    assert await retriever.ainvoke(*given, **settings) == result
    return result


@pytest.mark.parametrize("mode", MODES)
async def test_a_mode_is_a_search_type(any_index: M3Index, mode: SearchMode) -> None:
    store = M3VectorStore(any_index, mode="sparse")
    retriever = store.as_retriever(search_type=mode, search_kwargs={"k": 3})
    want = [hit.document.id for hit in any_index.search(QUERY, 3, mode=mode)]
    assert ids(await both(retriever, QUERY)) == want
    assert ids(store.search(QUERY, mode, k=3)) == ids(await store.asearch(QUERY, mode, k=3)) == want


async def test_similarity_searches_in_the_mode_of_the_store(index: M3Index) -> None:
    for mode in MODES:
        documents = await both(M3VectorStore(index, mode=mode).as_retriever(), QUERY)
        assert ids(documents) == [hit.document.id for hit in index.search(QUERY, 4, mode=mode)]


async def test_mmr_takes_its_own_settings(index: M3Index) -> None:
    retriever = M3VectorStore(index).as_retriever(search_type="mmr", search_kwargs={"k": 3, "lambda_mult": 0.1})
    want = [hit.document.id for hit in index.search_diverse(QUERY, 3, among=20, balance=0.1)]
    assert ids(await both(retriever, QUERY)) == want
    assert ids(await both(retriever, QUERY, lambda_mult=1)) == [hit.document.id for hit in index.search(QUERY, 3)] != want


@pytest.mark.parametrize("threshold", [0, 0.0, 0.5, 1])
async def test_a_score_threshold_may_be_a_whole_number(index: M3Index, threshold: float) -> None:
    settings = {"k": 10, "score_threshold": threshold}
    retriever = M3VectorStore(index).as_retriever(search_type="similarity_score_threshold", search_kwargs=settings)
    want = [hit.document.id for hit in index.search(QUERY) if max(hit.score, 0) >= threshold]
    assert ids(await both(retriever, QUERY)) == want
    assert ids(await both(retriever, QUERY, score_threshold=0)) == [hit.document.id for hit in index.search(QUERY)]


@pytest.mark.parametrize("search_type", SEARCH_TYPES)
async def test_filters_hold_in_every_search_type(any_index: M3Index, search_type: str) -> None:
    store = M3VectorStore(any_index)
    text = {"$contains": "apple"}
    where = {"lang": "de"}
    filtered = store.as_retriever(**settings_for(search_type, filter=where, where_document=text))
    assert ids(await both(filtered, QUERY)) == ["tart"]
    plain = store.as_retriever(**settings_for(search_type))
    assert ids(await both(plain, QUERY, filter=where, where_document=text)) == ["tart"]
    assert set(ids(await both(filtered, QUERY, filter=None))) == {"tart", "pie", "long"}
    with pytest.raises(InvalidFilterError):
        plain.invoke(QUERY, filter={"lang": {"$like": "d"}})


@pytest.mark.parametrize("search_type", SEARCH_TYPES)
async def test_settings_of_a_call_go_before_those_of_the_retriever(index: M3Index, search_type: str) -> None:
    retriever = M3VectorStore(index).as_retriever(**settings_for(search_type, k=1))
    assert len(await both(retriever, QUERY)) == 1
    assert len(await both(retriever, QUERY, k=3)) == 3
    assert retriever.batch([QUERY, "house"], k=2) == await retriever.abatch([QUERY, "house"], k=2)
    assert len(retriever.batch([QUERY], k=2)[0]) == 2
    with pytest.raises(TypeError, match="top_k"):
        retriever.invoke(QUERY, top_k=3)
    with pytest.raises(TypeError, match="top_k"):
        await retriever.ainvoke(QUERY, top_k=3)


def test_search_types_that_are_not_there_are_refused(index: M3Index) -> None:
    store = M3VectorStore(index)
    with pytest.raises(ValueError, match="search_type must be one of similarity, .*, colbert; got 'fuzzy'"):
        store.as_retriever(search_type="fuzzy")
    for settings in ({}, {"search_kwargs": {}}, {"search_kwargs": {"k": 3}}):
        with pytest.raises(ValueError, match="wants search_kwargs"):
            store.as_retriever(search_type="similarity_score_threshold", **settings)
    with pytest.raises(ValueError, match="fuzzy"):
        store.search(QUERY, "fuzzy")


async def test_search_type_and_settings_can_be_configured(index: M3Index) -> None:
    retriever = (
        M3VectorStore(index)
        .as_retriever(search_kwargs={"k": 2})
        .configurable_fields(search_type=ConfigurableField(id="how"), search_kwargs=ConfigurableField(id="settings"))
    )
    sparse = retriever.with_config(configurable={"how": "sparse", "settings": {"k": 3, "filter": {"lang": "en"}}})
    want = [hit.document.id for hit in index.search(QUERY, 3, mode="sparse", where={"lang": "en"})]
    assert ids(await both(sparse, QUERY)) == want
    assert len(retriever.invoke(QUERY)) == 2


async def test_it_is_a_vector_store_retriever_with_its_tags_and_trace(index: M3Index) -> None:
    retriever = M3VectorStore(index).as_retriever(tags=None)
    assert isinstance(retriever, VectorStoreRetriever)
    assert isinstance(retriever, M3VectorStoreRetriever)
    assert retriever.tags == ["M3VectorStore", "M3Embeddings"]
    assert M3VectorStore(index).as_retriever(tags=["mine"]).tags == ["mine"]
    recorder = Recorder()
    chain = retriever | RunnableLambda(ids)
    want = [hit.document.id for hit in index.search(QUERY, 4)]
    assert [part async for part in chain.astream(QUERY, {"callbacks": [recorder]})] == [want]
    assert list(chain.stream(QUERY, {"callbacks": [recorder]})) == [want]
    (query, tags, metadata), documents = recorder.told[:2]
    assert (query, ids(documents)) == (QUERY, want)
    assert {"M3VectorStore", "M3Embeddings"} < set(tags)
    assert metadata["ls_vector_store_provider"] == "M3VectorStore"
    assert metadata["ls_embedding_provider"] == "M3Embeddings"
    assert len(recorder.told) == 4


async def test_documents_can_be_added_through_it(index: M3Index) -> None:
    retriever = M3VectorStore(index).as_retriever()
    assert retriever.add_documents([LangChainDocument("cherry cake", id="new")]) == ["new"]
    assert await retriever.aadd_documents([LangChainDocument("plum cake")], ids=["newer"]) == ["newer"]
    assert {"new", "newer"} < set(index.ids())


@pytest.mark.parametrize("search_type", SEARCH_TYPES)
async def test_async_leaves_the_event_loop_free(slow_index: M3Index, search_type: str, beats_during: Any) -> None:
    retriever = M3VectorStore(slow_index).as_retriever(**settings_for(search_type))
    assert await beats_during(retriever.ainvoke(QUERY)) >= 5


class TestStandardSuite(RetrieversIntegrationTests):
    """LangChain's own suite for retrievers, which sets k when a retriever is made."""

    @pytest.fixture(autouse=True)
    def _use(self, any_index: M3Index) -> None:
        self.store = M3VectorStore(any_index)

    @property
    def retriever_constructor(self) -> Any:
        return lambda k=4: self.store.as_retriever(search_kwargs={"k": k})

    @property
    def retriever_query_example(self) -> str:
        return QUERY


@pytest.mark.parametrize("lost", [{"filter": {"lang": "en"}}, {"search_kwarg": {"filter": {"lang": "en"}}}, {"k": 1}])
def test_a_setting_outside_search_kwargs_is_refused(index: M3Index, lost: dict[str, Any]) -> None:
    """LangChain's own retriever takes it and forgets it: the likeliest way to lose a tenant's filter."""
    with pytest.raises(ValueError, match=next(iter(lost))):
        M3VectorStore(index).as_retriever(**lost)
