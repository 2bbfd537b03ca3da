"""Every store against the contract, and what ChromaStore adds: disk, processes, crashes."""

import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings

from m3retriever import (
    ChromaStore,
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    InvalidVectorsError,
    M3Index,
    M3Vectors,
    MemoryStore,
    StoreError,
    StoreLockedError,
    UnknownDocumentError,
)
from m3retriever.stores import agreement, dense
from m3retriever.stores.database import collections_in
from m3retriever.testing import check_store

ENCODER = HashingEncoder()
WORKER = Path(__file__).with_name("store_worker.py")


def filled(store, texts, **metadata):
    documents = [Document(f"d{row}", text, dict(metadata)) for row, text in enumerate(texts)]
    store.add(documents, ENCODER.encode_documents(texts))
    return store


def query(text):
    return ENCODER.encode_queries([text])


def worker(*arguments):
    """A Python process that works on a store; see store_worker.py."""
    command = [sys.executable, str(WORKER), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def free_port():
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real `chroma run` on a free port of this machine."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    program = Path(sys.executable).with_name("chroma")
    command = [str(program), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        for _ in range(200):
            try:
                chromadb.HttpClient(host="127.0.0.1", port=port, settings=Settings(anonymized_telemetry=False)).heartbeat()
                break
            except Exception:
                assert process.poll() is None, "chroma run ended"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def test_memory_store_fulfils_the_contract():
    check_store(MemoryStore)


def test_chroma_store_fulfils_the_contract_embedded(tmp_path):
    numbers = iter(range(100))
    check_store(lambda: ChromaStore(tmp_path / str(next(numbers))))


def test_chroma_store_fulfils_the_contract_with_a_server(server, tmp_path):
    numbers = iter(range(100))

    def make():
        number = next(numbers)
        return ChromaStore(host="127.0.0.1", port=server, collection=f"contract-{number}", payload=tmp_path / str(number))

    check_store(make)


def test_filters_over_a_server_find_what_they_find_in_memory(server, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "PAGE", 7)  # as if there were many pages
    served = ChromaStore(host="127.0.0.1", port=server, collection="filters", payload=tmp_path / "filters")
    documents = [Document(f"d{row}", f"w{row % 4} w{row % 9}", {"n": row % 5, "s": f"s{row % 3}"}) for row in range(50)]
    indexes = [M3Index(ENCODER, served), M3Index(ENCODER, MemoryStore())]
    for index in indexes:
        index.add(documents)
    for where, where_document in [
        ({"n": {"$gte": 3}}, {"$contains": "w2"}),
        ({"$not": {"n": {"$gt": 1}}}, {"$regex": "w[13] w"}),
        ({"$or": [{"#id": {"$in": ["d1", "d49", "no"]}}, {"s": {"$text_match": "2"}}]}, None),
        ({"$or": [{"#document": {"$contains": "w8"}}, {"n": 4}]}, {"$not_contains": "w0"}),
    ]:
        filters = {"where": where, "where_document": where_document}
        ours, theirs = (index.ids(**filters) for index in indexes)
        assert 0 < len(ours) < 50
        assert ours == theirs
        for call in ("search", "search_diverse"):
            ours, theirs = (getattr(index, call)("w1 w2 w8", 50, mode="dense", **filters) for index in indexes)
            assert {hit.document.id: hit.document for hit in ours} == {hit.document.id: hit.document for hit in theirs}
    served.close()


def test_chroma_store_takes_a_client_of_your_own():
    with_client = ChromaStore(client=chromadb.EphemeralClient(Settings(anonymized_telemetry=False)), collection="own-client")
    folder = with_client._payload.path
    filled(with_client, ["red fox", "blue whale"])
    assert len(with_client) == 2
    with_client.close()
    assert not folder.exists(), "a payload for a client in memory goes with its store"


def test_hnsw_candidates_are_scored_like_exact_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "EXACT_VALUES", 0)  # as if the collection were too large to scan
    store, exact = ChromaStore(tmp_path), MemoryStore()
    words = np.random.default_rng(0).integers(0, 400, (600, 12))
    for each in (store, exact):
        filled(each, [" ".join(f"w{word}" for word in row) for row in words])
    for text in ("w1 w2 w3 w4", "w77 w8 w200"):
        ours, theirs = store.search(query(text), depth=50), exact.search(query(text), depth=50)
        expected = dict(zip(theirs.ids, theirs.values.tolist(), strict=True))
        assert len(set(ours.ids) & set(theirs.ids)) >= 0.95 * len(theirs), "HNSW finds nearly what an exact scan finds"
        for id, values in zip(ours.ids, ours.values.tolist(), strict=True):
            if id in expected:
                np.testing.assert_allclose(values, expected[id], atol=2e-3)


def test_a_new_process_gives_the_same_hits_to_the_last_bit(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox runs", "a blue whale", "red wine", "fox and whale"], lang="en")
    here = store.search(query("red whale"), depth=10)
    store.close()
    there = finish(worker("search", tmp_path, "red whale"))
    assert there["ids"] == list(here.ids)
    assert there["values"] == [value.hex() for value in here.values.ravel().tolist()]


def test_a_second_writer_is_refused_by_name_while_readers_see_what_is_committed(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox"])
    refused = finish(worker("add", tmp_path, "other", "blue whale"))
    assert refused["error"] == "StoreLockedError"
    assert f"process {os.getpid()} since" in refused["message"]
    assert finish(worker("search", tmp_path, "red fox"))["ids"] == ["d0"]
    store.close()
    assert finish(worker("add", tmp_path, "other", "blue whale")) == {"error": None}
    assert sorted(finish(worker("search", tmp_path, "blue whale"))["ids"]) == ["d0", "other"]


def test_another_process_that_writes_is_named_and_looking_disturbs_nobody(tmp_path):
    reader = filled(ChromaStore(tmp_path), ["red fox"])
    assert reader.writer() is None, "the writer is this process"
    reader.stop_writing()
    assert reader.writer() is None
    process = worker("hold", tmp_path)
    try:
        assert process.stdout.readline() == "held\n"
        assert reader.writer().startswith(f"process {process.pid} since")
        assert reader.writer() == ChromaStore(tmp_path, read_only=True).writer()
    finally:
        process.kill()
        process.communicate()
    assert reader.writer() is None
    filled(reader, ["blue whale"])


def test_sizes_are_counted_without_reading_vectors(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox red", "whale", "..."])
    assert store.sizes(["d1", "d0", "d2"]).tolist() == [[1, 1], [2, 3], [0, 1]]
    vectors = store.vectors(["d0"])
    assert store.sizes(["d0"]).tolist() == [[len(vectors.sparse_ids), len(vectors.colbert)]]
    assert store.sizes([]).shape == (0, 2)
    with pytest.raises(UnknownDocumentError):
        store.sizes(["nobody"])


def test_a_reader_sees_what_another_process_adds_and_deletes_meanwhile(tmp_path):
    filled(ChromaStore(tmp_path), ["red fox"]).close()
    reader = ChromaStore(tmp_path)
    assert finish(worker("add", tmp_path, "new", "blue whale")) == {"error": None}
    found = reader.search(query("blue whale"), depth=5)
    assert found.of(found.ids.index("new"))["colbert"] > 0.99
    assert reader.get(["new"])[0].text == "blue whale"
    assert finish(worker("delete", tmp_path, "new")) == {"error": None}
    assert reader.search(query("blue whale"), depth=5).ids == ("d0",)


def test_two_stores_of_one_process_share_the_folder(tmp_path):
    first, second = ChromaStore(tmp_path), ChromaStore(tmp_path)
    filled(first, ["red fox"])
    second.add([Document("other", "blue whale")], ENCODER.encode_documents(["blue whale"]))
    assert len(first) == len(second) == 2
    first.close()
    assert len(second) == 2
    second.close()
    with pytest.raises(StoreError, match="closed"):
        len(second)


def test_a_store_that_is_forgotten_lets_go_of_the_folder(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox"])
    del store
    gc.collect()
    assert finish(worker("add", tmp_path, "other", "blue whale")) == {"error": None}


@pytest.mark.parametrize("moment", ["before chroma", "after chroma", "after publish"])
@pytest.mark.parametrize("action", ["add", "replace", "delete"])
def test_a_crash_between_any_two_steps_leaves_whole_documents(tmp_path, action, moment):
    filled(ChromaStore(tmp_path), ["red fox", "blue whale"], lang="en").close()
    crashed = worker("crash", tmp_path, action, moment)
    crashed.communicate(timeout=120)
    assert crashed.returncode == 9
    store = ChromaStore(tmp_path)
    arrived = moment != "before chroma"
    expected = {"d0": "red fox", "d1": "blue whale"}
    if arrived:
        expected = {
            "add": {**expected, "d2": "green frog"},
            "replace": {**expected, "d1": "green frog"},
            "delete": {"d0": "red fox"},
        }[action]
    assert_equals_undisturbed(store, expected)
    assert store.missing() == []
    store.add([Document("later", "grey owl")], ENCODER.encode_documents(["grey owl"]))  # and it goes on
    assert_equals_undisturbed(store, {**expected, "later": "grey owl"})


def assert_equals_undisturbed(store, expected):
    """The store holds exactly these texts, and finds and scores as a store that never crashed."""
    fresh, ids = MemoryStore(), sorted(expected)
    fresh.add([Document(id, expected[id]) for id in ids], ENCODER.encode_documents([expected[id] for id in ids]))
    assert len(store) == len(expected)
    assert [document.text for document in store.get(ids)] == [expected[id] for id in ids]
    for text in ("red fox", "blue whale", "green frog"):
        ours, theirs = store.search(query(text), depth=100), fresh.search(query(text), depth=100)
        assert sorted(ours.ids) == sorted(theirs.ids)
        rows = [ours.ids.index(id) for id in theirs.ids]
        assert [ours.found_by[row] for row in rows] == list(theirs.found_by)
        np.testing.assert_allclose(ours.values[rows], theirs.values, atol=2e-3)


def test_documents_of_another_client_are_named_as_missing_and_ghosts_are_dropped(tmp_path):
    filled(ChromaStore(tmp_path), ["red fox", "blue whale"]).close()
    finish(worker("foreign", tmp_path, "d1", "added elsewhere"))  # deletes d1 and adds "foreign", by chromadb alone
    store = ChromaStore(tmp_path)
    assert len(store) == 1
    assert store.missing() == ["foreign"]
    assert store.search(query("blue whale"), depth=5).ids == ("d0",)
    assert store.adopt(ENCODER.encode_documents) == 1
    assert store.missing() == []
    assert_equals_undisturbed(store, {"d0": "red fox", "foreign": "added elsewhere"})


def test_a_collection_made_anew_has_no_payload_of_the_old_one(tmp_path):
    filled(ChromaStore(tmp_path), ["red fox"]).close()
    finish(worker("recreate", tmp_path))
    assert len(ChromaStore(tmp_path)) == 0


def test_a_store_remembers_its_model_and_refuses_another(tmp_path):
    store = ChromaStore(tmp_path)
    store.bind("model-a", 256)
    filled(store, ["red fox"])
    with pytest.raises(EncoderMismatchError, match="made with the model 'model-a'; got 'model-b'"):
        store.bind("model-b", 256)
    with pytest.raises(EncoderMismatchError, match="dimension 256; got 64"):
        store.add([Document("x", "x")], HashingEncoder(64).encode_documents(["x"]))
    with pytest.raises(EncoderMismatchError, match="dimension 256; the query has 64"):
        store.search(HashingEncoder(64).encode_queries(["x"]), depth=1)


def test_the_collection_is_an_ordinary_one_for_chroma(tmp_path):
    store = filled(ChromaStore(tmp_path, collection="plain"), ["red fox", "blue whale"], lang="en")
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    collection = client.get_collection("plain")
    found = collection.query(query_embeddings=[query("red fox").dense[0]], n_results=1, where={"lang": "en"})
    assert found["ids"] == [["d0"]]
    assert found["documents"] == [["red fox"]]
    assert found["metadatas"] == [[{"lang": "en"}]]
    assert found["distances"][0][0] == pytest.approx(0, abs=1e-6)
    store.close()


def test_the_callers_arrays_can_change_after_add(tmp_path):
    for store in (MemoryStore(), ChromaStore(tmp_path)):
        vectors = ENCODER.encode_documents(["red fox"])
        store.add([Document("a", "red fox")], vectors)
        before = store.score(query("red fox"), ["a"]).values.copy()
        vectors.dense[:] = 0
        vectors.colbert[:] = 0
        np.testing.assert_array_equal(store.score(query("red fox"), ["a"]).values, before)


def test_a_filter_is_asked_again_after_a_change(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox"], tenant="a")
    assert store.search(query("red fox"), depth=5, where={"tenant": "a"}).ids == ("d0",)
    filled(store, ["red fox"], tenant="b")
    assert store.search(query("red fox"), depth=5, where={"tenant": "a"}).ids == ()
    assert store.search(query("red fox"), depth=5, where={"tenant": "b"}).ids == ("d0",)


def test_threads_that_search_and_add_at_once_get_what_a_serial_run_gets(tmp_path):
    texts = [f"w{row % 17} w{row % 5} w{row}" for row in range(200)]
    store = filled(ChromaStore(tmp_path), texts)
    alone = [store.score(query(text), [f"d{row}"]).values.tobytes() for row, text in enumerate(texts)]
    failures = []

    def search(start):
        for row in range(start, 200, 8):
            scores = store.search(query(texts[row]), depth=10)
            if scores.values[scores.ids.index(f"d{row}")].tobytes() != alone[row]:
                failures.append(row)

    def add():
        for number in range(15):
            store.add([Document(f"new{number}", f"x{number}")], ENCODER.encode_documents([f"x{number}"]))

    threads = [threading.Thread(target=search, args=[start]) for start in range(8)] + [threading.Thread(target=add)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store) == 215


def test_searches_go_on_while_a_first_write_opens_a_fresh_engine(tmp_path):
    filled(ChromaStore(tmp_path), [f"w{row}" for row in range(50)], lang="en").close()
    store, stop, failures = ChromaStore(tmp_path), threading.Event(), []

    def search():
        number = 0
        while not stop.is_set():
            number += 1
            try:
                store.search(query("w1"), depth=5, where={"$and": [{"lang": "en"}, {"number": {"$ne": number}}]})
                store.get(["d1"])
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(3):
        assert finish(worker("add", tmp_path, f"other{number}", "blue whale")) == {"error": None}
        store.add([Document(f"mine{number}", "grey owl")], ENCODER.encode_documents(["grey owl"]))
        store.stop_writing()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store) == 56


def test_a_reader_whose_vector_index_is_behind_scans_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "EXACT_VALUES", 0)  # as if the collection were too large to scan
    filled(ChromaStore(tmp_path), [f"w{row} w{row + 1}" for row in range(100)]).close()
    reader = ChromaStore(tmp_path)
    assert "d3" in reader.search(query("w3 w4"), depth=5).ids
    assert finish(worker("add", tmp_path, "new", "blue whale")) == {"error": None}
    found = reader.search(query("blue whale"), depth=1)
    assert found.found_by[found.ids.index("new")] == {"dense", "sparse"}


def test_a_reader_that_begins_to_write_finds_what_others_wrote_through_hnsw_too(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "EXACT_VALUES", 0)
    filled(ChromaStore(tmp_path), [f"w{row} w{row + 1}" for row in range(2000)]).close()
    store = ChromaStore(tmp_path)
    store.search(query("w3 w4"), depth=5)  # its engine has loaded the vector index
    assert finish(worker("many", tmp_path, 2000)) == {"error": None}  # so many that Chroma puts them into its index on disk
    store.add([Document("mine", "grey owl")], ENCODER.encode_documents(["grey owl"]))
    assert "x7" in store._connection.nearest(query("x7 x8").dense[0], 3)
    assert store.search(query("x7 x8"), depth=1).ids == ("x7",)


def test_a_depth_beyond_what_hnsw_was_made_for_is_scanned_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "EXACT_VALUES", 0)
    store = filled(ChromaStore(tmp_path), [f"w{row}" for row in range(600)])
    monkeypatch.setattr(store._connection, "nearest", lambda *_: pytest.fail("HNSW would lose some of so many"))
    assert len(store.search(query("w1"), depth=500)) >= 500


def test_many_first_writers_of_a_process_share_one_right_to_write(tmp_path):
    filled(ChromaStore(tmp_path), ["red fox"]).close()
    store, together = ChromaStore(tmp_path), threading.Barrier(8)

    def write(number):
        together.wait()
        store.add([Document(f"t{number}", f"w{number}")], ENCODER.encode_documents([f"w{number}"]))

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 9
    store.close()
    assert finish(worker("add", tmp_path, "other", "blue whale")) == {"error": None}


def test_a_second_model_cannot_slip_in_before_the_first_document(tmp_path):
    first, second = ChromaStore(tmp_path), ChromaStore(tmp_path)
    first.bind("model-a", 256)
    second.bind("model-b", 256)
    filled(first, ["red fox"])
    with pytest.raises(EncoderMismatchError, match="made with the model 'model-a'; got 'model-b'"):
        filled(second, ["blue whale"])
    with pytest.raises(EncoderMismatchError):
        second.search(query("red fox"), depth=1)
    assert len(first) == 1


def test_an_empty_index_may_change_its_model(tmp_path):
    store = ChromaStore(tmp_path)
    store.bind("model-a", 64)
    store.source = "somewhere"
    store.remember()
    store.close()
    again = ChromaStore(tmp_path)
    assert again.settings() == {"model": "model-a", "source": "somewhere", "dim": "64"}
    again.bind("model-b", 256)
    filled(again, ["red fox"])
    assert again.settings() == {"model": "model-b", "source": None, "dim": "256"}


def test_a_model_named_after_the_first_document_is_remembered(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox"])
    store.bind("model-a", 256)
    filled(store, ["blue whale"])
    assert store.settings()["model"] == "model-a"


def test_a_text_changed_by_another_client_is_named_as_missing(tmp_path):
    filled(ChromaStore(tmp_path), ["red fox", "blue whale"]).close()
    finish(worker("rewrite", tmp_path, "d0", "green frog"))
    assert ChromaStore(tmp_path).missing() == ["d0"]


def test_a_server_that_fails_in_the_middle_of_a_write_leaves_it_to_be_settled(tmp_path, monkeypatch):
    store = filled(ChromaStore(tmp_path), ["red fox"])

    def no_answer(method, arguments):
        raise StoreError(f"Chroma failed to {method}")

    with monkeypatch.context() as broken:
        broken.setattr(store._connection, "_call", no_answer)
        with pytest.raises(StoreError, match="Chroma failed to"):
            filled(store, ["blue whale"])
    assert store.get(["d0"])[0].text == "red fox"
    store.add([Document("later", "grey owl")], ENCODER.encode_documents(["grey owl"]))
    assert_equals_undisturbed(store, {"d0": "red fox", "later": "grey owl"})


def embeddings(folder, collection):
    """What plain chromadb reads of a collection, in a new process."""
    code = (
        "import chromadb, json, sys\n"
        f"got = chromadb.PersistentClient({str(folder)!r}).get_collection({collection!r})"
        ".get(include=['embeddings', 'documents', 'metadatas'])\n"
        "print(json.dumps([got['ids'], got['embeddings'].tolist(), got['documents'], got['metadatas']]))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_someone_elses_collection_is_refused_and_left_as_it_was(tmp_path):
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    vectors = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)
    mine = client.create_collection("mine", embedding_function=None)
    mine.add(ids=["a", "b", "c"], documents=["x", "y", "z"], metadatas=[{"k": 1}] * 3, embeddings=vectors)
    client.create_collection("small", embedding_function=None).add(ids=["a"], documents=["x"], embeddings=vectors[:1, :99])
    before = embeddings(tmp_path, "mine")
    with pytest.raises(EncoderMismatchError, match="'mine' holds dense vectors of another model"):
        M3Index(ENCODER, ChromaStore(tmp_path, collection="mine"))
    with pytest.raises(EncoderMismatchError, match="'small' holds vectors of dimension 99, the model makes 256"):
        M3Index(ENCODER, ChromaStore(tmp_path, collection="small"))
    assert embeddings(tmp_path, "mine") == before


def test_a_collection_with_our_vectors_is_adopted_and_left_as_it_was(tmp_path):
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    texts = ["red fox", "blue whale"]
    ours = client.create_collection("ours", embedding_function=None)
    ours.add(ids=["d0", "d1"], documents=texts, embeddings=ENCODER.encode_documents(texts).dense)
    ours.add(ids=["picture"], uris=["file://picture"], embeddings=[[1.0] + [0.0] * 255])
    before = sorted(json.loads(embeddings(tmp_path, "ours"))[0]), len(embeddings(tmp_path, "ours"))
    store = ChromaStore(tmp_path, collection="ours")
    M3Index(ENCODER, store)
    assert_equals_undisturbed(store, {"d0": "red fox", "d1": "blue whale"})
    after = sorted(json.loads(embeddings(tmp_path, "ours"))[0]), len(embeddings(tmp_path, "ours"))
    assert after == before, "a record without a text is left alone"


def test_a_lost_payload_is_made_again_from_the_texts(tmp_path):
    filled(ChromaStore(tmp_path), ["red fox", "blue whale"]).close()
    shutil.rmtree(tmp_path / "m3")
    store = ChromaStore(tmp_path)
    assert len(store) == 0
    index = M3Index(ENCODER, store)
    assert [hit.document.id for hit in index.search("red fox", 1)] == ["d0"]
    assert_equals_undisturbed(store, {"d0": "red fox", "d1": "blue whale"})


def test_a_payload_that_is_cut_short_is_a_clear_error(tmp_path):
    filled(ChromaStore(tmp_path), [f"w{row}" for row in range(200)]).close()
    data = tmp_path / "m3" / "m3retriever" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    refused = finish(worker("add", tmp_path, "a", "b"))  # in a process of its own, which a missing page would end
    assert refused["error"] == "DamagedIndexError"
    assert "is cut short" in refused["message"]


def test_an_open_that_fails_can_be_tried_again(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox"])
    write_format(store, b"99")
    store.close()
    for _ in range(3):
        with pytest.raises(StoreError, match="has format 99"):
            ChromaStore(tmp_path)


def test_space_of_replaced_documents_is_used_again(tmp_path):
    store = filled(ChromaStore(tmp_path), [f"w{row}" for row in range(50)])
    for _ in range(5):
        filled(store, [f"w{row} again" for row in range(50)])
    with store._payload.read() as snapshot:
        assert int(snapshot.meta("next")) <= 100, "slots of replaced documents must be given out again"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document("", "x"), "non-empty str"),
        (Document("a\ud800", "x"), "lone surrogate"),
        (Document("a", "x\ud800"), "lone surrogate at character 1"),
        (Document("a", None), "text must be a str; got NoneType"),
        (Document("a", "x", {"k": {"nested": 1}}), "metadata key 'k': a value must be str, int, float, bool"),
        (Document("a", "x", {"k": np.float32(1)}), "got numpy.float32"),
        (Document("a", "x", {"k": float("nan")}), "must be finite"),
        (Document("a", "x", {"k": 2**70}), "fit 64 bits"),
        (Document("a", "x", {"k": []}), "non-empty and of one type"),
        (Document("a", "x", {"k": [1, "x"]}), "non-empty and of one type"),
        (Document("a", "x", {1: "x"}), "a key must be a non-empty str"),
        (Document("a", "x", {"$k": "x"}), "does not begin with"),
        (Document("a", "x", {"chroma:document": "x"}), "a key must be"),
    ],
)
def test_a_document_that_cannot_be_stored_is_refused_and_its_batch_untouched(tmp_path, document, message):
    vectors = ENCODER.encode_documents(["good", "bad"])
    for store in (MemoryStore(), ChromaStore(tmp_path)):
        with pytest.raises(InvalidDocumentError, match=message):
            store.add([Document("good", "good"), document], vectors)
        assert len(store) == 0


def test_odd_but_storable_documents_come_back_as_they_went(tmp_path):
    documents = [
        Document("a/../b", "", {"list": [1, 2], "big": 2**62, "true": True, "float": 1.0}),
        Document(" ", "nul \x00 inside", {"a.b": "x"}),
        Document("é" * 600, "line\nbreak \u202e right to left", {}),
        Document("\x01", "文" * 10_000, {"text": "日本語"}),
    ]
    store = ChromaStore(tmp_path)
    store.add(documents, ENCODER.encode_documents([document.text for document in documents]))
    store.close()
    again = ChromaStore(tmp_path)
    assert again.get([document.id for document in documents]) == documents
    again.delete(["é" * 600])
    assert len(again) == 3


def test_vectors_that_are_not_finite_are_refused(tmp_path):
    vectors = ENCODER.encode_documents(["a"])
    for name in ("dense", "colbert", "sparse_weights"):
        parts = {field: getattr(vectors, field).copy() for field in vectors.__dataclass_fields__}
        parts[name].flat[0] = np.nan
        for store in (MemoryStore(), ChromaStore(tmp_path)):
            with pytest.raises(InvalidVectorsError, match=f"{name} must be finite"):
                store.add([Document("a", "a")], M3Vectors(**parts))
            assert len(store) == 0


@pytest.mark.parametrize("name", ["ab", "", "a b", "-ab", "../../etc", "a" * 513])
def test_a_collection_name_that_chroma_refuses_is_refused_in_words(tmp_path, name):
    with pytest.raises(InvalidArgumentError, match="3 to 512 characters"):
        ChromaStore(tmp_path, collection=name)


def test_m3_is_another_name_of_the_default_collection(tmp_path):
    filled(ChromaStore(tmp_path, collection="m3"), ["red fox"]).close()
    assert ChromaStore.exists(tmp_path)
    assert ChromaStore.exists(tmp_path, "m3")
    assert not ChromaStore.exists(tmp_path, "other")
    assert len(ChromaStore(tmp_path)) == 1


def test_a_store_takes_exactly_one_place(tmp_path):
    with pytest.raises(InvalidArgumentError, match="exactly one of path, client and host"):
        ChromaStore()
    with pytest.raises(InvalidArgumentError, match="exactly one"):
        ChromaStore(tmp_path, host="127.0.0.1")


def test_a_server_that_is_not_there_and_a_path_that_is_a_file_are_clear_errors(tmp_path):
    with pytest.raises(StoreError, match=r"cannot open the Chroma server at 127\.0\.0\.1"):
        ChromaStore(host="127.0.0.1", port=free_port())
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot open the Chroma folder"):
        ChromaStore(tmp_path / "file")


def write_format(store, value):
    with store._payload._env.begin(write=True) as writing:
        writing.put(b"format", value, db=store._payload._dbs["meta"])


def test_a_payload_of_a_newer_format_is_refused_in_words(tmp_path):
    store = filled(ChromaStore(tmp_path), ["red fox"])
    write_format(store, b"99")
    store.close()
    with pytest.raises(StoreError, match="has format 99, this version reads 3: update m3retriever"):
        ChromaStore(tmp_path)


def test_the_lock_error_is_an_oserror_too():
    assert issubclass(StoreLockedError, OSError)


def test_what_a_killed_writer_left_half_done_is_rolled_back_when_the_collections_are_listed(tmp_path):
    code = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.executescript('pragma cache_size=1; create table collections (name); insert into collections values (1);')\n"
        "database.execute('begin')\n"
        "database.execute('update collections set name = 2')\n"
        "database.executemany('insert into collections values (?)', [('x' * 4000,)] * 500)\n"
        "os._exit(1)  # a journal stays\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "chroma.sqlite3")], check=False)
    assert (tmp_path / "chroma.sqlite3-journal").is_file()
    assert collections_in(tmp_path) == [1]


def test_documents_are_counted_as_chroma_counts_them(tmp_path):
    from m3retriever.stores import connection
    from m3retriever.stores.tables import Tables

    store = filled(ChromaStore(tmp_path), [f"w{row}" for row in range(50)])
    other = filled(ChromaStore(tmp_path, collection="other"), ["red fox", "blue whale"])
    collection = store._connection.collection
    database = tmp_path / connection.DATABASE
    store.delete(["d3", "d4"])
    filled(store, ["w0 again"])
    collection.upsert(ids=["theirs"], embeddings=[[1.0] + [0.0] * 255], documents=["x"])
    assert Tables(database, str(collection.id)).count() == collection.count() == store._connection.count() == 49
    assert Tables(database, str(other._connection.collection.id)).count() == 2
    assert Tables(database, "00000000-0000-0000-0000-000000000000").count() is None
    with sqlite3.connect(database) as connected:  # a write that is logged and not applied
        connected.execute(
            "insert into embeddings_queue (seq_id, operation, topic, id) values (99999, 0, ?, 'new')",
            [f"persistent://default/default/{collection.id}"],
        )
    assert Tables(database, str(collection.id)).count() is None
    assert Tables(database, str(other._connection.collection.id)).count() == 2


def test_a_database_of_another_layout_is_counted_by_chroma(tmp_path):
    from m3retriever.stores.tables import Tables

    sqlite3.connect(tmp_path / "empty.sqlite3").execute("create table segments (id text)").connection.commit()
    assert Tables(tmp_path / "empty.sqlite3", "x").count() is None
    assert Tables(tmp_path / "absent.sqlite3", "x").count() is None
