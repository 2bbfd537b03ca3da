"""Finding and removing by filter, while others write; what a copied or closed index does."""

import copy
import pickle
import threading
from enum import Enum

import pytest

from m3retriever import ChromaStore, Document, HashingEncoder, InvalidArgumentError, M3Index, MemoryStore, StoreError


class Tenant(str, Enum):
    A = "a"
    B = "b"


class Redacted(str):
    """Shows nothing of itself in a log."""

    def __repr__(self):
        return "***"


class Interrupted(M3Index):
    """Another client writes each time after this one has listed ids."""

    interruption = None

    def ids(self, *given, **settings):
        found = super().ids(*given, **settings)
        if self.interruption is not None:
            self.interruption()
        return found


@pytest.fixture(params=["memory", "chroma"])
def index(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else ChromaStore(tmp_path / "index")
    with Interrupted(HashingEncoder(), store) as index:
        index.add([Document(id, f"text of {id}", {"tenant": id[0]}) for id in ("a1", "a2", "b1")])
        yield index


def test_documents_are_found_by_filter_in_the_order_asked_for(index):
    assert [document.id for document in index.find({"tenant": "a"})] == ["a1", "a2"]
    assert [document.id for document in index.find(among=["b1", "nobody", "a2", "b1"])] == ["b1", "a2"]
    assert [document.id for document in index.find({"tenant": "a"}, among=["b1", "a2"])] == ["a2"]
    assert [document.id for document in index.find(where_document={"$contains": "a1"})] == ["a1"]
    assert [document.id for document in index.find(among=(id for id in ["b1", "a2"]))] == ["b1", "a2"]
    assert index.find(among=[]) == []
    assert len(index.find()) == 3


def test_what_changes_between_listing_and_fetching_is_not_handed_out(index):
    index.interruption = lambda: index.add([Document("a1", "now of b", {"tenant": "b"})])
    assert [document.id for document in index.find({"tenant": "a"})] == ["a2"]


def test_removing_by_filter_counts_and_leaves_the_rest(index):
    assert index.delete_where({"tenant": "a"}, among=["a1", "b1", "nobody"]) == 1
    assert index.ids() == ["a2", "b1"]
    assert index.delete_where(where_document={"$contains": "b1"}) == 1
    assert index.delete_where({"tenant": "c"}) == 0
    assert index.ids() == ["a2"]
    with pytest.raises(InvalidArgumentError, match="got none"):
        index.delete_where()


def test_nobody_changes_a_document_between_listing_and_removing(index):
    changed = threading.Event()

    def interrupt():
        def write():
            index.store.add([Document("a1", "now of b", {"tenant": "b"})], index.encoder.encode_documents(["now of b"]))
            changed.set()

        threading.Thread(target=write).start()
        assert not changed.wait(0.3), "the other thread got in between"

    index.interruption = interrupt
    index.delete_where({"tenant": "a"})
    index.interruption = None
    assert changed.wait(10)
    assert [document.text for document in index.find({"tenant": "b"})] == ["now of b", "text of b1"]


def test_unknown_ids_are_skipped_where_that_is_asked(index):
    assert [document.id for document in index.get(["a1", "?", "b1"], skip_unknown=True)] == ["a1", "b1"]
    assert index.get(["?"], skip_unknown=True) == []
    index.delete(["a1", "?"], skip_unknown=True)
    assert index.ids() == ["a2", "b1"]


@pytest.mark.parametrize("kind", [Redacted, Tenant, str])
def test_filters_that_look_alike_are_told_apart(index, kind):
    for tenant in ("a", "b"):
        hits = index.search("text", where={"tenant": kind(tenant)})
        assert {hit.document.metadata["tenant"] for hit in hits} == {tenant}
        assert {id[0] for id in index.ids({"tenant": {"$in": [kind(tenant)]}})} == {tenant}


def test_a_filter_that_its_owner_changes_is_asked_anew(index):
    where = {"tenant": "a"}
    assert index.ids(where) == ["a1", "a2"]
    where["tenant"] = "b"
    assert index.ids(where) == ["b1"]


def test_a_copy_is_the_index_itself_and_a_pickle_is_refused(index):
    assert copy.deepcopy({"index": index})["index"] is index
    with pytest.raises(TypeError, match="open it again"):
        pickle.dumps(index)


def test_an_index_says_when_it_cannot_know_its_model(tmp_path):
    with M3Index.open(tmp_path / "named", model=HashingEncoder()) as index:
        index.add([Document("a", "b")])
    with M3Index.open(tmp_path / "named") as index:
        assert index.encoder.name == HashingEncoder().name
    with M3Index.open(tmp_path / "other", model=HashingEncoder(64)) as index:
        index.add([Document("a", "b")])
    with pytest.raises(InvalidArgumentError, match=r"hashing-64.*model="):
        M3Index.open(tmp_path / "other")


def test_closing_waits_for_searches_under_way(tmp_path, monkeypatch):
    """A memory map that goes under a reader ends the process."""
    from m3retriever.stores import legs

    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    found, real = [], legs.sparse_columns

    def slow(*given):
        inside.set()
        go_on.wait(10)
        return real(*given)

    index = M3Index.open(tmp_path, model=HashingEncoder())
    index.add([Document("a", "the red fox")])
    monkeypatch.setattr(legs, "sparse_columns", slow)
    query = index.encoder.encode_queries(["fox"])
    search = threading.Thread(target=lambda: found.append(index.store.search(query, depth=5)))
    search.start()
    assert inside.wait(10)
    close = threading.Thread(target=lambda: (index.close(), closed.set()))
    close.start()
    assert not closed.wait(0.3)
    go_on.set()
    assert closed.wait(10)
    search.join(10)
    assert found[0].ids == ("a",)
    with pytest.raises(StoreError, match="closed; open it again"):
        index.search("fox")
