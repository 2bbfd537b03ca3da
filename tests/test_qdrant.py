"""QdrantStore: in memory, in a folder, and on a server."""

import json
import os
import socket
import sys
import threading
import uuid
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import qdrant_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3retriever import (
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    M3Index,
    M3Vectors,
    MemoryStore,
    MissingExtraError,
    Split,
    StoreError,
    UnknownDocumentError,
)
from m3retriever.errors import StoreLockedError
from m3retriever.stores import qdrant_points, qdrant_search
from m3retriever.stores.qdrant import QdrantStore
from m3retriever.stores.qdrant_filter import HIGH, KEY, LOW, NUMBERS, TERMS, point_id
from m3retriever.testing import check_store
from m3retriever.types import BindsModel, HoldsVectors, ListsIds

models = qdrant_client.models

ENCODER = HashingEncoder()


@pytest.fixture(params=["memory", "folder", "server"])
def make(request, tmp_path):
    """How to open a store: a new collection with each call, or one by its name again."""
    url = request.getfixturevalue("qdrant_url") if request.param == "server" else None
    shared = qdrant_client.QdrantClient(":memory:") if request.param == "memory" else None
    names, opened = [], []

    def make(name=None, **settings):
        name = name or f"m3-{uuid.uuid4().hex}"
        names.append(name)
        where = {"memory": {"client": shared}, "folder": {"path": tmp_path / name}, "server": {"url": url}}[request.param]
        opened.append(QdrantStore(collection=name, **where, **settings))
        return opened[-1]

    yield make
    for store in opened:
        store.close()
    if request.param == "server":
        client = qdrant_client.QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"))
        for name in names:
            client.delete_collection(name)
        client.close()
    if shared is not None:
        shared.close()


@pytest.fixture
def client():
    client = qdrant_client.QdrantClient(":memory:")
    yield client
    client.close()


def filled(store, texts, **metadata):
    documents = [Document(f"d{row}", text, metadata) for row, text in enumerate(texts)]
    store.add(documents, ENCODER.encode_documents(list(texts)))
    return store


def query(text):
    return ENCODER.encode_queries([text])


def same(ours, theirs):
    """The same candidates, found by the same modes, with the same scores."""
    assert sorted(ours.ids) == sorted(theirs.ids)
    rows = [ours.ids.index(id) for id in theirs.ids]
    assert [ours.found_by[row] for row in rows] == list(theirs.found_by)
    np.testing.assert_allclose(ours.values[rows], theirs.values, atol=2e-6)


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


@pytest.fixture(scope="module", params=["memory", "server"])
def kept(request):
    where = {"location": ":memory:"} if request.param == "memory" else {"url": request.getfixturevalue("qdrant_url")}
    client = qdrant_client.QdrantClient(**where)
    store = QdrantStore(client=client, collection=f"kept-{uuid.uuid4().hex}")
    yield store
    client.delete_collection(store._connection.name)
    client.close()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(id=st.text(min_size=1), text=st.text(), metadata=st.dictionaries(keys | awkward, plain | listed, max_size=4))
def test_a_document_comes_back_exactly_as_it_went(kept, id, text, metadata):
    kept.add([Document(id, text, metadata)], M3Vectors.dense_only([1, 0]))
    [back] = kept.get([id])
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


# -- the collection ------------------------------------------------------------------------------


class Recorder(qdrant_client.QdrantClient):
    """A client that remembers what collections it was asked to make."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.asked = []

    def create_collection(self, **settings):
        self.asked.append(settings)
        return super().create_collection(**settings)


def test_a_collection_is_made_with_what_was_asked_for():
    client = Recorder(":memory:")
    store = QdrantStore(
        client=client, shards=3, replicas=2, write_consistency=2, quantized=("dense", "colbert"), collection="asked"
    )
    assert client.asked == [], "the dimension is not known yet"
    filled(store, ["red fox"])
    [asked] = client.asked
    assert [asked[name] for name in ("shard_number", "replication_factor", "write_consistency_factor")] == [3, 2, 2]
    assert asked["on_disk_payload"] is True
    for name, several in (("dense", False), ("colbert", True)):
        params = asked["vectors_config"][name]
        assert (params.size, params.distance, params.on_disk) == (ENCODER.dim, models.Distance.DOT, True)
        codes = params.quantization_config.scalar
        assert (codes.type, codes.always_ram, codes.quantile) == (models.ScalarType.INT8, True, 0.99)
        assert (params.multivector_config is not None) == several
    assert asked["vectors_config"]["colbert"].multivector_config.comparator == models.MultiVectorComparator.MAX_SIM
    assert asked["vectors_config"]["colbert"].hnsw_config.m == 0
    assert asked["vectors_config"]["dense"].hnsw_config is None
    assert asked["sparse_vectors_config"]["sparse"].modifier is None
    client.close()


def test_a_collection_that_was_made_otherwise_is_said_to_stay_so(monkeypatch):
    monkeypatch.setattr("m3retriever.stores.qdrant_collection.index_payload", lambda connection: None)  # which local mode lacks
    client = Recorder(":memory:")
    filled(QdrantStore(client=client, collection="asked"), ["red fox"])
    held = client.get_collection("asked")
    held.config.params.shard_number, held.config.params.replication_factor = 3, 2
    client.get_collection = lambda collection_name: held
    like_a_server = QdrantStore(client=client, collection="asked", shards=6, replicas=2)
    like_a_server._connection.local = False  # local mode has no shards to compare
    words = r"was made before, with shards 3 \(asked for: 6\), replicas 2 \(asked for: 2\), write_consistency .*; it stays so"
    with pytest.warns(UserWarning, match=words):
        filled(like_a_server, ["blue whale"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled(like_a_server, ["once is enough"])
        as_it_is = QdrantStore(client=client, collection="asked", shards=3, replicas=2)
        as_it_is._connection.local = False
        filled(as_it_is, ["green frog"])
    client.close()


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


def test_by_default_only_dense_vectors_have_codes_for_nothing_reads_those_of_tokens():
    client = Recorder(":memory:")
    filled(QdrantStore(client=client, on_disk=False), ["red fox"])
    made = client.asked[0]["vectors_config"]
    assert made["dense"].quantization_config is not None
    assert made["colbert"].quantization_config is None
    assert made["colbert"].on_disk is False
    client.close()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"shards": 0}, "shards must be an integer >= 1 or None; got 0"),
        ({"replicas": True}, "replicas must be"),
        ({"write_consistency": 1.5}, "write_consistency must be"),
        ({"quantized": "dense"}, "quantized takes some of dense and colbert"),
        ({"quantized": ["sparse"]}, "quantized takes"),
        ({"dense": "quick"}, "dense is hnsw or exact"),
        ({"timeout": 0}, "timeout is a number of seconds > 0"),
        ({"collection": "no name"}, "a collection name has 3 to 512 characters"),
        ({"collection": "x" * 256}, "at most 255 characters; got 256"),
        ({"path": "x"}, "exactly one of url, path and client"),
        ({"client": None}, "exactly one of url, path and client"),
        ({"client": "http://localhost"}, "client must be a qdrant_client.QdrantClient; got str"),
        ({"api_key": "k"}, "api_key goes with url"),
    ],
    ids=str,
)
def test_settings_without_meaning_are_refused(client, setting, said):
    with pytest.raises(InvalidArgumentError, match=said):
        QdrantStore(**{"client": client, **setting})


def test_the_model_is_remembered_and_anothers_vectors_are_refused(make):
    store = make("model")
    store.bind("hashing", ENCODER.dim)
    store.source = "hashing"
    assert store.settings()["model"] is None
    filled(store, ["red fox"])
    expected = {"model": "hashing", "source": "hashing", "dim": str(ENCODER.dim)}
    assert store.settings() == expected
    store.close()
    store = make("model")
    assert store.settings() == expected
    with pytest.raises(EncoderMismatchError, match="made with the model 'hashing'; got 'other'"):
        store.bind("other", ENCODER.dim)
    with pytest.raises(EncoderMismatchError, match=f"dimension {ENCODER.dim}; got 8"):
        store.bind("hashing", 8)
    store.delete(store.ids())
    store.bind("other", ENCODER.dim)  # nothing of the first is left
    filled(store, ["blue whale"])
    assert store.settings() == {"model": "other", "source": None, "dim": str(ENCODER.dim)}


def test_another_store_of_the_same_collection_cannot_mix_models_in(client):
    first, second = (QdrantStore(client=client) for _ in range(2))
    first.bind("one", ENCODER.dim)
    second.bind("two", ENCODER.dim)
    filled(first, ["red fox"])
    for call in (lambda: filled(second, ["blue whale"]), lambda: second.search(query("fox"), depth=1)):
        with pytest.raises(EncoderMismatchError, match="'one'; got 'two'"):
            call()
    assert first.get(first.ids()) == [Document("d0", "red fox")]


def test_remember_makes_an_empty_collection_that_knows_its_model(make):
    store = make("remembered")
    store.remember()
    assert store.settings()["dim"] is None, "nothing was bound"
    store.bind("hashing", 16)
    store.remember()
    assert (len(store), store.settings()["model"], store.settings()["dim"]) == (0, "hashing", "16")
    assert len(store.search(HashingEncoder(16).encode_queries(["a"]), depth=3)) == 0


OTHERS = {
    "one unnamed vector": {"vectors_config": models.VectorParams(size=4, distance=models.Distance.DOT)},
    "no metadata": {
        "vectors_config": {
            "dense": models.VectorParams(size=4, distance=models.Distance.DOT),
            "colbert": models.VectorParams(
                size=4, distance=models.Distance.DOT, multivector_config=models.MultiVectorConfig(comparator="max_sim")
            ),
        },
        "sparse_vectors_config": {"sparse": models.SparseVectorParams()},
    },
}
OURS = {"m3retriever": {"format": 1, "model": None, "source": None, "dim": 4}}
OTHERS["a cosine"] = {**OTHERS["no metadata"], "metadata": OURS} | {
    "vectors_config": {
        **OTHERS["no metadata"]["vectors_config"],
        "dense": models.VectorParams(size=4, distance=models.Distance.COSINE),
    }
}
OTHERS["weights by rarity"] = {**OTHERS["no metadata"], "metadata": OURS} | {
    "sparse_vectors_config": {"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)}
}
OTHERS["another dimension"] = {**OTHERS["no metadata"], "metadata": {"m3retriever": {**OURS["m3retriever"], "dim": 5}}}
OTHERS["one vector a text for its tokens"] = {**OTHERS["no metadata"], "metadata": OURS} | {
    "vectors_config": {name: models.VectorParams(size=4, distance=models.Distance.DOT) for name in ("dense", "colbert")}
}


@pytest.mark.parametrize("made", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_collection_of_someone_else_is_refused_and_left_as_it_was(client, made, read_only):
    client.create_collection("theirs", **made)
    before = client.get_collection("theirs")
    with pytest.raises(StoreError, match="'theirs' was not made by m3retriever: .* it stays as it is"):
        QdrantStore(client=client, collection="theirs", read_only=read_only)
    assert client.get_collection("theirs") == before


def test_a_collection_of_a_newer_format_is_refused(client):
    metadata = {"m3retriever": {**OURS["m3retriever"], "format": 2}}
    client.create_collection("newer", **{**OTHERS["no metadata"], "metadata": metadata})
    with pytest.raises(StoreError, match="has format 2; this version of m3retriever reads 1"):
        QdrantStore(client=client, collection="newer")


def test_a_collection_that_appears_between_opening_and_writing_is_looked_at_too(client):
    store = QdrantStore(client=client, collection="later")
    client.create_collection("later", **OTHERS["one unnamed vector"])
    with pytest.raises(StoreError, match="was not made by m3retriever"):
        filled(store, ["red fox"])
    assert client.count("later").count == 0


def test_a_collection_that_another_client_makes_at_the_same_time_is_used():
    class Second(qdrant_client.QdrantClient):
        """A client that comes a moment later than another one."""

        def create_collection(self, **settings):
            super().create_collection(**settings)
            return super().create_collection(**settings)

    client = Second(":memory:")
    store = filled(QdrantStore(client=client), ["red fox"])
    assert store.search(query("fox"), depth=1).ids == ("d0",)
    client.close()


def test_what_a_collection_keeps_for_others_stays(client):
    store = filled(QdrantStore(client=client), ["red fox"])
    client.update_collection("m3retriever", metadata={"owner": "someone"})
    store.delete(store.ids())
    store.bind("hashing", ENCODER.dim)
    filled(store, ["blue whale"])
    assert client.get_collection("m3retriever").config.metadata["owner"] == "someone"
    assert store.settings()["model"] == "hashing"


def test_a_point_of_another_client_is_named_as_such(client):
    store = filled(QdrantStore(client=client), ["red fox"])
    vector = {"dense": [1.0] * ENCODER.dim}
    client.upsert("m3retriever", [models.PointStruct(id=7, vector=vector, payload={"text": "theirs"})])
    for call in (store.ids, lambda: store.search(query("fox"), depth=5)):
        with pytest.raises(StoreError, match="a point that m3retriever did not write"):
            call()


def test_read_only_refuses_every_write_and_needs_a_collection(make):
    with pytest.raises(StoreError, match="there is no collection 'readable' in .* to be read"):
        make("readable", read_only=True)
    filled(make("readable"), ["red fox"]).close()
    store = make("readable", read_only=True)
    for write in (lambda: filled(store, ["a"]), lambda: store.delete(["d0"]), store.remember):
        with pytest.raises(StoreError, match="opened to be read only"):
            write()
    assert store.search(query("red"), depth=1).ids == ("d0",)
    assert store.get(["d0"])[0].text == "red fox"


def test_reading_a_folder_that_is_not_there_makes_none(tmp_path):
    with pytest.raises(StoreError, match="to be read"):
        QdrantStore(path=tmp_path / "none", read_only=True)
    assert QdrantStore.exists(path=tmp_path / "none") is False
    assert not (tmp_path / "none").exists()


def test_exists_says_whether_there_is_a_collection(make, tmp_path, client):
    store = QdrantStore(path=tmp_path / "index")
    assert not QdrantStore.exists(path=tmp_path / "index")
    filled(store, ["red fox"])
    assert QdrantStore.exists(path=tmp_path / "index"), "also while a store has it open"
    assert not QdrantStore.exists(path=tmp_path / "index", collection="other")
    store.close()
    (tmp_path / "index" / "meta.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read as a folder of Qdrant's local mode"):
        QdrantStore.exists(path=tmp_path / "index")
    with pytest.raises(StoreError, match="cannot be opened as a folder of Qdrant's local mode"):
        QdrantStore(path=tmp_path / "index")
    assert not QdrantStore.exists(client=client)
    filled(QdrantStore(client=client), ["red fox"])
    assert QdrantStore.exists(client=client)
    client.get_collections()  # which is still open


def test_a_folder_is_open_once(tmp_path):
    store = filled(QdrantStore(path=tmp_path), ["red fox"])
    with pytest.raises(StoreLockedError, match="Qdrant's local mode takes one at a time"):
        QdrantStore(path=tmp_path)
    store.close()
    store = QdrantStore(path=str(tmp_path))
    assert len(store) == 1
    store.close()


def test_a_closed_store_says_so(make):
    store = filled(make(), ["red fox"])
    store.close()
    store.close()
    for call in (
        lambda: len(store),
        store.ids,
        store.settings,
        store.revision,
        store.missing,
        store.remember,
        lambda: store.get(["d0"]),
        lambda: store.vectors(["d0"]),
        lambda: store.sizes(["d0"]),
        lambda: store.search(query("red"), depth=1),
        lambda: store.score(query("red"), ["d0"]),
        lambda: filled(store, ["a"]),
        lambda: store.delete(["d0"]),
        lambda: store.bind("hashing", ENCODER.dim),
    ):
        with pytest.raises(StoreError, match="this store is closed; open it again"):
            call()


def test_a_store_that_is_forgotten_lets_go_of_the_folder(tmp_path):
    store = filled(QdrantStore(path=tmp_path), ["red fox"])
    del store
    store = QdrantStore(path=tmp_path)
    assert store.ids() == ["d0"]
    store.close()


def test_a_revision_is_another_one_after_every_change(make):
    store, seen = make(), set()

    def changed():
        revision = store.revision()  # 0 for none and for no documents: the same state
        assert revision == store.revision()
        assert revision not in seen
        seen.add(revision)

    changed()
    for text in ("red fox", "red fox", "blue whale"):  # new, the same again, another text
        filled(store, [text])
        changed()
    filled(store, ["red", "fox", "runs"])
    changed()
    for id in ("d1", "d2"):
        store.delete([id])
        changed()
    store.delete(["d0"])
    assert store.revision() == 0
    filled(store, ["red fox"])
    changed()


class Writes(qdrant_client.QdrantClient):
    """A client that remembers which of its writes were waited for, and which indexes it was asked to make."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.waited, self.indexes = [], {}

    def upsert(self, **settings):
        self.waited.append(settings.get("wait"))
        return super().upsert(**settings)

    def delete(self, **settings):
        self.waited.append(settings.get("wait"))
        return super().delete(**settings)

    def create_payload_index(self, **settings):  # which local mode lacks
        self.indexes[settings["field_name"]] = settings["field_schema"].value


def test_what_a_write_changed_is_there_when_it_returns():
    client = Writes(":memory:")
    store = filled(QdrantStore(client=client), ["red fox"])
    store.delete(["d0"])
    assert client.waited == [True, True], "a server else answers before others can see it"
    client.close()


def test_what_filters_and_revisions_ask_for_has_its_index_once():
    client = Writes(":memory:")
    store = QdrantStore(client=client)
    store._connection.local = False  # local mode has no indexes
    filled(store, ["red fox"])
    asked_for = dict(client.indexes)
    assert set(asked_for) == {TERMS, f"{NUMBERS}[].{KEY}", f"{NUMBERS}[].{LOW}", f"{NUMBERS}[].{HIGH}", qdrant_points.STAMP}
    assert asked_for[qdrant_points.STAMP] == "integer", "a server orders by nothing else"
    held, kept = client.get_collection("m3retriever"), qdrant_points.STAMP
    held.payload_schema = {kept: models.PayloadIndexInfo(data_type=models.PayloadSchemaType.INTEGER, points=1)}
    client.get_collection = lambda collection_name: held
    client.indexes.clear()
    other = QdrantStore(client=client)
    other._connection.local = False
    filled(other, ["blue whale"])
    assert set(client.indexes) == set(asked_for) - {kept}
    client.close()


# -- the way to a server -------------------------------------------------------------------------


class Refusing(BaseHTTPRequestHandler):
    """Answers every request alike, and says what it was told in the body, as a careless proxy does."""

    status, version = 401, "1.19.0"

    def do_GET(self):
        self.heard.append(self.headers.get("api-key"))
        if self.path == "/" and self.status != 401:
            body = json.dumps({"title": "qdrant", "version": self.version, "commit": None}).encode()
            status = 200
        else:
            body, status = f"refused {self.headers.get('api-key')}".encode(), self.status
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def server():
    """A real server on a free port of this machine, which answers as `Handler` is told to."""

    class Handler(Refusing):
        """One test's own."""

    Handler.heard = []
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}", Handler
    served.shutdown()
    thread.join()
    served.server_close()


def test_errors_of_a_server_are_in_words_and_never_show_the_key(server, monkeypatch):
    url, handler = server
    with pytest.raises(StoreError, match=r"it refuses us \(401\): give the key as api_key, or as QDRANT_API_KEY"):
        QdrantStore(url, api_key="s3cret")
    handler.status = 500
    with pytest.raises(StoreError, match="failed to collection exists: UnexpectedResponse: .*500") as caught:
        QdrantStore(url, api_key="s3cret")
    assert "s3cret" not in str(caught.value)
    assert set(handler.heard) == {"s3cret"}
    monkeypatch.setenv("QDRANT_API_KEY", "from-the-environment")
    with pytest.raises(StoreError) as caught:
        QdrantStore.exists(url)
    assert "from-the-environment" not in str(caught.value)
    assert handler.heard[-1] == "from-the-environment"


def test_a_server_that_is_too_old_is_refused(server):
    url, handler = server
    handler.status, handler.version = 500, "1.15.9"
    with pytest.raises(StoreError, match=r"is version 1\.15\.9; want 1\.16 or newer"):
        QdrantStore(url)


def test_a_server_that_is_just_new_enough_is_taken(server):
    url, handler = server
    handler.status, handler.version = 500, "1.16.0"
    with pytest.raises(StoreError, match="failed to collection exists"):
        QdrantStore(url)


def test_a_server_may_take_as_long_as_the_timeout(monkeypatch):
    def client(**settings):
        raise RuntimeError(f"{settings['timeout']} s")

    monkeypatch.setattr("qdrant_client.QdrantClient", client)
    for timeout, wanted in ((1.5, 2), (2, 2), (0.1, 1)):  # whole seconds, as Qdrant wants
        with pytest.raises(RuntimeError, match=f"^{wanted} s$"):
            QdrantStore("http://127.0.0.1:6333", timeout=timeout)


def test_where_grpc_is_preferred_it_is_spoken(server):
    url, handler = server
    handler.status, heard = 500, []
    with socket.create_server(("127.0.0.1", 0)) as other:

        def listen():
            with other.accept()[0] as client:
                heard.append(client.recv(14))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        with pytest.raises(StoreError, match="failed to info: _InactiveRpcError"):
            QdrantStore(url, prefer_grpc=True, grpc_port=other.getsockname()[1], timeout=3)
        thread.join(5)
    assert heard == [b"PRI * HTTP/2.0"]


def test_a_server_that_is_not_there_is_said_to_be_so():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{one.getsockname()[1]}"
    with pytest.raises(StoreError, match=f"Qdrant at {url} failed to info: ConnectError: .*refused"):
        QdrantStore(url, timeout=5)


@pytest.mark.parametrize("url", ["http://qdrant.example:6333", "http://10.0.0.7", "http://[2001:db8::1]:6333"])
def test_a_key_never_goes_over_the_network_in_the_clear(url, monkeypatch):
    with pytest.raises(InvalidArgumentError, match="an API key over plain http can be read .* use https") as caught:
        QdrantStore(url, api_key="s3cret")
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
    with pytest.raises(InvalidArgumentError, match="over plain http"):
        QdrantStore.exists(url)


@pytest.mark.parametrize(
    "url", ["localhost:6333", "ftp://host", "http://", "http://host:0", "http://host/?a=b", "http://host:x", 7]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidArgumentError, match="url must be such as http://localhost:6333"):
        QdrantStore(url)


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(InvalidArgumentError, match="url holds no password") as caught:
        QdrantStore("https://user:s3cret@host")
    assert "s3cret" not in str(caught.value)


def test_without_the_client_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    for call in (QdrantStore, QdrantStore.exists):
        with pytest.raises(
            MissingExtraError, match=r"qdrant-client is not installed; run: pip install 'm3retriever\[qdrant\]'"
        ):
            call(path=tmp_path)


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
