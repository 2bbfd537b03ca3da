"""What a passage, a token and a query cost, as slopes over several sizes: the numbers under docs/scale.md.

    python -m benchmarks.scale [--quick] [--page] [--out docs]

Grows indexes of synthetic documents, fits lines with an intercept by least squares, encodes at BGE-M3's shape with random
weights, and writes scale.json and the tables of scale.md; --page writes the tables anew from what is kept. One thread.
Takes some minutes, 6 GB of disk and of memory. What a million documents took is not measured again: see MILLION.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, scale_page
from benchmarks.growth import sizes
from benchmarks.measuring import median_seconds
from benchmarks.scale_costs import Line, fitted
from benchmarks.synthetic import QUERY_TOKENS, Corpus
from m3retriever import ChromaStore
from m3retriever.kernels import maxsim

DOCS = Path(__file__).parents[1] / "docs"
FILE = "scale.json"
BATCH = 256
ROUNDS = 9
READS = (1, 10, 50, 100)  # documents read at a time
MAXSIM_CANDIDATES, MAXSIM_TOKENS = 200, (30, 60, 120, 240)
QUERY_TOKENS_ENCODED, DOCUMENT_TOKENS = 19, 120
MILLION = {  # docs/speed.md: measured once, d = 1024, 8 token vectors a document
    "million_scan": 0.3,
    "million_sparse": 0.004,
    "million_scoring": 0.007,
    "million_search": 0.4,
    "million_own": 93e6,
    "million_disk": 25e9,
    "million_added": 240.0,
}


@dataclass(frozen=True)
class Size:
    """How much is measured: documents at which an index is looked at, dimensions, token vectors of a document."""

    documents: Sequence[int]
    dims: Sequence[int]
    tokens: int
    token_series: Sequence[int]
    batches: Sequence[int]  # passages encoded at a time
    layers: int


FULL = Size((2_048, 8_192, 32_768), (384, 1024), 100, (8, 32, 100), (2, 6, 12), 24)
QUICK = Size((512, 1_024, 2_048), (64,), 20, (4, 8, 20), (2, 4), 1)


@dataclass(frozen=True)
class Point:
    """An index at one size: seconds that adding its documents took, bytes on disk by part, and what `opened` tells."""

    documents: int
    dim: int
    tokens: int
    add_seconds: float
    disk: Mapping[str, float]
    opened: Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, keep, and write the page."""
    options = _parser().parse_args(arguments)
    out: Path = options.out or DOCS
    if options.page:
        _keep(json.loads((out / FILE).read_text(encoding="utf-8")), out)
        return
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = os.environ["M3RETRIEVER_THREADS"] = "1"
    found = measured(QUICK if options.quick else FULL)
    if not options.quick and (out / FILE).is_file():
        found |= {key: held for key, held in json.loads((out / FILE).read_text(encoding="utf-8")).items() if key == "qdrant"}
    if options.quick and options.out is None:
        print(json.dumps(quantities(found), indent=1))
        return
    _keep(found, out)


def _keep(found: dict[str, Any], out: Path) -> None:
    """What was measured with the quantities that follow from it, and the page."""
    found["quantities"] = quantities(found)
    (out / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    scale_page.write(found, out)


def quantities(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name, of points that were measured: slopes, and what a million documents took."""
    return {**_slopes(found), **{name: _kept(value) for name, value in MILLION.items()}}


def measured(size: Size) -> dict[str, Any]:
    """Everything that is measured."""
    began = time.perf_counter()
    words = "; ".join(filter(None, [machine.described(), machine.busy()]))
    found: dict[str, Any] = {"date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(), "machine": words}
    found["points"] = [asdict(point) for dim in size.dims for point in _grown(size.documents, dim, size.tokens)]
    found["token_series"] = [
        asdict(point) for tokens in size.token_series for point in _grown(size.documents[:1], size.dims[-1], tokens, look=False)
    ]
    found["reads"], found["maxsim"] = _reads(size), _maxsim(size.dims[-1])
    found["encoding"] = _encoding(size)
    found["seconds"] = time.perf_counter() - began
    return found


def _grown(documents: Sequence[int], dim: int, tokens: int, *, look: bool = True) -> list[Point]:
    """One index, looked at as it reaches each size."""
    corpus, points, spent, start = Corpus(dim=dim, tokens=tokens), [], 0.0, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for stop in documents:
            store = ChromaStore(folder)
            try:
                for begin in range(start, stop, BATCH):
                    end = min(begin + BATCH, stop)
                    batch = corpus.documents(begin, end), corpus.vectors(begin, end)
                    clock = time.perf_counter()
                    store.add(*batch)
                    spent += time.perf_counter() - clock
            finally:
                store.close()
            start = stop
            disk = {part: size / stop for part, size in sizes(folder).items()}
            points.append(Point(stop, dim, tokens, spent, disk, _opened(folder, stop, dim, tokens) if look else {}))
            _say(f"{stop:,} documents, d = {dim}, {tokens} token vectors: {spent:.1f} s spent in add")
    return points


def _opened(folder: Path, documents: int, dim: int, tokens: int) -> dict[str, Any]:
    """What a fresh process finds: see `benchmarks.opened`."""
    numbers = map(str, (documents, dim, tokens))
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.opened", str(folder), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _reads(size: Size) -> dict[str, list[float]]:
    """Median seconds of reading some documents' texts and metadata."""
    corpus = Corpus(dim=size.dims[0], tokens=1)
    with tempfile.TemporaryDirectory() as folder:
        store = ChromaStore(folder)
        try:
            for batch in corpus.batches(size.documents[0], BATCH):
                store.add(*batch)
            ids = store.ids()

            def read(count: int) -> Callable[[int], object]:
                return lambda number: store.get([ids[(number * 7 + place * 13) % len(ids)] for place in range(count)])

            times = [median_seconds(read(count), ROUNDS) for count in READS]
        finally:
            store.close()
    return {"documents": list(READS), "seconds": times}


def _maxsim(dim: int) -> dict[str, list[float]]:
    """Median seconds of scoring candidates with ever more token vectors, against a query of 32."""
    random, times = np.random.default_rng(0), []
    query = random.standard_normal((QUERY_TOKENS, dim), dtype=np.float32)
    for tokens in MAXSIM_TOKENS:
        codes = random.integers(-127, 128, (MAXSIM_CANDIDATES, tokens, dim), dtype=np.int8)
        documents = [(one, np.full(tokens, 1e-3, np.float32)) for one in codes]
        times.append(median_seconds(lambda _, given=documents: maxsim(query, given), ROUNDS))
    return {"tokens": [MAXSIM_CANDIDATES * tokens for tokens in MAXSIM_TOKENS], "seconds": times}


def _encoding(size: Size) -> dict[str, Any]:
    """Median seconds of encoding passages and a query in int8 at BGE-M3's shape, random weights, one thread."""
    from benchmarks.encoding import checkpoint, text
    from m3retriever import BGEM3Encoder

    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place) / "model", layers=size.layers)
        encoder = BGEM3Encoder(folder, device="cpu", precision="int8", backend="openvino")
        _say("exported to int8")
        passage, query = text(encoder, DOCUMENT_TOKENS), text(encoder, QUERY_TOKENS_ENCODED)
        counts = [len(encoder.tokenize(passage)) * batch for batch in size.batches]
        seconds = [_median(lambda batch=batch: encoder.encode_documents([passage] * batch)) for batch in size.batches]
        asked = _median(lambda: encoder.encode_documents([query]))
        vectors = encoder.encode_documents([passage])
    _say(f"encoding: {dict(zip(counts, seconds, strict=True))}, a query {asked:.3f} s")
    return {"layers": size.layers, "tokens": counts, "seconds": seconds, "query": asked, "vectors": len(vectors.colbert)}


def _median(step: Callable[[], object]) -> float:
    return median_seconds(lambda _: step(), 3)


def _slopes(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Measured quantities by name: value, number of points, intercept and fit of the line that it is the slope of."""
    dim = max(point["dim"] for point in found["points"])
    points = [point for point in found["points"] if point["dim"] == dim]
    series, encoding = found["token_series"], found["encoding"]
    count = [point["documents"] for point in points]
    tokens = [point["tokens"] for point in series]

    def on_disk(part: str) -> Line:
        return fitted(count, [point["disk"][part] * point["documents"] for point in points])

    blobs = fitted(tokens, [point["disk"]["token vectors, sparse weights"] for point in series])
    adding = fitted(tokens, [point["add_seconds"] / point["documents"] for point in series])
    lines = {
        "dense_bytes": on_disk("exact dense vectors"),
        "code_bytes": on_disk("their int8 codes"),
        "posting_bytes": on_disk("inverted index"),
        "id_bytes": on_disk("ids and free pages"),
        "text_bytes": on_disk("texts and metadata in Chroma"),
        "hnsw_bytes": on_disk("Chroma's vector index"),
        "token_bytes": blobs,
        "add_token": adding,
        "scan_passage": fitted(count, [point["opened"]["legs"]["scan"] for point in points]),
        "sparse_passage": fitted(count, [point["opened"]["legs"]["sparse"] for point in points]),
        "own_passage": fitted(count, [point["opened"]["own"] for point in points]),
        "mapped_passage": fitted(count, [point["opened"]["resident"] - point["opened"]["own"] for point in points]),
        "maxsim_token": fitted(found["maxsim"]["tokens"], found["maxsim"]["seconds"]),
        "read_document": fitted(found["reads"]["documents"], found["reads"]["seconds"]),
        "encode_token": fitted(encoding["tokens"], encoding["seconds"]),
    }
    numbers = {"token_bytes": tokens, "add_token": tokens, "maxsim_token": MAXSIM_TOKENS, "read_document": READS}
    numbers["encode_token"] = encoding["tokens"]
    kept = {name: _kept(line.slope, line, len(numbers.get(name, count))) for name, line in lines.items()}
    per_document = fitted(count, [point["add_seconds"] for point in points]).slope
    return kept | {
        "sparse_bytes": _kept(max(0.0, blobs.intercept)),
        "add_passage": _kept(max(0.0, per_document - points[0]["tokens"] * adding.slope)),
        "encode_query": _kept(encoding["query"]),
        "opened": _kept(statistics.median(point["opened"]["opened"] for point in points)),
    }


def _kept(value: float, line: Line | None = None, points: int = 1) -> dict[str, Any]:
    fit = {} if line is None else {"intercept": line.intercept, "explained": line.explained}
    return {"value": value, "points": points, **fit}


def _say(words: str) -> None:
    print(words, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it works; written only with --out")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the tables from what is kept")
    parser.add_argument("--out", type=Path, help="the folder of scale.json and scale.md; default: docs")
    return parser


if __name__ == "__main__":
    main()
