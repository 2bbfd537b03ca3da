"""What a passage costs in Qdrant's own engine, on disk and to score, and what HNSW over int8 codes finds there.

    python -m benchmarks.qdrant [--passages 500] [--tokens 120] [--graph 20000] [--keep]

The engine is a process of its own behind REST (`torture/qdrant_engine.py`); whole calls of QdrantStore are timed, JSON and all,
and those of a folder with the same passages beside them, in turn. A server's segments and threads may do better. --keep
writes what was found into scale.json and scale.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torture.server import QdrantServer

from benchmarks import machine, scale, scale_page
from benchmarks.measuring import Step, interleaved
from benchmarks.synthetic import Corpus
from m3retriever import ChromaStore, M3Vectors, QdrantStore

BATCH = 32  # passages written at a time
QUERIES, CANDIDATES, DEPTH = 20, 200, 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and keep it where that is asked for."""
    options = _parser().parse_args(arguments)
    words = "; ".join(filter(None, [machine.described(), machine.busy()]))
    print(f"{words}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = _passages(folder / "passages", options.passages, Corpus(tokens=options.tokens))
        found |= _graph(folder / "graph", options.graph, Corpus(tokens=1))
    for quantity, value in found.items():
        unit, what = scale_page.IN_QDRANT[quantity]
        print(f"{what}: {scale_page.shown(value, unit)}")
    if options.keep:
        file = scale.DOCS / scale.FILE
        kept = json.loads(file.read_text(encoding="utf-8"))
        date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
        kept["qdrant"] = {"date": date, "machine": words, **found}
        file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        scale_page.write(kept, scale.DOCS)


def _passages(folder: Path, count: int, corpus: Corpus) -> dict[str, float]:
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
        ids = [document.id for document in corpus.documents(0, min(count, CANDIDATES))]
        queries = list(corpus.queries(QUERIES, count))
        far = [np.abs(there.score(query, ids).values - here.score(query, ids).values).max() for query in queries]
        slower, faster, ratio = _beside(
            lambda n: there.score(queries[n % QUERIES], ids), lambda n: here.score(queries[n % QUERIES], ids)
        )
    each = (disk[1] - disk[0]) / (count - count // 2)
    return {
        "engine_disk": each,
        "engine_far": float(max(far)),
        "engine_scores": slower,
        "folder_scores": faster,
        "scores_ratio": ratio,
    }


def _graph(folder: Path, count: int, corpus: Corpus) -> dict[str, float]:
    """Recall of HNSW over int8 codes, as QdrantStore asks for it, and its time beside an exact scan's."""
    with QdrantServer(folder / "server") as server, closing(QdrantStore(server.url)) as hnsw:
        _fill((hnsw,), corpus, 0, count)
        _optimized(server)
        with closing(QdrantStore(server.url, dense="exact")) as scan:
            queries = list(corpus.queries(QUERIES, count))
            legs = [_dense_leg(store, queries) for store in (hnsw, scan)]
            recalls = [len(ours & exact) / DEPTH for ours, exact in zip(*legs, strict=True)]
            slower, faster, ratio = _beside(
                lambda n: scan.search(queries[n % QUERIES], depth=DEPTH),
                lambda n: hnsw.search(queries[n % QUERIES], depth=DEPTH),
            )
    found = {"engine_recall": float(np.mean(recalls)), "engine_least": min(recalls)}
    return {**found, "engine_scan": slower, "engine_hnsw": faster, "hnsw_ratio": ratio}


def _fill(stores: Sequence[QdrantStore | ChromaStore], corpus: Corpus, start: int, stop: int) -> None:
    for begin in range(start, stop, BATCH):
        end = min(begin + BATCH, stop)
        documents, vectors = corpus.documents(begin, end), corpus.vectors(begin, end)
        for store in stores:
            store.add(documents, vectors)


def _dense_leg(store: QdrantStore, queries: Sequence[M3Vectors]) -> list[set[str]]:
    """The ids that the dense leg alone brings in, by query."""
    found = [store.search(query, depth=DEPTH) for query in queries]
    return [{id for id, by in zip(one.ids, one.found_by, strict=True) if "dense" in by} for one in found]


def _beside(other: Step, ours: Step) -> tuple[float, float, float]:
    """The median seconds of both, in turn, and the median ratio of the first to the second."""
    timing = interleaved(other, ours, QUERIES)
    return timing.theirs, timing.ours, timing.ratio.median


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
    parser.add_argument("--keep", action="store_true", help="write scale.json and scale.md")
    return parser


if __name__ == "__main__":
    main()
