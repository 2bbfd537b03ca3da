"""The collection of a QdrantStore: how it is made, whose it is, what it keeps, and that it is let go of."""

import warnings

import pytest
import qdrant_client

from m3retriever import (
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    StoreError,
)
from m3retriever.errors import StoreLockedError
from m3retriever.stores import qdrant_points
from m3retriever.stores.qdrant import QdrantStore
from m3retriever.stores.qdrant_filter import HIGH, KEY, LOW, NUMBERS, TERMS

from .conftest import ENCODER, filled, query

models = qdrant_client.models


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
