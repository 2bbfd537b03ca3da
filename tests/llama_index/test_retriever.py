"""M3Retriever for LlamaIndex: what the index finds comes through unchanged, and nodes stay as stored."""

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from m3retriever import (
    ChromaStore,
    Document,
    HashingEncoder,
    Hit,
    InvalidArgumentError,
    M3Index,
    MemoryStore,
    Profile,
    Weights,
)
from m3retriever.llama_index import M3NodeWithScore, M3Retriever, M3VectorStore
from m3retriever.llama_index.nodes import scored_node
from m3retriever.ranking import SearchMode

QUERY = "red apple pie"
DOCUMENTS = [
    Document("pie", "apple pie", {"lang": "en", "year": 2020}),
    Document("long", "a red car stands before the old red house on the hill with an apple tree", {"lang": "en"}),
    Document("tart", "red apple tart and apple pie for all", {"lang": "de", "tags": ["sweet", "warm"]}),
    Document("red", "red red red", {"lang": "de"}),
    Document("far", "trains leave at noon", {"lang": "en"}),
]


def filled(store: Any, encoder: HashingEncoder | None = None, profile: Profile | None = None) -> M3Index:
    index = M3Index(encoder or HashingEncoder(), store, profile)
    index.add(DOCUMENTS)
    return index


@pytest.fixture
def index() -> M3Index:
    return filled(MemoryStore())


@pytest.fixture(params=["memory", "chroma"])
def any_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[M3Index]:
    with filled(MemoryStore() if request.param == "memory" else ChromaStore(tmp_path / "index")) as index:
        yield index


def ids(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [node.node_id for node in nodes]


def hits_of(index: M3Index, query: str, **settings: Any) -> list[Hit]:
    """The hits of a search, but for their relevance, which a node does not have."""
    return [replace(hit, relevance=None) for hit in index.search(query, **settings)]


def as_hit(node: NodeWithScore) -> Hit:
    """The hit that a node came from, as `hits_of` gives it."""
    assert isinstance(node, M3NodeWithScore)
    assert isinstance(node.node, TextNode)
    document = Document(node.node_id, node.text, node.metadata)
    return Hit(document, node.get_score(raise_error=True), node.scores, node.ranks, frozenset(node.found_by))


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_nodes_carry_the_hits_of_the_index_in_their_order(any_index: M3Index, mode: SearchMode) -> None:
    nodes = M3Retriever(index=any_index, mode=mode).retrieve(QUERY)
    hits = hits_of(any_index, QUERY, mode=mode)
    assert [as_hit(node) for node in nodes] == hits
    assert len(hits) >= 3


def test_found_by_is_a_sorted_list(index: M3Index) -> None:
    [first, *_] = M3Retriever(index=index).retrieve(QUERY)
    assert isinstance(first, M3NodeWithScore)
    assert first.found_by == ["dense", "sparse"]


def test_k_is_how_many_nodes_come_back(index: M3Index) -> None:
    assert len(M3Retriever(index=index, k=2).retrieve(QUERY)) == 2


def test_the_query_may_be_a_bundle(index: M3Index) -> None:
    retriever = M3Retriever(index=index)
    assert retriever.retrieve(QueryBundle(QUERY, embedding=[0.0, 1.0])) == retriever.retrieve(QUERY)


def test_a_transformed_query_is_searched_as_its_one_text(index: M3Index) -> None:
    retriever = M3Retriever(index=index)
    assert retriever.retrieve(QueryBundle("trains", custom_embedding_strs=[QUERY])) == retriever.retrieve(QUERY)
    alone = HyDEQueryTransform(llm=MockLLM(), include_original=False).run("trains")
    assert retriever.retrieve(alone) == retriever.retrieve(alone.embedding_strs[0])


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_a_query_of_several_texts_gives_each_node_its_best_hit(any_index: M3Index, mode: SearchMode) -> None:
    bundle = QueryBundle("pie", custom_embedding_strs=["red car", "trains at noon", "red car"])
    found = M3Retriever(index=any_index, mode=mode, k=4).retrieve(bundle)
    best: dict[str, Hit] = {}
    for hit in [hit for text in ("red car", "trains at noon") for hit in hits_of(any_index, text, mode=mode)]:
        if hit.document.id not in best or hit.score > best[hit.document.id].score:
            best[hit.document.id] = hit
    want = sorted(best.values(), key=lambda hit: (-hit.score, hit.document.id))[:4]
    assert [as_hit(node) for node in found] == want
    assert {"far", "red"} <= set(ids(found))
    assert asyncio.run(M3Retriever(index=any_index, mode=mode, k=4).aretrieve(bundle)) == found


def test_a_query_transform_that_keeps_the_original_is_searched_by_both(index: M3Index) -> None:
    bundle = HyDEQueryTransform(llm=MockLLM()).run("trains leave")
    assert len(bundle.embedding_strs) == 2
    assert ids(M3Retriever(index=index, k=1).retrieve(bundle)) == ["far"]


def test_a_query_of_no_text_is_refused(index: M3Index) -> None:
    with pytest.raises(InvalidArgumentError, match="custom_embedding_strs"):
        M3Retriever(index=index).retrieve(QueryBundle(QUERY, custom_embedding_strs=[]))


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_filters_of_llama_index_where_and_where_document_hold_together(any_index: M3Index, mode: SearchMode) -> None:
    english = MetadataFilters(filters=[MetadataFilter(key="lang", value="en")])
    old = {"year": {"$lt": 2021}}
    settings: dict[str, Any] = {"index": any_index, "mode": mode}
    assert set(ids(M3Retriever(**settings, filters=english).retrieve(QUERY))) >= {"pie", "long"}
    assert "tart" not in ids(M3Retriever(**settings, filters=english).retrieve(QUERY))
    assert ids(M3Retriever(**settings, filters=english, where=old).retrieve(QUERY)) == ["pie"]
    with_text = M3Retriever(**settings, filters=english, where_document={"$contains": "house"})
    assert ids(with_text.retrieve(QUERY)) == ["long"]
    assert asyncio.run(with_text.aretrieve(QUERY)) == with_text.retrieve(QUERY)


def test_a_profile_may_be_given_for_this_retriever(index: M3Index) -> None:
    nodes = M3Retriever(index=index, profile=Profile(weights=Weights(0, 0, 1))).retrieve(QUERY)
    assert [as_hit(node) for node in nodes] == hits_of(index, QUERY, weights=(0, 0, 1))
    assert M3Retriever(index=index, profile="keyword").retrieve(QUERY) != M3Retriever(index=index).retrieve(QUERY)


def test_a_node_of_llama_index_comes_back_as_it_was_added(index: M3Index) -> None:
    links: dict[Any, Any] = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book", metadata={"deep": {"er": 1}})}
    given = TextNode(id_="own", text="trains", metadata={"page": 3, "none": None}, relationships=links)
    M3VectorStore(index, metadata_mode="embed").add([given])
    [found] = M3Retriever(index=index, where={"page": 3}).retrieve("trains")
    assert found.node == given
    assert found.node.hash == given.hash


def test_the_probability_of_a_hit_is_passed_on() -> None:
    hit = Hit(DOCUMENTS[0], 0.5, {"dense": 0.5}, {"dense": 1}, frozenset({"dense"}), probability=0.7)
    assert scored_node(hit).probability == 0.7
    assert scored_node(hit).to_dict()["probability"] == 0.7


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_async_gives_what_sync_gives(any_index: M3Index, mode: SearchMode) -> None:
    retriever = M3Retriever(index=any_index, k=2, mode=mode, threshold=0.01, where={"lang": "de"})
    assert asyncio.run(retriever.aretrieve(QUERY)) == retriever.retrieve(QUERY) != []


async def test_async_leaves_the_event_loop_free_while_the_query_is_encoded(waiting: Any) -> None:
    retriever = M3Retriever(index=filled(MemoryStore(), waiting))
    assert ids(await waiting.during(retriever.aretrieve(QUERY))) == ids(M3Retriever(index=retriever.index).retrieve(QUERY))


@pytest.mark.parametrize("mode", get_args(SearchMode))
@pytest.mark.parametrize("query", [QUERY, QueryBundle(QUERY, custom_embedding_strs=["red car", "trains"])], ids=["one", "two"])
async def test_async_leaves_the_event_loop_free_while_candidates_are_scored(
    waiting_store: Any, mode: SearchMode, query: Any
) -> None:
    retriever = M3Retriever(index=filled(waiting_store), mode=mode)
    assert ids(await waiting_store.during(retriever.aretrieve(query))) == ids(retriever.retrieve(query)) != []


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_a_filter_holds_in_every_mode(any_index: M3Index, mode: SearchMode) -> None:
    nodes = M3Retriever(index=any_index, mode=mode, where={"lang": "de"}).retrieve(QUERY)
    assert set(ids(nodes)) == {"tart", "red"}


def test_a_threshold_cuts_what_scores_less(index: M3Index) -> None:
    first, second, third, *_ = index.search(QUERY)
    threshold = (second.score + third.score) / 2
    assert ids(M3Retriever(index=index, threshold=threshold).retrieve(QUERY)) == [first.document.id, second.document.id]


def test_the_profile_can_give_the_threshold() -> None:
    index = filled(MemoryStore(), profile=Profile(thresholds={"hybrid": 0.5, "colbert": 2.0}))
    nodes = M3Retriever(index=index, threshold="profile").retrieve(QUERY)
    assert ids(nodes) == [hit.document.id for hit in index.search(QUERY, threshold=0.5)]
    assert 0 < len(nodes) < len(DOCUMENTS)
    assert M3Retriever(index=index, threshold="profile", mode="colbert").retrieve(QUERY) == []


@pytest.mark.parametrize("weights", [(0, 1, 0), [0.0, 2.0, 0.0], Weights(0, 1, 0), {"sparse": 3.0}])
def test_weights_of_any_form_decide_the_score(index: M3Index, weights: Any) -> None:
    hits = [as_hit(node) for node in M3Retriever(index=index, weights=weights).retrieve(QUERY)]
    assert [hit.score for hit in hits] == pytest.approx([hit.scores["sparse"] for hit in hits])
    assert hits[0].score > 0


def test_a_node_is_as_stored_in_hash_and_prompt(any_index: M3Index) -> None:
    for node in M3Retriever(index=any_index).retrieve(QUERY):
        [stored] = any_index.get([node.node_id])
        assert node.metadata == stored.metadata
        in_its_order = {key: stored.metadata[key] for key in node.metadata}
        plain = TextNode(id_=stored.id, text=stored.text, metadata=in_its_order)
        assert node.node.hash == plain.hash
        assert node.get_content(MetadataMode.LLM) == plain.get_content(MetadataMode.LLM)


def test_a_node_has_the_hash_of_what_was_added(index: M3Index) -> None:
    hashes = {node.node_id: node.node.hash for node in M3Retriever(index=index).retrieve(QUERY)}
    assert hashes == {document.id: TextNode(text=document.text, metadata=document.metadata).hash for document in DOCUMENTS}


def test_a_node_has_the_same_hash_every_time_over_chroma(tmp_path: Path) -> None:
    with filled(ChromaStore(tmp_path / "index")) as index:
        retriever = M3Retriever(index=index)
        hashes = [tuple(node.node.hash for node in retriever.retrieve(QUERY)) for _ in range(20)]
    assert len(set(hashes)) == 1


def test_stored_and_given_metadata_are_never_touched(any_index: M3Index) -> None:
    names = [document.id for document in DOCUMENTS]
    given = [dict(document.metadata) for document in DOCUMENTS]
    for node in M3Retriever(index=any_index).retrieve(QUERY):
        node.metadata["lang"] = "changed"
        node.metadata.get("tags", []).append("changed")
    assert [document.metadata for document in any_index.get(names)] == given
    assert [document.metadata for document in DOCUMENTS] == given


def test_scores_survive_a_dump_and_a_pickle(index: M3Index) -> None:
    [first, *_] = M3Retriever(index=index).retrieve(QUERY)
    assert isinstance(first, M3NodeWithScore)
    dumped = first.to_dict()
    assert (dumped["class_name"], dumped["scores"]) == ("M3NodeWithScore", first.scores)
    assert pickle.loads(pickle.dumps(first)) == first  # our own bytes


def test_a_query_engine_keeps_the_scores_in_its_source_nodes(index: M3Index) -> None:
    engine = RetrieverQueryEngine.from_args(
        M3Retriever(index=index), llm=MockLLM(), node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.3)]
    )
    want = [hit for hit in hits_of(index, QUERY) if hit.score >= 0.3]
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert [as_hit(node) for node in response.source_nodes] == want
        assert want[0].document.text in str(response)
        assert "sparse" not in str(response)
    assert 0 < len(want) < len(DOCUMENTS)


def test_the_callback_manager_hears_of_a_retrieval(index: M3Index) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    nodes = M3Retriever(index=index, callback_manager=CallbackManager([handler])).retrieve(QUERY)
    [(start, end)] = handler.get_event_pairs(CBEventType.RETRIEVE)
    assert start.payload == {EventPayload.QUERY_STR: QUERY}
    assert end.payload == {EventPayload.NODES: nodes}


def test_event_handlers_hear_of_start_and_end(index: M3Index, recorder: Any) -> None:
    nodes = asyncio.run(M3Retriever(index=index).aretrieve(QUERY))
    start, _, _, end = recorder.events  # between them come ours: test_events.py
    assert isinstance(start, RetrievalStartEvent)
    assert isinstance(end, RetrievalEndEvent)
    assert start.str_or_query_bundle == QUERY
    assert [as_hit(node) for node in end.nodes] == [as_hit(node) for node in nodes] != []


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"k": "3"},
        {"k": True},
        {"mode": "fuzzy"},
        {"weights": (1, 2)},
        {"weights": (0, 0, 0)},
        {"mode": "dense", "weights": (1, 1, 1)},
        {"threshold": "high"},
        {"where": {"lang": {"$like": "e"}}},
    ],
    ids=str,
)
def test_nonsense_is_refused_at_the_call(index: M3Index, wrong: dict[str, Any]) -> None:
    retriever = M3Retriever(index=index, **wrong)
    with pytest.raises(InvalidArgumentError):
        retriever.retrieve(QUERY)
    with pytest.raises(InvalidArgumentError):
        asyncio.run(retriever.aretrieve(QUERY))


def test_unknown_keywords_raise(index: M3Index) -> None:
    with pytest.raises(TypeError, match="top_k"):
        M3Retriever(index=index, top_k=3)  # type: ignore[call-arg]  # the point of the test


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llama_index":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from m3retriever import MissingExtraError
try:
    import m3retriever.llama_index
except MissingExtraError as error:
    print(error)
"""


def test_without_llama_index_core_the_error_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
    assert done.stdout == "llama-index-core is not installed; run: pip install 'm3retriever[llama-index]'\n"
