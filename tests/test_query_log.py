"""The query log: what was answered is what is read back; it hides what it is to hide, and never stands in a search's way."""

import json
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from m3retriever import (
    Document,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    M3Index,
    MemoryStore,
    Profile,
    Split,
)
from m3retriever.evaluation import compare, evaluate, evaluate_run
from m3retriever.io import GoldenQuestion, read_run, write_golden
from m3retriever.observing import QueryLog, metrics, read_query_log, reading, reset, run_of_log
from m3retriever.ranking import SEARCH_MODES

WRITER = Path(__file__).with_name("query_log_writer.py")
COLOURS, ANIMALS = ["red", "blue", "green", "grey"], ["fox", "whale", "crow"]
NAMES = [f"{colour} {animal}" for colour in COLOURS for animal in ANIMALS]
QUERIES = {f"q{n}": f"where is the {name}" for n, name in enumerate(NAMES)}
QRELS = {f"q{n}": {name: 2, NAMES[n - 1]: 1} for n, name in enumerate(NAMES)}
MEASURES = ["nDCG@10", "R@10", "RR@10"]


@pytest.fixture(autouse=True)
def at_zero():
    reset()


@pytest.fixture
def index():
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document(name, f"The {name} lives here and there.", {"animal": name.split()[1]}) for name in NAMES])
    return index


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queries.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- what is written, and read back --------------------------------------------------------------------


def test_an_index_logs_nothing_unless_it_is_told_to(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index.search("red fox")
    assert index.query_log is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_a_log_read_back_is_the_run_that_was_answered_and_measures_the_same(index, path, mode):
    index.query_log = path
    for text in QUERIES.values():
        index.search(text, 100, mode=mode)
    run = run_of_log(read_query_log(path), QUERIES, mode=mode)
    direct = evaluate(index, QUERIES, QRELS, MEASURES)
    assert run == direct.runs[mode]
    assert evaluate_run(run, QRELS, MEASURES) == direct.values[mode]
    assert compare(run, direct.runs[mode], QRELS).ties == len(QUERIES)
    assert {one.mode for one in read_query_log(path)} == {mode}


def test_a_line_says_how_it_was_asked_and_what_came(tmp_path, path):
    with M3Index.open(tmp_path / "index", model=HashingEncoder(), query_log=path) as index:
        index.add([Document(name, name, {"animal": name.split()[1]}) for name in NAMES])
        where = {"animal": {"$in": ["fox", "crow"]}}
        hits = index.search("red fox\n", 3, weights=(1, 2, 1), threshold=0.1, where=where, where_document={"$contains": "re"})
        [line], revision = read_query_log(path), index.store.revision()
    assert 1 <= len(hits) <= 3
    assert (line.query, line.method, line.mode, line.k, line.depth) == ("red fox\n", "search", "hybrid", 3, 200)
    assert (line.weights, line.fusion, line.threshold) == ((1, 2, 1), "weighted_sum", 0.1)
    assert line.where == {"$and": [where, {"#document": {"$contains": "re"}}]}
    assert (line.model, line.precision, line.revision) == ("hashing-256", None, revision)
    assert line.ids == line.documents == tuple(hit.document.id for hit in hits)
    assert line.scores == tuple(hit.score for hit in hits)
    assert {mode: line.by_mode[mode] for mode in line.by_mode} == {
        mode: tuple(hit.scores[mode] for hit in hits) for mode in ("dense", "sparse", "colbert")
    }
    assert line.milliseconds > 0
    assert line.time.utcoffset().total_seconds() == 0


def test_every_way_to_search_is_one_line_a_query_of_what_it_gave(index, path):
    index.query_log = path
    vector = HashingEncoder().encode_queries(["red fox"]).dense[0]
    given = [
        [index.search("red fox", 2)],
        index.search_many(iter(["red fox", "blue whale"]), k=2),
        [index.search_diverse("red fox", 2, among=5, balance=0.1)],
        [index.search_by_vector(vector, 2)],
        [index.search_diverse_by_vector(vector, 2)],
    ]
    documents = index.search_documents("red fox", 2)
    index.score("red fox")
    index.explain("red fox", NAMES[0])
    logged = read_query_log(path)
    methods = ["search", "search_many", "search_many", "search_diverse", "search_by_vector", "search_diverse_by_vector"]
    assert [one.method for one in logged] == [*methods, "search_documents"]
    answered = [tuple(hit.document.id for hit in hits) for group in given for hits in group]
    assert [one.ids for one in logged] == [*answered, tuple(hit.id for hit in documents)]
    assert [one.query for one in logged[1:6]] == ["red fox", "blue whale", "red fox", "", ""]
    assert [one.together for one in logged[:3]] == [1, 2, 2]
    assert set(logged[4].by_mode) == {"dense"}
    assert all(one.k == 2 for one in logged)


async def test_a_search_awaited_is_logged_once(index, path):
    index.query_log = path
    await index.asearch("red fox", 2)
    await index.asearch_documents("red fox", 2)
    assert [one.method for one in read_query_log(path)] == ["search", "search_documents"]


def test_a_search_inside_an_encoder_of_another_index_is_an_answer_of_its_own(index, path, tmp_path):
    class Asking(HashingEncoder):
        def encode_queries(self, texts):
            index.search("inner fox", 1)
            return super().encode_queries(texts)

    outer = M3Index(Asking(), MemoryStore())
    outer.add([Document("a", "fox")])
    index.query_log, outer.query_log = path, tmp_path / "outer.jsonl"
    outer.search("outer fox")
    assert [one.query for one in read_query_log(path)] == ["inner fox"]
    assert [one.query for one in read_query_log(tmp_path / "outer.jsonl")] == ["outer fox"]


def test_passages_are_logged_with_their_documents_and_measured_by_them(path):
    index = M3Index(HashingEncoder(), MemoryStore())
    index.add([Document("book", "red fox. " * 30), Document("other", "blue whale")], split=Split(size=20))
    index.query_log = path
    hits = index.search("red fox", 4)
    [line] = read_query_log(path)
    assert line.ids[0].startswith("book#")
    assert set(line.documents) <= {"book", "other"}
    assert line.answer["book"] == hits[0].score
    assert evaluate_run(run_of_log([line], {"q": "red fox"}), {"q": {"book": 1}}, ["RR"]) == {"RR": {"q": 1.0}}


def test_diverse_hits_are_measured_in_the_order_they_were_given(index, path):
    index.query_log = path
    hits = index.search_diverse("where is the red fox", 6, among=12, balance=0.3)
    scores = [hit.score for hit in hits]
    assert scores != sorted(scores, reverse=True), "else the order would say nothing"
    [line] = read_query_log(path)
    assert sorted(line.answer, key=lambda id: -line.answer[id]) == [hit.document.id for hit in hits]


def test_of_several_answers_the_last_counts_and_questions_not_asked_are_left_out(index, path):
    index.query_log = path
    index.search(QUERIES["q0"], 5, mode="sparse")
    index.search(QUERIES["q0"], 5, mode="dense")
    index.search("a question that nobody judged", 5)
    logged = read_query_log(path)
    assert run_of_log(logged, QUERIES) == {"q0": logged[1].answer}
    assert run_of_log(logged, QUERIES, mode="sparse") == {"q0": logged[0].answer}
    assert run_of_log(logged, QUERIES, mode="colbert") == {}


def test_a_query_of_any_text_and_length_is_found_again(index, path):
    index.query_log = path
    questions = {"odd": "\ud800 \u2028 \x00 \x85", "long": "fox " * 5000}
    for text in questions.values():
        index.search(text, 1)
    assert set(run_of_log(read_query_log(path), questions)) == {"odd", "long"}
    assert path.stat().st_size < 20_000


# -- redaction -----------------------------------------------------------------------------------------


def ask_secretly(index, log):
    index.query_log = log
    where = {"$and": [{"animal": {"$in": ["fox", "zebrafinch"]}}, {"year": {"$ne": 1984}}]}
    for query in ("the zebrafinch", "the zebrafinch", "another zebrafinch"):
        index.search(query, 2, where=where, where_document={"$not_contains": "zebrafinch"})


def test_hashing_leaves_no_word_of_queries_and_filters_and_equal_queries_equal(index, path):
    ask_secretly(index, QueryLog(path, redact="hash"))
    text = path.read_text()
    assert "zebrafinch" not in text
    assert "1984" not in text
    assert '"fox"' not in text
    first, second, third = (one.query for one in read_query_log(path))
    assert first == second != third
    assert re.fullmatch("blake2b:[0-9a-f]{32}", first)
    assert '"animal": {"$in": ["blake2b:' in text, "keys and conditions stay"
    assert len(run_of_log(read_query_log(path), {"q": "the zebrafinch", "other": "the crow"})) == 1


def test_a_key_keeps_guesses_from_being_checked(index, tmp_path):
    digests = set()
    for name, key in (("a", ""), ("b", "one"), ("c", "two"), ("d", "l" * 300)):
        log = QueryLog(tmp_path / name, redact="hash", key=key)
        ask_secretly(index, log)
        logged = read_query_log(tmp_path / name)
        digests.add(logged[0].query)
        assert set(run_of_log(logged, {"q": "the zebrafinch"}, key=key)) == {"q"}
        assert run_of_log(logged, {"q": "the zebrafinch"}, key=f"not {key}") == {}
    assert len(digests) == 4


def test_a_function_redacts_queries_and_what_filters_compare_with(index, path):
    ask_secretly(index, QueryLog(path, redact=lambda text: re.sub("zebrafinch|1984", "...", text)))
    assert not re.search("zebrafinch|1984", path.read_text())
    assert [one.query for one in read_query_log(path)] == ["the ...", "the ...", "another ..."]


@pytest.mark.parametrize("wrong", [lambda text: 1 / 0, lambda text: None, lambda text: [][text], lambda text: int(text)])
def test_a_function_that_fails_leaves_no_line_no_word_and_one_warning(index, path, caplog, wrong):
    ask_secretly(index, QueryLog(path, redact=wrong))
    assert not path.exists()
    [warning] = caplog.records
    assert re.fullmatch(rf"queries are not being logged in {path}: \w+Error; searching goes on", warning.message)
    assert metrics().query_log_failures == 3


# -- the file ------------------------------------------------------------------------------------------


def test_only_the_owner_may_read_the_file_and_an_older_file_keeps_its_rights(index, path, tmp_path):
    before = os.umask(0)
    try:
        index.query_log = QueryLog(path, max_bytes=1)
        for _ in range(2):
            index.search("red fox")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("queries*")} == {0o600}
    shared = tmp_path / "shared.jsonl"
    shared.touch()
    shared.chmod(0o640)
    index.query_log = shared
    index.search("red fox")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o640
    assert len(lines(shared)) == 1


def test_a_path_is_where_it_was_said_wherever_the_process_goes(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index.query_log = "here.jsonl"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    index.search("red fox")
    assert len(lines(tmp_path / "here.jsonl")) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
def test_no_file_stays_open(index, path):
    index.query_log = QueryLog(path, max_bytes=3000)
    index.search("red fox")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        index.search("red fox")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_full_file_becomes_the_older_one_and_only_one_is_kept(index, path):
    index.query_log = QueryLog(path, max_bytes=3000)
    for number in range(30):
        index.search(f"query {number}", 1)
        assert path.stat().st_size <= 3000
    older = path.with_name("queries.jsonl.1")
    asked = [one.query for one in (*read_query_log(older), *read_query_log(path))]
    assert asked == [f"query {number}" for number in range(30)][-len(asked) :]
    assert 2000 < older.stat().st_size <= 3000
    assert {file.name for file in path.parent.iterdir()} <= {path.name, older.name, f"{path.name}.lock"}


def test_a_line_larger_than_the_file_may_be_is_written_all_the_same(index, path):
    index.query_log = QueryLog(path, max_bytes=10)
    for query in ("one", "two"):
        index.search(query, 1)
    assert [one.query for one in read_query_log(path)] == ["two"]


def written_together(path, count, max_bytes, processes=2):
    """Lines of several processes that begin at the same moment, and meanwhile of 8 threads of this one."""
    command = [sys.executable, str(WRITER), str(path)]
    started = [
        subprocess.Popen([*command, f"process{n}", str(count), str(max_bytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(processes)
    ]
    log, index = QueryLog(path, max_bytes=max_bytes), M3Index(HashingEncoder(), MemoryStore())
    for process in started:
        assert process.stdout.readline() == b"ready\n"
    for process in started:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    queries = [f"thread {number} " + "y" * (number % 5000) for number in range(count)]
    about = {name: value for name, value in GOOD.items() if name not in ("time", "query", "ids", "scores", "by_mode")}
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda query: log.record(index, query, [], **about), queries))
    sys.setswitchinterval(switching)
    for process in started:
        process.communicate(timeout=120)
        assert process.returncode == 0
    return {f"thread {n}" for n in range(count)} | {f"process{p} {n}" for p in range(processes) for n in range(count)}


def asked_in(*paths):
    return [" ".join(one.query.split()[:2]) for path in paths if path.exists() for one in read_query_log(path)]


def test_threads_and_processes_share_a_file_of_whole_lines(path):
    wanted = written_together(path, 300, 10**9)
    asked = asked_in(path)
    assert len(asked) == len(wanted)
    assert set(asked) == wanted


def test_threads_and_processes_that_fill_a_file_together_lose_nothing_but_older_files(path):
    older = path.with_name("queries.jsonl.1")
    for _ in range(5):
        wanted = written_together(path, 60, 40_000)  # about 65 kB: over once, not twice
        asked = asked_in(older, path)
        assert older.exists()
        assert sorted(asked) == sorted(wanted)
        older.unlink()
        path.unlink()


# -- what goes wrong -----------------------------------------------------------------------------------


def gone(path):
    path.parent.rmdir()


def a_folder(path):
    path.mkdir()


def a_dangling_link(path):
    path.symlink_to(path.parent / "nowhere" / "at all")


@pytest.mark.parametrize("trouble", [gone, a_folder, a_dangling_link])
def test_a_search_answers_although_it_cannot_be_logged_and_says_so_once(index, tmp_path, caplog, trouble):
    folder = tmp_path / "logs"
    folder.mkdir()
    index.query_log = folder / "queries.jsonl"
    trouble(folder / "queries.jsonl")
    for _ in range(3):
        assert len(index.search("red fox", 2)) == 2
    [warning] = caplog.records
    assert (warning.levelno, warning.name) == (logging.WARNING, "m3retriever.observing.query_log")
    assert warning.message.startswith(f"queries are not being logged in {folder / 'queries.jsonl'}: ")
    assert metrics().query_log_failures == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_stops_the_log_and_not_the_search(index, caplog):
    index.query_log = "/dev/full"
    assert len(index.search("red fox", 2)) == 2
    assert "No space left" in caplog.text


def test_after_a_part_of_a_line_the_next_one_is_whole(path):
    code = (
        "import os, resource, sys\n"
        "from m3retriever import Document, HashingEncoder, M3Index, MemoryStore\n"
        "index = M3Index(HashingEncoder(), MemoryStore())\n"
        "index.add([Document('fox', 'red fox')])\n"
        "index.query_log = sys.argv[1]\n"
        "def limit(n): resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))\n"
        "index.search('first')\n"
        "limit(os.path.getsize(sys.argv[1]) + 100)  # as a full disk, in the middle of a line\n"
        "for n in range(3): assert index.search(f'lost {n}')\n"
        "limit(resource.RLIM_INFINITY)\n"
        "for n in range(2): index.search(f'kept {n}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("queries are not being logged") == 1
    bad = []
    assert [one.query for one in read_query_log(path, on_bad=bad.append)] == ["first", "kept 0", "kept 1"]
    [only] = bad
    assert "line 2 is not of a query log" in str(only)


def test_a_log_that_is_taken_away_meanwhile_harms_no_search(index, path):
    class Forgetting(HashingEncoder):
        def encode_queries(self, texts):
            index.query_log = None
            return super().encode_queries(texts)

    index.query_log, index.encoder = path, Forgetting()
    assert index.search("red fox", 1)
    assert len(lines(path)) == 1, "it was there when the search began"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"redact": "all"}, 'redact is "none", "hash" or a function of a str; got \'all\''),
        ({"max_bytes": 0}, "max_bytes must be a whole number >= 1; got 0"),
        ({"max_bytes": True}, "max_bytes must be a whole number >= 1; got True"),
        ({"key": b"secret"}, "key is a str; got bytes"),
    ],
)
def test_settings_without_meaning_are_refused(path, settings, said):
    with pytest.raises(InvalidArgumentError, match=re.escape(said)):
        QueryLog(path, **settings)


@pytest.mark.parametrize("wrong", [5, b"x", ["x"], "", "a\0b", "lone \ud800"], ids=ascii)
def test_what_names_no_file_is_refused_in_words(index, wrong):
    with pytest.raises(InvalidArgumentError, match="a query log is a file in a folder that exists; got"):
        index.query_log = wrong
    with pytest.raises(InvalidArgumentError, match="a query log is a file; got"):
        read_query_log(wrong)


def test_numbers_of_numpy_are_logged_as_numbers(index, path):
    index.query_log = QueryLog(path, max_bytes=np.int64(10**6))
    index.search("red fox", np.int64(300), threshold=np.float32(0.125), weights=np.array([1, 2, 1]))
    [line] = read_query_log(path)
    assert (line.k, line.depth, line.threshold, line.weights) == (300, 300, 0.125, (1.0, 2.0, 1.0))


@pytest.mark.parametrize(("threshold", "meant"), [("p>=0.9", float("inf")), ("p>=0.1", float("-inf"))])
def test_a_threshold_that_no_score_or_every_score_reaches_is_read_back(index, path, threshold, meant):
    index.profile = Profile(calibration={"dense": {"scores": [0.1, 0.9], "probabilities": [0.2, 0.6]}})
    index.query_log = path
    index.search("red fox", mode="dense", threshold=threshold)
    assert read_query_log(path)[0].threshold == meant
    assert "Infinity" not in path.read_text(), "which is no JSON"


def test_what_json_cannot_say_is_a_failure_and_no_line(index, path, caplog):
    QueryLog(path).record(index, "red fox", [], depth=Path("none"))
    assert not path.exists()
    assert "TypeError" in caplog.text
    assert metrics().query_log_failures == 1


def test_a_log_in_no_folder_is_refused_before_an_index_is_made(tmp_path):
    for wrong in (tmp_path / "nowhere" / "log.jsonl", tmp_path):
        with pytest.raises(InvalidArgumentError, match=f"a file in a folder that exists; got '{wrong}'"):
            M3Index.open(tmp_path / "index", model="hashing", query_log=wrong)
    assert list(tmp_path.iterdir()) == []


GOOD = {
    "time": "2026-01-02T03:04:05.678+00:00", "query": "red fox", "together": 1, "method": "search", "k": 2,
    "milliseconds": 1.5, "mode": "hybrid", "depth": 200, "weights": [0.4, 0.2, 0.4], "fusion": "weighted_sum",
    "threshold": None, "where": None, "model": "hashing-256", "precision": None, "revision": 3,
    "ids": ["a", "b"], "scores": [0.5, 0.25], "by_mode": {"dense": [0.5, 0.25]},
}  # fmt: skip
HOSTILE = {
    "cut short": (json.dumps(GOOD)[:-20], "control character|Unterminated|Expecting"),
    "no JSON": ("{'query': 1}", "Expecting"),
    "no UTF-8": (b'{"query": "\xff"}', "utf-8"),
    "nested": ("[" * 100_000, "recursion|nest"),
    "a list": ("[1]", "want a JSON object; got list"),
    "a number of 5,000 digits": ("9" * 5000, "digits|object"),
    "missing": ({"ids": ...}, "'ids' is missing"),
    "ids of numbers": ({"ids": [1, 2]}, "want 'ids' as a list of texts"),
    "ids as a text": ({"ids": "ab"}, "want 'ids' as a list of texts"),
    "too few scores": ({"scores": [0.5]}, "want as many scores and documents as ids, 2"),
    "too many documents": ({"documents": ["a", "b", "c"]}, "want as many scores and documents as ids, 2"),
    "scores by mode too few": ({"by_mode": {"dense": [1.0]}}, "want as many scores and documents as ids, 2"),
    "by_mode a list": ({"by_mode": []}, "has no attribute 'items'"),
    "a score of true": ({"scores": [True, 0.5]}, "want 'scores' as numbers"),
    "a score that is none": ({"scores": [float("nan"), 0.5]}, "want 'scores' as finite numbers"),
    "a score beyond floats": ({"scores": [10**400, 0.5]}, "too large"),
    "no time": ({"time": "yesterday"}, "yesterday"),
    "no time zone": ({"time": "2026-01-02T03:04:05"}, "time zone"),
    "k of nothing": ({"k": 0}, "want 'k' as a whole number from 1"),
    "where a text": ({"where": "x"}, "want 'where' as dict or null; got str"),
    "query a number": ({"query": 5}, "want 'query' as a text; got int"),
    "too long": ({"query": "x" * 20_000}, "longer than 10000 bytes"),
}  # fmt: skip


def line_of(given):
    if isinstance(given, dict):
        given = json.dumps({name: value for name, value in {**GOOD, **given}.items() if value is not ...})
    return given if isinstance(given, bytes) else given.encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_that_is_none_is_named_by_its_number_and_the_others_are_read(path, monkeypatch, name):
    monkeypatch.setattr(reading, "MAX_LINE", 10_000 if name == "too long" else reading.MAX_LINE)
    given, said = HOSTILE[name]
    path.write_bytes(b"\n".join([line_of({}), b"", line_of(given), b"  ", line_of({"query": "last"})]))
    with pytest.raises(InvalidDocumentError, match=f"line 3 is not of a query log: .*({said})"):
        read_query_log(path)
    bad = []
    assert [one.query for one in read_query_log(path, on_bad=bad.append)] == ["red fox", "last"]
    assert len(bad) == 1
    assert len(str(bad[0])) < 400


def test_the_good_line_of_these_tests_is_read_as_it_stands(path):
    path.write_bytes(line_of({}))
    [one] = read_query_log(path)
    assert (one.ids, one.documents, one.scores, one.by_mode) == (("a", "b"), ("a", "b"), (0.5, 0.25), {"dense": (0.5, 0.25)})
    with pytest.raises(InvalidDocumentError, match="cannot read .*nowhere"):
        read_query_log(path.with_name("nowhere"))


# -- the command line ----------------------------------------------------------------------------------


def run(*arguments, ok=True, **environment):
    command = [str(Path(sys.executable).with_name("m3retriever")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment})
    assert (done.returncode == 0) == ok, done.stderr
    return done


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """An index in a folder, golden questions, and two logs: of all questions, and hashed of one half in two modes."""
    folder = tmp_path_factory.mktemp("asked")
    write_golden([GoldenQuestion(id, text, (NAMES[int(id[1:])],)) for id, text in QUERIES.items()], folder / "golden.jsonl")
    with M3Index.open(folder / "index", model="hashing", query_log=folder / "all.jsonl") as index:
        index.add([Document(name, f"The {name} lives here and there.") for name in NAMES])
        for text in QUERIES.values():
            index.search(text, 20)
        index.query_log = QueryLog(folder / "half.jsonl", redact="hash", key="secret")
        for text in list(QUERIES.values())[:6]:
            index.search(text, 20, mode="dense")
            index.search(text, 2, mode="sparse")
    return folder


def test_search_logs_where_the_option_or_the_environment_says(asked, tmp_path):
    log, other = tmp_path / "log.jsonl", tmp_path / "other.jsonl"
    run("search", "red fox", "--path", asked / "index", "--query-log", log)
    run("search", "red fox", "--path", asked / "index", "--by-document", M3RETRIEVER_QUERY_LOG=str(log))
    secret = {"M3RETRIEVER_QUERY_LOG_REDACT": "hash", "M3RETRIEVER_QUERY_LOG_KEY": "secret"}
    run("search", "red fox", "--path", asked / "index", "--query-log", other, **secret)
    assert [(one.query, one.method) for one in read_query_log(log)] == [("red fox", "search"), ("red fox", "search_documents")]
    [one] = read_query_log(other)
    assert one.query == QueryLog(other, redact="hash", key="secret").redacted("red fox")
    wrong = run("search", "red fox", "--path", asked / "index", "--query-log", tmp_path / "no" / "log", ok=False)
    assert wrong.stderr.startswith("error: a query log is a file in a folder that exists")


def test_evaluate_measures_what_a_log_says_was_answered(asked, tmp_path):
    about = ["--path", asked / "index", "--golden", asked / "golden.jsonl", "--json"]
    direct = json.loads(run("evaluate", *about).stdout)["measures"]
    saved = tmp_path / "live.run"
    done = run("evaluate", *about, "--log", asked / "all.jsonl", "--run-out", saved)
    logged = json.loads(done.stdout)
    assert logged["measures"] == {"hybrid": direct["hybrid"]}
    assert (logged["queries"], done.stderr) == (12, "")
    assert read_run(saved) == run_of_log(read_query_log(asked / "all.jsonl"), QUERIES)
    half = run("evaluate", *about, "--log", asked / "half.jsonl", "--mode", "dense", M3RETRIEVER_QUERY_LOG_KEY="secret")
    assert json.loads(half.stdout)["queries"] == 6
    assert (
        half.stderr == f"6 of 12 judged questions were asked in mode dense in {asked / 'half.jsonl'}: the others are left out\n"
    )
    nowhere = run("evaluate", *about, "--run-out", tmp_path / "no" / "x.run", ok=False)
    assert nowhere.stderr.startswith("error: --run-out names a file in a folder that exists")
    assert "--mode must be one of hybrid, dense" in run("evaluate", *about, "--mode", "bm25", ok=False).stderr
    keyless = run("evaluate", *about, "--log", asked / "half.jsonl", "--mode", "dense", ok=False)
    assert "none of the 12 judged questions was asked in mode dense" in keyless.stderr
    assert "is M3RETRIEVER_QUERY_LOG_KEY the key it was written with?" in keyless.stderr


def test_compare_takes_logs_beside_runs(asked, tmp_path):
    golden = ["--golden", asked / "golden.jsonl", "--path", asked / "index", "--json"]
    run("evaluate", *golden, "--log", asked / "all.jsonl", "--run-out", tmp_path / "all.run")
    same = json.loads(run("compare", tmp_path / "all.run", asked / "all.jsonl", *golden).stdout)
    assert (same["queries"], same["ties"], same["first"]) == (12, 12, same["second"])
    named_alike = tmp_path / "all.jsonl"
    shutil.copy(tmp_path / "all.run", named_alike)
    shutil.copy(asked / "all.jsonl", tmp_path / "log.run")
    assert json.loads(run("compare", named_alike, tmp_path / "log.run", *golden).stdout) == same, "a file is what it holds"
    key = {"M3RETRIEVER_QUERY_LOG_KEY": "secret"}
    done = run(
        "compare", asked / "all.jsonl", asked / "half.jsonl", *golden, "--measure", "RR", "--mode", "sparse", ok=False, **key
    )
    assert "was asked in mode sparse" in done.stderr
    half = json.loads(run("compare", asked / "all.jsonl", asked / "half.jsonl", *golden, "--measure", "R@10", **key).stdout)
    assert half["queries"] == 6, "questions that were not asked are no losses"
    wrong = run("compare", asked / "all.jsonl", tmp_path / "all.run", "--qrels", asked / "golden.jsonl", ok=False)
    assert "give --qrels, with --queries where a query log is compared, or --golden and --path" in wrong.stderr


def test_compare_takes_questions_and_judgements_in_two_files(asked, tmp_path):
    (tmp_path / "queries.tsv").write_text("".join(f"{id}\t{text}\n" for id, text in QUERIES.items()))
    (tmp_path / "qrels.tsv").write_text("".join(f"{id}\t{NAMES[int(id[1:])]}\t1\n" for id in QUERIES))
    files = ["--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels.tsv", "--json"]
    found = json.loads(run("compare", asked / "all.jsonl", asked / "all.jsonl", *files).stdout)
    assert (found["queries"], found["ties"]) == (12, 12)


def test_a_log_with_a_broken_line_is_measured_without_it_and_the_line_is_named(asked, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("{broken\n" + (asked / "all.jsonl").read_text() + "{again")
    about = ["--path", asked / "index", "--golden", asked / "golden.jsonl", "--json"]
    done = run("evaluate", *about, "--log", log)
    assert json.loads(done.stdout)["queries"] == 12
    assert re.fullmatch(r"warning: .*log\.jsonl, line 1 is not of a query log: .* \(and 1 more such line\)\n", done.stderr)


def test_scores_come_back_bit_by_bit(index, path):
    index.query_log = path
    hits = index.search("where is the red fox", 12)
    [one] = read_query_log(path)
    assert np.array(one.scores).tobytes() == np.array([hit.score for hit in hits]).tobytes()
