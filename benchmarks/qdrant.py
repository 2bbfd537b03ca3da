"""What a passage costs in Qdrant's own engine, on disk and to score, and what HNSW over int8 codes finds there.

    python -m benchmarks.qdrant [--passages 500] [--tokens 120] [--graph 20000]

The engine is a process of its own behind REST (`torture/qdrant_engine.py`); whole calls of QdrantStore are timed, JSON and all,
and those of a folder with the same passages beside them, in turn. A server's segments and threads may do better.
"""

from __future__ import annotations

import argparse
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torture.server import QdrantServer

from benchmarks import machine
from benchmarks.measuring import Step, interleaved
from benchmarks.synthetic import Corpus
from m3retriever import ChromaStore, M3Vectors, QdrantStore
from m3retriever.types import MODES

BATCH = 32  # passages written at a time
QUERIES, CANDIDATES, DEPTH = 20, 200, 100
MEGABYTE = 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    options = _parser().parse_args(arguments)
    print(f"{machine.described()}; {machine.busy()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _passages(folder / "passages", options.passages, Corpus(tokens=options.tokens))
        _graph(folder / "graph", options.graph, Corpus(tokens=1))


def _passages(folder: Path, count: int, corpus: Corpus) -> None:
    """Disk a passage, and the time to score candidates in every mode, in Qdrant and in a folder."""
    with (
        QdrantServer(folder / "server") as server,
        closing(QdrantStore(server.url)) as there,
        closing(ChromaStore(folder / "index")) as here,
    ):
        disk = []
        for start, stop in ((0, count // 2), (count // 2, count)):
            _fill((there, here), corpus, start, stop)
            _optimized(server)
            disk.append(_bytes(folder / "server"))
        slope = (disk[1] - disk[0]) / (count - count // 2)
        print(f"disk: {slope / MEGABYTE:.3f} MB a passage of {corpus.tokens} tokens in d = {corpus.dim}, graph and codes built")
        ids = [document.id for document in corpus.documents(0, min(count, CANDIDATES))]
        queries = list(corpus.queries(QUERIES, count))
        far = np.max(
            [np.abs(there.score(query, ids).values - here.score(query, ids).values).max(axis=0) for query in queries], 0
        )
        print("largest difference of scores:", ", ".join(f"{mode} {one:.1e}" for mode, one in zip(MODES, far, strict=True)))
        _beside(
            f"all three scores of {len(ids)} passages",
            lambda n: there.score(queries[n % QUERIES], ids),
            lambda n: here.score(queries[n % QUERIES], ids),
            "in a folder",
        )


def _graph(folder: Path, count: int, corpus: Corpus) -> None:
    """Recall of HNSW over int8 codes, as QdrantStore asks for it, and its time beside an exact scan's."""
    with QdrantServer(folder / "server") as server, closing(QdrantStore(server.url)) as hnsw:
        _fill((hnsw,), corpus, 0, count)
        _optimized(server)
        with closing(QdrantStore(server.url, dense="exact")) as scan:
            queries = list(corpus.queries(QUERIES, count))
            for depth in (10, DEPTH):
                found = [_dense_leg(store, queries, depth) for store in (hnsw, scan)]
                recalls = [len(ours & exact) / depth for ours, exact in zip(*found, strict=True)]
                print(f"recall at {depth} of {count:,} passages: mean {np.mean(recalls):.4f}, least {min(recalls):.2f}")
            _beside(
                "a search with an exact scan",
                lambda n: scan.search(queries[n % QUERIES], depth=DEPTH),
                lambda n: hnsw.search(queries[n % QUERIES], depth=DEPTH),
                "by HNSW",
            )


def _fill(stores: Sequence[QdrantStore | ChromaStore], corpus: Corpus, start: int, stop: int) -> None:
    for begin in range(start, stop, BATCH):
        end = min(begin + BATCH, stop)
        documents, vectors = corpus.documents(begin, end), corpus.vectors(begin, end)
        for store in stores:
            store.add(documents, vectors)


def _dense_leg(store: QdrantStore, queries: Sequence[M3Vectors], depth: int) -> list[set[str]]:
    """The ids that the dense leg alone brings in, by query."""
    found = [store.search(query, depth=depth) for query in queries]
    return [{id for id, by in zip(one.ids, one.found_by, strict=True) if "dense" in by} for one in found]


def _beside(what: str, other: Step, ours: Step, named: str) -> None:
    """The medians of both, in turn, and the ratio of the first to the second."""
    timing = interleaved(other, ours, QUERIES)
    ratio = timing.ratio
    print(
        f"{what}: {timing.theirs * 1e3:.1f} ms, {named} {timing.ours * 1e3:.1f} ms, "
        f"ratio {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    )


def _optimized(server: QdrantServer) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/optimize", method="POST")).close()


def _bytes(folder: Path) -> int:
    """Bytes that the disk gives to the segments' files, holes left out."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("segments/**/*") if file.is_file())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=500, help="with all their token vectors")
    parser.add_argument("--tokens", type=int, default=120, help="of a passage")
    parser.add_argument("--graph", type=int, default=20_000, help="passages of one token, for the graph")
    return parser


if __name__ == "__main__":
    main()
