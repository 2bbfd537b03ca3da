"""What a service itself asks may be away, or broken: that is said in a status, and without an address or a text."""

import shutil

import lmdb
from torture.server import Server

from m3retriever import Document, M3Index

from .conftest import documents, with_encoder


def error_of(answer):
    return answer.status_code, answer.json()["error"]["type"], answer.json()["error"]["message"]


def test_without_its_chroma_server_a_search_is_told_to_come_again_and_does(start, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with Server(tmp_path / "server") as server:
        where = f"chroma://127.0.0.1:{server.port}/notes"
        with M3Index.open(where, model="hashing") as index:
            index.add([Document("fox", "the red fox"), Document("whale", "a blue whale")])
        running = start("--path", where, "--refresh", "0", HOME=str(tmp_path / "home"))
        body = {"query": "unmistakable fox", "k": 1}
        assert running.post("/v1/search", body).json()["hits"][0]["id"] == "fox"
        server.kill()
        answer = running.post("/v1/search", body)
        assert error_of(answer)[:2] == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert str(server.port) not in answer.text
        assert running.post("/v1/encode", {"input": "a"}).status_code == 200
        server.start()
        assert running.post("/v1/search", body).json()["hits"][0]["id"] == "fox"
    assert "StoreError while a request was answered" in running.log
    assert "unmistakable" not in running.log
    assert "Traceback" not in running.log


def test_without_its_model_s_service_a_request_is_told_to_come_again(start):
    model = start("--model", "hashing")
    running = start("--model", model.url)
    assert running.post("/v1/encode", {"input": "a"}).status_code == 200
    model.end()
    port = model.url.rpartition(":")[2]
    start("--model", "hashing", "--port", port, M3RETRIEVER_API_KEY="abc", wait=False)  # which asks for a key from now on
    answer = running.post("/v1/encode", {"input": "unmistakable"})
    assert error_of(answer)[:2] == (503, "model_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert port not in answer.text
    assert "ServiceError while a request was answered" in running.log
    assert "unmistakable" not in running.log


TOO_FEW_VECTORS = """
def encode_documents(self, texts, *, progress=False):
    return super().encode_documents(texts[1:])
"""


def test_that_its_model_gives_too_few_vectors_is_not_said_to_be_the_caller_s_fault(start):
    running = start(command=with_encoder(TOO_FEW_VECTORS))
    assert error_of(running.post("/v1/encode", {"input": ["unmistakable", "red fox"]}))[:2] == (500, "internal_error")
    assert "unmistakable" not in running.log


def test_a_damaged_index_is_said_to_be_one(start, index_path, tmp_path):
    shutil.copytree(index_path, tmp_path / "index")
    [payload] = (tmp_path / "index").rglob("data.mdb")
    with lmdb.open(str(payload.parent), max_dbs=8) as environment:
        rows = environment.open_db(b"rows", create=False)
        with environment.begin(write=True, db=rows) as writing:
            for key, value in list(writing.cursor()):
                writing.put(key, bytes([value[0] ^ 1]) + value[1:])
    running = start("--path", str(tmp_path / "index"))
    status, kind, message = error_of(running.post("/v1/search", {"query": documents()[0].text}))
    assert (status, kind) == (500, "damaged_index")
    assert "m3retriever verify" in message
    assert "DamagedIndexError while a request was answered" in running.log
