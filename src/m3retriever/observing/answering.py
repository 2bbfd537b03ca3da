"""Which calls of an index are answers: each is a span of its own, counted, and logged where the index has a query log."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from m3retriever.observing.counters import count
from m3retriever.observing.query_log import QueryLog, as_query_log, settings_of
from m3retriever.observing.spans import span
from m3retriever.types import Where

if TYPE_CHECKING:
    from m3retriever.ranking import Ranking

Given = ParamSpec("Given")
Result = TypeVar("Result")

SEVERAL = "search_many"  # the method that answers several queries
K = 10  # hits, where a call does not say how many


@dataclass
class _Answer:
    """A call under way; what its innermost searches note."""

    index: Any
    log: QueryLog | None
    queries: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


_under_way: ContextVar[_Answer | None] = ContextVar("m3retriever_answer", default=None)


class Answering:
    """The part of an M3Index that keeps a log of what it answered."""

    _query_log: QueryLog | None = None

    @property
    def query_log(self) -> QueryLog | None:
        """Where queries and answers are logged; None, the default, for nowhere. A path may be set as well."""
        return self._query_log

    @query_log.setter
    def query_log(self, given: QueryLog | str | Path | None) -> None:
        self._query_log = as_query_log(given)


def answers(method: Callable[Given, Result]) -> Callable[Given, Result]:
    """A method of an M3Index that answers queries with hits. One that calls another is one answer, its own."""
    several = method.__name__ == SEVERAL

    @wraps(method)
    def answer(*given: Given.args, **settings: Given.kwargs) -> Result:
        index: Any = given[0]
        outer = _under_way.get()
        if outer is not None and outer.index is index:
            return method(*given, **settings)
        call = _Answer(index, index.query_log)
        token = _under_way.set(call)
        try:
            with span("search") as took:
                result = method(*given, **settings)
                took.set(queries=len(call.queries) if several else 1)
        finally:
            _under_way.reset(token)
        count("queries", len(call.queries) if several else 1)
        if call.log is not None:
            k: Any = given[2] if len(given) > 2 else settings.get("k", K)
            about = {"method": method.__name__, "k": int(k), "milliseconds": round(took.seconds * 1000, 3)}
            _record(call, call.log, result if several else [result], about)
        return result

    return answer


def noted(query: str, ranking: Ranking, *, depth: int, where: Where | None) -> None:
    """Said by each search for one query, to the answer it is a part of."""
    call = _under_way.get()
    if call is not None:
        call.queries.append(query)
        if call.log is not None:
            call.settings = settings_of(ranking, depth, where)


def _record(call: _Answer, log: QueryLog, answered: Any, about: dict[str, Any]) -> None:
    """One line a query; of a call that searched several times for one, the last search's settings."""
    queries = call.queries[-len(answered) :] if answered else []
    for query, hits in zip(queries, answered, strict=False):  # without queries a subclass has answered by itself
        log.record(call.index, query, hits, together=len(answered), **about, **call.settings)
