"""ChromaStore against servers: several clients, restarts, a lost cache, keys, and what Chroma Cloud allows."""

import gc
import shutil
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from tests.quota_proxy import QuotaProxy
from torture.server import Server

from m3retriever import (
    ChromaStore,
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    M3Index,
    MemoryStore,
    StoreError,
)
from m3retriever.stores import agreement
from m3retriever.stores.chroma_server import CLOUD, client_of, close_client, is_cloud, is_served
from m3retriever.testing import check_store

ENCODER = HashingEncoder()
TEXTS = {f"d{row}": f"w{row % 7} w{row % 11} of document {row}" for row in range(30)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture
def proxy(server):
    with closing(QuotaProxy(server.port)) as between:
        yield between


def documents(texts=TEXTS):
    return [Document(id, text, {"n": int(id[1:]), "even": int(id[1:]) % 2 == 0}) for id, text in texts.items()]


def client_on(machine, port, collection, **settings):
    """An index as another machine has it: with a cache of its own."""
    return M3Index(ENCODER, ChromaStore(host="127.0.0.1", port=port, collection=collection, payload=machine, **settings))


def answers(index, query="w3 w5 document"):
    return [(hit.document.id, hit.score, hit.scores) for hit in index.search(query, 40)]


def in_memory(texts):
    index = M3Index(ENCODER, MemoryStore())
    index.add(documents(texts))
    return index


def close_enough(ours, theirs):
    """The same documents with the same scores; token vectors are stored as int8 codes."""
    ours, theirs = ({id: score for id, score, _ in some} for some in (ours, theirs))
    assert ours == pytest.approx(theirs, abs=2e-3)


def test_what_one_client_changes_the_others_learn_with_refresh_and_at_opening(server, tmp_path):
    with (
        closing(client_on(tmp_path / "a", server.port, "several")) as first,
        closing(client_on(tmp_path / "b", server.port, "several")) as second,
    ):
        first.add(documents())
        assert second.refresh() == len(TEXTS)
        assert answers(second) == answers(first)
        first.delete(["d3", "d5"])
        assert not {"d3", "d5"} & {id for id, *_ in answers(second)}, "what is deleted is never shown, refreshed or not"
        first.add([Document("d7", "w3 w5 anew")])
        assert second.refresh() == 1
        assert second.refresh() == 0
        assert answers(second) == answers(first)
        second.add([Document("d99", "w3 w5 of the second")])
        with closing(client_on(tmp_path / "c", server.port, "several")) as third:
            assert first.refresh() == 1
            assert answers(first) == answers(second) == answers(third)
            assert third.get(["d7"])[0].text == "w3 w5 anew"


def test_a_client_that_has_no_cache_yet_is_told_the_model_and_refused_another(server, tmp_path):
    with closing(client_on(tmp_path / "a", server.port, "model")) as index:
        index.store.source = "hashing"
        index.add(documents())
    where = {"host": "127.0.0.1", "port": server.port, "collection": "model"}
    with closing(ChromaStore(payload=tmp_path / "b", **where)) as store:
        assert store.settings() == {"model": ENCODER.name, "source": "hashing", "dim": str(ENCODER.dim)}
        with pytest.raises(EncoderMismatchError, match="was made with the model"):
            store.bind("another model", ENCODER.dim)
    with closing(client_on(tmp_path / "a", server.port, "model")) as index:
        assert len(index) == len(TEXTS)


def test_beyond_what_is_compared_the_writers_stamp_tells_what_is_new(server, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "COMPARED_AT_OPEN", 10)  # as if it were a large collection
    with (
        closing(client_on(tmp_path / "a", server.port, "large-one")) as first,
        closing(client_on(tmp_path / "b", server.port, "large-one")) as second,
    ):
        first.add(documents())
        assert second.refresh() == len(TEXTS)
        second.delete(["d3"])
        second.add([Document("d50", "w3 w5 of the second")])  # as many as before
        assert first.refresh() == 1
        assert answers(first) == answers(second)
        second.add([Document("d7", "another text of seven")])
        assert first.refresh() == 0, "whether a text was replaced is not looked for among so many"
        [hit] = first.search("w0 w7 of document 7", 1)
        assert hit.document.text == "another text of seven"
        assert first.refresh() == 1, "it was seen"
        assert answers(first) == answers(second)


def test_a_write_of_ones_own_hides_nothing_that_another_client_wrote_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "COMPARED_AT_OPEN", 10)  # as if it were a large collection
    with (
        closing(client_on(tmp_path / "a", server.port, "hidden")) as first,
        closing(client_on(tmp_path / "b", server.port, "hidden")) as second,
    ):
        first.add(documents())
        second.refresh()
        second.delete(["d3"])
        second.add([Document("d50", "w3 w5 of the second")])  # as many as before
        first.add([Document("d7", "w3 w5 of the first")])
        assert first.refresh() == 1
        assert "d50" in {id for id, *_ in answers(first)}


def test_where_nothing_is_new_refreshing_is_a_count(server, tmp_path, monkeypatch):
    with closing(client_on(tmp_path / "a", server.port, "quiet")) as index:
        index.add(documents())
        index.refresh()
        monkeypatch.setattr(index.store._connection, "get", lambda **_: pytest.fail("no document is asked for"))
        assert index.refresh() == 0


def test_a_collection_that_was_made_anew_is_followed(server, tmp_path):
    with closing(client_on(tmp_path / "a", server.port, "anew")) as index:
        index.add(documents())
        client = client_of("127.0.0.1", server.port)
        client.delete_collection("anew")
        with pytest.raises(StoreError, match=r"was deleted at the server: refresh\(\) or open it again"):
            index.search("w3")
        with closing(client_on(tmp_path / "b", server.port, "anew")) as other:
            other.add(documents({"d1": "w3 anew"}))
            assert index.refresh() == 1
            assert answers(index) == answers(other)
        close_client(client)


def test_headers_do_not_travel_in_the_clear(tmp_path):
    with pytest.raises(InvalidArgumentError, match="would go to db.example.com in the clear") as refused:
        ChromaStore(host="db.example.com", headers={"Authorization": "Bearer the-secret"}, payload=tmp_path)
    assert "secret" not in str(refused.value)


def test_the_environments_key_is_sent_to_this_machine(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CHROMA_API_KEY", "the-secret")
    with (
        closing(QuotaProxy(server.port, cloud=False, header=("x-chroma-token", "the-secret"))) as guarded,
        M3Index.open(f"chroma://127.0.0.1:{guarded.port}/keyed", model="hashing") as index,
    ):
        index.add(documents())
        assert len(index) == len(TEXTS)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_environments_key_does_not_travel_in_the_clear(monkeypatch):
    monkeypatch.setenv("CHROMA_API_KEY", "the-secret")
    heard, told = [], []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.headers["x-chroma-token"])
            self.send_error(500)

        do_POST = do_GET  # noqa: N815  # http.server's names

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Listening) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        for host, sent in (("127.0.0.1", "the-secret"), ("0.0.0.0", None)):  # which is reached here, and could be anywhere
            with pytest.raises(StoreError, match="cannot open the Chroma server"):
                is_served("notes", host, listening.server_port)
            told.append((set(heard), {sent}))
            heard.clear()
        listening.shutdown()
        thread.join()
    assert all(came == sent for came, sent in told)
    gc.collect()  # Chroma leaves the connection of a client that it could not make to be collected


def test_the_environments_database_is_the_one_that_is_asked(server, tmp_path, monkeypatch):
    databases = f"http://127.0.0.1:{server.port}/api/v2/tenants/default_tenant/databases"
    httpx.post(databases, json={"name": "another"}, trust_env=False).raise_for_status()
    monkeypatch.setenv("CHROMA_DATABASE", "another")
    with closing(client_on(tmp_path / "a", server.port, "of-another")) as index:
        index.add(documents())
    assert is_served("of-another", "127.0.0.1", server.port)
    monkeypatch.delenv("CHROMA_DATABASE")
    assert not is_served("of-another", "127.0.0.1", server.port)


def test_a_reader_without_a_cache_makes_one_and_changes_nothing_at_the_server(server, tmp_path):
    with closing(client_on(tmp_path / "a", server.port, "reader")) as writer:
        writer.add(documents())
        with closing(client_on(tmp_path / "b", server.port, "reader", read_only=True)) as reader:
            assert answers(reader) == answers(writer)
            before = writer.store._connection.get(include=["documents", "metadatas", "embeddings"])
            writer.store._connection.upsert(ids=["foreign"], documents=["w3 w5 foreign"], embeddings=np.eye(256)[:1])
            writer.delete(["d3"])
            assert reader.refresh() == 1
            assert "foreign" in {id for id, *_ in answers(reader)}
            for change in (
                lambda: reader.add([Document("x", "y")]),
                lambda: reader.delete(["d4"]),
                lambda: reader.store.remember(),
            ):
                with pytest.raises(StoreError, match="opened to be read only"):
                    change()
        held = writer.store._connection.get(include=["documents", "metadatas", "embeddings"])
        assert set(held["ids"]) == set(before["ids"]) - {"d3"} | {"foreign"}
        assert np.array_equal(held["embeddings"][held["ids"].index("foreign")], np.eye(256, dtype=np.float32)[0])


def test_refreshing_inside_a_write_keeps_the_right_to_write(server, tmp_path):
    with closing(client_on(tmp_path / "a", server.port, "held")) as index:
        index.add(documents())
        with index.store.writing():
            index.store._connection.upsert(ids=["foreign"], documents=["foreign"], embeddings=np.eye(256)[:1])
            assert index.refresh() == 1
            assert index.store._lock.held


def test_a_cache_that_is_lost_is_made_again_from_the_texts(server, tmp_path):
    with closing(client_on(tmp_path / "a", server.port, "lost")) as index:
        index.add(documents())
        before = answers(index)
    shutil.rmtree(tmp_path / "a")
    with closing(client_on(tmp_path / "a", server.port, "lost")) as index:
        assert answers(index) == before
        assert index.store.verify().whole


def test_a_server_that_is_down_is_told_in_words_and_the_same_index_goes_on_when_it_is_up_again(tmp_path):
    with Server(tmp_path / "server") as server, closing(client_on(tmp_path / "a", server.port, "down")) as index:
        index.add(documents())
        before = answers(index)
        server.kill()
        with pytest.raises(StoreError, match="Chroma failed to"):
            index.search("w3")
        with pytest.raises(StoreError, match="Chroma failed to"):
            index.add([Document("d50", "while it is down")])
        with pytest.raises(StoreError, match="cannot open the Chroma server"):
            client_on(tmp_path / "b", server.port, "down")
        server.start()
        assert answers(index) == before
        assert index.add([Document("d50", "w3 while it was down")]).new == 1
        close_enough(answers(index), answers(in_memory({**TEXTS, "d50": "w3 while it was down"})))
        server.restart()  # in the middle of the session, with nothing under way
        index.delete(["d50"])
        assert answers(index) == before


def test_a_collection_is_looked_for_without_being_made(server):
    assert not is_served("not-there", "127.0.0.1", server.port)
    with pytest.raises(StoreError, match="there is no index in"):
        M3Index.open(f"chroma://127.0.0.1:{server.port}/not-there", model="hashing", read_only=True)
    assert not is_served("not-there", "127.0.0.1", server.port)


# -- Chroma Cloud's limits, held to by a proxy --------------------------------------------------------


def test_chroma_cloud_is_known_by_its_host():
    assert is_cloud("api.trychroma.com")
    assert is_cloud("https://api.trychroma.com:443/x")
    assert not is_cloud("trychroma.com.example.org")
    assert not is_cloud("nottrychroma.com")


def test_the_contract_holds_within_the_clouds_limits(proxy, tmp_path):
    numbers = iter(range(100))

    def make():
        number = next(numbers)
        where = {"host": "127.0.0.1", "port": proxy.port, "payload": tmp_path / str(number)}
        return ChromaStore(collection=f"cloud-{number}", limits=CLOUD, **where)

    check_store(make)
    assert proxy.refused == []


def test_many_documents_and_long_filters_stay_within_the_clouds_limits(proxy, tmp_path):
    texts = {f"d{row}": f"w{row % 7} of document {row}" for row in range(1_000)}
    with closing(client_on(tmp_path / "a", proxy.port, "large", limits=CLOUD)) as index:
        index.add(documents(texts))
        assert len(index) == len(index.ids()) == 1_000
        where = {"$and": [{"n": {"$gte": 100}}, *({"n": {"$ne": row}} for row in range(100, 120))]}
        assert len(index.ids(where)) == 880
        assert len(index.ids({"even": True})) == 500
        assert index.ids(where_document={"$contains": "document 999" + "9" * 300}) == []
        index.delete(index.ids({"n": {"$gte": 400}}))
        close_enough(
            answers(index)[:10], answers(in_memory({id: text for id, text in texts.items() if int(id[1:]) < 400}))[:10]
        )
    with closing(client_on(tmp_path / "b", proxy.port, "large", limits=CLOUD)) as other:
        assert len(other) == 400
    assert proxy.refused == []


def test_without_the_limits_the_proxy_refuses(proxy, tmp_path):
    texts = {f"d{row}": "w" for row in range(400)}
    with closing(client_on(tmp_path / "a", proxy.port, "refused", limits=CLOUD)) as index:
        index.store._connection.limits = type(CLOUD)()
        with pytest.raises(StoreError, match="QuotaError"):
            index.store.add(documents(texts), ENCODER.encode_documents(list(texts.values())))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document("x" * 129, "short"), "at most 128 bytes of id; got 129"),
        (Document("a", "ü" * 8_193), "at most 16384 bytes of text; got 16386"),
        (Document("a", "b", {"key": "v" * 4097}), "at most 4096 bytes in the metadata value 'key'; got 4097"),
        (Document("a", "b", {"k" * 37: 1}), "at most 36 bytes in a metadata key; got 37"),
        (Document("a", "b", {f"k{row}": row for row in range(33)}), "at most 32 metadata keys; got 33"),
    ],
    ids=["id", "text", "value", "key", "keys"],
)
def test_what_the_cloud_would_refuse_is_refused_before_anything_is_stored(proxy, tmp_path, document, message):
    with closing(client_on(tmp_path / "a", proxy.port, "sizes", limits=CLOUD)) as index:
        with pytest.raises(InvalidDocumentError, match=message):
            index.add([Document("fine", "it is"), document])
        assert len(index) == 0
        fits = Document("x" * 128, "ü" * 8_192, {"k" * 36: "v" * 4096, **{f"k{row}": row for row in range(31)}})
        index.add([fits])
        index.delete([fits.id])
    assert proxy.refused == []


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_proxy_that_asks_for_a_header_gets_it_and_no_message_shows_it(server, tmp_path):
    with closing(QuotaProxy(server.port, cloud=False, header=("X-Token", "the-secret"))) as guarded:
        where = {"host": "127.0.0.1", "port": guarded.port, "collection": "guarded", "payload": tmp_path / "a"}
        with closing(ChromaStore(headers={"X-Token": "the-secret"}, **where)) as store:
            assert len(store) == 0
        with pytest.raises(StoreError, match="cannot open the Chroma server") as refused:
            ChromaStore(headers={"X-Token": "not-the-secret"}, **where)
        assert "secret" not in str(refused.value)
        del refused
        gc.collect()  # Chroma leaves the connection of a client that it could not make to be collected
