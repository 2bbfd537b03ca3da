"""A process of the tests on query logs: writes a number of lines, about LOG from NAME, of which a file holds so many bytes."""

import sys

from m3retriever import HashingEncoder, M3Index, MemoryStore
from m3retriever.observing import QueryLog

path, name, lines, max_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log, index = QueryLog(path, max_bytes=max_bytes), M3Index(HashingEncoder(), MemoryStore())
print("ready", flush=True)
sys.stdin.readline()
about = {"mode": "dense", "depth": 1, "weights": [1.0, 0.0, 0.0], "fusion": "weighted_sum", "threshold": None, "where": None}
for number in range(lines):
    log.record(
        index, f"{name} {number} " + "x" * (number % 5000), [], method="search", k=1, milliseconds=1, together=1, **about
    )
