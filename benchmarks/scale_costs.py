"""The cost model of docs/scale.md: slopes that were measured, what is assumed, and formulas that a reader can redo.

A formula is text, such as "passages * scan_passage": it stands on the page as it is computed here. Its names are those of
quantities; nothing but numbers, names, + - * /, max, min and ceil is in it.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OPERATIONS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FUNCTIONS: Mapping[str, Callable[..., float]] = {"max": max, "min": min, "ceil": math.ceil}
SIZES = {"1 million": 10**6, "10 million": 10**7, "100 million": 10**8, "1 billion": 10**9}  # passages that are planned for
DAY = 86_400  # seconds


@dataclass(frozen=True)
class Line:
    """A least-squares line through points: y = intercept + slope x, and the share of the variance that it explains."""

    slope: float
    intercept: float
    explained: float


@dataclass(frozen=True)
class Assumed:
    """A number that was not measured: what it is, its unit ("" for none), and where it is from."""

    value: float
    unit: str
    what: str
    source: str


@dataclass(frozen=True)
class Formula:
    """A number that follows from others."""

    unit: str
    what: str
    formula: str


@dataclass(frozen=True)
class Crossing:
    """Up to how many passages a term of the sum stays within a limit."""

    what: str
    formula: str
    then: str


def fitted(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line through points by ordinary least squares, at least two different x."""
    across, up = np.asarray(x, float), np.asarray(y, float)
    spread = across - across.mean()
    slope = float(spread @ up / (spread @ spread))
    intercept = float(up.mean() - slope * across.mean())
    total = float(((up - up.mean()) ** 2).sum())
    left = float(((up - intercept - slope * across) ** 2).sum())
    return Line(slope, intercept, 1 - left / total if total else 1.0)


def calculated(formula: str, values: Mapping[str, float]) -> float:
    """What a formula gives with these values; ValueError for anything but arithmetic, KeyError for a name without a value."""
    return _value(ast.parse(formula, mode="eval").body, values)


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords:
        return float(FUNCTIONS[node.func.id](*(_value(one, values) for one in node.args)))
    raise ValueError(f"a formula is arithmetic; got {ast.unparse(node)}")


NVIDIA = "NVIDIA's data sheet of the A100"
PLANNING = "Qdrant's documentation, capacity planning"
SOURCE = "Qdrant 1.19's source"
OURS = "a choice for this page"

ASSUMED: Mapping[str, Assumed] = {
    "dim": Assumed(1024, "", "numbers of a vector", "BGE-M3"),
    "tokens": Assumed(120, "", "token vectors of a passage, about 90 English words", OURS),
    "entries": Assumed(80, "", "sparse tokens of a passage", "benchmarks/synthetic.py"),
    "candidates": Assumed(200, "", "documents that a query scores: 100 of each leg", OURS),
    "query_tokens": Assumed(32, "", "token vectors of a query", "benchmarks/synthetic.py"),
    "hits": Assumed(10, "", "documents that a query returns", OURS),
    "layers": Assumed(24, "", "of the network", "BGE-M3"),
    "gpu_peak": Assumed(312e12, "/s", "operations of one GPU in bf16, dense", NVIDIA),
    "gpu_share": Assumed(0.3, "", "of that peak that encoding reaches", "not measured by us: no GPU was at hand"),
    "ram": Assumed(128e9, "B", "memory of a machine", OURS),
    "disk": Assumed(8e12, "B", "SSD of a machine", OURS),
    "cores": Assumed(16, "", "of a machine", OURS),
    "full": Assumed(0.7, "", "of memory and disk that may be taken", OURS),
    "ssd": Assumed(1e9, "B/s", "that an SSD reads at random", OURS),
    "patience": Assumed(0.5, "s", "that one term of a query may take", OURS),
    "week": Assumed(7 * DAY, "s", "that indexing may take", OURS),
    "replicas": Assumed(2, "", "copies of each shard in Qdrant", OURS),
    "links": Assumed(32, "", "of a point in HNSW's lowest layer, 4 bytes each: twice m = 16", SOURCE),
    "posting": Assumed(12, "B", "of a sparse entry in memory, at most (PostingElementEx)", SOURCE),
    "overhead": Assumed(1.5, "", "times the data: versions, indexes, segments being rebuilt; on disk assumed too", PLANNING),
    "payload_text": Assumed(2_000, "B", "text, metadata twice and ids of a passage in Qdrant", OURS),
}

EACH: Mapping[str, Formula] = {
    "token_vectors": Formula("B", "token vectors in a folder", "tokens * token_bytes"),
    "payload": Formula(
        "B", "payload: all that is ours", "token_vectors + sparse_bytes + dense_bytes + code_bytes + posting_bytes + id_bytes"
    ),
    "chroma": Formula("B", "Chroma: text, metadata, full-text index, HNSW", "text_bytes + hnsw_bytes"),
    "folder": Formula("B", "a folder in all", "payload + chroma"),
    "qdrant_tokens": Formula("B", "token vectors in Qdrant, float32", "tokens * dim * 4"),
    "qdrant_disk": Formula(
        "B",
        "Qdrant's disk, one copy",
        "overhead * (qdrant_tokens + dim * 4 + dim + links * 4 + entries * posting + payload_text)",
    ),
    "qdrant_ram": Formula(
        "B", "Qdrant's memory, one copy: int8 codes, links, postings", "overhead * (dim + links * 4 + entries * posting)"
    ),
    "candidate_bytes": Formula("B", "token vectors that a query reads, folder", "candidates * tokens * token_bytes"),
    "qdrant_candidate_bytes": Formula("B", "token vectors that a query reads, Qdrant", "candidates * tokens * dim * 4"),
    "encode_passage": Formula("s", "encoding a passage, int8, one core", "tokens * encode_token"),
    "store_passage": Formula("s", "storing a passage in a folder, small index", "add_passage + tokens * add_token"),
    "store_late": Formula(
        "s", "the same at a million", "max(1 / million_added - 8 * add_token, add_passage) + tokens * add_token"
    ),
    "token_operations": Formula(
        "", "operations of the network for a token: 12 d² weights a layer", "2 * layers * 12 * dim * dim"
    ),
    "gpu_passage": Formula("s", "encoding a passage, one GPU", "tokens * token_operations / (gpu_share * gpu_peak)"),
    "scan_each": Formula(
        "s", "dense scan, a passage: the slower of both measurements", "max(scan_passage, million_scan / 1000000)"
    ),
    "sparse_each": Formula(
        "s", "sparse search, a passage: the slower of both", "max(sparse_passage, million_sparse / 1000000)"
    ),
    "maxsim": Formula("s", "MaxSim of a query's candidates", "candidates * tokens * maxsim_token"),
    "read_hits": Formula("s", "reading the hits' texts from Chroma", "hits * read_document"),
}

PLANNED: Mapping[str, Formula] = {
    "folder_disk": Formula("B", "folder: disk", "passages * folder"),
    "scanned": Formula("B", "folder: int8 codes that a dense scan reads", "passages * code_bytes"),
    "hnsw_ram": Formula(
        "B", "folder or Chroma server: HNSW in memory, taken to be as large as on disk", "passages * hnsw_bytes"
    ),
    "scan": Formula("s", "folder: dense scan of a query, one thread", "passages * scan_each"),
    "sparse": Formula("s", "folder: sparse search of a query", "passages * sparse_each"),
    "query": Formula("s", "folder: a query in all, one core", "encode_query + scan + sparse + maxsim + read_hits"),
    "stored": Formula("s", "folder: storing all, one writer", "passages * max(store_passage, store_late)"),
    "encoded_cpu": Formula("s", "encoding all, int8, one machine whose cores add up", "passages * encode_passage / cores"),
    "encoded_gpu": Formula("s", "encoding all, one GPU (assumed)", "passages * gpu_passage"),
    "qdrant_disk_all": Formula("B", "Qdrant: disk of all copies", "replicas * passages * qdrant_disk"),
    "qdrant_ram_all": Formula("B", "Qdrant: memory of all copies", "replicas * passages * qdrant_ram"),
    "machines": Formula(
        "",
        "Qdrant: machines, at least 3",
        "max(3, ceil(qdrant_disk_all / (full * disk)), ceil(qdrant_ram_all / (full * ram)))",
    ),
    "shards": Formula("", "Qdrant: shards, two a machine, before copies", "2 * machines"),
}

CROSSINGS: Sequence[Crossing] = (
    Crossing(
        "token vectors leave the memory of one machine", "full * ram / token_vectors", "a query reads them from disk: below"
    ),
    Crossing(
        "the dense scan takes its limit on one thread",
        "patience / scan_each",
        'more threads; `ChromaStore(dense="hnsw")`; Qdrant',
    ),
    Crossing(
        "storing in a folder takes a week",
        "week / max(store_passage, store_late)",
        "Qdrant, which several processes may write into",
    ),
    Crossing("HNSW leaves the memory of one machine", "full * ram / hnsw_bytes", "Qdrant, whose HNSW is over int8 codes"),
    Crossing("a folder fills the disk", "full * disk / folder", "`PooledEncoder`, or Qdrant on several machines"),
    Crossing("Qdrant fills the disk of one machine, one copy", "full * disk / qdrant_disk", "shards on several machines"),
    Crossing("Qdrant fills the memory of one machine, one copy", "full * ram / qdrant_ram", "shards on several machines"),
    Crossing("int8 codes leave the memory of one machine", "full * ram / code_bytes", "the scan reads from disk: Qdrant"),
    Crossing("the sparse search takes its limit", "patience / sparse_each", "shards, each of which searches its part"),
)

FROM_DISK: Mapping[str, Formula] = {
    "read_candidates": Formula("s", "a folder's candidates read from disk", "candidate_bytes / ssd"),
    "read_qdrant_candidates": Formula("s", "Qdrant's candidates read from disk, one machine", "qdrant_candidate_bytes / ssd"),
    "gpus_for_one_writer": Formula(
        "", "GPUs that keep one folder's writer busy", "gpu_passage / max(store_passage, store_late)"
    ),
    "cores_for_one_writer": Formula("", "CPU cores that do so", "encode_passage / max(store_passage, store_late)"),
}


SAID: Mapping[str, Formula] = {
    "said_scan": Formula("s", "dense scan of a million, by the slope", "1000000 * scan_passage"),
    "said_sparse": Formula("s", "sparse search of a million, by the slope", "1000000 * sparse_passage"),
    "said_disk": Formula(
        "B",
        "disk of a million with 8 token vectors, by the slopes",
        "1000000 * (folder - token_vectors + 8 * token_bytes)",
    ),
    "said_added": Formula("/s", "passages added with 8 token vectors, by the slopes", "1 / (add_passage + 8 * add_token)"),
}

IN_ENGINE: Mapping[str, Formula] = {
    "said_engine_disk": Formula(
        "B", "disk of a passage by the formula below, without its room for rebuilding", "qdrant_disk / overhead"
    ),
}


def everything(measured: Mapping[str, float]) -> dict[str, float]:
    """Every quantity by name: measured, assumed, and what follows for one passage or one query."""
    values = {**{name: one.value for name, one in ASSUMED.items()}, **measured}
    for name, one in {**EACH, **FROM_DISK, **SAID, **IN_ENGINE}.items():
        values[name] = calculated(one.formula, values)
    return values
