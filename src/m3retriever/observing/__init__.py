"""What an index does, told in numbers, log lines, traces and a log of queries. Nothing is told to anyone who did not ask.

spans.py       how long each step of a search or an addition takes: to the counters, OpenTelemetry and the log
counters.py    how often and how long, of this process
structured.py  the library's log as JSON lines
query_log.py   what was asked and what was answered, a line a query
reading.py     that log read back, as a run that can be measured
answering.py   which calls of an M3Index are answers
"""

from m3retriever.observing.counters import Latency, Metrics, as_prometheus, metrics, reset
from m3retriever.observing.query_log import QueryLog
from m3retriever.observing.reading import LoggedQuery, read_query_log, run_of_log
from m3retriever.observing.spans import span
from m3retriever.observing.structured import configure_logging

__all__ = [
    "Latency",
    "LoggedQuery",
    "Metrics",
    "QueryLog",
    "as_prometheus",
    "configure_logging",
    "metrics",
    "read_query_log",
    "reset",
    "run_of_log",
    "span",
]
