"""The way to a Qdrant server: addresses, keys, versions, and what goes wrong in words."""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from m3retriever import InvalidArgumentError, MissingExtraError, StoreError
from m3retriever.stores.qdrant import QdrantStore


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
