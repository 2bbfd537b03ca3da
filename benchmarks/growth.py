"""How a store behaves as it grows: latency by leg, recall, opening, memory and disk at several numbers of documents.

An index is made here; a fresh process (`opened.py`) opens and searches it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lmdb

from benchmarks.synthetic import Corpus
from m3retriever import ChromaStore

DEFAULT = (1_000, 10_000)
TOKENS = 8  # token vectors a document, fewer where the disk does not hold them
USUAL_TOKENS = 120  # of a passage: what its scoring costs is calculated
DISK_BYTES = 40e9  # that an index may take
OTHER_BYTES = 20_000  # a document at d = 1024 without its token vectors
AT_ONCE = 1_024  # documents added at a time
PARTS = {
    "dense": "exact dense vectors",
    "codes": "their int8 codes",
    "blobs": "token vectors, sparse weights",
    "postings": "inverted index",
}


@dataclass(frozen=True)
class Growth:
    """What was measured at one size; times in seconds, memory and disk in bytes.

    Attributes
    ----------
    documents, dim, tokens : of the index; tokens are token vectors a document
    date, machine : when and where
    added_a_second : documents
    opened : the store's opening in a fresh process, imports not counted
    legs : median times at depth 100 of "scan" and "hnsw", the dense search by either way, "dense", by the one that is
        taken by default, "sparse", "scoring" of the candidates in every mode, and the whole "search"
    candidates : mean number that a search scores
    recall : of the scan's 100 best, the share that "hnsw" and "dense" find
    resident : memory of the fresh process after ten searches; `own` is the part that is not pages of mapped files
    disk : bytes a document, by part
    usual : "scoring" and "search" calculated for 120 token vectors a document
    """

    documents: int
    dim: int
    tokens: int
    date: str
    machine: str
    added_a_second: float
    opened: float
    legs: Mapping[str, float]
    candidates: float
    recall: Mapping[str, float]
    resident: int
    own: int
    disk: Mapping[str, float]
    usual: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def tokens_for(documents: int, dim: int, disk_bytes: float = DISK_BYTES) -> int:
    """How many token vectors a document may have, so that the index stays within the disk's bytes: 1 to 8."""
    left = disk_bytes / documents - OTHER_BYTES * dim / 1024
    return int(min(TOKENS, max(1, left // (dim + 4))))


def grown(documents: int, *, date: str, machine: str, dim: int = 1024) -> Growth:
    """Make an index of so many documents, and measure it."""
    corpus = Corpus(dim=dim, tokens=tokens_for(documents, dim))
    with tempfile.TemporaryDirectory() as folder:
        spent = _make(Path(folder), corpus, documents)
        disk = {part: size / documents for part, size in sizes(Path(folder)).items()}
        found = _opened(Path(folder), corpus, documents)
    return Growth(documents, dim, corpus.tokens, date, machine, documents / spent, disk=disk, **found)


def _make(folder: Path, corpus: Corpus, documents: int) -> float:
    """Seconds spent in `add`."""
    spent = 0.0
    store = ChromaStore(folder)
    try:
        for batch in corpus.batches(documents, AT_ONCE):
            start = time.perf_counter()
            store.add(*batch)
            spent += time.perf_counter() - start
    finally:
        store.close()
    return spent


def _opened(folder: Path, corpus: Corpus, documents: int) -> dict[str, Any]:
    given: Sequence[int] = (documents, corpus.dim, corpus.tokens)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.opened", str(folder), *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sizes(folder: Path) -> dict[str, float]:
    """Bytes on disk of an index that nobody has open, by part."""
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    [data] = [path for path in files if path.name == "data.mdb"]
    chroma = {path: size for path, size in files.items() if data.parent.parent not in path.parents}
    parts = {
        "texts and metadata in Chroma": sum(size for path, size in chroma.items() if path.parent == folder),
        "Chroma's vector index": sum(size for path, size in chroma.items() if path.parent != folder),
    }
    with lmdb.open(str(data.parent), readonly=True, lock=False, max_dbs=len(PARTS)) as payload:
        for name, part in PARTS.items():
            with payload.begin() as reading:
                held = reading.stat(payload.open_db(name.encode(), txn=reading, create=False))
            pages = held["branch_pages"] + held["leaf_pages"] + held["overflow_pages"]
            parts[part] = pages * held["psize"]
    return parts | {"ids and free pages": files[data] - sum(parts[part] for part in PARTS.values())}
