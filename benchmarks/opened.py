"""A fresh process that opens an index and searches it, and prints as JSON what that cost.

python -m benchmarks.opened FOLDER DOCUMENTS DIM TOKENS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import chromadb  # noqa: F401  # imported before the clock starts
import numpy as np

from benchmarks.adding import memory
from benchmarks.growth import USUAL_TOKENS
from benchmarks.measuring import median_seconds
from benchmarks.synthetic import Corpus
from m3retriever import ChromaStore, M3Vectors
from m3retriever.kernels import maxsim
from m3retriever.stores.allowed import Allowed
from m3retriever.stores.database import DEFAULT_COLLECTION, PAYLOAD_FOLDER
from m3retriever.stores.dense import DenseSearch
from m3retriever.stores.legs import scores_in_every_mode, sparse_leg
from m3retriever.stores.payload import open_payload, release_payload

DEPTH = 100
QUERIES, ROUNDS = 20, 19
SEARCHES = 10  # before memory is looked at
DENSE: dict[str, DenseSearch] = {"dense": "auto", "scan": "exact", "hnsw": "hnsw"}


def main(folder: Path, documents: int, dim: int, tokens: int) -> dict[str, Any]:
    """The fields of a Growth that a fresh process can tell."""
    queries = Corpus(dim=dim, tokens=tokens).queries(QUERIES, documents)
    start = time.perf_counter()
    store = ChromaStore(folder)
    opened = time.perf_counter() - start
    try:
        for query in queries[:SEARCHES]:
            store.search(query, depth=DEPTH)
        resident, own = _resident(), memory()
        search = median_seconds(lambda number: store.search(queries[number % QUERIES], depth=DEPTH), ROUNDS)
        legs = _legs_of(folder, store, queries)
    finally:
        store.close()
    dense, recall = _dense(folder, queries)
    candidates = legs.pop("candidates")
    at_usual, at_own = (_colbert_seconds(candidates, dim, queries, count) for count in (USUAL_TOKENS, tokens))
    added = at_usual - at_own
    return {
        "opened": opened, "resident": resident, "own": own, "candidates": candidates, "recall": recall,
        "legs": {**dense, **legs, "search": search}, "usual": {"scoring": legs["scoring"] + added, "search": search + added},
    }  # fmt: skip


def _legs_of(folder: Path, store: ChromaStore, queries: M3Vectors) -> dict[str, float]:
    """Median seconds of the sparse leg and of scoring a search's candidates, and the mean number of these."""
    found = [store.search(query, depth=DEPTH).ids for query in queries]
    payload = open_payload(folder / PAYLOAD_FOLDER / DEFAULT_COLLECTION)
    try:
        with payload.read() as snapshot:
            allowed, slots = Allowed(snapshot.live(), everything=True), [snapshot.slots(ids) for ids in found]

            def sparse(number: int) -> object:
                return sparse_leg(snapshot, queries[number % QUERIES], allowed, DEPTH)

            def scoring(number: int) -> object:
                return scores_in_every_mode(snapshot, queries[number % QUERIES], slots[number % QUERIES])

            times = {step.__name__: median_seconds(step, ROUNDS) for step in (sparse, scoring)}
    finally:
        release_payload(payload)
    return {**times, "candidates": float(np.mean([len(ids) for ids in found]))}


def _dense(folder: Path, queries: M3Vectors) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of a search with a dense vector alone, by a scan, by HNSW and as it is by default; and, of the
    scan's best, the share that the other two find."""
    asked = [M3Vectors.dense_only(vector) for vector in queries.dense]
    times, found = {}, {}
    for name, how in DENSE.items():
        store = ChromaStore(folder, dense=how)
        try:
            times[name] = median_seconds(partial(_search, store, asked), ROUNDS)
            found[name] = [set(_search(store, asked, number)) for number in range(QUERIES)]
        finally:
            store.close()
    pairs = {name: zip(found[name], found["scan"], strict=True) for name in ("dense", "hnsw")}
    return times, {name: float(np.mean([len(a & b) / len(b) for a, b in both])) for name, both in pairs.items()}


def _search(store: ChromaStore, asked: Sequence[M3Vectors], number: int) -> tuple[str, ...]:
    return store.search(asked[number % QUERIES], depth=DEPTH).ids


def _colbert_seconds(candidates: float, dim: int, queries: M3Vectors, tokens: int) -> float:
    """What late interaction takes for so many candidates with so many token vectors each, made up here."""
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (round(candidates), tokens, dim), dtype=np.int8)
    scales = np.full(tokens, 1e-3, np.float32)
    documents = [(one, scales) for one in codes]
    return median_seconds(lambda number: maxsim(queries.colbert_row(number % QUERIES), documents), ROUNDS)


def _resident() -> int:
    """Bytes of memory, pages of mapped files included; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
