"""What /metrics shows of the service itself, in Prometheus' text format; the library's own counters follow it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from m3retriever.observing import as_prometheus

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many values were at most each bound, and their sum. Not safe by itself: `Numbers` holds the lock."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Enter a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, label: str = "") -> Iterator[str]:
        """Its samples; `label` stands in all of them."""
        for bound, below in zip((*map(repr, self.bounds), "+Inf"), accumulate(self.counts), strict=True):
            yield f'{name}_bucket{{{label}{"," if label else ""}le="{bound}"}} {below}'
        braces = f"{{{label}}}" if label else ""
        yield f"{name}_sum{braces} {self.sum!r}"
        yield f"{name}_count{braces} {sum(self.counts)}"


class Numbers:
    """Requests, how long they took, and what the encoder was given. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self._passes, self._turns = Histogram(COUNTS), Histogram(COUNTS)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request has ended."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.setdefault(route, Histogram(SECONDS)).add(seconds)

    def passed(self, texts: int) -> None:
        """The encoder was called with so many texts."""
        with self._lock:
            self._passes.add(texts)

    def turned(self, requests: int) -> None:
        """So many requests were taken together."""
        with self._lock:
            self._turns.add(requests)

    def as_prometheus(self, **gauges: int) -> str:
        """All numbers of this moment, and the library's; a gauge by name."""
        with self._lock:
            lines = [
                *_head("http_requests", "counter", "Requests by route and status.", total=True),
                *(
                    f'm3retriever_http_requests_total{{route="{route}",status="{status}"}} {count}'
                    for (route, status), count in sorted(self._requests.items())
                ),
                *_head("http_request_seconds", "histogram", "From a request's head to the end of its answer."),
                *(
                    line
                    for route, histogram in sorted(self._seconds.items())
                    for line in histogram.lines("m3retriever_http_request_seconds", f'route="{route}"')
                ),
                *_head("encoder_call_texts", "histogram", "Texts in each call of the encoder."),
                *self._passes.lines("m3retriever_encoder_call_texts"),
                *_head("encoder_turn_requests", "histogram", "Requests that were taken together."),
                *self._turns.lines("m3retriever_encoder_turn_requests"),
            ]
        for name, value in gauges.items():
            lines += [*_head(name, "gauge", GAUGES[name]), f"m3retriever_{name} {value}"]
        return "\n".join(lines) + "\n" + as_prometheus()


GAUGES = {
    "ready": "1 where /readyz says so.",
    "http_under_way": "Requests waiting or being answered.",
    "http_answer_bytes": "Bytes of large answers being made or sent.",
    "encoder_waiting": "Requests in line for the encoder.",
}


def _head(name: str, kind: str, words: str, *, total: bool = False) -> tuple[str, str]:
    full = f"m3retriever_{name}{'_total' if total else ''}"
    return f"# HELP {full} {words}", f"# TYPE {full} {kind}"
