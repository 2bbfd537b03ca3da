"""Evaluating an index: every mode from one scoring, what is refused, and the command that prints it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from m3retriever import Document, HashingEncoder, InvalidArgumentError, M3Index, MemoryStore, Profile
from m3retriever.evaluation import evaluate, evaluate_run, judged_by
from m3retriever.io import GoldenQuestion, read_run
from m3retriever.passages import Split
from m3retriever.ranking import SEARCH_MODES

DOCUMENTS = [
    Document("fox", "the red fox jumps"),
    Document("wine", "red red wine"),
    Document("whale", "a blue whale sings"),
    Document("again", "the red fox again"),
]
QUERIES = {"q1": "red fox", "q2": "blue whale", "q3": "nothing of it", "spare": "never judged"}
QRELS = {"q1": {"fox": 2, "again": 1}, "q2": {"whale": 1}, "q3": {"wine": 1}, "empty": {"fox": 0}}
MEASURES = ["nDCG@10", "R@1", "RR"]


class Counting(HashingEncoder):
    encoded = 0

    def encode_queries(self, texts):
        self.encoded += len(texts)
        return super().encode_queries(texts)


@pytest.fixture
def index():
    index = M3Index(Counting(), MemoryStore())
    index.add(DOCUMENTS)
    return index


def test_every_mode_is_judged_as_its_own_search_would_be(index):
    found = evaluate(index, QUERIES, QRELS, MEASURES)
    assert index.encoder.encoded == 3, "each query is encoded once for all modes"
    assert found.queries == ("q1", "q2", "q3")
    for mode in SEARCH_MODES:
        run = {
            query: {hit.document.id: hit.score for hit in index.search(QUERIES[query], 10, mode=mode)}
            for query in found.queries
        }
        assert found.runs[mode] == run
        assert found.values[mode] == evaluate_run(run, QRELS, MEASURES)
    low, high = found.interval("dense", "RR")
    assert 0 <= low <= found.mean("dense", "RR") <= high <= 1
    assert found.values["sparse"]["RR"]["q3"] == 0  # no shared token: sparse finds nothing


def test_the_hybrid_is_that_of_the_profile(index):
    index.profile = Profile(weights=(0, 1, 0), fusion="rrf")
    found = evaluate(index, QUERIES, QRELS, MEASURES)
    assert found.runs["hybrid"]["q1"]["fox"] == pytest.approx(1 / 61)


def test_progress_is_told_query_by_query_and_bad_input_at_once(index):
    steps = []
    evaluate(index, QUERIES, QRELS, MEASURES, on_step=steps.append)
    assert sum(steps) == 3
    with pytest.raises(InvalidArgumentError, match="none for 'q4'"):
        evaluate(index, QUERIES, {**QRELS, "q4": {"fox": 1}}, MEASURES)
    with pytest.raises(InvalidArgumentError, match="a measure is"):
        evaluate(index, QUERIES, QRELS, ["MAP"])


def test_golden_answers_are_ids_or_texts(index):
    questions = [GoldenQuestion("1", "red?", ("fox", "red wine")), GoldenQuestion("2", "who sings?", ("whale sings",))]
    assert judged_by(index, questions) == ({"1": "red?", "2": "who sings?"}, {"1": {"fox": 1, "wine": 1}, "2": {"whale": 1}})
    with pytest.raises(InvalidArgumentError, match="question '3': no document"):
        judged_by(index, [GoldenQuestion("3", "?", ("a green frog",))])
    with pytest.raises(InvalidArgumentError, match="'1' comes more than once"):
        judged_by(index, questions[:1] * 2)


def test_golden_grades_are_kept_and_what_is_missing_can_be_left_out(index):
    question = GoldenQuestion("1", "red?", ("fox",), {"fox": 2, "wine": 0, "gone": 0})
    assert judged_by(index, [question])[1] == {"1": {"fox": 2, "wine": 0}}
    missing = []
    lost = question._replace(relevant=("fox", "gone"), grades={"fox": 2})
    assert judged_by(index, [lost], on_missing=lambda *one: missing.append(one))[1] == {"1": {"fox": 2}}
    assert missing == [("1", "gone")]
    deleted = GoldenQuestion("1", "red?", ("fox", "red"), {"red": 2, "fox": 1})
    missing.clear()
    assert judged_by(index, [deleted], on_missing=lambda *one: missing.append(one))[1] == {"1": {"fox": 1}}
    assert missing == [("1", "red")], "a graded answer is an id, whatever texts hold it"


def run(*arguments):
    program = str(Path(sys.executable).with_name("m3retriever"))
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_what_the_library_says_and_writes_a_run(tmp_path):
    with M3Index.open(tmp_path / "ix", model="hashing") as index:
        index.add(DOCUMENTS)
        expected = evaluate(index, QUERIES, QRELS, MEASURES)
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "test.tsv"
    queries.write_text("".join(json.dumps({"_id": id, "text": text}) + "\n" for id, text in QUERIES.items()))
    qrels.write_text("".join(f"{query}\t{id}\t{grade}\n" for query, judged in QRELS.items() for id, grade in judged.items()))
    given = ["evaluate", "--path", tmp_path / "ix", "--queries", queries, "--qrels", qrels, "--measures", ",".join(MEASURES)]
    done = run(*given, "--json", "--run-out", tmp_path / "run.txt", "--mode", "dense")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["queries"] == 3
    assert printed["measures"] == {mode: {name: expected.mean(mode, name) for name in MEASURES} for mode in SEARCH_MODES}
    assert read_run(tmp_path / "run.txt") == expected.runs["dense"]
    run(*given, "--json", "--run-out", tmp_path / "sparse.txt", "--mode", "sparse")
    compared = run("compare", tmp_path / "run.txt", tmp_path / "sparse.txt", "--qrels", qrels, "--measure", "RR", "--json")
    said = json.loads(compared.stdout)
    assert (said["first"], said["second"]) == (expected.mean("dense", "RR"), expected.mean("sparse", "RR"))
    assert said["wins"] + said["losses"] + said["ties"] == said["queries"] == 3
    words = run("compare", tmp_path / "run.txt", tmp_path / "run.txt", "--qrels", qrels).stdout
    assert "better on 0, worse on 0, the same on 3; p = 1.0000" in words
    assert "cannot read" in run("compare", tmp_path / "no.txt", tmp_path / "run.txt", "--qrels", qrels).stderr
    table = run(*given)
    assert [line.split()[0] for line in table.stdout.splitlines() if line][1:] == ["mode", *SEARCH_MODES]
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"question": "red fox", "relevant": ["the red fox jumps"]}\n')
    assert json.loads(run("evaluate", "--path", tmp_path / "ix", "--golden", golden, "--json").stdout)["queries"] == 1
    for wrong in (["--queries", queries], ["--golden", golden, "--qrels", qrels], []):
        failed = run("evaluate", "--path", tmp_path / "ix", *wrong)
        assert (failed.returncode, failed.stderr) == (1, "error: give --queries and --qrels, or --golden\n")


def test_a_document_in_passages_is_judged_by_its_best_one():
    index = M3Index(HashingEncoder(), MemoryStore())
    long = Document("long", " ".join(f"word{place}" for place in range(60)) + " the red fox")
    index.add([long, *DOCUMENTS[1:]], split=Split(20, 4))
    found = evaluate(index, QUERIES, {"q1": {"long": 1}}, MEASURES)
    hits = index.search_documents("red fox", 10)
    assert found.runs["hybrid"]["q1"] == {hit.id: hit.score for hit in hits}
    assert found.values["hybrid"]["R@1"]["q1"] == (hits[0].id == "long")
    by_id, by_text = (GoldenQuestion("q", "red fox", (answer,)) for answer in ("long", "word3 word4"))
    for golden in (by_id, by_text):
        assert judged_by(index, [golden])[1] == {"q": {"long": 1}}
