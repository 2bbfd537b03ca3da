"""M3VectorStore: nodes go in and come out unchanged, and are deleted and listed by id and filter."""

from typing import Any

import pytest
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from m3retriever import Document, InvalidArgumentError, InvalidDocumentError, M3Index
from m3retriever.llama_index import M3VectorStore, StoreEmbedding

QUERY = "red apple pie"


def node(id: str, text: str, source: str | None = None, **metadata: Any) -> TextNode:
    links: dict[Any, Any] = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)} if source else {}
    return TextNode(id_=id, text=text, metadata=metadata, relationships=links)


NODES = [
    node("pie", "apple pie", "cooking", lang="en", year=2020),
    node("long", "a red car stands before the old red house on the hill with an apple tree", "cars", lang="en"),
    node("tart", "red apple tart and apple pie for all", "cooking", lang="de", tags=["sweet", "warm"]),
    node("red", "red red red", lang="de"),
    node("twin", "apple pie", "cars", lang="en"),
    node("far", "trains leave at noon", "trains", lang="en"),
]


@pytest.fixture
def index(empty_index: M3Index) -> M3Index:
    M3VectorStore(empty_index).add(NODES)
    return empty_index


@pytest.fixture
def store(index: M3Index) -> M3VectorStore:
    return M3VectorStore(index)


def lang(value: str) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="lang", value=value)])


def found(store: M3VectorStore, text: str = QUERY, mode: VectorStoreQueryMode = VectorStoreQueryMode.DEFAULT) -> list[str]:
    return store.query(VectorStoreQuery(query_str=text, similarity_top_k=10, mode=mode)).ids or []


def test_add_returns_the_ids_and_keeps_the_nodes(empty_index: M3Index) -> None:
    store = M3VectorStore(empty_index)
    assert store.add(NODES) == [node.node_id for node in NODES]
    assert store.add([]) == []
    assert store.get_nodes([node.node_id for node in NODES]) == NODES
    assert [document.text for document in empty_index.get(["pie"])] == ["apple pie"]


def test_nodes_that_are_given_stay_as_they_are(empty_index: M3Index) -> None:
    given = [node("a", "apple", "doc", none=None, empty=[]), LlamaDocument(text="pie", embedding=[1.0], metadata={"b": 1})]
    before, hashes = [one.to_dict() for one in given], [one.hash for one in given]
    store = M3VectorStore(empty_index, metadata_mode="embed")
    store.add(given)
    for back in store.get_nodes():
        back.metadata["planted"] = True
    assert [one.to_dict() for one in given] == before
    assert [one.hash for one in given] == hashes
    assert all("planted" not in back.metadata for back in store.get_nodes())


def test_a_known_id_is_replaced_and_what_is_unchanged_is_not_encoded_again(empty_index: M3Index, counting: Any) -> None:
    store = M3VectorStore(empty_index)
    store.add(NODES)
    store.add([*NODES[1:], node("pie", "apple pie", "cooking", lang="fr")])
    assert counting.documents == len(NODES) + 1
    [back] = store.get_nodes(["pie"])
    assert back.metadata == {"lang": "fr"}
    assert len(empty_index) == len(NODES)


def test_nothing_is_stored_where_one_node_cannot_be(empty_index: M3Index) -> None:
    with pytest.raises(InvalidDocumentError, match="'page'.*dict|page"):
        M3VectorStore(empty_index).add([NODES[0], node("bad", "text", page={"number": 1})])
    assert len(empty_index) == 0


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (NODES[0], r"got one TextNode: write \[node\]"),
        (None, "takes a list of nodes; got None"),
        ("abc", "takes a list of nodes; got 'abc'"),
        ([NODES[0], None], "got None among them"),
        ([Document("a", "apple")], "takes LlamaIndex's nodes; got Document"),
    ],
)
def test_what_is_no_list_of_nodes_is_refused_in_words(empty_index: M3Index, given: Any, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        M3VectorStore(empty_index).add(given)
    assert len(empty_index) == 0


def test_nodes_may_come_from_any_iterable(empty_index: M3Index) -> None:
    assert M3VectorStore(empty_index).add(iter(NODES)) == [node.node_id for node in NODES]  # type: ignore[arg-type]


def test_delete_removes_all_nodes_of_a_document_and_no_other(store: M3VectorStore, index: M3Index) -> None:
    store.delete("cooking")
    assert index.ids() == ["far", "long", "red", "twin"]
    store.delete("cooking")
    store.delete("unknown")
    store.delete("far")  # a node's id is no document's
    store.delete("None")  # what other stores write for a node without a document
    assert index.ids() == ["far", "long", "red", "twin"]


def test_delete_removes_a_document_that_was_stored_whole(store: M3VectorStore, index: M3Index) -> None:
    store.add([LlamaDocument(text="whole", id_="whole"), node("part", "a part", "whole"), node("other", "whole")])
    index.add([Document("LangChain", "whole", {"lang": "en"})])
    store.delete("whole")
    store.delete("LangChain")
    assert set(index.ids()) == {node.node_id for node in NODES} | {"other", "LangChain"}


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"node_ids": ["pie", "unknown", "pie"]}, ["far", "long", "red", "tart", "twin"]),
        ({"filters": lang("de")}, ["far", "long", "pie", "twin"]),
        ({"node_ids": ["pie", "red"], "filters": lang("de")}, ["far", "long", "pie", "tart", "twin"]),
        ({"node_ids": ["pie"], "filters": MetadataFilters(filters=[])}, ["far", "long", "red", "tart", "twin"]),
        ({"node_ids": []}, ["far", "long", "pie", "red", "tart", "twin"]),
        ({"node_ids": [], "filters": lang("de")}, ["far", "long", "pie", "red", "tart", "twin"]),
        ({"filters": lang("fr")}, ["far", "long", "pie", "red", "tart", "twin"]),
    ],
)
def test_delete_nodes_removes_what_ids_and_filters_both_name(
    store: M3VectorStore, index: M3Index, given: dict[str, Any], left: list[str]
) -> None:
    store.delete_nodes(**given)
    assert index.ids() == left


@pytest.mark.parametrize("given", [{}, {"filters": MetadataFilters(filters=[])}])
def test_delete_nodes_does_not_empty_the_store(store: M3VectorStore, index: M3Index, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="use clear"):
        store.delete_nodes(**given)
    assert len(index) == len(NODES)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"node_ids": ["tart", "unknown", "pie", "tart"]}, ["tart", "pie"]),
        ({"filters": lang("de")}, ["red", "tart"]),
        ({"node_ids": ["tart", "pie", "red"], "filters": lang("de")}, ["tart", "red"]),
        ({"node_ids": []}, []),
        ({}, ["far", "long", "pie", "red", "tart", "twin"]),
    ],
)
def test_get_nodes_gives_what_ids_and_filters_both_name(store: M3VectorStore, given: dict[str, Any], want: list[str]) -> None:
    assert [node.node_id for node in store.get_nodes(**given)] == want


def test_clear_removes_everything_and_the_store_goes_on(store: M3VectorStore, index: M3Index) -> None:
    index.add([Document("LangChain", "red apple")])
    store.clear()
    store.clear()
    assert (len(index), store.get_nodes(), found(store)) == (0, [], [])
    assert store.add(NODES[:1]) == ["pie"]


def test_documents_of_another_framework_are_found(store: M3VectorStore, index: M3Index) -> None:
    index.add([Document("theirs", "red apple pie", {"lang": "fr"})])
    [back] = store.get_nodes(filters=lang("fr"))
    assert type(back) is TextNode
    assert (back.node_id, back.text, back.metadata) == ("theirs", "red apple pie", {"lang": "fr"})
    assert found(store)[0] == "theirs"


def test_the_text_with_its_metadata_is_encoded_when_asked_for(empty_index: M3Index) -> None:
    given = node("a", "leaves at noon", title="train")
    plain, with_metadata = M3VectorStore(empty_index), M3VectorStore(empty_index, metadata_mode=MetadataMode.EMBED)
    plain.add([given])
    assert found(plain, "train", VectorStoreQueryMode.SPARSE) == []
    with_metadata.add([given])
    assert found(plain, "train", VectorStoreQueryMode.SPARSE) == ["a"]
    assert plain.get_nodes() == [given]
    assert empty_index.get(["a"])[0].text == "title: train\n\nleaves at noon"


def test_an_unknown_metadata_mode_is_refused(memory_index: M3Index) -> None:
    with pytest.raises(InvalidArgumentError, match="none.*'some'"):
        M3VectorStore(memory_index, metadata_mode="some")


@pytest.mark.parametrize("method", ["add", "delete", "delete_nodes"])
def test_keywords_that_would_be_ignored_are_refused(store: M3VectorStore, method: str) -> None:
    given: Any = {"add": NODES, "delete": "cooking", "delete_nodes": ["pie"]}[method]
    with pytest.raises(InvalidArgumentError, match="batch_size"):
        getattr(store, method)(given, batch_size=3)


def test_one_id_instead_of_a_list_is_refused(store: M3VectorStore) -> None:
    for method in (store.get_nodes, store.delete_nodes):
        with pytest.raises(InvalidArgumentError, match="list"):
            method("pie")  # type: ignore[operator]


def test_the_store_says_what_it_is(memory_index: M3Index) -> None:
    store = M3VectorStore(memory_index)
    assert (store.stores_text, store.is_embedding_query, store.client) == (True, False, memory_index)
    assert isinstance(store.embed_model, StoreEmbedding)
    assert store.to_dict()["class_name"] == "M3VectorStore"


async def test_every_async_method_does_what_its_twin_does(index: M3Index) -> None:
    store = M3VectorStore(index)
    query = VectorStoreQuery(query_str=QUERY, similarity_top_k=3, mode=VectorStoreQueryMode.HYBRID, filters=lang("en"))
    assert (await store.aquery(query)) == store.query(query)
    assert (await store.aquery(query, mode="colbert")) == store.query(query, mode="colbert")
    assert await store.aget_nodes(["pie"], lang("en")) == store.get_nodes(["pie"], lang("en")) != []
    assert await store.async_add([node("new", "new", "doc")]) == ["new"]
    await store.adelete("doc")
    await store.adelete_nodes(["pie"], lang("de"))
    assert set(index.ids()) == {node.node_id for node in NODES}
    await store.adelete_nodes(filters=lang("de"))
    assert index.ids() == ["far", "long", "pie", "twin"]
    with pytest.raises(InvalidArgumentError):
        await store.adelete_nodes()
    with pytest.raises(InvalidArgumentError):
        await store.async_add(NODES, batch_size=3)
    with pytest.raises(InvalidArgumentError):
        await store.adelete("cars", batch_size=3)
    await store.aclear()
    assert len(index) == 0


async def test_async_leaves_the_event_loop_free(waiting: Any, memory_index: M3Index) -> None:
    store = M3VectorStore(M3Index(waiting, memory_index.store))
    assert await waiting.during(store.async_add(NODES)) == [node.node_id for node in NODES]
    waiting.beating.clear()
    result = await waiting.during(store.aquery(VectorStoreQuery(query_str=QUERY, similarity_top_k=2)))
    assert len(result.ids) == 2


def test_two_threads_may_delete_the_same_nodes(store: M3VectorStore, index: M3Index, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = index.ids(where={"lang": "de"})
    index.delete(listed[:1])  # between the other's looking and its deleting
    monkeypatch.setattr(index, "ids", lambda where=None, **filters: listed)
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="v", value=1, operator=FilterOperator.NE)]))
    monkeypatch.undo()
    assert index.ids(where={"lang": "de"}) == []
