"""A process that works on a ChromaStore for test_stores.py, and is killed or looks on from outside.

python store_worker.py ACTION FOLDER ARGUMENTS...
"""

import json
import os
import sys
import time

from m3retriever import ChromaStore, Document, HashingEncoder, M3RetrieverError
from m3retriever.stores.payload import Payload
from m3retriever.stores.writes import Writes

ENCODER = HashingEncoder()
CRASHED = 9


def add(store, id, text):
    store.add([Document(id, text)], ENCODER.encode_documents([text]))


def many(folder, count):
    texts = [f"x{number} x{number + 1}" for number in range(int(count))]
    documents = [Document(f"x{number}", text) for number, text in enumerate(texts)]
    return attempt(lambda: ChromaStore(folder).add(documents, ENCODER.encode_documents(texts)))


def search(folder, text):
    scores = ChromaStore(folder).search(ENCODER.encode_queries([text]), depth=10)
    return {"ids": list(scores.ids), "values": [value.hex() for value in scores.values.ravel().tolist()]}


def attempt(call):
    try:
        call()
    except M3RetrieverError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": None}


def crash(folder, action, moment):
    """Die at a given step of a write, as a power cut would have it."""

    def die(*_, **__):
        os._exit(CRASHED)

    store = ChromaStore(folder)
    if moment == "before chroma":
        Writes._upsert = die
        store._connection.delete = die
    elif moment == "after chroma":
        Payload.publish = die
    if action == "delete":
        store.delete(["d1"])
    else:
        add(store, {"add": "d2", "replace": "d1"}[action], "green frog")
    die()


def hold(folder):
    """Keep the right to write until the end."""
    with ChromaStore(folder).writing():
        print("held", flush=True)
        time.sleep(60)


def foreign(folder, gone, text):
    """Change the collection with chromadb alone."""
    collection = _client(folder).get_collection("m3retriever")
    collection.delete(ids=[gone])
    collection.add(ids=["foreign"], documents=[text], embeddings=ENCODER.encode_documents([text]).dense)
    return {}


def rewrite(folder, id, text):
    """Change a document's text with chromadb alone."""
    _client(folder).get_collection("m3retriever").update(
        ids=[id], documents=[text], embeddings=ENCODER.encode_documents([text]).dense
    )
    return {}


def recreate(folder):
    """Delete the collection and make it anew."""
    client = _client(folder)
    client.delete_collection("m3retriever")
    client.create_collection("m3retriever", embedding_function=None)
    return {}


def _client(folder):
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


ACTIONS = {
    "search": search,
    "add": lambda folder, id, text: attempt(lambda: add(ChromaStore(folder), id, text)),
    "delete": lambda folder, id: attempt(lambda: ChromaStore(folder).delete([id])),
    "many": many,
    "crash": crash,
    "hold": hold,
    "foreign": foreign,
    "recreate": recreate,
    "rewrite": rewrite,
}

if __name__ == "__main__":
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))
