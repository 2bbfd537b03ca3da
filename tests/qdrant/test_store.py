"""QdrantStore scores, finds and gives back what MemoryStore does, whatever happens meanwhile."""

import json
import threading

import numpy as np
import pytest
import qdrant_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3retriever import (
    Document,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    M3Index,
    M3Vectors,
    MemoryStore,
    Split,
    UnknownDocumentError,
)
from m3retriever.stores import qdrant_points, qdrant_search
from m3retriever.stores.qdrant import QdrantStore
from m3retriever.stores.qdrant_filter import point_id
from m3retriever.testing import check_store
from m3retriever.types import BindsModel, HoldsVectors, ListsIds

from .conftest import ENCODER, filled, query, same

models = qdrant_client.models

# -- the contract --------------------------------------------------------------------------------


def test_qdrant_store_fulfils_the_contract(make):
    check_store(make)


def test_it_fulfils_the_protocols(make):
    store = make()
    assert all(isinstance(store, protocol) for protocol in (HoldsVectors, ListsIds, BindsModel))
    assert (store.missing(), store.writer(), store.ids(), len(store)) == ([], None, [], 0)


def test_a_collection_opened_again_gives_the_same_hits(make):
    store = filled(make("again"), ["red fox runs", "a blue whale", "red wine", "", "fox and whale"], lang="en")
    before, documents, vectors = store.search(query("red whale"), depth=3), store.get(store.ids()), store.vectors(store.ids())
    store.close()
    store = make("again")
    after = store.search(query("red whale"), depth=3)
    assert (after.ids, after.found_by) == (before.ids, before.found_by)
    np.testing.assert_array_equal(after.values, before.values)
    assert store.get(store.ids()) == documents
    same_vectors(store.vectors(store.ids()), vectors)


def same_vectors(ours, theirs):
    for name in ("dense", "sparse_ids", "sparse_weights", "sparse_offsets", "colbert", "colbert_offsets"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def test_vectors_come_back_to_the_last_bit_in_the_order_asked_for(make):
    random = np.random.default_rng(0)
    store, texts = make(), ["red fox", "", "a blue whale in the sea"]
    vectors = ENCODER.encode_documents(texts)
    awkward = random.normal(size=vectors.dense.shape).astype(np.float32) * np.float32(10.0) ** random.integers(-30, 8, (3, 1))
    vectors = M3Vectors(awkward, *(getattr(vectors, name) for name in list(vectors.__dataclass_fields__)[1:]))
    store.add([Document(f"d{row}", text) for row, text in enumerate(texts)], vectors)
    same_vectors(store.vectors(["d2", "d0", "d1", "d0"]), vectors.take([2, 0, 1, 0]))
    assert len(store.vectors([])) == 0
    assert store.sizes(["d2", "d1"]).tolist() == [[len(vectors[row].sparse_ids), len(vectors[row].colbert)] for row in (2, 1)]
    assert store.sizes([]).shape == (0, 2)
    for call in (store.vectors, store.sizes):
        with pytest.raises(UnknownDocumentError):
            call(["d0", "nobody"])


def bare(dense, sparse=None, tokens=None):
    """One text's vectors, any of them left out but the dense one."""
    dim = len(dense)
    return M3Vectors.from_rows(
        [dense], [sparse or {}], [np.array([] if tokens is None else tokens, np.float32).reshape(-1, dim)]
    )


def test_documents_and_queries_without_sparse_entries_or_tokens_are_scored_as_in_memory(make):
    rows = {
        "whole": bare([1, 0], {3: 0.5, 4: 1.0}, [[1, 0], [0, 1]]),
        "no tokens": bare([0.6, 0.8], {3: 0.5}),
        "no entries": bare([0, 1], None, [[0, 1]]),
        "dense only": M3Vectors.dense_only([1, 1]),
        "weight 0": M3Vectors(
            *(getattr(bare([0, -1], {3: 1.0}), name) for name in ("dense", "sparse_ids")),
            [0.0],
            [0, 1],
            np.empty((0, 2), np.float32),
            [0, 0],
        ),
    }
    store, exact = make(), MemoryStore()
    for each in (store, exact):
        each.add([Document(id, "") for id in rows], M3Vectors.concat(list(rows.values())))
    for asked in (
        bare([1, 0], {3: 2.0, 9: 1.0}, [[1, 0], [0, -1]]),
        bare([1, 0], {9: 1.0}, [[-1, 0]]),
        bare([0, 1], None, [[0, 1]]),
        bare([0, 1], {3: 1.0}),
        M3Vectors.dense_only([3, 4]),
    ):
        for depth in (1, 2, 10):
            same(store.search(asked, depth=depth), exact.search(asked, depth=depth))
        same(store.score(asked, list(rows)), exact.score(asked, list(rows)))
    same_vectors(store.vectors(list(rows)), exact.vectors(list(rows)))


def test_colbert_is_the_mean_over_the_queries_tokens_and_a_token_that_matches_nothing_counts_against(make):
    store = make()
    store.add([Document("a", "")], bare([1, 0], None, [[-1, 0]]))
    assert store.score(bare([1, 0], None, [[1, 0], [0, 1]]), ["a"]).values.tolist() == [[1, 0, -0.5]]


def test_a_document_that_is_replaced_keeps_nothing_of_the_old_one(make):
    store = make()
    store.add([Document("a", "old", {"x": 1, "gone": "b"})], bare([1, 0], {3: 1.0}, [[1, 0]]))
    store.add([Document("a", "new", {"x": 2.0, "none": None})], M3Vectors.dense_only([0, 1]))
    assert store.get(["a"]) == [Document("a", "new", {"x": 2.0})]
    assert store.ids({"gone": {"$empty": False}}) == store.ids({"x": 1}) == []
    assert store.sizes(["a"]).tolist() == [[0, 0]]
    found = store.search(bare([1, 0], {3: 1.0}, [[1, 0]]), depth=5)
    assert (found.values.tolist(), found.found_by) == ([[0, 0, 0]], ({"dense"},))


def test_delete_forgets_and_an_unknown_id_stops_it_before_anything_is_changed(make):
    store = filled(make(), ["red fox", "blue whale", "red wine"])
    with pytest.raises(UnknownDocumentError, match="not in the store: 'nobody'"):
        store.delete(["d0", "nobody"])
    assert len(store) == 3
    store.delete(["d0", "d0", "d2"])
    assert store.ids() == ["d1"]
    assert store.search(query("red fox"), depth=5).ids == ("d1",)
    store.delete([])
    for call in (store.get, store.vectors, lambda ids: store.score(query("a"), ids)):
        with pytest.raises(UnknownDocumentError):
            call(["d0"])
        with pytest.raises(InvalidArgumentError, match="a list of str"):
            call("d1")


def test_an_empty_batch_makes_no_collection(make):
    store = make()
    store.add([], M3Vectors.empty(8))
    store.delete([])
    assert store.settings() == {"model": None, "source": None, "dim": None}


plain = (
    st.text(max_size=5) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
listed = st.one_of(
    st.lists(kind, min_size=1, max_size=3)
    for kind in (st.text(max_size=5), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(-1e300, 1e300))
)
keys = st.text(min_size=1, max_size=8).filter(lambda key: key[0] not in "#$" and not key.startswith("chroma:"))
awkward = st.sampled_from(["a.b", 'a"b', "a[0]", "a[]", " ", "a b", "\\", "id", "text", "metadata", "\0", "中", "__proto__"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(id=st.text(min_size=1), text=st.text(), metadata=st.dictionaries(keys | awkward, plain | listed, max_size=4))
def test_a_document_comes_back_exactly_as_it_went(store, id, text, metadata):
    store.add([Document(id, text, metadata)], M3Vectors.dense_only([1, 0]))
    [back] = store.get([id])
    assert (back.id, back.text) == (id, text)
    assert repr(dict(back.metadata)) == repr(dict(sorted(metadata.items()))), "types, signs of zero and every digit included"


# -- ties ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [12, 40, 150])
def test_ties_at_the_border_of_depth_are_decided_by_id(make, count):
    store, exact = make(), MemoryStore()
    order = np.random.default_rng(count).permutation(count)
    documents = [Document(f"t{row:04}", "red fox" if row % 3 else "fox red") for row in order]
    documents += [Document("best", "red fox red fox"), Document("other", "blue whale")]
    for each in (store, exact):
        each.add(documents, ENCODER.encode_documents([document.text for document in documents]))
    for depth in (1, 2, 5, count - 1, count + 1):
        for text in ("red fox", "fox", "whale", "nothing"):
            same(store.search(query(text), depth=depth), exact.search(query(text), depth=depth))


def test_what_ties_without_end_is_cut_and_not_asked_for_for_ever(make, monkeypatch):
    monkeypatch.setattr(qdrant_search, "MOST_TIED", 20)
    store = filled(make(), ["red fox"] * 60)
    asked, call = [], store._connection.call
    monkeypatch.setattr(store._connection, "call", lambda method, **rest: asked.append(method) or call(method, **rest))
    found = store.search(query("red fox"), depth=5)
    assert 5 <= len(found) <= 10
    assert asked.count("query_batch_points") == 3, "the legs twice, the scores once"


def test_a_search_takes_two_requests_where_nothing_ties(make, monkeypatch):
    random, store = np.random.default_rng(0), make()
    rows = [bare(random.normal(size=8), {3: 1 + random.random(), row: 1.0}, random.normal(size=(3, 8))) for row in range(9, 39)]
    store.add([Document(f"d{row}", "") for row in range(30)], M3Vectors.concat(rows))
    asked, call = [], store._connection.call
    monkeypatch.setattr(store._connection, "call", lambda method, **rest: asked.append(method) or call(method, **rest))
    assert len(store.search(rows[5], depth=4, where={"#id": {"$nin": ["d3"]}})) >= 4
    assert asked == ["query_batch_points"] * 2


def test_a_score_does_not_depend_on_the_other_candidates(make):
    store = filled(make(), [f"w{row} w{row % 5} fox" for row in range(60)])
    many = store.search(query("w3 fox w44"), depth=60)
    for depth in (1, 7):
        few = store.search(query("w3 fox w44"), depth=depth)
        for row, id in enumerate(few.ids):
            np.testing.assert_allclose(few.values[row], many.values[many.ids.index(id)], atol=5e-7)


# -- sizes ---------------------------------------------------------------------------------------


def test_a_document_with_more_tokens_than_qdrant_takes_is_refused_before_anything_is_stored(make):
    store, dim = make(), 8192
    most = qdrant_points.MOST_NUMBERS // dim
    assert most == 127
    rows = [np.eye(1, dim, dtype=np.float32).repeat(count, axis=0) for count in (1, most + 1)]
    vectors = M3Vectors.from_rows(np.eye(2, dim), [{}, {}], rows)
    with pytest.raises(InvalidDocumentError, match=r"document 'long': .* at most 127 token vectors .* got 128: .*--split"):
        store.add([Document("short", ""), Document("long", "")], vectors)
    assert len(store) == 0
    store.add([Document("short", "")], vectors[0])
    assert len(store) == 1


def test_a_document_that_no_request_can_hold_is_refused(make, monkeypatch):
    monkeypatch.setattr(qdrant_points, "REQUEST_BYTES", 1 << 20)
    store = make()
    with pytest.raises(
        InvalidDocumentError, match=r"document 'd1': Qdrant takes at most 1 MB a request; .* up to 1\.\d MB: cut"
    ):
        filled(store, ["short", "x" * (1 << 20)])
    assert len(store) == 0


def test_batches_are_bounded_by_bytes_and_by_points_and_a_point_is_never_longer_than_was_counted(monkeypatch):
    monkeypatch.setattr(qdrant_points, "BATCH_BYTES", 100_000)
    monkeypatch.setattr(qdrant_points, "BATCH_POINTS", 7)
    texts = [("狐\n\0" * row + " w") * (1 + row // 10 * 30) for row in range(40)]
    documents = [Document(f"d{row}", text, {"k": [text[:9]], "n": 0.1 * row}) for row, text in enumerate(texts)]
    vectors = HashingEncoder(32).encode_documents(texts)
    batches = list(qdrant_points.points(documents, vectors, lambda: 1 << 60))
    assert [point.payload["id"] for batch in batches for point in batch] == [document.id for document in documents]
    assert max(map(len, batches)) == 7
    assert min(map(len, batches)) < 7
    row = 0
    for batch in batches:
        sizes = [len(json.dumps(point.model_dump(mode="json", exclude_none=True))) for point in batch]
        counted = [qdrant_points._bytes(point.payload, vectors[row + place]) for place, point in enumerate(batch)]
        assert all(size <= most for size, most in zip(sizes, counted, strict=True))
        assert len(batch) == 1 or sum(sizes) <= 100_000
        row += len(batch)


@settings(max_examples=300)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_are_sent_as_short_decimals_that_are_the_same_float32(values):
    sent = qdrant_points.plain_numbers(np.array(values, np.float32))
    assert np.array(sent, np.float32).tobytes() == np.array(values, np.float32).tobytes()
    for number in sent:
        if 1e-4 <= abs(number) <= 1e7:
            assert len(repr(abs(number)).replace(".", "").strip("0")) <= 9


def test_a_query_with_more_tokens_than_one_multi_vector_holds_is_sent_in_parts(make, monkeypatch):
    store, exact = (filled(each, ["red fox", "blue whale", "red red wine"]) for each in (make(), MemoryStore()))
    asked = query(" ".join(f"w{row} red" for row in range(20)))
    monkeypatch.setattr(qdrant_points, "MOST_NUMBERS", asked.dim * 7 + 3)
    assert [len(part) for part in qdrant_points.query_of(asked, "colbert")] == [7, 7, 7, 7, 7, 5]
    same(store.search(asked, depth=5), exact.search(asked, depth=5))


# -- while others change it ---------------------------------------------------------------------


class Meddling(qdrant_client.QdrantClient):
    """A client behind whose back others change documents after each dense query of a request for scores."""

    meddle = None

    def query_batch_points(self, collection_name, requests):
        answers = []
        for request in requests:
            answers += super().query_batch_points(collection_name, requests=[request])
            if self.meddle is not None and request.using == "dense" and request.filter is not None:
                self.meddle()
        return answers


@pytest.fixture
def meddling():
    client = Meddling(":memory:")
    filled(QdrantStore(client=client, collection="changing"), ["red fox", "blue fox", "", "green fox"])
    yield client, QdrantStore(client=client, collection="changing")
    client.close()


def test_a_document_that_goes_while_it_is_scored_is_left_out_and_not_shown_in_part(meddling):
    client, store = meddling
    client.meddle = lambda: "d1" in store.ids() and store.delete(["d1"])
    found = store.search(query("blue fox"), depth=4)
    client.meddle = None
    assert sorted(found.ids) == ["d0", "d2", "d3"]
    same(found, store.search(query("blue fox"), depth=4))


def test_a_document_that_is_made_anew_while_it_is_scored_is_scored_as_it_is_now(meddling):
    client, store = meddling
    retrieve, seen = client.retrieve, []

    def away():
        client.meddle = None
        client.delete("changing", points_selector=[point_id("d1")])

    def back(*given, **named):
        if not seen:  # the look at what did not answer in every mode
            store.add([Document("d1", "blue whale")], ENCODER.encode_documents(["blue whale"]))
        seen.append(named["ids"])
        return retrieve(*given, **named)

    client.meddle, client.retrieve = away, back
    found = store.search(query("blue fox"), depth=4)
    assert seen[0] == [point_id("d1")]
    place = found.ids.index("d1")
    np.testing.assert_array_equal(found.values[place], store.score(query("blue fox"), ["d1"]).values[0])
    assert found.values[place].min() > 0


# -- together ------------------------------------------------------------------------------------


def test_eight_threads_search_while_one_adds_and_each_answer_is_one_that_a_serial_run_could_give(make):
    store, words = make(), [f"red w{row} fox" for row in range(24)]
    filled(store, words[:4])
    serial, exact = [], filled(MemoryStore(), words[:4])
    asked = query("red w9 fox w20")
    for row in range(4, 25):
        serial.append(dict(zip((found := exact.search(asked, depth=6)).ids, found.values.tolist(), strict=True)))
        if row < 24:
            exact.add([Document(f"d{row}", words[row])], ENCODER.encode_documents([words[row]]))
    answers, errors, done = [], [], threading.Event()

    def search():
        try:
            while not done.is_set():
                found = store.search(asked, depth=6)
                answers.append(dict(zip(found.ids, found.values.tolist(), strict=True)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for row in range(4, 24):
        store.add([Document(f"d{row}", words[row])], ENCODER.encode_documents([words[row]]))
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(answers) > 8
    known = {id: values for one in serial for id, values in one.items()}
    for answer in answers:
        assert all(np.allclose(values, known[id], atol=2e-6) for id, values in answer.items()), "whole documents only"
        if store._connection.local:  # a server may take a write between the legs of one search
            assert any(answer.keys() == one.keys() for one in serial), sorted(answer)


def test_stores_of_one_client_in_local_mode_take_turns(client):
    first, second = (filled(QdrantStore(client=client, collection=name), ["red fox"]) for name in ("one", "other"))
    found = []
    thread = threading.Thread(target=lambda: found.append(second.ids()))
    with first._connection.alone():
        thread.start()
        thread.join(0.3)
        assert found == []
    thread.join(30)
    assert found == [["d0"]]


def test_an_index_over_qdrant_answers_as_one_in_memory(make):
    texts = ["the red fox runs", "a blue whale in the sea", "red wine and red meat", "grey owl", "one " * 900]
    documents = [Document(f"d{row}", text, {"page": row, "lang": "en" if row % 2 else "de"}) for row, text in enumerate(texts)]
    indexes = [M3Index(HashingEncoder(), each) for each in (make(), MemoryStore())]
    for index in indexes:
        index.add(documents, split=Split(size=400))
        assert index.delete_where({"page": 3}) == 1
    ours, theirs = indexes
    assert ours.ids() == theirs.ids()
    for call in (
        lambda index: index.search("red fox", 4),
        lambda index: index.search("red", 4, where={"lang": "de"}, where_document={"$contains": "wine"}),
        lambda index: index.search("whale", 2, mode="sparse"),
        lambda index: index.search_diverse("red fox", 2),
    ):
        assert [hit.document.id for hit in call(ours)] == [hit.document.id for hit in call(theirs)]
    assert [index.search_documents("one", 3)[0].id for index in indexes] == ["d4", "d4"]
    explanations = [index.explain("red fox", "d2") for index in indexes]
    assert explanations[0].stage == explanations[1].stage
    tokens = [[shared.token for shared in explanation.shared_tokens] for explanation in explanations]
    assert tokens[0] == tokens[1] != []
    assert ours.get(["d0"]) == [documents[0]]
    ours.add(documents[:1])
    assert len(ours) == len(theirs)
