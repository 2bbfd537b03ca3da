"""The service under load: requests a second and how long they take, against calls of the library one by one in this process.

    python -m benchmarks.load [--clients 1,8,32] [--seconds 10] [--model mini] [--batching exact] [--documents 1000]

Starts `m3retriever serve` on an index made for it, and asks it from one process with an asynchronous client. Nothing is kept.
Client and server share this machine's cores, so that the ratio says what HTTP, JSON and waiting cost here, and no more.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import machine
from m3retriever import M3Index
from m3retriever.demo.corpus import standard_library_documents

PATIENCE = 300  # seconds for the model to load
WORDS = 8  # of a query
LIBRARY_CALLS = 40  # of each kind, one by one, for the ratio
BARS = 40  # signs of the longest bar
STEPS = 12  # of a histogram
HEALTHY = 0.05  # seconds between two questions whether the service is ready


@dataclass(frozen=True)
class Work:
    """One kind of request: its path, its body from a number, and the same call of the library."""

    name: str
    path: str
    body: Callable[[int], dict[str, Any]]
    call: Callable[[int], object]


@dataclass(frozen=True)
class Measured:
    """What one number of clients got: seconds of each answered request, and how many were refused or failed."""

    clients: int
    wall: float
    seconds: list[float]
    failed: int

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.wall

    def percentile(self, share: float) -> float:
        """Seconds that this share of the requests took at most."""
        return float(np.percentile(self.seconds, share * 100))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and print it."""
    options = _parser().parse_args(arguments)
    warnings.simplefilter("ignore")  # texts of the docstrings that are cut
    print(f"{machine.described()}; {machine.busy()}\nmodel {options.model}, batching {options.batching}\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        documents = standard_library_documents()[: options.documents]
        with M3Index.open(path, model=options.model) as index:
            index.add(documents)
        with M3Index.open(path, read_only=True) as index, _service(path, options.batching) as url:
            for work in _works(index, [document.text for document in documents]):
                fresh = count(1 << 40)  # a query asked before would be answered by the encoder's cache
                for clients in options.clients:
                    alone = _one_by_one(work.call, fresh)  # each time anew: what else the machine does changes
                    found = asyncio.run(_load(url, work, clients, options.seconds))
                    _show(work.name, found, alone)


def _works(index: M3Index, texts: Sequence[str]) -> list[Work]:
    """A search, and a list of eight texts to be encoded; no two requests are equal, so that no cache answers."""
    words = sorted({word for text in texts for word in re.findall(r"[a-z]{4,}", text)})

    def query(number: int) -> str:
        return " ".join(np.random.default_rng(number).choice(words, WORDS))

    def eight(number: int) -> list[str]:
        return [query(number * 8 + place) for place in range(8)]

    return [
        Work("search", "/v1/search", lambda n: {"query": query(n)}, lambda n: index.search(query(n))),
        Work(
            "encode 8 texts", "/v1/encode", lambda n: {"input": eight(n), "encoding_format": "columns"},
            lambda n: index.encoder.encode_documents(eight(n)),
        ),
    ]  # fmt: skip


def _one_by_one(call: Callable[[int], object], numbers: Iterator[int]) -> float:
    """Calls a second, after one that is not counted."""
    call(next(numbers))
    began = time.perf_counter()
    for number in islice(numbers, LIBRARY_CALLS):
        call(number)
    return LIBRARY_CALLS / (time.perf_counter() - began)


@contextmanager
def _service(path: Path, batching: str) -> Iterator[str]:
    """A service of the index in a process of its own; its address."""
    command = [sys.executable, "-c", "from m3retriever.cli import main; main()", "serve", "--path", str(path), "--port", "0"]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen([*command, "--batching", batching], stderr=log)
        try:
            yield _ready(process, log)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _ready(process: subprocess.Popen[bytes], log: Any) -> str:
    """Its address, once it is ready; RuntimeError with its log where it does not become so."""
    end, url = time.monotonic() + PATIENCE, ""
    while time.monotonic() < end and process.poll() is None:
        log.seek(0)
        if found := re.search(r"listening on (http://\S+)", log.read()):
            url = found[1]
        if url and httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
            return url
        time.sleep(HEALTHY)
    log.seek(0)
    raise RuntimeError(f"the service did not start: {log.read()}")


async def _load(url: str, work: Work, clients: int, seconds: float) -> Measured:
    """So many clients, each asking again as soon as it is answered."""
    numbers, taken, failed = count(clients << 20), list[float](), 0
    end = time.perf_counter() + seconds

    async def one_client(client: httpx.AsyncClient) -> None:
        nonlocal failed
        while time.perf_counter() < end:
            body = work.body(next(numbers))
            began = time.perf_counter()
            answer = await client.post(work.path, json=body)
            if answer.status_code == 200:
                taken.append(time.perf_counter() - began)
            else:
                failed += 1

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=PATIENCE, trust_env=False) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one_client(client) for _ in range(clients)))
        return Measured(clients, time.perf_counter() - began, taken, failed)


def _show(name: str, found: Measured, alone: float) -> None:
    """Throughput, percentiles and a histogram of the seconds."""
    p50, p95, p99 = (found.percentile(share) * 1000 for share in (0.5, 0.95, 0.99))
    ratio = f"{found.throughput:.1f} a second, the library one by one {alone:.1f}: ratio {found.throughput / alone:.2f}"
    times = f"p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, mean {statistics.fmean(found.seconds) * 1000:.1f}"
    print(f"{name}, {found.clients} clients: {ratio}; n = {len(found.seconds)}, failed {found.failed}; ms: {times}")
    counts, edges = np.histogram(np.array(found.seconds) * 1000, bins=STEPS)
    for count_, (low, high) in zip(counts, pairwise(edges), strict=True):
        print(f"    {low:8.1f} to {high:8.1f} ms {'█' * round(BARS * count_ / counts.max()):{BARS}} {count_}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=_numbers, default=[1, 8, 32], help="by comma")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of clients and kind of request")
    parser.add_argument("--model", default="mini", help="mini, hashing, BAAI/bge-m3 or a folder")
    parser.add_argument("--batching", default="exact", choices=["exact", "joined"])
    parser.add_argument("--documents", type=int, default=1_000, help="of the standard library's docstrings, in the index")
    return parser


def _numbers(given: str) -> list[int]:
    return [int(one) for one in given.split(",")]


if __name__ == "__main__":
    main()
