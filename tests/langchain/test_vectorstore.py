"""M3VectorStore: its searches give the hits of the index in LangChain's shape, in every mode, under every filter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, get_args

import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.vectorstores import VectorStore

from m3retriever import (
    Document,
    HashingEncoder,
    InvalidArgumentError,
    InvalidFilterError,
    M3Index,
    MemoryStore,
    Profile,
    Weights,
)
from m3retriever.langchain import M3VectorStore
from m3retriever.ranking import Ranking, SearchMode

QUERY = "red apple pie"
MODES = get_args(SearchMode)
COUNT = 5  # documents in the index
SEARCHES = (
    "similarity_search",
    "similarity_search_with_score",
    "similarity_search_with_relevance_scores",
    "max_marginal_relevance_search",
    "similarity_search_by_vector",
    "max_marginal_relevance_search_by_vector",
)
BY_TEXT, BY_VECTOR = SEARCHES[:4], SEARCHES[4:]


class ForgettingIndex(M3Index):
    """Loses a document between finding it and looking up its vectors."""

    def vectors(self, ids: Any) -> Any:
        if "pie" in self.ids():
            self.delete(["pie"])
        return super().vectors(ids)


def found(result: Any) -> list[LangChainDocument]:
    """The documents of a search with or without scores."""
    return [one[0] if isinstance(one, tuple) else one for one in result]


def ids(result: Any) -> list[str]:
    return [str(document.id) for document in found(result)]


def asked(store: M3VectorStore, method: str) -> Any:
    """What a search method takes first."""
    return store.embeddings.embed_query(QUERY) if method.endswith("by_vector") else QUERY


async def both(store: M3VectorStore, method: str, *given: Any, **settings: Any) -> Any:
    """What a method gives, having checked that its async twin gives the same."""
    result = getattr(store, method)(*given, **settings)
    assert await getattr(store, f"a{method}")(*given, **settings) == result
    return result


# -- searching


@pytest.mark.parametrize("mode", MODES)
async def test_searches_give_the_hits_of_the_index(any_index: M3Index, mode: SearchMode) -> None:
    store = M3VectorStore(any_index)
    hits = any_index.search(QUERY, 3, mode=mode)
    assert await both(store, "similarity_search_with_score", QUERY, 3, mode=mode) == [
        (LangChainDocument(hit.document.text, id=hit.document.id, metadata=dict(hit.document.metadata)), hit.score)
        for hit in hits
    ]
    assert ids(await both(store, "similarity_search", QUERY, 3, mode=mode)) == [hit.document.id for hit in hits]
    diverse = any_index.search_diverse(QUERY, 3, among=4, balance=0.2, mode=mode)
    given = await both(store, "max_marginal_relevance_search", QUERY, 3, 4, 0.2, mode=mode)
    assert ids(given) == [hit.document.id for hit in diverse]


async def test_searches_by_vector_rank_by_dense_alone(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    vector = store.embeddings.embed_query(QUERY)
    want = [hit.document.id for hit in any_index.search(QUERY, mode="dense")]
    assert ids(await both(store, "similarity_search_by_vector", vector, 10)) == want
    assert ids(await both(store, "similarity_search_by_vector", vector)) == want[:4]
    best = await both(store, "max_marginal_relevance_search_by_vector", vector, 3, lambda_mult=1)
    assert ids(best) == want[:3]
    for balance in (0.0, 0.3, 0.7):
        want = [hit.document.id for hit in any_index.search_diverse(QUERY, 3, among=4, balance=balance, mode="dense")]
        diverse = await both(store, "max_marginal_relevance_search_by_vector", vector, 3, 4, balance)
        assert ids(diverse) == want


def test_mmr_takes_what_is_unlike() -> None:
    store = M3VectorStore(M3Index(HashingEncoder(), MemoryStore()))
    store.add_texts(["red apple", "red apple", "red car"], ids=["one", "two", "three"])
    assert ids(store.similarity_search("red apple", 2)) == ["one", "two"]
    assert ids(store.max_marginal_relevance_search("red apple", 2, lambda_mult=0.4)) == ["one", "three"]
    assert ids(store.max_marginal_relevance_search("red apple", 2, lambda_mult=1)) == ["one", "two"]
    assert ids(store.max_marginal_relevance_search("red apple", 2, lambda_mult=0.4, fetch_k=2)) == ["one", "two"]
    vector = store.embeddings.embed_query("red apple")
    assert ids(store.max_marginal_relevance_search_by_vector(vector, 2, lambda_mult=0.4)) == ["one", "three"]
    assert ids(store.max_marginal_relevance_search_by_vector(vector, 2, lambda_mult=1)) == ["one", "two"]


@pytest.mark.parametrize("method", [method for method in SEARCHES if method.startswith("max")])
def test_a_document_deleted_during_mmr_is_left_out(documents: list[Document], method: str) -> None:
    index = ForgettingIndex(HashingEncoder(), MemoryStore())
    index.add(documents)
    store = M3VectorStore(index)
    assert set(ids(getattr(store, method)(asked(store, method), 10))) == {"tart", "long", "red", "far"}


@pytest.mark.parametrize("method", SEARCHES)
async def test_filters_hold_in_every_search(any_index: M3Index, method: str) -> None:
    store = M3VectorStore(any_index)
    query = asked(store, method)
    assert set(ids(await both(store, method, query, filter={"lang": "de"}))) == {"tart", "red"}
    text = {"$contains": "apple"}
    assert set(ids(await both(store, method, query, where_document=text))) == {"tart", "pie", "long"}
    assert ids(await both(store, method, query, filter={"lang": "de"}, where_document=text)) == ["tart"]
    assert await both(store, method, query, filter={"lang": "fr"}) == []
    with pytest.raises(InvalidFilterError):
        getattr(store, method)(query, filter={"lang": {"$like": "d"}})


def test_filters_can_be_given_by_place_as_langchain_chroma_takes_them(index: M3Index) -> None:
    store = M3VectorStore(index)
    for method in SEARCHES:
        before = (10, 20, 0.5) if method.startswith("max") else (10,)
        result = getattr(store, method)(asked(store, method), *before, {"lang": "de"}, {"$contains": "apple"})
        assert ids(result) == ["tart"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", BY_TEXT)
async def test_filters_on_text_and_metadata_hold_in_every_mode(any_index: M3Index, method: str, mode: str) -> None:
    store = M3VectorStore(any_index)
    result = await both(store, method, QUERY, 10, mode=mode, where_document={"$not_contains": "apple"})
    assert set(ids(result)) == ({"red"} if mode == "sparse" else {"red", "far"})
    result = await both(store, method, QUERY, 10, mode=mode, filter={"$and": [{"lang": "en"}, {"year": {"$gt": 2000}}]})
    assert ids(result) == ["pie"]


@pytest.mark.parametrize("method", SEARCHES)
async def test_unknown_keywords_are_errors(index: M3Index, method: str) -> None:
    store = M3VectorStore(index)
    with pytest.raises(TypeError, match="top_k"):
        getattr(store, method)(asked(store, method), top_k=3)
    with pytest.raises(TypeError, match="top_k"):
        await getattr(store, f"a{method}")(asked(store, method), top_k=3)
    with pytest.raises(InvalidArgumentError, match="k must be"):
        getattr(store, method)(asked(store, method), 0)


@pytest.mark.parametrize("method", SEARCHES)
async def test_a_threshold_cuts_what_scores_less(index: M3Index, method: str) -> None:
    store = M3VectorStore(index)
    mode: SearchMode = "dense" if method.endswith("by_vector") else "hybrid"
    first, second, third, *_ = index.search(QUERY, mode=mode)
    result = await both(store, method, asked(store, method), threshold=(second.score + third.score) / 2)
    assert set(ids(result)) == {first.document.id, second.document.id}
    assert len(await both(store, method, asked(store, method), 10, threshold=0)) >= 4


def test_settings_of_the_store_hold_where_a_call_gives_none(index: M3Index) -> None:
    store = M3VectorStore(index, mode="colbert")
    assert store.similarity_search_with_score(QUERY, 2)[0][1] == index.search(QUERY, mode="colbert")[0].score
    weighted = M3VectorStore(index, weights=(0, 0, 1))
    assert weighted.similarity_search_with_score(QUERY)[0][1] == index.search(QUERY, weights=(0, 0, 1))[0].score
    assert weighted.similarity_search_with_score(QUERY, weights=(0, 1, 0))[0][1] == pytest.approx(3 * 0.3 * 0.3)
    assert weighted.similarity_search_with_score(QUERY, mode="dense")[0][1] == index.search(QUERY, mode="dense")[0].score


def test_a_profile_of_a_call_counts(index: M3Index) -> None:
    store = M3VectorStore(index)
    profile = Profile(weights=Weights(0, 0, 1), thresholds={"hybrid": 0.6})
    want = index.search(QUERY, weights=(0, 0, 1), threshold=0.6)
    got = store.similarity_search_with_score(QUERY, 10, profile=profile, threshold="profile")
    assert [score for _, score in got] == [hit.score for hit in want]
    assert 0 < len(got) < COUNT
    relevances = store.similarity_search_with_relevance_scores(QUERY, 10, profile=profile)
    want = index.search(QUERY, profile=profile)
    assert [score for _, score in relevances] == pytest.approx([max(hit.score, 0) for hit in want])


def test_nonsense_is_refused_when_the_store_is_made(index: M3Index) -> None:
    for wrong in ({"mode": "fuzzy"}, {"weights": (0, 0, 0)}, {"mode": "dense", "weights": (1, 1, 1)}):
        with pytest.raises(InvalidArgumentError):
            M3VectorStore(index, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="M3Index.open"):
        M3VectorStore("./index")  # type: ignore[arg-type]


def test_documents_that_come_back_are_the_callers_own(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    for method in SEARCHES:
        for document in found(getattr(store, method)(asked(store, method), 10)):
            document.metadata["lang"] = "changed"
            document.metadata.get("tags", []).append("changed")
    [tart] = store.get_by_ids(["tart"])
    tart.metadata["tags"].append("changed")
    assert store.get_by_ids(["tart"])[0].metadata == {"lang": "de", "tags": ["sweet", "warm"]}


def test_the_bookkeeping_of_llama_index_stays_out_of_sight() -> None:
    store = M3VectorStore(M3Index(HashingEncoder(), MemoryStore()))
    store.index.add([Document("node", "apple pie", {"_node_content": "{}", "_node_type": "TextNode", "doc_id": "a"})])
    want = LangChainDocument("apple pie", id="node", metadata={})
    for method in SEARCHES:
        assert found(getattr(store, method)(asked(store, method))) == [want]
    assert store.get_by_ids(["node"]) == store.as_retriever().invoke(QUERY) == [want]
    assert store.index.get(["node"])[0].metadata["_node_type"] == "TextNode"
    planted = {"_node_content": "{}", "_node_type": "TextNode", "doc_id": "b", "lang": "en"}
    store.add_texts(["a red house", "a blue house"], [planted, {"doc_id": "mine"}], ids=["planted", "own"])
    assert [document.metadata for document in store.index.get(["planted", "own"])] == [{"lang": "en"}, {"doc_id": "mine"}]


# -- relevance


@pytest.mark.parametrize("threshold", [None, 0, 0.0])
async def test_relevance_without_a_threshold_keeps_all(index: M3Index, threshold: float | None) -> None:
    store = M3VectorStore(index)
    result = await both(store, "similarity_search_with_relevance_scores", QUERY, 10, score_threshold=threshold)
    want = [max(hit.score, 0) for hit in index.search(QUERY)]
    assert [relevance for _, relevance in result] == pytest.approx(want)
    assert len(result) == COUNT


async def test_a_relevance_threshold_cuts_and_1_may_leave_nothing(index: M3Index, caplog: pytest.LogCaptureFixture) -> None:
    store = M3VectorStore(index)
    all_of_them = store.similarity_search_with_relevance_scores(QUERY, 10)
    border = all_of_them[1][1]
    result = await both(store, "similarity_search_with_relevance_scores", QUERY, 10, score_threshold=border)
    assert result == all_of_them[:2]
    with caplog.at_level(logging.DEBUG, "langchain_core"):
        assert await both(store, "similarity_search_with_relevance_scores", QUERY, score_threshold=1) == []
    assert not caplog.records


@pytest.mark.parametrize("wrong", [-0.1, 1.1, "high", True, float("nan")])
async def test_a_relevance_threshold_outside_0_to_1_is_refused(index: M3Index, wrong: Any) -> None:
    store = M3VectorStore(index)
    with pytest.raises(InvalidArgumentError, match="score_threshold"):
        store.similarity_search_with_relevance_scores(QUERY, score_threshold=wrong)
    with pytest.raises(InvalidArgumentError, match="score_threshold"):
        await store.asimilarity_search_with_relevance_scores(QUERY, score_threshold=wrong)
    with pytest.raises(ValueError, match="score_threshold"):
        store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": wrong})


async def test_relevance_is_the_probability_where_there_is_one(documents: list[Document]) -> None:
    profile = Profile(calibration={"hybrid": {"scores": [-1, 1], "probabilities": [0.0, 0.5]}})
    store = M3VectorStore(M3Index(HashingEncoder(), MemoryStore(), profile))
    store.index.add(documents)
    result = await both(store, "similarity_search_with_relevance_scores", QUERY, 3)
    scores = [score for _, score in store.similarity_search_with_score(QUERY, 3)]
    assert [relevance for _, relevance in result] == pytest.approx([(score + 1) / 4 for score in scores])
    border = result[1][1]
    assert len(store.similarity_search_with_relevance_scores(QUERY, score_threshold=border)) == 2
    by_dense = store.similarity_search_with_relevance_scores(QUERY, 1, mode="dense")
    assert [relevance for _, relevance in by_dense] == [
        store.index.search(QUERY, 1, mode="dense")[0].score
    ]  # none for this mode


@pytest.mark.parametrize("mode", MODES)
def test_relevance_under_a_rank_fusion_is_no_rank(filled: Callable[..., M3Index], mode: SearchMode) -> None:
    profile = Profile(fusion="rrf")
    index = filled(MemoryStore(), profile=profile)
    result = M3VectorStore(index).similarity_search_with_relevance_scores(QUERY, 10, mode=mode)
    ranking = Ranking.of(profile, mode, None, None)
    assert [relevance for _, relevance in result] == [ranking.relevance(hit.scores) for hit in index.search(QUERY, mode=mode)]
    assert max(relevance for _, relevance in result) > 0.25  # a fused rank is at most 1/61


# -- async


@pytest.mark.parametrize("method", BY_TEXT)
async def test_searching_leaves_the_event_loop_free(slow_index: M3Index, method: str, beats_during: Any) -> None:
    assert await beats_during(getattr(M3VectorStore(slow_index), f"a{method}")(QUERY, 2)) >= 5


@pytest.mark.parametrize("method", BY_VECTOR)
async def test_searching_by_vector_leaves_the_event_loop_free(
    slow_scoring_index: M3Index, method: str, beats_during: Any
) -> None:
    store = M3VectorStore(slow_scoring_index)
    assert await beats_during(getattr(store, f"a{method}")(store.embeddings.embed_query(QUERY), 2)) >= 5


def test_every_public_async_method_of_the_base_class_has_a_twin_of_ours() -> None:
    for name in dir(VectorStore):
        if name.startswith("a") and callable(getattr(VectorStore, name)) and hasattr(VectorStore, name[1:]):
            assert name in vars(M3VectorStore), name
            assert name[1:] in vars(M3VectorStore), name
