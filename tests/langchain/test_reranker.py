"""M3Reranker: any retriever's documents in the order of their scores, as copies."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from m3retriever import HashingEncoder, InvalidArgumentError, M3Index, Profile, Weights, rerank
from m3retriever.langchain import M3Reranker, M3Retriever, M3VectorStore
from m3retriever.ranking import SearchMode

QUERY = "red apple pie"
MODES = get_args(SearchMode)


class Passage(Document):
    """A document of someone's own class."""

    page: int = 0


class CompressingRetriever(BaseRetriever):
    """A retriever with a compressor behind it, as apps build them."""

    first: BaseRetriever
    compressor: BaseDocumentCompressor

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        documents = self.first.invoke(query, {"callbacks": run_manager.get_child()})
        return list(self.compressor.compress_documents(documents, query, callbacks=run_manager.get_child()))

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        documents = await self.first.ainvoke(query, {"callbacks": run_manager.get_child()})
        return list(await self.compressor.acompress_documents(documents, query, callbacks=run_manager.get_child()))


@pytest.fixture
def passages() -> list[Document]:
    return [
        Document("trains leave at noon", id="far", metadata={"lang": "en"}),
        Document("apple pie", id="pie", metadata={"tags": ["sweet"], "nested": {"page": 1}}),
        Document("red apple tart and apple pie for all", metadata={"score": 7}),
        Document("red red red", id="red"),
    ]


def reranker(**settings: Any) -> M3Reranker:
    return M3Reranker(model=HashingEncoder(), **settings)


@pytest.mark.parametrize("mode", MODES)
async def test_documents_come_in_the_order_of_rerank_with_its_score(passages: list[Document], mode: SearchMode) -> None:
    want = rerank(HashingEncoder(), QUERY, [document.page_content for document in passages], mode=mode)
    documents = reranker(mode=mode).compress_documents(passages, QUERY)
    assert [document.page_content for document in documents] == [passages[one.place].page_content for one in want]
    assert [document.metadata["relevance_score"] for document in documents] == [one.score for one in want]
    assert {type(document.metadata["relevance_score"]) for document in documents} == {float}
    assert await reranker(mode=mode).acompress_documents(passages, QUERY) == documents
    assert [document.metadata["relevance_score"] for document in documents] == sorted((one.score for one in want), reverse=True)


def test_settings_count(passages: list[Document]) -> None:
    texts = [document.page_content for document in passages]
    for settings in (
        {"weights": (0, 1, 0)},
        {"weights": {"colbert": 1.0}},
        {"threshold": 0.4},
        {"profile": "keyword"},
        {"profile": Profile(weights=Weights(0, 0, 1), thresholds={"hybrid": 0.5}), "threshold": "profile"},
    ):
        want = rerank(HashingEncoder(), QUERY, texts, **settings)  # type: ignore[arg-type]
        got = [document.metadata["relevance_score"] for document in reranker(**settings).compress_documents(passages, QUERY)]
        assert got == [one.score for one in want]
        assert got != [one.score for one in rerank(HashingEncoder(), QUERY, texts)]
    assert len(reranker(top_n=2).compress_documents(passages, QUERY)) == 2
    assert len(reranker(top_n=9).compress_documents(passages, QUERY)) == len(passages)


def test_scores_of_every_mode_are_there_when_asked_for(passages: list[Document]) -> None:
    [best, *_] = reranker(return_scores=True).compress_documents(passages, QUERY)
    [want, *_] = rerank(HashingEncoder(), QUERY, [document.page_content for document in passages])
    assert best.metadata == {"score": 7, "relevance_score": want.score, "scores": want.scores, "ranks": want.ranks}
    assert "scores" not in reranker().compress_documents(passages, QUERY)[0].metadata


def test_the_callers_documents_are_never_touched_nor_handed_back(passages: list[Document]) -> None:
    copies = [document.model_copy(deep=True) for document in passages]
    for document in reranker(return_scores=True).compress_documents(passages, QUERY):
        assert all(document is not passage for passage in passages)
        document.metadata.get("tags", []).append("changed")
        document.metadata.get("nested", {})["page"] = 2
        document.metadata["more"] = 1
        document.page_content = "changed"
    assert passages == copies


def test_ids_metadata_and_classes_are_kept(passages: list[Document]) -> None:
    by_text = {document.page_content: document for document in reranker().compress_documents(passages, QUERY)}
    for passage in passages:
        kept = by_text[passage.page_content]
        assert kept.id == passage.id
        assert passage.metadata.items() <= kept.metadata.items()
    [own] = reranker().compress_documents([Passage("apple", page=3, id="a")], QUERY)
    assert isinstance(own, Passage)
    assert own.page == 3


def test_a_second_reranking_replaces_the_score_of_the_first(passages: list[Document]) -> None:
    first = reranker(mode="sparse").compress_documents(passages, QUERY)
    assert reranker(mode="dense").compress_documents(first, QUERY) == reranker(mode="dense").compress_documents(passages, QUERY)


async def test_no_documents_stay_none(passages: list[Document]) -> None:
    assert reranker().compress_documents([], QUERY) == await reranker().acompress_documents([], QUERY) == []
    assert reranker(threshold=2).compress_documents(passages, QUERY) == []


def test_nonsense_is_refused(passages: list[Document]) -> None:
    for wrong in ({"top_n": 0}, {"mode": "fuzzy"}, {"weights": (1, 2)}, {"threshold": "high"}, {"profile": "no such"}):
        with pytest.raises(InvalidArgumentError):
            reranker(**wrong).compress_documents(passages, QUERY)
    with pytest.raises(ValueError, match="top_k"):
        reranker(top_k=3)


def test_a_model_is_loaded_by_its_name_or_shared(index: M3Index) -> None:
    assert M3Reranker(model="hashing").encoder.name == HashingEncoder().name
    assert M3Reranker(model=index.encoder).encoder is index.encoder


async def test_async_leaves_the_event_loop_free(
    passages: list[Document], slow_encoder: HashingEncoder, beats_during: Any
) -> None:
    assert await beats_during(M3Reranker(model=slow_encoder).acompress_documents(passages, QUERY)) >= 5


async def test_it_works_behind_any_retriever(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    for first in (M3Retriever(index=any_index), store.as_retriever(search_type="sparse", search_kwargs={"k": 5})):
        retriever = CompressingRetriever(first=first, compressor=reranker(top_n=2, mode="colbert"))
        documents = retriever.invoke(QUERY)
        found = first.invoke(QUERY)
        want = [found[one.place].id for one in rerank(HashingEncoder(), QUERY, [d.page_content for d in found], mode="colbert")]
        assert [document.id for document in documents] == want[:2]
        assert await retriever.ainvoke(QUERY) == documents


async def test_it_works_as_a_step_of_a_chain(index: M3Index) -> None:
    second = reranker(top_n=1)
    chain: Any = RunnablePassthrough.assign(documents=lambda given: M3Retriever(index=index).invoke(given["query"])) | (
        RunnableLambda(
            lambda given: second.compress_documents(given["documents"], given["query"]),
            afunc=lambda given: second.acompress_documents(given["documents"], given["query"]),
        )
    )
    [best] = chain.invoke({"query": QUERY})
    assert best.id == index.search(QUERY, 1)[0].document.id
    assert await chain.ainvoke({"query": QUERY}) == [best]
    assert await chain.abatch([{"query": QUERY}, {"query": "noon"}]) == chain.batch([{"query": QUERY}, {"query": "noon"}])
