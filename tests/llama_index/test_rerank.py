"""M3Rerank: any retriever's nodes in a new order, with all scores, and the nodes themselves untouched."""

from typing import Any

import pytest
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from m3retriever import HashingEncoder, InvalidArgumentError, Profile, Weights, rerank
from m3retriever.llama_index import M3NodeWithScore, M3Rerank

QUERY = "red apple pie"
ENCODER = HashingEncoder()
TEXTS = ["trains leave at noon", "apple pie", "red apple tart and apple pie for all", "red red red"]


def given(**metadata: Any) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(place), text=text, metadata=metadata), score=0.9 - place / 10)
        for place, text in enumerate(TEXTS)
    ]


def order(nodes: list[Any]) -> list[tuple[str, float]]:
    return [(node.node_id, node.score) for node in nodes]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse", "colbert"])
def test_nodes_are_ordered_by_the_scores_of_the_core(mode: Any) -> None:
    nodes = M3Rerank(ENCODER, mode=mode).postprocess_nodes(given(), query_str=QUERY)
    want = rerank(ENCODER, QUERY, TEXTS, mode=mode)
    assert order(nodes) == [(str(one.place), one.score) for one in want]
    assert order(nodes) != order(given())
    for node, one in zip(nodes, want, strict=True):
        assert isinstance(node, M3NodeWithScore)
        assert (node.scores, node.ranks, node.found_by) == (dict(one.scores), dict(one.ranks), [])


def test_every_setting_reaches_the_core() -> None:
    settings: dict[str, Any] = {"weights": (0, 0, 1), "threshold": 0.3}
    nodes = M3Rerank(ENCODER, top_n=2, **settings).postprocess_nodes(given(), query_str=QUERY)
    want = rerank(ENCODER, QUERY, TEXTS, k=2, **settings)
    assert order(nodes) == [(str(one.place), one.score) for one in want]
    assert len(nodes) == 2
    profile = Profile(weights=Weights(0, 0, 1), thresholds={"hybrid": 0.3})
    assert M3Rerank(ENCODER, top_n=2, profile=profile, threshold="profile").postprocess_nodes(given(), query_str=QUERY) == nodes


def test_what_comes_in_stays_as_it_is() -> None:
    nodes = given(lang="en")
    before, hashes = [node.model_dump() for node in nodes], [node.node.hash for node in nodes]
    ranked = M3Rerank(ENCODER, metadata_mode="embed").postprocess_nodes(nodes, query_str=QUERY)
    assert [node.model_dump() for node in nodes] == before
    assert {node.node.hash for node in ranked} == set(hashes)
    assert not {id(node) for node in ranked} & {id(node) for node in nodes}


def test_which_searches_found_a_node_stays_known() -> None:
    found = M3NodeWithScore(node=TextNode(text="apple"), score=1.0, scores={}, ranks={}, found_by=["sparse"])
    [ranked] = M3Rerank(ENCODER).postprocess_nodes([found], query_str=QUERY)
    assert isinstance(ranked, M3NodeWithScore)
    assert ranked.found_by == ["sparse"]
    assert found.scores == {}


def test_the_metadata_is_read_only_when_asked_for() -> None:
    nodes = [
        NodeWithScore(node=LlamaDocument(text="noon", metadata={"title": QUERY})),
        NodeWithScore(node=TextNode(text="apple")),
    ]
    assert M3Rerank(ENCODER).postprocess_nodes(nodes, query_str=QUERY)[0].node == nodes[1].node
    with_metadata = M3Rerank(ENCODER, metadata_mode=MetadataMode.EMBED)
    assert with_metadata.postprocess_nodes(nodes, query_str=QUERY)[0].node == nodes[0].node


def test_the_question_itself_is_compared() -> None:
    bundle = QueryBundle(QUERY, custom_embedding_strs=["trains leave at noon"], embedding=[1.0])
    assert M3Rerank(ENCODER).postprocess_nodes(given(), bundle) == M3Rerank(ENCODER).postprocess_nodes(given(), query_str=QUERY)


async def test_async_does_what_sync_does_and_leaves_the_event_loop_free(waiting: Any) -> None:
    ranked = await waiting.during(M3Rerank(waiting, top_n=3).apostprocess_nodes(given(), query_str=QUERY))
    assert ranked == M3Rerank(ENCODER, top_n=3).postprocess_nodes(given(), query_str=QUERY)


async def test_without_a_query_the_error_says_what_to_give() -> None:
    with pytest.raises(InvalidArgumentError, match="query_str or query_bundle"):
        M3Rerank(ENCODER).postprocess_nodes(given())
    with pytest.raises(InvalidArgumentError, match="query_str or query_bundle"):
        await M3Rerank(ENCODER).apostprocess_nodes(given())


def test_no_nodes_give_none() -> None:
    assert M3Rerank(ENCODER).postprocess_nodes([], query_str=QUERY) == []


@pytest.mark.parametrize(
    "wrong",
    [{"top_n": 0}, {"top_n": "3"}, {"mode": "fuzzy"}, {"weights": (1, 2)}, {"threshold": "high"}, {"profile": "unknown"}],
    ids=str,
)
def test_nonsense_is_refused_at_the_call(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        M3Rerank(ENCODER, **wrong).postprocess_nodes(given(), query_str=QUERY)


def test_an_unknown_metadata_mode_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="metadata_mode"):
        M3Rerank(ENCODER, metadata_mode="some")


def test_the_model_may_be_given_by_name() -> None:
    by_name = M3Rerank("hashing").postprocess_nodes(given(), query_str=QUERY)
    assert by_name == M3Rerank(ENCODER).postprocess_nodes(given(), query_str=QUERY)


async def test_handlers_hear_of_it_as_of_any_reranker(recorder: Any) -> None:
    for ranked in (
        M3Rerank(ENCODER, top_n=2).postprocess_nodes(given(), query_str=QUERY),
        await M3Rerank(ENCODER, top_n=2).apostprocess_nodes(given(), query_str=QUERY),
    ):
        start, end = recorder.events[-2:]
        assert isinstance(start, ReRankStartEvent)
        assert (start.query, start.top_n, start.model_name) == (QueryBundle(QUERY), 2, ENCODER.name)
        assert len(start.nodes) == len(TEXTS)
        assert isinstance(end, ReRankEndEvent)
        assert end.nodes == ranked
