"""M3Retriever for LangChain: what the index finds comes through unchanged, and every setting counts."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document as LangChainDocument
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from m3retriever import (
    Document,
    HashingEncoder,
    Hit,
    InvalidArgumentError,
    M3Index,
    MemoryStore,
    Profile,
    Weights,
)
from m3retriever.langchain import M3Retriever
from m3retriever.ranking import SearchMode

QUERY = "red apple pie"
COUNT = 5  # documents in the index
SETTINGS: dict[str, Any] = {  # one value of each that changes what comes back
    "k": 2,
    "mode": "sparse",
    "weights": (0, 1, 0),
    "threshold": 0.2,
    "where": {"lang": "de"},
    "where_document": {"$contains": "car"},
    "profile": Profile(weights=Weights(0, 1, 0)),
    "return_scores": True,
}
SCORE_KEYS = {"score", "scores", "ranks", "found_by"}


class KeepingIndex(M3Index):
    """Keeps the hits it gave last."""

    hits: list[Hit]

    def search(self, *given: Any, **settings: Any) -> list[Hit]:
        self.hits = super().search(*given, **settings)
        return self.hits


class Recorder(BaseCallbackHandler):
    """Keeps what a callback handler is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.metadata: dict[str, Any] = {}
        self.tags: list[str] = []

    def on_retriever_start(self, serialized: Any, query: str, **told: Any) -> None:
        self.events.append(("start", query))
        self.metadata = told["metadata"]
        self.tags = told["tags"]

    def on_retriever_end(self, documents: Sequence[LangChainDocument], **told: Any) -> None:
        self.events.append(("end", list(documents)))

    def on_retriever_error(self, error: BaseException, **told: Any) -> None:
        self.events.append(("error", error))


def ids(documents: Sequence[LangChainDocument]) -> list[str | None]:
    return [document.id for document in documents]


def as_hit(document: LangChainDocument) -> Hit:
    """The hit that a Document with scores in its metadata came from."""
    metadata = dict(document.metadata)
    score, scores, ranks, found_by = (metadata.pop(key) for key in ("score", "scores", "ranks", "found_by"))
    assert document.id is not None
    return Hit(Document(document.id, document.page_content, metadata), score, scores, ranks, frozenset(found_by))


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_documents_carry_the_hits_of_the_index_in_their_order(any_index: M3Index, mode: SearchMode) -> None:
    documents = M3Retriever(index=any_index, mode=mode, return_scores=True).invoke(QUERY)
    hits = any_index.search(QUERY, mode=mode)
    assert [as_hit(document) for document in documents] == [replace(hit, relevance=None) for hit in hits]
    assert len(hits) >= 3


def test_found_by_is_a_sorted_list(index: M3Index) -> None:
    assert M3Retriever(index=index, return_scores=True).invoke(QUERY)[0].metadata["found_by"] == ["dense", "sparse"]


def test_k_comes_from_the_constructor(index: M3Index) -> None:
    assert len(M3Retriever(index=index, k=2).invoke(QUERY)) == 2


def test_k_of_a_call_goes_before_that_of_the_constructor(index: M3Index) -> None:
    retriever = M3Retriever(index=index, k=2)
    assert len(retriever.invoke(QUERY, k=4)) == 4
    assert len(retriever.bind(k=3).invoke(QUERY)) == 3
    assert len(retriever.invoke(QUERY)) == 2


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_counts_wherever_it_is_said(index: M3Index, name: str) -> None:
    value = SETTINGS[name]
    plain = M3Retriever(index=index)
    want = M3Retriever(index=index, **{name: value}).invoke(QUERY)
    assert want != plain.invoke(QUERY)
    assert plain.invoke(QUERY, **{name: value}) == want
    assert plain.bind(**{name: value}).invoke(QUERY) == want
    assert asyncio.run(plain.ainvoke(QUERY, **{name: value})) == want
    configurable = plain.configurable_fields(**{name: ConfigurableField(id=f"my_{name}")})
    assert configurable.invoke(QUERY) == plain.invoke(QUERY)
    assert configurable.with_config(configurable={f"my_{name}": value}).invoke(QUERY) == want
    assert asyncio.run(configurable.ainvoke(QUERY, {"configurable": {f"my_{name}": value}})) == want


def test_several_settings_can_be_configured_together(index: M3Index) -> None:
    names = ("k", "mode", "where", "where_document", "threshold", "return_scores")
    retriever = M3Retriever(index=index).configurable_fields(**{name: ConfigurableField(id=name) for name in names})
    chosen = {
        "k": 1,
        "mode": "colbert",
        "where": {"lang": "en"},
        "where_document": {"$contains": "a"},
        "threshold": 0.1,
        "return_scores": True,
    }
    [document] = retriever.with_config(configurable=chosen).invoke(QUERY)
    [hit] = index.search(QUERY, 1, mode="colbert", where={"lang": "en"}, where_document={"$contains": "a"}, threshold=0.1)
    assert as_hit(document) == replace(hit, relevance=None)
    assert set(retriever.get_config_jsonschema()["$defs"]["Configurable"]["properties"]) == set(names)
    assert len(retriever.invoke(QUERY)) == COUNT


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_async_gives_what_sync_gives(any_index: M3Index, mode: SearchMode) -> None:
    retriever = M3Retriever(index=any_index, mode=mode)
    settings: dict[str, Any] = {"k": 2, "threshold": 0.01, "where": {"lang": "de"}}
    assert asyncio.run(retriever.ainvoke(QUERY, **settings)) == retriever.invoke(QUERY, **settings)
    assert asyncio.run(retriever.ainvoke(QUERY)) == retriever.invoke(QUERY)


async def test_async_leaves_the_event_loop_free(slow_index: M3Index, beats_during: Any) -> None:
    assert await beats_during(M3Retriever(index=slow_index).ainvoke(QUERY)) >= 5


async def test_a_chain_streams_and_passes_tags_and_callbacks_on(index: M3Index) -> None:
    recorder = Recorder()
    chain = M3Retriever(index=index, k=2, tags=["mine"]) | RunnableLambda(lambda documents: ids(documents))
    config: Any = {"callbacks": [recorder], "tags": ["ours"]}
    want = [hit.document.id for hit in index.search(QUERY, 2)]
    assert [part async for part in chain.astream(QUERY, config)] == [want]
    assert list(chain.stream(QUERY, config)) == [want]
    assert await chain.abatch([QUERY, QUERY], config) == chain.batch([QUERY, QUERY], config) == [want, want]
    assert sorted(name for name, _ in recorder.events) == ["end"] * 6 + ["start"] * 6
    assert {"mine", "ours"} <= set(recorder.tags)


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_a_filter_holds_in_every_mode(any_index: M3Index, mode: SearchMode) -> None:
    where = {"lang": "de"}
    assert set(ids(M3Retriever(index=any_index, mode=mode, where=where).invoke(QUERY))) == {"tart", "red"}
    assert set(ids(M3Retriever(index=any_index).invoke(QUERY, mode=mode, where=where))) == {"tart", "red"}
    text = {"$and": [{"$contains": "apple"}, {"$not_contains": "car"}]}
    assert set(ids(M3Retriever(index=any_index, mode=mode, where_document=text).invoke(QUERY))) == {"tart", "pie"}
    assert ids(M3Retriever(index=any_index, where=where).invoke(QUERY, mode=mode, where_document=text)) == ["tart"]


def test_none_in_a_call_lifts_the_setting_of_the_retriever(index: M3Index) -> None:
    retriever = M3Retriever(index=index, where={"lang": "de"}, threshold=0.5, weights=(0, 0, 1))
    assert retriever.invoke(QUERY, where=None, threshold=None, weights=None) == M3Retriever(index=index).invoke(QUERY)
    assert ids(retriever.invoke(QUERY, mode="dense", weights=None, threshold=None)) == ["tart", "red"]


def test_a_threshold_cuts_what_scores_less(index: M3Index) -> None:
    first, second, third, *_ = index.search(QUERY)
    threshold = (second.score + third.score) / 2
    assert ids(M3Retriever(index=index, threshold=threshold).invoke(QUERY)) == [first.document.id, second.document.id]
    assert ids(M3Retriever(index=index).invoke(QUERY, threshold=first.score)) == [first.document.id]


def test_a_profile_of_a_call_goes_before_that_of_the_index(index: M3Index) -> None:
    profile = Profile(weights=Weights(0, 0, 1), thresholds={"hybrid": 0.6})
    want = [hit.document.id for hit in index.search(QUERY, threshold=0.6, weights=(0, 0, 1))]
    assert ids(M3Retriever(index=index, profile=profile, threshold="profile").invoke(QUERY)) == want
    assert ids(M3Retriever(index=index).invoke(QUERY, profile=profile, threshold="profile")) == want
    assert 0 < len(want) < COUNT
    keyword = M3Retriever(index=index, profile="keyword", return_scores=True).invoke(QUERY)
    assert [as_hit(document).score for document in keyword] == [
        hit.score for hit in index.search(QUERY, weights=(0.3, 0.6, 0.1))
    ]


def test_the_profile_can_give_the_threshold(filled: Callable[..., M3Index]) -> None:
    index = filled(MemoryStore(), profile=Profile(thresholds={"hybrid": 0.5, "colbert": 2.0}))
    retriever = M3Retriever(index=index, threshold="profile")
    assert ids(retriever.invoke(QUERY)) == [hit.document.id for hit in index.search(QUERY, threshold=0.5)]
    assert 0 < len(retriever.invoke(QUERY)) < COUNT
    assert retriever.invoke(QUERY, mode="colbert") == []


@pytest.mark.parametrize("weights", [(0, 1, 0), [0.0, 2.0, 0.0], Weights(0, 1, 0), {"sparse": 3.0}])
def test_weights_of_any_form_decide_the_score(index: M3Index, weights: Any) -> None:
    for documents in (
        M3Retriever(index=index, weights=weights, return_scores=True).invoke(QUERY),
        M3Retriever(index=index, return_scores=True).invoke(QUERY, weights=weights),
    ):
        scores = [document.metadata["score"] for document in documents]
        assert scores == pytest.approx([document.metadata["scores"]["sparse"] for document in documents])
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 0


def test_metadata_is_as_stored_without_scores(any_index: M3Index) -> None:
    want = [
        LangChainDocument(hit.document.text, id=hit.document.id, metadata=dict(hit.document.metadata))
        for hit in any_index.search(QUERY)
    ]
    scoring = M3Retriever(index=any_index, return_scores=True)
    assert M3Retriever(index=any_index).invoke(QUERY) == want
    assert scoring.invoke(QUERY, return_scores=False) == want
    assert asyncio.run(scoring.ainvoke(QUERY, return_scores=False)) == want
    [scored, *_] = M3Retriever(index=any_index).invoke(QUERY, return_scores=True)
    assert set(scored.metadata) - set(want[0].metadata) == SCORE_KEYS


def test_stored_and_given_metadata_are_never_touched(any_index: M3Index, documents: list[Document]) -> None:
    names = [document.id for document in documents]
    given = [dict(document.metadata) for document in documents]
    for document in M3Retriever(index=any_index, return_scores=True).invoke(QUERY):
        document.metadata["lang"] = "changed"
        document.metadata.get("tags", []).append("changed")
    assert [document.metadata for document in any_index.get(names)] == given
    assert [document.metadata for document in documents] == given


def test_the_hits_themselves_get_no_scores_into_their_metadata(documents: list[Document]) -> None:
    index = KeepingIndex(HashingEncoder(), MemoryStore())
    index.add(documents)
    assert len(M3Retriever(index=index, return_scores=True).invoke(QUERY)) == COUNT
    assert not any(SCORE_KEYS & set(hit.document.metadata) for hit in index.hits)


def test_a_stored_key_named_score_is_seen_again_without_scores() -> None:
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document("rated", "apple pie", {"score": 5})])
    [hit] = index.search(QUERY)
    retriever = M3Retriever(index=index, return_scores=True)
    assert retriever.invoke(QUERY)[0].metadata["score"] == hit.score != 5
    assert retriever.invoke(QUERY, return_scores=False)[0].metadata == {"score": 5}


def test_the_bookkeeping_of_llama_index_stays_out_of_sight() -> None:
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document("node", "apple pie", {"_node_content": "{}", "_node_type": "TextNode", "doc_id": "a", "_node": 1})])
    [document] = M3Retriever(index=index).invoke(QUERY)
    assert document.metadata == {"_node": 1}
    [scored] = M3Retriever(index=index, return_scores=True).invoke(QUERY)
    assert set(scored.metadata) == {"_node", *SCORE_KEYS}


def test_batches_give_what_single_calls_give(any_index: M3Index) -> None:
    retriever = M3Retriever(index=any_index)
    queries = [QUERY, "trains at noon", "house"]
    want = [retriever.invoke(query, k=2) for query in queries]
    assert retriever.batch(queries, k=2) == want
    assert asyncio.run(retriever.abatch(queries, k=2)) == want
    assert want[0] != want[1]


def test_callbacks_hear_of_start_and_end(index: M3Index) -> None:
    for call in (M3Retriever.invoke, lambda *given: asyncio.run(M3Retriever.ainvoke(*given))):
        recorder = Recorder()
        documents = call(M3Retriever(index=index), QUERY, {"callbacks": [recorder]})
        assert recorder.events == [("start", QUERY), ("end", documents)]


def test_callbacks_hear_of_an_error(index: M3Index) -> None:
    recorder = Recorder()
    with pytest.raises(InvalidArgumentError) as raised:
        M3Retriever(index=index).invoke(QUERY, {"callbacks": [recorder]}, k=0)
    assert recorder.events == [("start", QUERY), ("error", raised.value)]


def test_a_trace_names_the_retriever_the_store_and_the_model(index: M3Index) -> None:
    recorder = Recorder()
    M3Retriever(index=index).invoke(QUERY, {"callbacks": [recorder]})
    assert recorder.metadata == {
        "ls_retriever_name": "m3",
        "ls_vector_store_provider": "MemoryStore",
        "ls_embedding_provider": "HashingEncoder",
        "ls_embedding_model": "hashing-256",
    }


def test_it_takes_part_in_a_chain(index: M3Index) -> None:
    chain = M3Retriever(index=index, k=2) | RunnableLambda(lambda documents: [doc.page_content for doc in documents])
    want = [hit.document.text for hit in index.search(QUERY, 2)]
    assert chain.invoke(QUERY) == want
    assert asyncio.run(chain.ainvoke(QUERY)) == want


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
        {"where_document": {"$like": "e"}},
        {"profile": "no such preset"},
    ],
    ids=str,
)
def test_nonsense_is_refused_at_the_call_however_it_came(index: M3Index, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        M3Retriever(index=index, **wrong).invoke(QUERY)
    with pytest.raises(InvalidArgumentError):
        M3Retriever(index=index).invoke(QUERY, **wrong)
    with pytest.raises(InvalidArgumentError):
        asyncio.run(M3Retriever(index=index).ainvoke(QUERY, **wrong))


def test_unknown_keywords_raise(index: M3Index) -> None:
    with pytest.raises(TypeError, match="top_k"):
        M3Retriever(index=index).invoke(QUERY, top_k=3)
    with pytest.raises(TypeError, match="top_k"):
        asyncio.run(M3Retriever(index=index).ainvoke(QUERY, top_k=3))
    with pytest.raises(ValueError, match="top_k"):
        M3Retriever(index=index, top_k=3)


def test_an_index_is_needed() -> None:
    with pytest.raises(ValueError, match="index"):
        M3Retriever(index="./index")


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "langchain_core":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from m3retriever import MissingExtraError
try:
    import m3retriever.langchain
except MissingExtraError as error:
    print(error)
"""


def test_without_langchain_core_the_error_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
    assert done.stdout == "langchain-core is not installed; run: pip install 'm3retriever[langchain]'\n"


class TestStandardSuite(RetrieversIntegrationTests):
    """LangChain's own suite for retrievers, over both stores."""

    @pytest.fixture(autouse=True)
    def _use(self, any_index: M3Index) -> None:
        self.index = any_index

    @property
    def retriever_constructor(self) -> type[M3Retriever]:
        return M3Retriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return QUERY
