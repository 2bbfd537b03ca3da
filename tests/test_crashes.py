"""Nothing that was acknowledged is lost, whoever is killed when. The long form is in torture/."""

import json
import os
import random
import shutil
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from torture.crashes import COLLECTION, ENCODER, Place, answer, chroma, kill_embedded, kill_served, prepare
from torture.server import Server

from m3retriever import ChromaStore, Document, M3Index
from m3retriever.stores import agreement, dense, vector_index

TRIES = 60  # of a few milliseconds
TEXTS = [f"u{number} w{number % 7} w{number % 5}" for number in range(60)]
FILES = ["index_metadata.pickle", "header.bin", "data_level0.bin", "length.bin", "link_lists.bin"]


def test_a_writer_killed_at_random_moments_loses_nothing_acknowledged(tmp_path):
    survived = kill_embedded(tmp_path, 6)
    assert survived.problems == []
    assert survived.cut_short


def test_clients_and_servers_killed_at_random_moments_lose_nothing_acknowledged(tmp_path):
    survived = kill_served(tmp_path, 3)
    assert survived.problems == []
    assert survived.cut_short


# -- Chroma's vector index, which Chroma writes in place ---------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An index whose vector index Chroma has written to disk."""
    place = Place(tmp_path_factory.mktemp("whole"), Path("no log"))
    answer(prepare, place)
    answer(fill, place)
    return place.folder


def fill(place):
    with place.open() as index:
        for start in range(0, len(TEXTS), 20):
            index.add([Document(f"d{row}", TEXTS[row], {"row": row}) for row in range(start, start + 20)])


def vector_files(folder):
    """The folder of Chroma's vector index, the only one that is named by a uuid."""
    [found] = [path for path in folder.iterdir() if path.is_dir() and len(path.name) == 36]
    return found


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def last_byte(path):
    os.truncate(path, path.stat().st_size - 1)


def assert_all_found(folder):
    """Every document in each mode, through HNSW as well, and in an ordinary Chroma client."""
    dense.EXACT_VALUES = 0
    with M3Index(ENCODER, ChromaStore(folder, collection=COLLECTION, dense="hnsw")) as index:
        assert index.store._writes.hnsw_revision == index.store.revision(), "HNSW must be what answers"
        for row, text in enumerate(TEXTS):
            for mode in ("dense", "colbert"):
                [hit] = index.search(text, 1, mode=mode)
                assert hit.document == Document(f"d{row}", text, {"row": row})
        assert (
            index.vectors([f"d{row}" for row in range(len(TEXTS))]).dense.tobytes()
            == ENCODER.encode_documents(TEXTS).dense.tobytes()
        )
    with chroma(Place(folder, Path("no log"))) as client:
        collection = client.get_collection(COLLECTION, embedding_function=None)
        held = collection.get(include=["embeddings", "documents", "metadatas"])
        assert sorted(zip(held["ids"], held["documents"], [one["row"] for one in held["metadatas"]], strict=True)) == sorted(
            (f"d{row}", text, row) for row, text in enumerate(TEXTS)
        )
        vectors = ENCODER.encode_documents(held["documents"]).dense
        np.testing.assert_allclose(np.array(held["embeddings"]), vectors, atol=1e-6)
        near = collection.query(query_embeddings=[held["embeddings"][0]], n_results=len(TEXTS), include=[])
        assert sorted(near["ids"][0]) == sorted(held["ids"])


@pytest.mark.parametrize("damage", [cut, empty, last_byte, os.unlink], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", FILES)
def test_a_vector_index_that_was_cut_short_is_made_again(whole, tmp_path, file, damage):
    folder = shutil.copytree(whole, tmp_path / "index")
    damage(vector_files(folder) / file)
    answer(assert_all_found, folder)


def test_a_vector_index_that_is_gone_is_made_again(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "index")
    shutil.rmtree(vector_files(folder))
    answer(assert_all_found, folder)


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_mending_that_is_killed_is_taken_up_again(whole, tmp_path, spoilt):
    folder = shutil.copytree(whole, tmp_path / "index")
    if spoilt:
        answer(spoil_and_leave_a_write_open, folder)
    else:
        shutil.rmtree(vector_files(folder))
    with pytest.raises(RuntimeError, match="ended with 9"):
        answer(mend_and_die, folder)
    answer(assert_all_found, folder)


def mend_and_die(folder):
    vector_index.refill = lambda *_, **__: os._exit(9)
    ChromaStore(folder, collection=COLLECTION)


def test_vectors_that_a_crash_took_without_a_word_are_put_back(whole, tmp_path):
    """The files are whole, and some vectors are not those of the texts: only a comparison tells."""
    folder = shutil.copytree(whole, tmp_path / "index")
    answer(spoil_and_leave_a_write_open, folder)
    answer(assert_all_found, folder)


def spoil_and_leave_a_write_open(folder):
    with chroma(Place(folder, Path("no log"))) as client:
        collection = client.get_collection(COLLECTION, embedding_function=None)
        collection.update(ids=["d3", "d4"], embeddings=ENCODER.encode_documents(["other", "words"]).dense)
    store = ChromaStore(folder, collection=COLLECTION)
    documents = store.get(["d5"])
    store._payload.stage(documents, ENCODER.encode_documents([documents[0].text]))


# -- servers, which log what a client has sent and then leave it ------------------------------------------------


def test_a_write_that_a_server_has_logged_and_does_not_show_is_found_out(tmp_path):
    with Server(tmp_path / "server") as server:
        place = Place(tmp_path / "payload", Path("no log"), server.port)
        with place.open() as index:
            index.add([Document("d", "red fox")])
            store, document = index.store, Document("d", "blue whale")
            vectors = ENCODER.encode_documents([document.text])
            for _ in range(TRIES):
                staged = store._payload.stage([document], vectors)
                send_and_leave(server.port, store._connection.collection.id, document, vectors)
                time.sleep(0.05)
                if logged_only(server.folder):
                    break
                store._payload.discard(staged)
                index.add([Document("d", "red fox")])
            else:
                pytest.skip(f"in {TRIES} tries the server always showed what it had logged")
            agreement.settle(store._connection, store._payload, staged)
            index.add([Document("later", "grey owl")])
            assert index.get(["d"])[0].text == "blue whale"
            assert store.missing() == [], "the vectors are those of the text"


def send_and_leave(port, collection, document, vectors):
    """An upsert of a client that dies before an answer comes."""
    body = json.dumps({"ids": [document.id], "documents": [document.text], "embeddings": vectors.dense.tolist()}).encode()
    path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{collection}/upsert"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connected:
        connected.sendall(head.encode() + body)
        time.sleep(random.random() * 0.01)


def logged_only(folder):
    """Whether the log of a server holds what its tables do not show."""
    with closing(sqlite3.connect(f"{(folder / 'chroma.sqlite3').as_uri()}?mode=ro", uri=True)) as database:
        [(logged,)] = database.execute("select max(seq_id) from embeddings_queue")
        [(applied,)] = database.execute("select max(seq_id) from max_seq_id")
    return logged is not None and logged > (applied or 0)
