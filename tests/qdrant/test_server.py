"""QdrantStore and a server of its own: killed in the middle, HNSW and codes built, reached by address."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
from benchmarks.synthetic import Corpus
from torture.server import QdrantServer

from m3retriever import Document, HashingEncoder, M3Index, MemoryStore, StoreError
from m3retriever.copying import copy
from m3retriever.stores.qdrant import QdrantStore

pytest.importorskip("qdrant_edge")

ENCODER = HashingEncoder()
WORDS = ["fox", "whale", "wine", "sea", "tax", "form"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("M3RETRIEVER_HOME", str(tmp_path / "home"))


@pytest.fixture
def server(tmp_path):
    with QdrantServer(tmp_path / "qdrant") as server:
        yield server


def batch(start, count=5):
    """Some documents, and their vectors."""
    documents = [Document(f"d{row:03}", f"red {WORDS[row % 6]} w{row}", {"n": row}) for row in range(start, start + count)]
    return documents, ENCODER.encode_documents([document.text for document in documents])


def asked(server, method, path):
    request = urllib.request.Request(f"{server.url}{path}", method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())["result"]


def test_what_was_acknowledged_is_there_after_the_server_is_killed_in_the_middle_of_writes(server):
    store, acknowledged, failed = QdrantStore(server.url, collection="kept", timeout=20), [], []

    def write():
        for start in range(0, 1000, 5):
            try:
                store.add(*batch(start))
            except StoreError as error:
                failed.append(str(error))
                return
            acknowledged.append(start)

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 10:
        time.sleep(0.01)
    server.kill()
    writer.join()
    assert failed
    assert failed[0].startswith(f"Qdrant at {server.url} failed to ")
    with pytest.raises(StoreError, match="ConnectError"):
        store.search(ENCODER.encode_queries(["red fox"]), depth=5)
    server.start()
    expected, held = MemoryStore(), set(store.ids())
    wanted = {document.id for start in acknowledged for document in batch(start)[0]}
    assert wanted <= held
    assert held - wanted <= {document.id for document in batch(acknowledged[-1] + 5)[0]}, "what was under way, and no more"
    for start in range(0, len(held), 5):
        documents, vectors = batch(start)
        rows = [row for row, document in enumerate(documents) if document.id in held]
        expected.add([documents[row] for row in rows], vectors.take(rows))
    for text in ("red fox w3", "sea", "w48 form"):
        ours, theirs = (each.search(ENCODER.encode_queries([text]), depth=20) for each in (store, expected))
        assert sorted(ours.ids) == sorted(theirs.ids)
        np.testing.assert_allclose(ours.values[np.argsort(ours.ids)], theirs.values[np.argsort(theirs.ids)], atol=2e-6)
    store.add(*batch(2000))
    assert len(store) == len(held) + 5
    store.close()


def test_hnsw_over_int8_codes_finds_what_a_scan_finds_and_scores_are_of_the_originals(server):
    corpus, many = Corpus(tokens=1), 5_000
    hnsw, scan = (QdrantStore(server.url, collection="many", dense=how) for how in ("hnsw", "exact"))
    for documents, vectors in corpus.batches(many, 250):
        hnsw.add(documents, vectors)
    assert asked(server, "POST", "/optimize") == [True]
    assert asked(server, "GET", "/collections/many")["indexed_vectors_count"] >= many, "a graph was built"
    rows, recalls = corpus.dense(0, many), []
    for query in corpus.queries(20, many):
        found, exact = (scores_by_id(store.search(query, depth=100), found_by="dense") for store in (hnsw, scan))
        both = found.keys() & exact.keys()
        recalls.append(len(both) / 100)
        assert all(found[id] == exact[id] for id in both), "to the bit, whichever way it was found"
        best = np.argsort(-(rows @ query.dense[0]), kind="stable")[:10]
        assert sorted(exact, key=lambda id: -exact[id])[:10] == [f"d{row:08d}" for row in best.tolist()]
    assert np.mean(recalls) >= 0.99
    hnsw.close()
    scan.close()


def scores_by_id(found, *, found_by):
    """Dense scores of what one leg brought in."""
    scores = zip(found.ids, found.column("dense").tolist(), found.found_by, strict=True)
    return {id: score for id, score, by in scores if found_by in by}


def test_an_index_is_copied_there_and_back_and_opened_by_its_address(server, tmp_path):
    with M3Index.open(tmp_path / "index", model="hashing") as index:
        index.add(documents := [*batch(0, 30)[0], Document("empty", ""), Document("字", "狐 и лиса")])
        before = index.search("red whale w7", 40)
    there = f"qdrant://127.0.0.1:{server.port}/notes"
    command = [sys.executable, "-c", "import m3retriever.cli; m3retriever.cli.main()"]
    command += ["copy", "--from", str(tmp_path / "index"), "--to", f"{there}?shards=6&replicas=2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["copied"] == 32
    params = asked(server, "GET", "/collections/notes")["config"]["params"]
    assert (params["shard_number"], params["replication_factor"]) == (6, 2)
    assert copy(there, tmp_path / "back").copied == 32
    for place in (there, tmp_path / "back"):
        with M3Index.open(place) as index:
            assert index.encoder.name == ENCODER.name
            assert {document.id: document for document in index.get(index.ids())} == {one.id: one for one in documents}
            hits = index.search("red whale w7", 40)
            assert [hit.document.id for hit in hits[:5]] == [hit.document.id for hit in before[:5]]
            for hit, other in zip(hits, before, strict=True):
                assert hit.score == pytest.approx(other.score, abs=2e-3)


def test_several_clients_write_and_read_one_collection(server):
    def write(part):
        store = QdrantStore(server.url, collection="shared")
        store.bind(ENCODER.name, ENCODER.dim)
        for start in range(part * 100, part * 100 + 50, 5):
            store.add(*batch(start))
        store.delete([f"d{part * 100:03}"])
        store.close()

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    reader, seen = QdrantStore(server.url, collection="shared"), 0
    while any(thread.is_alive() for thread in threads):
        found = reader.search(ENCODER.encode_queries(["red fox"]), depth=300)
        seen = max(seen, len(found))
        assert (found.column("colbert") > 0).all(), "no document is there in part"
    for thread in threads:
        thread.join()
    wanted = {f"d{part * 100 + row:03}" for part in range(4) for row in range(1, 50)}
    assert set(reader.ids()) == wanted
    assert reader.settings()["model"] == ENCODER.name
    assert seen > 0
    reader.close()
