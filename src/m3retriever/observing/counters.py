"""How often and how long: counters and latency histograms of this process, always on. Safe from any thread.

A process that was forked begins at zero, so that the numbers of several workers may be added up.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Literal, get_args

Counter = Literal[
    "queries",
    "documents_added",
    "documents_deleted",
    "query_cache_hits",
    "query_cache_misses",
    "filter_cache_hits",
    "filter_cache_misses",
    "truncations",
    "query_log_failures",
]
Step = Literal[
    "search",
    "encode",
    "filter",
    "dense",
    "sparse",
    "score",
    "fusion",
    "documents",
    "add",
    "encode_documents",
    "store",
    "stage",
    "chroma",
    "publish",
    "delete",
]
COUNTERS: tuple[Counter, ...] = get_args(Counter)
STEPS: tuple[Step, ...] = get_args(Step)
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms' buckets, themselves included; one more bucket holds what takes longer."""

HELP: Mapping[Counter, str] = {
    "queries": "Queries answered.",
    "documents_added": "Documents or passages stored, those that replaced an older one included.",
    "documents_deleted": "Documents or passages removed.",
    "query_cache_hits": "Queries whose vectors were still there.",
    "query_cache_misses": "Queries that had to be encoded, of those that came alone.",
    "filter_cache_hits": "Filters whose documents were still known.",
    "filter_cache_misses": "Filters whose documents had to be looked up.",
    "truncations": "Texts longer than the model reads.",
    "query_log_failures": "Queries that were to be logged and could not be.",
}


@dataclass(frozen=True)
class Latency:
    """How long a step took, over all times it was done.

    Attributes
    ----------
    counts : how many took at most each of SECONDS, but longer than the bound before; the last: longer than all bounds
    seconds : the sum
    failed : how many ended by an exception; they are counted above as well
    """

    counts: tuple[int, ...] = (0,) * (len(SECONDS) + 1)
    seconds: float = 0.0
    failed: int = 0

    @property
    def count(self) -> int:
        """How often it was done."""
        return sum(self.counts)


@dataclass(frozen=True)
class Metrics:
    """All numbers of one moment. `steps` has every step, those never done with zeros."""

    queries: int = 0
    documents_added: int = 0
    documents_deleted: int = 0
    query_cache_hits: int = 0
    query_cache_misses: int = 0
    filter_cache_hits: int = 0
    filter_cache_misses: int = 0
    truncations: int = 0
    query_log_failures: int = 0
    steps: Mapping[Step, Latency] = field(default_factory=lambda: MappingProxyType(dict.fromkeys(STEPS, Latency())))


class _Numbers:
    """What changes, with the lock that it changes under."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.buckets = {step: [0] * (len(SECONDS) + 1) for step in STEPS}
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.failed = dict.fromkeys(STEPS, 0)


_numbers = _Numbers()


def count(name: Counter, by: int = 1) -> None:
    """Let a counter grow."""
    with _numbers.lock:
        _numbers.counters[name] += by


def took(step: Step, seconds: float, *, failed: bool) -> None:
    """Enter a step into its histogram."""
    bucket = bisect_left(SECONDS, seconds)
    with _numbers.lock:
        _numbers.buckets[step][bucket] += 1
        _numbers.seconds[step] += seconds
        _numbers.failed[step] += failed


def metrics() -> Metrics:
    """The numbers as they are now, all of the same moment."""
    with _numbers.lock:
        steps = {step: Latency(tuple(_numbers.buckets[step]), _numbers.seconds[step], _numbers.failed[step]) for step in STEPS}
        return Metrics(**_numbers.counters, steps=MappingProxyType(steps))


def reset() -> None:
    """Begin at zero again."""
    with _numbers.lock:
        _numbers.clear()


def as_prometheus(now: Metrics | None = None) -> str:
    """The numbers in Prometheus' text format, version 0.0.4; serve it as `text/plain; version=0.0.4`."""
    now = metrics() if now is None else now
    lines: list[str] = []
    for name in COUNTERS:
        metric = f"m3retriever_{name}_total"
        lines += [f"# HELP {metric} {HELP[name]}", f"# TYPE {metric} counter", f"{metric} {getattr(now, name)}"]
    lines += ["# HELP m3retriever_step_seconds How long each step took.", "# TYPE m3retriever_step_seconds histogram"]
    for step, latency in now.steps.items():
        for bound, below in zip((*map(repr, SECONDS), "+Inf"), accumulate(latency.counts), strict=True):
            lines.append(f'm3retriever_step_seconds_bucket{{step="{step}",le="{bound}"}} {below}')
        lines.append(f'm3retriever_step_seconds_sum{{step="{step}"}} {latency.seconds!r}')
        lines.append(f'm3retriever_step_seconds_count{{step="{step}"}} {latency.count}')
    failed = "m3retriever_step_failures_total"
    lines += [f"# HELP {failed} Steps that ended by an exception.", f"# TYPE {failed} counter"]
    lines += [f'{failed}{{step="{step}"}} {latency.failed}' for step, latency in now.steps.items()]
    return "\n".join(lines) + "\n"


def _in_child() -> None:
    global _numbers
    _numbers = _Numbers()  # with a lock of its own: a thread that is not here may hold the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
