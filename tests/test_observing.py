"""What an index tells of itself: spans, counters, log lines. Numbers only, and nothing at all to whoever did not ask."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import timeit
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever import Document, HashingEncoder, InvalidArgumentError, M3Index, MemoryStore
from m3retriever.observing import as_prometheus, configure_logging, metrics, reset, span
from m3retriever.observing.counters import COUNTERS, SECONDS, STEPS, count, took

SECRET = "zebrafinch"
TRACED = """
import asyncio, io, json, sys, tempfile
from pathlib import Path
from m3retriever import Document, HashingEncoder, M3Index, M3RetrieverError
from m3retriever.observing import as_prometheus, configure_logging, metrics

lines = io.StringIO()
configure_logging("debug", stream=lines)
folder = tempfile.mkdtemp()
index = M3Index.open(folder, model=HashingEncoder())
assert "opentelemetry.sdk.trace.export.in_memory_span_exporter" not in sys.modules

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SECRET = "zebrafinch"
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
groups = {}

def kept(name):
    spans = exporter.get_finished_spans()
    exporter.clear()
    names = {one.context.span_id: one.name for one in spans}
    groups[name] = [
        {
            "name": one.name,
            "parent": one.parent and names.get(one.parent.span_id),
            "attributes": dict(one.attributes),
            "status": one.status.status_code.name,
            "said": one.status.description,
            "events": [[event.name, dict(event.attributes)] for event in one.events],
        }
        for one in spans
    ]

def documents(first, last):
    return [Document(f"{SECRET}-{n}", f"a {SECRET} sings {n}", {SECRET: SECRET, "n": n}) for n in range(first, last)]

index.add(documents(0, 600))
kept("add")
index.search(f"which {SECRET} sings", 5, where={SECRET: SECRET}, threshold=0.01)
kept("search")
for wrong in (
    lambda: index.delete([f"{SECRET} that is not here"]),
    lambda: index.explain("sings", SECRET),
    lambda: index.search(SECRET, where={"$" + SECRET: 1}),
):
    try:
        wrong()
    except M3RetrieverError as error:
        assert SECRET in str(error)
kept("wrong")

async def request():
    with trace.get_tracer("test").start_as_current_span("request"):
        await asyncio.gather(index.asearch(SECRET, 3), index.asearch("sings", 3))

asyncio.run(request())
kept("request")
index.delete([f"{SECRET}-1"])
kept("delete")
index.close()
print(json.dumps({"spans": groups, "lines": lines.getvalue(), "prometheus": as_prometheus(), "metrics": repr(metrics())}))
"""


@pytest.fixture(scope="module")
def told():
    """What a real index on Chroma tells OpenTelemetry's SDK and the log, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(autouse=True)
def at_zero():
    reset()
    yield
    configure_logging("off")


def tree(spans):
    return sorted({(one["parent"], one["name"]) for one in spans}, key=str)


# -- spans ---------------------------------------------------------------------------------------------


def test_a_search_is_one_trace_with_a_span_for_each_leg(told):
    under = ("m3.encode", "m3.filter", "m3.dense", "m3.sparse", "m3.score", "m3.fusion", "m3.documents")
    spans = told["spans"]["search"]
    assert tree(spans) == sorted([(None, "m3.search"), *(("m3.search", name) for name in under)], key=str)
    of = {one["name"]: one["attributes"] for one in spans}
    assert of["m3.search"] == {"m3.queries": 1}
    assert of["m3.dense"] == of["m3.sparse"] == {"m3.depth": 200, "m3.allowed": 600, "m3.candidates": 200}
    assert 200 <= of["m3.score"]["m3.candidates"] <= 400
    assert of["m3.documents"] == {"m3.documents": 5}


def test_adding_is_one_trace_although_it_stores_in_another_thread(told):
    spans = told["spans"]["add"]
    steps = [("m3.store", name) for name in ("m3.stage", "m3.chroma", "m3.publish")]
    assert tree(spans) == sorted([(None, "m3.add"), ("m3.add", "m3.encode_documents"), ("m3.add", "m3.store"), *steps], key=str)
    assert sum(one["attributes"]["m3.documents"] for one in spans if one["name"] == "m3.publish") == 600
    assert sum(one["name"] == "m3.store" for one in spans) >= 2, "one batch would not have needed a thread"


def test_a_search_awaited_belongs_to_the_span_around_it(told):
    spans = told["spans"]["request"]
    assert [one["parent"] for one in spans if one["name"] == "m3.search"] == ["request", "request"]


def test_an_error_is_told_by_its_class_and_not_by_its_words(told):
    failed = {one["name"]: one for one in told["spans"]["wrong"] if one["status"] == "ERROR"}
    assert {name: one["said"] for name, one in failed.items()} == {
        "m3.delete": "UnknownDocumentError",
        "m3.search": "InvalidFilterError",
    }
    assert all(one["events"] == [] for one in failed.values())


def test_neither_spans_nor_log_lines_nor_metrics_hold_a_word_of_texts_ids_or_metadata(told):
    assert told["lines"].count("\n") >= 30
    for kind in ("spans", "lines", "prometheus", "metrics"):
        assert SECRET not in json.dumps(told[kind]), kind
    for one in (one for group in told["spans"].values() for one in group):
        assert all(type(value) in (int, float) for value in one["attributes"].values()), one


def test_log_lines_of_spans_are_json_with_numbers(told):
    lines = [json.loads(line) for line in told["lines"].splitlines()]
    dense = next(line for line in lines if line.get("span") == "m3.dense")
    assert dense.keys() == {"time", "level", "logger", "message", "span", "milliseconds", "depth", "allowed", "candidates"}
    assert (dense["level"], dense["logger"]) == ("debug", "m3retriever.spans")
    assert any(line.get("failed") == "UnknownDocumentError" for line in lines)


def test_a_process_without_opentelemetry_searches_all_the_same():
    code = (
        "import sys\n"
        "for name in ('opentelemetry', 'opentelemetry.trace'): sys.modules[name] = None\n"  # importing it is an ImportError
        "from m3retriever import Document, HashingEncoder, M3Index, MemoryStore\n"
        "from m3retriever.observing import metrics\n"
        "index = M3Index(HashingEncoder(), MemoryStore())\n"
        "index.add([Document('fox', 'red fox')])\n"
        "print(index.search('fox')[0].document.id, metrics().queries, metrics().steps['search'].count)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["fox", "1", "1"], "")


def test_spans_that_nobody_listens_to_cost_a_small_share_of_a_search(tmp_path):
    def seven():
        for _ in range(7):
            with span("dense", depth=200, allowed=1000) as leg:
                leg.set(candidates=200)

    with M3Index.open(tmp_path, model=HashingEncoder()) as index:
        index.add([Document(str(n), f"a fox and its {n} friends") for n in range(500)])
        search = min(timeit.repeat(lambda: index.search("fox friends"), number=5, repeat=7)) / 5
    assert min(timeit.repeat(seven, number=100, repeat=7)) / 100 < 0.03 * search


# -- counters ------------------------------------------------------------------------------------------


def test_what_an_index_does_is_counted(tmp_path):
    with M3Index.open(tmp_path, model=HashingEncoder()) as index:
        index.add([Document(str(n), f"fox {n}", {"even": n % 2 == 0}) for n in range(6)])
        index.add([Document("0", "fox 0", {"even": True}), Document("1", "another fox", {"even": False})])
        index.delete(["4", "5", "5"])
        index.search_many(["fox", "another"], 2)
        index.search_documents("fox", 2)
        index.search_diverse("fox", 2, among=3)
        long_ago = time.time() - 60  # an answer is kept once Chroma's files have rested a moment
        os.utime(tmp_path / "chroma.sqlite3", (long_ago, long_ago))
        index.search("fox", where={"even": True})
        index.search("fox", where={"even": True})
        index.score("fox")  # raw scores are no answer
        with pytest.raises(InvalidArgumentError):
            index.search("fox", 0)
    now = metrics()
    assert (now.queries, now.documents_added, now.documents_deleted) == (6, 7, 2)
    assert (now.filter_cache_misses, now.filter_cache_hits) == (1, 1)
    assert (now.steps["search"].count, now.steps["search"].failed) == (6, 1)
    assert now.steps["sparse"].count == now.steps["dense"].count == now.steps["score"].count == 7
    assert now.steps["encode"].seconds < now.steps["search"].seconds


@pytest.mark.model
def test_the_query_cache_and_cut_texts_are_counted():
    from m3retriever import MiniEncoder, TruncationWarning

    encoder = MiniEncoder(max_length=16)
    index = M3Index(encoder, MemoryStore())
    with pytest.warns(TruncationWarning):
        index.add([Document("long", "fox " * 100), Document("longer", "fox " * 200), Document("short", "fox")])
    for _ in range(3):
        index.search("red fox")
    now = metrics()
    assert (now.truncations, now.query_cache_misses, now.query_cache_hits) == (2, 1, 2)


def test_a_time_at_a_bound_counts_as_within_it():
    for seconds in (0.0, 0.0001, 0.00011, 10.0, 10.1):
        took("dense", seconds, failed=False)
    counts = metrics().steps["dense"].counts
    assert len(counts) == len(SECONDS) + 1
    assert {place: n for place, n in enumerate(counts) if n} == {0: 2, 1: 1, len(SECONDS) - 1: 1, len(SECONDS): 1}
    assert metrics().steps["dense"].seconds == pytest.approx(20.10021)


SAMPLE = re.compile(r'(?P<name>[a-z_0-9]+)(\{step="(?P<step>[a-z_]+)"(,le="(?P<le>[^"]+)")?\})? (?P<value>\S+)')


def parsed(text):
    """{(name, step, bound): value} of Prometheus' text format, each line of which must be well-formed."""
    samples, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            kinds[line.split()[2]] = line.split()[3]
        elif not line.startswith("# HELP "):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert re.sub("_(bucket|sum|count)$", "", sample["name"]) in kinds, f"{line} comes before its type"
            key = sample["name"], sample["step"], sample["le"]
            assert key not in samples
            samples[key] = float(sample["value"])
    assert text.endswith("\n")
    return samples


times = st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 20), st.booleans()), max_size=30)


@given(times)
def test_prometheus_reads_what_was_entered(entered):
    reset()
    for step, seconds, failed in entered:
        took(step, seconds, failed=failed)
    samples = parsed(as_prometheus())
    for step in STEPS:
        own = [seconds for name, seconds, _ in entered if name == step]
        for bound in SECONDS:
            below = samples["m3retriever_step_seconds_bucket", step, str(bound)]
            assert below == sum(seconds <= bound for seconds in own)
        assert samples["m3retriever_step_seconds_bucket", step, "+Inf"] == len(own)
        assert samples["m3retriever_step_seconds_count", step, None] == len(own)
        assert samples["m3retriever_step_seconds_sum", step, None] == pytest.approx(sum(own))
        assert samples["m3retriever_step_failures_total", step, None] == sum(f for name, _, f in entered if name == step)


def test_prometheus_has_every_counter_from_the_beginning():
    count("truncations", 3)
    samples = parsed(as_prometheus())
    assert {name: samples[f"m3retriever_{name}_total", None, None] for name in COUNTERS} == {
        **dict.fromkeys(COUNTERS, 0),
        "truncations": 3,
    }
    assert all(lower < higher for lower, higher in pairwise(SECONDS))


def test_a_snapshot_is_of_one_moment_and_stays_as_it_is():
    before, switching, stop, torn = metrics(), sys.getswitchinterval(), threading.Event(), []

    def enter():
        while not stop.is_set():
            for step in STEPS:
                took(step, 1.0, failed=True)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(2000):
            torn += [one for one in metrics().steps.values() if not one.count == one.seconds == one.failed]
    finally:
        stop.set()
        sys.setswitchinterval(switching)
        for thread in threads:
            thread.join()
    assert not torn
    assert before.steps["dense"].count == 0 < metrics().steps["dense"].count
    with pytest.raises(TypeError):
        before.steps["dense"] = None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_begins_at_zero_whoever_held_the_lock():
    code = (
        "import os, signal, warnings\n"
        "from m3retriever.observing import counters\n"
        "warnings.simplefilter('ignore')\n"
        "counters.count('queries', 5)\n"
        "counters._numbers.lock.acquire()  # as another thread would\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(10)\n"
        "    counters.count('queries')\n"
        "    os._exit(counters.metrics().queries)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n", done.stderr


# -- the log -------------------------------------------------------------------------------------------


def test_the_library_sets_up_no_logging_of_its_own(capfd):
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document("fox", "red fox")])
    index.search("fox")
    assert capfd.readouterr() == ("", "")
    library = logging.getLogger("m3retriever")
    assert (library.handlers, library.level, library.propagate) == ([], logging.NOTSET, True)


def test_a_record_is_one_line_of_json_whatever_it_says():
    stream = io.StringIO()
    configure_logging("info", stream=stream)
    logger = logging.getLogger("m3retriever.test")
    extra = {"level": "mine", "number": 3, "nothing": float("nan"), "thing": {1}, "bad": "\ud800\u2028"}
    logger.info('two\nlines "and" %s', "\x1b[31m", extra=extra)
    logger.debug("not at this level")
    try:
        raise ValueError("why\nso")
    except ValueError:
        logger.exception("failed")
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines())
    assert stream.getvalue().isascii()
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "m3retriever.test",
        "message": 'two\nlines "and" \x1b[31m',
        "number": 3,
        "nothing": "nan",
        "thing": "{1}",
        "bad": "\ud800\u2028",
    }
    assert (second["level"], second["message"]) == ("error", "failed")
    assert second["traceback"].endswith("ValueError: why\nso")


def test_what_a_record_factory_adds_for_itself_is_not_said():
    plain = logging.getLogRecordFactory()

    def adds(*given, **named):
        record = plain(*given, **named)
        record._own_ns, record.trace_id = 17, "a1"
        return record

    stream = io.StringIO()
    configure_logging("info", stream=stream)
    logging.setLogRecordFactory(adds)
    try:
        logging.getLogger("m3retriever.test").info("said")
    finally:
        logging.setLogRecordFactory(plain)
    line = json.loads(stream.getvalue())
    assert (line["message"], line["trace_id"], line.keys() & {"_own_ns"}) == ("said", "a1", set())


def test_setting_up_twice_says_everything_once_and_off_says_nothing(monkeypatch):
    first, second, others = io.StringIO(), io.StringIO(), logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(logging.getLogger(), "handlers", [others])
    configure_logging("debug", stream=first)
    configure_logging("warning", json=False, stream=second)
    logger = logging.getLogger("m3retriever.test")
    logger.warning("once")
    logger.info("too low")
    configure_logging("off")
    logger.info("nobody hears this")
    assert first.getvalue() == ""
    assert re.fullmatch(r"\S+ \S+ WARNING m3retriever\.test: once\n", second.getvalue())
    assert others.stream.getvalue() == "", "the root logger has handlers of its own"
    with pytest.raises(InvalidArgumentError, match="level must be one of debug, .*; got 'loud'"):
        configure_logging("loud")


def test_off_leaves_the_logger_as_a_program_had_set_it(monkeypatch):
    logger = logging.getLogger("m3retriever")
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.ERROR)
    configure_logging("debug", stream=io.StringIO())
    configure_logging("info", stream=io.StringIO())
    configure_logging("off")
    configure_logging("off")
    assert (logger.level, logger.propagate, logger.handlers) == (logging.ERROR, False, [])
    logger.setLevel(logging.NOTSET)


def test_the_command_line_logs_where_the_environment_says_so(tmp_path):
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add([Document("fox", "red fox")])
    program = str(Path(sys.executable).with_name("m3retriever"))

    def search(**environment):
        command = [program, "search", "fox", "--path", str(tmp_path), "--json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})

    silent, told, wrong = search(), search(M3RETRIEVER_LOG="DEBUG"), search(M3RETRIEVER_LOG="loud")
    assert silent.stderr == ""
    assert told.stdout == silent.stdout
    assert "m3.search" in {json.loads(line).get("span") for line in told.stderr.splitlines()}
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    assert "error: level must be one of" in wrong.stderr
