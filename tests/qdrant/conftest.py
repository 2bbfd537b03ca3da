"""Stores in Qdrant for its tests: in memory, in a folder, and on a server."""

import os
import uuid

import numpy as np
import pytest
import qdrant_client

from m3retriever import Document, HashingEncoder
from m3retriever.stores.qdrant import QdrantStore

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
        client = client_at(url)
        for name in names:
            client.delete_collection(name)
        client.close()
    if shared is not None:
        shared.close()


def client_at(url):
    """A client of a server, or of memory where there is none; asking for versions is done in a thread, which warns."""
    if url is None:
        return qdrant_client.QdrantClient(":memory:")
    return qdrant_client.QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False)


@pytest.fixture(scope="module", params=["memory", "server"])
def store(request):
    """A store for a whole file, for tests of many cases."""
    client = client_at(request.getfixturevalue("qdrant_url") if request.param == "server" else None)
    store = QdrantStore(client=client, collection=f"m3-{uuid.uuid4().hex}")
    yield store
    client.delete_collection(store._connection.name)
    store.close()
    client.close()


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
