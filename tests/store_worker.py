"""A process that works on a ChromaStore for test_stores.py, and is killed or looks on from outside.

python store_worker.py ACTION FOLDER ARGUMENTS...
"""

import json
import os
import sys
import time
from pathlib import Path

from m3retriever import ChromaStore, Document, HashingEncoder, M3RetrieverError
from m3retriever.stores.payload import Payload

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
        ChromaStore._upsert = die
        store._connection.delete = die
    elif moment == "after chroma":
        Payload.publish = die
    if action == "delete":
        store.delete(["d1"])
    else:
        add(store, {"add": "d2", "replace": "d1"}[action], "green frog")
    die()


def churn(folder, log):
    """Add, replace and delete without end, writing down each step before and after."""
    store = ChromaStore(folder)
    number = len(store) * 1000 + os.getpid()
    with Path(log).open("a") as file:

        def note(state, action, id, text):
            file.write(f"{state}\t{action}\t{id}\t{text}\n")
            file.flush()
            os.fsync(file.fileno())

        while True:
            number += 1
            id, text = f"d{number % 7}", f"red fox number {number}"
            note("begin", "add", id, text)
            add(store, id, text)
            note("done", "add", id, text)
            if number % 3 == 0:
                note("begin", "delete", id, "")
                store.delete([id])
                note("done", "delete", id, "")


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


def fork(folder):
    """Open an index, fork, and let the child use what it inherited and then an index of its own."""
    from m3retriever import M3Index

    index = M3Index(ENCODER, ChromaStore(folder))
    index.add([Document("d0", "red fox")])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = {"inherited": attempt(lambda: index.search("fox"))["message"]}
        with M3Index(ENCODER, ChromaStore(folder)) as opened:
            answer["opened"] = [hit.document.id for hit in opened.search("fox")]
        os.write(writer, json.dumps(answer).encode())
        sys.exit(0)  # through the interpreter's own end, where the inherited store is finalised
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return {**json.loads(os.read(reader, 10_000)), "parent": [hit.document.id for hit in index.search("fox")]}


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
    "churn": churn,
    "hold": hold,
    "foreign": foreign,
    "recreate": recreate,
    "rewrite": rewrite,
    "fork": fork,
}

if __name__ == "__main__":
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))
