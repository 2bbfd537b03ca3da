"""Adding batches to our store or to Chroma alone; as a program, how far the process's memory grows meanwhile.

python -m benchmarks.adding chroma|ours DOCUMENTS DIM TOKENS
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.synthetic import Corpus
from m3retriever import ChromaStore, Document, M3Vectors

BATCH = 256
LOOK_EVERY = 0.005  # seconds between two looks at the memory
STATUS = Path("/proc/self/status")


class Batches:
    """Batch after batch of documents with vectors; all share one batch's token vectors, so that making them costs nothing."""

    def __init__(self, dim: int, tokens: int) -> None:
        self._corpus, self._plain = Corpus(dim=dim, tokens=tokens), Corpus(dim=dim, tokens=0)
        first = self._corpus.vectors(0, BATCH)
        self._tokens = first.colbert, first.colbert_offsets
        self._kept: dict[int, tuple[list[Document], M3Vectors]] = {}

    def __getitem__(self, number: int) -> tuple[list[Document], M3Vectors]:
        if number not in self._kept:
            start, stop = number * BATCH, (number + 1) * BATCH
            made = self._plain.vectors(start, stop)
            vectors = M3Vectors(made.dense, made.sparse_ids, made.sparse_weights, made.sparse_offsets, *self._tokens)
            self._kept[number] = self._plain.documents(start, stop), vectors
        return self._kept[number]


def plain_chroma(folder: Path) -> Any:
    """A collection without anything of ours."""
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
    return client.create_collection("plain", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})


def to_chroma(collection: Any, batch: tuple[list[Document], M3Vectors]) -> None:
    """What Chroma takes of a batch."""
    documents, vectors = batch
    collection.upsert(
        ids=[document.id for document in documents],
        embeddings=vectors.dense,
        documents=[document.text for document in documents],
        metadatas=[dict(document.metadata) for document in documents],
    )


def peak(into: str, count: int, dim: int, tokens: int) -> int:
    """Bytes by which a fresh process grew at most while it added so many documents."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.adding", into, str(count), str(dim), str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout.split()[-1])


def memory() -> int:
    """Bytes of memory that are this process's own; the most there ever were where the system does not tell."""
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def watched() -> Iterator[list[int]]:
    """The most memory seen so far, in a list of one."""
    most, ended = [memory()], threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_EVERY):
            most[0] = max(most[0], memory())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def main(into: str, count: int, dim: int, tokens: int) -> int:
    """Bytes by which this process grew at most."""
    batches = Batches(dim, tokens)
    wanted = [batches[number] for number in range(-(-count // BATCH))]
    with tempfile.TemporaryDirectory() as folder:
        collection = plain_chroma(Path(folder)) if into == "chroma" else None
        store = ChromaStore(folder) if into == "ours" else None
        start = memory()
        with watched() as most:
            for batch in wanted:
                if store is not None:
                    store.add(*batch)
                else:
                    to_chroma(collection, batch)
        if store is not None:
            store.close()
    return most[0] - start


if __name__ == "__main__":
    print(main(sys.argv[1], *map(int, sys.argv[2:])))
