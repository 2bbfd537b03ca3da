"""The events of a retrieval: sent to real handlers, in sync and async, and whole in a dump."""

import json
from typing import Any

import pytest
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery, VectorStoreQueryMode

from m3retriever import InvalidArgumentError, M3Index, Profile, Weights
from m3retriever.llama_index import M3RetrievalEndEvent, M3RetrievalStartEvent, M3Retriever, M3VectorStore

QUERY = "red apple"


@pytest.fixture
def index(memory_index: M3Index) -> M3Index:
    nodes = [TextNode(id_=str(place), text=text, metadata={"lang": "en"}) for place, text in enumerate(["apple", "red", "car"])]
    M3VectorStore(memory_index).add(nodes)
    return memory_index


async def retrieved(retriever: M3Retriever, how: str) -> list[Any]:
    return retriever.retrieve(QUERY) if how == "sync" else await retriever.aretrieve(QUERY)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_ours_come_once_each_between_llama_indexs_own(index: M3Index, recorder: Any, how: str) -> None:
    nodes = await retrieved(M3Retriever(index=index, k=2), how)
    kinds = [type(event) for event in recorder.events]
    assert kinds == [RetrievalStartEvent, M3RetrievalStartEvent, M3RetrievalEndEvent, RetrievalEndEvent]
    start, end = recorder.events[1:3]
    assert (start.query, start.settings["k"], start.settings["mode"]) == (QUERY, 2, "hybrid")
    assert (end.query, end.nodes) == (QUERY, nodes)
    assert start.span_id == end.span_id is not None


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_dump_keeps_the_scores_of_every_mode(index: M3Index, recorder: Any, how: str) -> None:
    nodes = await retrieved(M3Retriever(index=index), how)
    [end] = recorder.of(M3RetrievalEndEvent)
    for dumped in (end.model_dump(), json.loads(end.model_dump_json())):
        assert [node["scores"] for node in dumped["nodes"]] == [node.scores for node in nodes]
        assert [node["ranks"] for node in dumped["nodes"]] == [node.ranks for node in nodes]
        assert [node["found_by"] for node in dumped["nodes"]] == [node.found_by for node in nodes]
        assert [node["score"] for node in dumped["nodes"]] == [node.score for node in nodes]
        assert [node["node"]["text"] for node in dumped["nodes"]] == [node.text for node in nodes]
    assert end.model_dump()["class_name"] == "M3RetrievalEndEvent"
    [theirs] = recorder.of(RetrievalEndEvent)
    assert "scores" not in theirs.model_dump()["nodes"][0]  # which is why there are events of ours


def test_the_settings_can_be_dumped_whatever_their_form(index: M3Index, recorder: Any) -> None:
    profile = Profile(weights=Weights(0, 0, 1), thresholds={"hybrid": 0.1})
    filters = MetadataFilters(filters=[MetadataFilter(key="lang", value="en")])
    M3Retriever(index=index, weights=Weights(1, 1, 1), profile=profile, where={"lang": "en"}, filters=filters).retrieve(QUERY)
    [start] = recorder.of(M3RetrievalStartEvent)
    assert start.model_dump()["class_name"] == "M3RetrievalStartEvent"
    settings = json.loads(start.model_dump_json())["settings"]
    assert settings["where"] == {"$and": [{"lang": "en"}, {"lang": {"$eq": "en"}}]}
    assert settings["weights"] == {"dense": 1, "sparse": 1, "colbert": 1}


def test_scores_that_a_fusion_changes_later_stay_in_the_event(index: M3Index, recorder: Any) -> None:
    nodes = M3Retriever(index=index).retrieve(QUERY)
    scores = [node.score for node in nodes]
    nodes[0].score = 99.0
    [end] = recorder.of(M3RetrievalEndEvent)
    assert [node.score for node in end.nodes] == scores


def test_a_search_that_fails_has_a_start_and_no_end(index: M3Index, recorder: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        M3Retriever(index=index, k=0).retrieve(QUERY)
    assert len(recorder.of(M3RetrievalStartEvent)) == 1
    assert recorder.of(M3RetrievalEndEvent) == []


def test_a_transformed_query_is_one_retrieval(index: M3Index, recorder: Any) -> None:
    M3Retriever(index=index).retrieve(QueryBundle(QUERY, custom_embedding_strs=["apple", "red"]))
    assert [event.query for event in recorder.of(M3RetrievalEndEvent)] == [QUERY]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_the_vector_store_tells_the_scores_that_its_result_has_no_place_for(
    index: M3Index, recorder: Any, how: str
) -> None:
    store = M3VectorStore(index)
    query = VectorStoreQuery(query_str=QUERY, similarity_top_k=2, mode=VectorStoreQueryMode.HYBRID, alpha=0.5)
    result = store.query(query) if how == "sync" else await store.aquery(query)
    [start], [end] = recorder.of(M3RetrievalStartEvent), recorder.of(M3RetrievalEndEvent)
    assert start.settings == {"query_mode": "hybrid", "similarity_top_k": 2, "alpha": 0.5}
    assert [node.node_id for node in end.nodes] == result.ids
    want = {hit.document.id: hit.scores for hit in index.search(QUERY)}
    assert {node.node_id: node.scores for node in end.nodes} == {id: want[id] for id in result.ids or []}
