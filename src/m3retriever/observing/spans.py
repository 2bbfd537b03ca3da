"""How long each step takes: told to the counters always, to OpenTelemetry and the log where someone listens.

A span carries numbers only: never a text, an id or metadata, and of an exception its class but not its message.
OpenTelemetry is not imported here: who wants traces has imported it, and set a tracer provider.
"""

from __future__ import annotations

import logging
import sys
from time import perf_counter
from types import TracebackType
from typing import Any

from m3retriever.observing.counters import Step, took

logger = logging.getLogger("m3retriever.spans")

PREFIX = "m3."

_tracers: dict[int, tuple[Any, Any]] = {}  # by the provider's identity: the provider, which it keeps alive, and its tracer


class Span:
    """A step under way, for a `with` block; `seconds` is how long it took, once it has ended."""

    __slots__ = ("_began", "_name", "_numbers", "_traced", "seconds")

    def __init__(self, name: Step, numbers: dict[str, float]) -> None:
        self._name, self._numbers = name, numbers
        self._traced: _Traced | None = None
        self.seconds = 0.0

    def set(self, **numbers: float) -> None:
        """Tell what is known only now."""
        self._numbers.update(numbers)

    def __enter__(self) -> Span:
        tracer = _tracer()
        if tracer is not None:
            self._traced = _Traced(tracer, PREFIX + self._name)
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = perf_counter() - self._began
        failed = None if kind is None else kind.__name__
        took(self._name, self.seconds, failed=failed is not None)
        if self._traced is not None:
            self._traced.end(self._numbers, failed)
        if logger.isEnabledFor(logging.DEBUG):
            told = {"span": PREFIX + self._name, "milliseconds": round(self.seconds * 1000, 4), **self._numbers}
            told |= {} if failed is None else {"failed": failed}
            logger.debug("%s%s: %.3f ms", PREFIX, self._name, self.seconds * 1000, extra=told)


def span(name: Step, **numbers: float) -> Span:
    """A step of a search or an addition: `with span("dense", depth=200): ...`."""
    return Span(name, numbers)


class _Traced:
    """The same step as a span of OpenTelemetry."""

    __slots__ = ("_open", "_span")

    def __init__(self, tracer: Any, name: str) -> None:
        self._open = tracer.start_as_current_span(name)
        self._span = self._open.__enter__()

    def end(self, numbers: dict[str, float], failed: str | None) -> None:
        self._span.set_attributes({PREFIX + name: value for name, value in numbers.items()})
        if failed is not None:
            trace = sys.modules["opentelemetry.trace"]
            self._span.set_status(trace.StatusCode.ERROR, failed)
        self._open.__exit__(None, None, None)  # of an exception it would keep the message, which may quote an id or a text


def _tracer() -> Any:
    """Where spans go; None where nobody has set a provider."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    known = _tracers.get(id(provider))
    if known is None:
        tracer = None if isinstance(provider, trace.ProxyTracerProvider) else provider.get_tracer("m3retriever")
        known = _tracers[id(provider)] = provider, tracer
    return known[1]
