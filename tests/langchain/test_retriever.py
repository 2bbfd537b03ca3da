"""M3Retriever for LangChain: what the index finds comes through unchanged, and every setting counts."""

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document as LangChainDocument
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from m3retriever import (
    ChromaStore,
    Document,
    HashingEncoder,
    Hit,
    InvalidArgumentError,
    M3Index,
    M3Vectors,
    MemoryStore,
    Profile,
    Weights,
)
from m3retriever.langchain import M3Retriever
from m3retriever.ranking import SearchMode

QUERY = "red apple pie"
PAUSE = 0.4  # seconds a slow query takes
SETTINGS = ["k", "mode", "weights", "threshold", "where", "return_scores"]
SCORE_KEYS = {"score", "scores", "ranks", "found_by"}
DOCUMENTS = [
    Document("pie", "apple pie", {"lang": "en", "year": 2020}),
    Document("long", "a red car stands before the old red house on the hill with an apple tree", {"lang": "en"}),
    Document("tart", "red apple tart and apple pie for all", {"lang": "de", "tags": ["sweet", "warm"]}),
    Document("red", "red red red", {"lang": "de"}),
    Document("far", "trains leave at noon", {"lang": "en"}),
]


class SlowEncoder(HashingEncoder):
    """Takes its time over a query, as a real model does."""

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        time.sleep(PAUSE)
        return super().encode_queries(texts)


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

    def on_retriever_start(self, serialized: Any, query: str, **told: Any) -> None:
        self.events.append(("start", query))
        self.metadata = told["metadata"]

    def on_retriever_end(self, documents: Sequence[LangChainDocument], **told: Any) -> None:
        self.events.append(("end", list(documents)))

    def on_retriever_error(self, error: BaseException, **told: Any) -> None:
        self.events.append(("error", error))


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


def ids(documents: Sequence[LangChainDocument]) -> list[str | None]:
    return [document.id for document in documents]


def as_hit(document: LangChainDocument) -> Hit:
    """The hit that a Document with scores in its metadata came from."""
    metadata = dict(document.metadata)
    score, scores, ranks, found_by = (metadata.pop(key) for key in ("score", "scores", "ranks", "found_by"))
    assert document.id is not None
    return Hit(Document(document.id, document.page_content, metadata), score, scores, ranks, frozenset(found_by))


async def beats_during(work: Coroutine[Any, Any, Any]) -> int:
    """How often another task had its turn meanwhile; 20 where nothing blocks."""
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(PAUSE / 20)
            beats += 1

    task = asyncio.create_task(heart())
    await work
    task.cancel()
    return beats


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_documents_carry_the_hits_of_the_index_in_their_order(any_index: M3Index, mode: SearchMode) -> None:
    documents = M3Retriever(index=any_index, mode=mode).invoke(QUERY)
    hits = any_index.search(QUERY, mode=mode)
    assert [as_hit(document) for document in documents] == hits
    assert len(hits) >= 3


def test_found_by_is_a_sorted_list(index: M3Index) -> None:
    assert M3Retriever(index=index).invoke(QUERY)[0].metadata["found_by"] == ["dense", "sparse"]


def test_k_comes_from_the_constructor(index: M3Index) -> None:
    assert len(M3Retriever(index=index, k=2).invoke(QUERY)) == 2


def test_k_of_a_call_goes_before_that_of_the_constructor(index: M3Index) -> None:
    retriever = M3Retriever(index=index, k=2)
    assert len(retriever.invoke(QUERY, k=4)) == 4
    assert len(retriever.bind(k=3).invoke(QUERY)) == 3
    assert len(retriever.invoke(QUERY)) == 2


def test_k_and_mode_can_be_configured(index: M3Index) -> None:
    retriever = M3Retriever(index=index).configurable_fields(k=ConfigurableField(id="k"), mode=ConfigurableField(id="mode"))
    documents = retriever.invoke(QUERY, {"configurable": {"k": 2, "mode": "colbert"}})
    assert ids(documents) == [hit.document.id for hit in index.search(QUERY, 2, mode="colbert")]
    assert len(retriever.invoke(QUERY)) == len(DOCUMENTS)


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_async_gives_what_sync_gives(any_index: M3Index, mode: SearchMode) -> None:
    retriever = M3Retriever(index=any_index, mode=mode)
    settings: dict[str, Any] = {"k": 2, "threshold": 0.01, "where": {"lang": "de"}}
    assert asyncio.run(retriever.ainvoke(QUERY, **settings)) == retriever.invoke(QUERY, **settings)
    assert asyncio.run(retriever.ainvoke(QUERY)) == retriever.invoke(QUERY)


def test_async_leaves_the_event_loop_free() -> None:
    retriever = M3Retriever(index=filled(MemoryStore(), SlowEncoder()))
    assert asyncio.run(beats_during(retriever.ainvoke(QUERY))) >= 5


def test_both_methods_take_the_same_settings_by_keyword_only() -> None:
    for method in (M3Retriever._get_relevant_documents, M3Retriever._aget_relevant_documents):
        parameters = inspect.signature(method).parameters
        assert list(parameters) == ["self", "query", "run_manager", *SETTINGS]
        assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in SETTINGS)


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_a_filter_holds_in_every_mode(any_index: M3Index, mode: SearchMode) -> None:
    where = {"lang": "de"}
    assert set(ids(M3Retriever(index=any_index, mode=mode, where=where).invoke(QUERY))) == {"tart", "red"}
    assert set(ids(M3Retriever(index=any_index).invoke(QUERY, mode=mode, where=where))) == {"tart", "red"}


def test_none_in_a_call_lifts_the_setting_of_the_retriever(index: M3Index) -> None:
    retriever = M3Retriever(index=index, where={"lang": "de"}, threshold=0.5, weights=(0, 0, 1))
    assert retriever.invoke(QUERY, where=None, threshold=None, weights=None) == M3Retriever(index=index).invoke(QUERY)
    assert ids(retriever.invoke(QUERY, mode="dense", weights=None, threshold=None)) == ["tart", "red"]


def test_a_threshold_cuts_what_scores_less(index: M3Index) -> None:
    first, second, third, *_ = index.search(QUERY)
    threshold = (second.score + third.score) / 2
    assert ids(M3Retriever(index=index, threshold=threshold).invoke(QUERY)) == [first.document.id, second.document.id]
    assert ids(M3Retriever(index=index).invoke(QUERY, threshold=first.score)) == [first.document.id]


def test_the_profile_can_give_the_threshold() -> None:
    index = filled(MemoryStore(), profile=Profile(thresholds={"hybrid": 0.5, "colbert": 2.0}))
    retriever = M3Retriever(index=index, threshold="profile")
    assert ids(retriever.invoke(QUERY)) == [hit.document.id for hit in index.search(QUERY, threshold=0.5)]
    assert 0 < len(retriever.invoke(QUERY)) < len(DOCUMENTS)
    assert retriever.invoke(QUERY, mode="colbert") == []


@pytest.mark.parametrize("weights", [(0, 1, 0), [0.0, 2.0, 0.0], Weights(0, 1, 0), {"sparse": 3.0}])
def test_weights_of_any_form_decide_the_score(index: M3Index, weights: Any) -> None:
    for documents in (
        M3Retriever(index=index, weights=weights).invoke(QUERY),
        M3Retriever(index=index).invoke(QUERY, weights=weights),
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
    assert M3Retriever(index=any_index, return_scores=False).invoke(QUERY) == want
    assert M3Retriever(index=any_index).invoke(QUERY, return_scores=False) == want
    assert asyncio.run(M3Retriever(index=any_index).ainvoke(QUERY, return_scores=False)) == want
    [scored, *_] = M3Retriever(index=any_index, return_scores=False).invoke(QUERY, return_scores=True)
    assert set(scored.metadata) - set(want[0].metadata) == SCORE_KEYS


def test_stored_and_given_metadata_are_never_touched(any_index: M3Index) -> None:
    names = [document.id for document in DOCUMENTS]
    given = [dict(document.metadata) for document in DOCUMENTS]
    for document in M3Retriever(index=any_index).invoke(QUERY):
        document.metadata["lang"] = "changed"
        document.metadata.get("tags", []).append("changed")
    assert [document.metadata for document in any_index.get(names)] == given
    assert [document.metadata for document in DOCUMENTS] == given


def test_the_hits_themselves_get_no_scores_into_their_metadata() -> None:
    index = KeepingIndex(HashingEncoder(), MemoryStore())
    index.add(DOCUMENTS)
    assert len(M3Retriever(index=index).invoke(QUERY)) == len(DOCUMENTS)
    assert not any(SCORE_KEYS & set(hit.document.metadata) for hit in index.hits)


def test_a_stored_key_named_score_is_seen_again_without_scores() -> None:
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document("rated", "apple pie", {"score": 5})])
    [hit] = index.search(QUERY)
    retriever = M3Retriever(index=index)
    assert retriever.invoke(QUERY)[0].metadata["score"] == hit.score != 5
    assert retriever.invoke(QUERY, return_scores=False)[0].metadata == {"score": 5}


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


@pytest.mark.anyio
class TestStandardSuite(RetrieversIntegrationTests):
    """LangChain's own suite for retrievers, over Chroma."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    def _fill(self, tmp_path: Path) -> Iterator[None]:
        with filled(ChromaStore(tmp_path / "index")) as self.index:
            yield

    @property
    def retriever_constructor(self) -> type[M3Retriever]:
        return M3Retriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return QUERY
