"""M3VectorStore: what it takes in, gives back by id and deletes, and how a store is made; nothing of the caller's changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import DeterministicFakeEmbedding

from m3retriever import (
    ChromaStore,
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    M3Index,
    M3Vectors,
    MemoryStore,
    StoreLockedError,
    Weights,
)
from m3retriever.langchain import M3Embeddings, M3VectorStore

QUERY = "red apple pie"
COUNT = 5  # documents in the index


class BreakingEncoder(HashingEncoder):
    """Runs out of memory over one text."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        if "too much" in texts:
            raise MemoryError("too much")
        return super().encode_documents(texts, progress=progress)


class CountingIndex(M3Index):
    """Notes the number of documents of each `add`."""

    sizes: list[int]

    def add(self, documents: Any, **settings: Any) -> Any:
        self.sizes = [*getattr(self, "sizes", []), len(documents)]
        return super().add(documents, **settings)


def ids(result: Any) -> list[str]:
    return [str(document.id) for document in result]


async def both(store: M3VectorStore, method: str, *given: Any, **settings: Any) -> Any:
    """What a method gives, having checked that its async twin gives the same."""
    result = getattr(store, method)(*given, **settings)
    assert await getattr(store, f"a{method}")(*given, **settings) == result
    return result


# -- adding, getting, deleting


async def test_ids_are_the_ones_given_else_the_documents_own_else_new(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    documents = [LangChainDocument("one", id="own"), LangChainDocument("two", id="mine"), LangChainDocument("three")]
    first, second, third = store.add_documents(documents, ids=["given", None, None])
    assert (first, second) == ("given", "mine")
    assert len(third) == 36
    assert [document.page_content for document in store.get_by_ids([third, "given", "mine"])] == ["three", "one", "two"]
    *known, new = await store.aadd_documents(documents)
    assert known == ["own", "mine"]
    assert new not in (third, None)
    assert store.add_texts(["four", "five"], ids=[None, "5"])[1] == "5"
    assert len(set(await store.aadd_texts(["six", "seven"]))) == 2
    assert len(any_index) == COUNT + 3 + 2 + 2 + 2


@pytest.mark.parametrize(
    ("texts", "metadatas", "given"),
    [
        (["a", "b"], [{}], None),
        (["a", "b"], None, ["1"]),
        (["a", "b"], [{}, {}, {}], ["1", "2"]),
        (["a", "b"], [], None),
        (["a", "b"], None, "12"),
    ],
    ids=str,
)
async def test_lists_of_other_lengths_are_refused_and_nothing_is_added(
    tmp_path: Path, texts: Any, metadatas: Any, given: Any
) -> None:
    store = M3VectorStore(M3Index(HashingEncoder(), MemoryStore()))
    with pytest.raises(InvalidArgumentError, match="as many as the texts, 2"):
        store.add_texts(texts, metadatas, ids=given)
    with pytest.raises(InvalidArgumentError, match="as many as the texts, 2"):
        await store.aadd_texts(texts, metadatas, ids=given)
    with pytest.raises(InvalidArgumentError, match="as many as the texts, 2"):
        M3VectorStore.from_texts(texts, store.embeddings, metadatas, ids=given, path=tmp_path / "new")
    if metadatas is None:
        with pytest.raises(InvalidArgumentError, match="as many as the texts, 2"):
            store.add_documents([LangChainDocument(text) for text in texts], ids=given)
    assert len(store.index) == 0
    assert not (tmp_path / "new").exists()


async def test_what_cannot_be_stored_stops_all_of_the_call(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    for metadata in ({"nested": {"a": 1}}, {"none": object()}):
        with pytest.raises(InvalidDocumentError):
            store.add_texts(["fine", "not"], [{}, metadata], batch_size=1)
    with pytest.raises(InvalidDocumentError, match="more than once"):
        await store.aadd_texts(["fine", "not"], ids=["same", "same"], batch_size=1)
    with pytest.raises(InvalidArgumentError, match="list of str"):
        store.add_texts("apple")
    with pytest.raises(InvalidArgumentError, match=r"got one Document: write \[document\]"):
        store.add_documents(LangChainDocument("apple"))  # type: ignore[arg-type]
    for size in (0, -1, True, 1.5):
        with pytest.raises(InvalidArgumentError, match="batch_size"):
            store.add_texts(["apple"], batch_size=size)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="top_k"):
        store.add_documents([], top_k=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="top_k"):
        await store.aadd_documents([], top_k=3)
    assert len(any_index) == COUNT


async def test_no_documents_are_nothing_to_add(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    assert store.add_texts([]) == store.add_documents([]) == await store.aadd_documents([]) == []
    assert store.add_texts(iter(["a text from a generator"]), batch_size=1)
    assert len(any_index) == COUNT + 1


def test_batch_size_is_the_most_that_is_added_at_a_time() -> None:
    index = CountingIndex(HashingEncoder(), MemoryStore())
    store = M3VectorStore(index)
    store.add_texts([f"text {number}" for number in range(7)], batch_size=3)
    store.add_texts([f"text {number}" for number in range(7)])
    assert index.sizes == [3, 3, 1, 7]


async def test_a_known_id_replaces_text_and_metadata(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    store.add_documents([LangChainDocument("cherry cake", id="pie", metadata={"lang": "fr"})])
    want = LangChainDocument("cherry cake", id="pie", metadata={"lang": "fr"})
    assert await both(store, "get_by_ids", ["pie"]) == [want]
    assert store.similarity_search("cherry cake", 1) == [want]
    assert len(any_index) == COUNT


async def test_get_by_ids_keeps_the_order_and_skips_what_is_missing(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    assert ids(await both(store, "get_by_ids", ["tart", "no", "pie", "nor this"])) == ["tart", "pie"]
    assert await both(store, "get_by_ids", []) == await both(store, "get_by_ids", ["no"]) == []


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_delete_takes_ids_and_filters_and_ignores_the_unknown(any_index: M3Index, asynchronous: bool) -> None:
    store = M3VectorStore(any_index)

    async def delete(*given: Any, **filters: Any) -> bool:
        return await store.adelete(*given, **filters) if asynchronous else store.delete(*given, **filters)

    assert await delete(["no", "pie", "nor this"]) is True
    assert any_index.ids() == ["far", "long", "red", "tart"]
    assert await delete([]) is True
    assert await delete(["far", "red", "no"], where={"lang": "de"}) is True
    assert any_index.ids() == ["far", "long", "tart"]
    assert await delete(where={"lang": "en"}, where_document={"$contains": "apple"}) is True
    assert any_index.ids() == ["far", "tart"]
    assert await delete(where={"lang": "fr"}) is True
    assert await delete(where_document={"$contains": "apple"}) is True
    assert any_index.ids() == ["far"]


async def test_delete_without_anything_is_refused_and_deletes_nothing(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    for nothing in ({}, {"ids": None}, {"where": None, "where_document": None}):
        with pytest.raises(InvalidArgumentError, match="got none"):
            store.delete(**nothing)
        with pytest.raises(InvalidArgumentError, match="got none"):
            await store.adelete(**nothing)
    with pytest.raises(InvalidArgumentError, match="list of str"):
        store.delete("pie")
    with pytest.raises(InvalidArgumentError, match="list of str"):
        store.delete("pie", where={"lang": "en"})
    with pytest.raises(TypeError, match="filter"):
        store.delete(filter={"lang": "en"})  # type: ignore[call-arg]
    assert len(any_index) == COUNT
    store.delete(any_index.ids())
    assert len(any_index) == 0


async def test_documents_of_the_caller_are_never_touched(any_index: M3Index) -> None:
    store = M3VectorStore(any_index)
    given = [LangChainDocument("one", metadata={"tags": ["a"], "none": None}), LangChainDocument("two", id="2")]
    copies = [document.model_copy(deep=True) for document in given]
    metadatas: list[dict[str, Any]] = [{"tags": ["a"]}, {}]
    new = [*store.add_documents(given), *await store.aadd_documents(given), *store.add_texts(["three", "four"], metadatas)]
    M3VectorStore.from_documents(given, store.embeddings)
    for document in store.get_by_ids(new):
        document.metadata.get("tags", []).append("changed")
        document.metadata["more"] = 1
    assert given == copies
    assert metadatas == [{"tags": ["a"]}, {}]


# -- making a store


async def test_from_texts_makes_a_store_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    embeddings = M3Embeddings(HashingEncoder())
    store = M3VectorStore.from_texts(["apple", "car"], embeddings, [{"n": 1}, {"n": 2}], ids=["a", "c"], mode="dense")
    assert store.get_by_ids(["a"]) == [LangChainDocument("apple", id="a", metadata={"n": 1})]
    assert store.index.encoder is embeddings.encoder
    assert store.mode == "dense"
    other = await M3VectorStore.afrom_texts(["apple", "car"], embeddings, ids=["a", "c"], weights=(0, 1, 0))
    assert ids(other.similarity_search("car", 1)) == ["c"]
    assert other.weights == (0, 1, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given_ids", [{}, {"ids": None}, {"ids": ["x", None, None]}])
async def test_from_documents_keeps_their_ids(given_ids: dict[str, Any]) -> None:
    documents = [LangChainDocument("a", id="1"), LangChainDocument("b", id="2"), LangChainDocument("c")]
    store = M3VectorStore.from_documents(documents, M3Embeddings(HashingEncoder()), **given_ids)
    other = await M3VectorStore.afrom_documents(documents, M3Embeddings(HashingEncoder()), **given_ids)
    first = "x" if given_ids.get("ids") else "1"
    for made in (store, other):
        assert {first, "2"} < set(made.index.ids())
        assert len(made.index) == 3


def test_a_store_on_disk_opens_again_with_its_model(tmp_path: Path) -> None:
    embeddings = M3Embeddings("hashing")
    made = M3VectorStore.from_texts(["apple", "car"], embeddings, ids=["a", "c"], path=tmp_path, collection="mine")
    assert isinstance(made.index.store, ChromaStore)
    made.index.close()
    again = M3VectorStore.open(tmp_path, collection="mine", mode="sparse", profile="keyword")
    assert again.index.encoder.name == embeddings.encoder.name
    assert (again.mode, again.index.profile.weights) == ("sparse", Weights(0.3, 0.6, 0.1))
    assert ids(again.similarity_search("car")) == ["c"]
    again.index.close()
    more = M3VectorStore.from_texts(["train"], embeddings, ids=["t"], path=tmp_path, collection="mine")
    assert more.index.ids() == ["a", "c", "t"]
    more.index.close()


def test_from_texts_can_fill_an_index_that_is_open(index: M3Index) -> None:
    store = M3VectorStore.from_texts(["cherry cake"], M3Embeddings(index.encoder), ids=["new"], index=index)
    assert store.index is index
    assert len(index) == COUNT + 1
    with pytest.raises(EncoderMismatchError, match="hashing-64"):
        M3VectorStore.from_texts(["cherry cake"], M3Embeddings(HashingEncoder(64)), index=index)
    with pytest.raises(InvalidArgumentError, match="beside an index"):
        M3VectorStore.from_texts(["cherry cake"], M3Embeddings(index.encoder), index=index, collection="mine")
    assert len(index) == COUNT + 1


async def test_other_embeddings_are_refused_with_the_way_out(tmp_path: Path) -> None:
    fake = DeterministicFakeEmbedding(size=8)
    with pytest.raises(InvalidArgumentError, match="pass M3Embeddings"):
        M3VectorStore.from_texts(["a"], fake, path=tmp_path / "new")
    with pytest.raises(InvalidArgumentError, match="got DeterministicFakeEmbedding"):
        await M3VectorStore.afrom_documents([LangChainDocument("a")], fake)
    with pytest.raises(InvalidArgumentError, match="no path"):
        M3VectorStore.from_texts(["a"], M3Embeddings(HashingEncoder()), collection="mine")
    with pytest.raises(TypeError, match="top_k"):
        M3VectorStore.from_texts(["a"], M3Embeddings(HashingEncoder()), top_k=3)  # type: ignore[call-arg]
    assert not (tmp_path / "new").exists()


def test_a_folder_whose_filling_fails_is_closed_again(tmp_path: Path) -> None:
    embeddings = M3Embeddings(BreakingEncoder())
    with pytest.raises(MemoryError) as kept:  # and with it the frames in which the index was opened
        M3VectorStore.from_texts(["apple", "too much"], embeddings, ids=["a", "b"], path=tmp_path, batch_size=1)
    lock = FileLock(tmp_path / "m3" / "writer.lock", timeout=0)
    with lock, pytest.raises(StoreLockedError), M3Index.open(tmp_path, model="hashing") as index:
        index.add([Document("c", "car")])
    with M3Index.open(tmp_path, model="hashing") as index:
        assert index.ids() == ["a"]
    assert kept.value


async def test_adding_leaves_the_event_loop_free(slow_encoder: HashingEncoder, beats_during: Any) -> None:
    store = M3VectorStore(M3Index(slow_encoder, MemoryStore()))
    documents = [LangChainDocument("apple", id="a")]
    assert await beats_during(store.aadd_documents(documents)) >= 5
    assert await beats_during(store.aadd_texts(["car"])) >= 5
    assert await beats_during(M3VectorStore.afrom_documents(documents, store.embeddings)) >= 5
    assert await beats_during(M3VectorStore.afrom_texts(["car"], store.embeddings)) >= 5
