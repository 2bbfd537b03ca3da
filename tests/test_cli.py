"""The command line as a user runs it: real processes, real files, and every error in one line."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("m3retriever"))
DOCUMENTS = [
    {"_id": "fox", "title": "Foxes", "text": "the red fox jumps", "metadata": {"lang": "en"}},
    {"_id": "whale", "title": "", "text": "a blue whale sings", "metadata": {"lang": "en"}},
    {"_id": "酒", "text": "红酒很好喝", "metadata": {"lang": "zh"}},
]


def run(*arguments, ok=True, **options):
    command = [PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if ok:
        assert done.returncode == 0, done.stderr
    return done


def fails(*arguments, code=1):
    """The one line that a wrong call prints on stderr."""
    done = run(*arguments, ok=False)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "Traceback" not in line
    return line


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path):
    return write_jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index that the tests only read."""
    folder = tmp_path_factory.mktemp("made")
    run("index", write_jsonl(folder / "corpus.jsonl", DOCUMENTS), "--path", folder / "index", "--model", "hashing")
    return folder / "index"


def test_search_in_another_process_prints_the_object_that_is_promised(made):
    found = json.loads(run("search", "red fox", "--path", made, "-k", 2, "--json").stdout)
    assert set(found) == {"query", "mode", "weights", "hits"}
    assert (found["query"], found["mode"]) == ("red fox", "hybrid")
    assert found["weights"] == {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}
    assert len(found["hits"]) == 2
    first = found["hits"][0]
    assert set(first) == {"rank", "id", "score", "scores", "ranks", "found_by", "text", "metadata"}
    assert (first["rank"], first["id"], first["text"]) == (1, "fox", "Foxes\nthe red fox jumps")
    assert first["metadata"] == {"lang": "en", "title": "Foxes"}
    assert first["score"] == pytest.approx(sum(found["weights"][mode] * first["scores"][mode] for mode in first["scores"]))
    assert list(first["scores"]) == list(first["ranks"]) == ["dense", "sparse", "colbert"]
    assert first["found_by"] == ["dense", "sparse"]


def test_options_reach_the_search(made):
    def ids(*options):
        return [hit["id"] for hit in json.loads(run("search", "red fox 红", "--path", made, "--json", *options).stdout)["hits"]]

    assert ids("--where", '{"lang": "zh"}') == ["酒"]
    assert ids("--where-document", '{"$contains": "nothing of it"}') == []
    assert set(ids("--mode", "sparse")) == {"fox", "酒"}
    assert ids("--threshold", "0.99") == []
    assert len(ids("-k", "1")) == 1
    weighted = json.loads(run("search", "fox", "--path", made, "--weights", "0,1,0", "--json").stdout)
    assert weighted["weights"] == {"dense": 0, "sparse": 1, "colbert": 0}
    assert weighted["hits"][0]["score"] == pytest.approx(weighted["hits"][0]["scores"]["sparse"])


def test_a_person_sees_a_table(made):
    lines = run("search", "red fox", "--path", made).stdout.splitlines()
    assert lines[0] == "hybrid, weights dense 0.40, sparse 0.20, colbert 0.40"
    assert all(word in lines[1] for word in ("#", "score", "dense", "sparse", "colbert", "ranks", "id", "text"))
    assert lines[2].split()[0] == "1"
    assert "fox" in lines[2]
    assert "no document" in run("search", "xyz", "--mode", "sparse", "--path", made).stdout


def test_explain_says_why_and_agrees_with_search(made):
    hit = json.loads(run("search", "red fox", "--path", made, "--json").stdout)["hits"][0]
    explained = json.loads(run("explain", "red fox", "fox", "--path", made, "--json").stdout)
    assert (explained["stage"], explained["rank"]) == ("hit", 1)
    assert (explained["score"], explained["scores"]) == (hit["score"], hit["scores"])
    assert {token["token"] for token in explained["shared_tokens"]} == {"red", "fox"}
    text = run("explain", "red fox", "whale", "--path", made, "-k", 1).stdout
    assert "whale: below k" in text
    assert "raise k to" in text


def test_info_and_doctor_describe_an_index_without_its_model(made):
    info = json.loads(run("info", "--path", made, "--json").stdout)
    assert (info["documents"], info["model"], info["model_name"], info["dimension"]) == (3, "hashing", "hashing-256", 256)
    assert info["without_vectors"] == 0
    assert info["bytes_on_disk"] > 0
    checks = {check["name"]: check for check in json.loads(run("doctor", "--path", made, "--json").stdout)["checks"]}
    assert checks["index"]["message"] == "3 documents, model hashing"
    assert checks["chromadb"]["level"] == "ok"
    assert checks["model BAAI/bge-m3"]["level"] == "note"
    broken = run("doctor", "--path", made / "nothing", ok=False)
    assert broken.returncode == 1
    assert "none in" in broken.stdout


def test_a_second_run_skips_what_is_unchanged(tmp_path, corpus):
    place = ["--path", tmp_path / "x", "--model", "hashing", "--json"]
    assert json.loads(run("index", corpus, *place).stdout) == {
        "new": 3, "replaced": 0, "unchanged": 0, "skipped": 0, "documents": 3,
    }  # fmt: skip
    changed = [{**DOCUMENTS[0], "text": "a grey fox"}, *DOCUMENTS[1:], {"_id": 7, "text": "seven"}]
    done = json.loads(run("index", write_jsonl(corpus, changed), "--path", tmp_path / "x", "--json").stdout)
    assert done == {"new": 1, "replaced": 1, "unchanged": 2, "skipped": 0, "documents": 4}


def test_the_model_is_remembered_before_the_first_document(tmp_path, corpus):
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    run("index", empty, "--path", tmp_path / "x", "--model", "hashing")
    assert "no document" in run("search", "fox", "--path", tmp_path / "x").stdout
    assert json.loads(run("index", corpus, "--path", tmp_path / "x", "--json").stdout)["new"] == 3


def test_texts_markdown_csv_and_folders_are_read(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.md").write_text("# Foxes\nred fox", encoding="utf-8")
    (folder / "two.txt").write_text("blue whale", encoding="utf-8")
    with (folder / "three.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text", "color"], ["c1", "green frog", "green"]])
    run("index", folder, "--path", tmp_path / "x", "--model", "hashing")
    found = json.loads(run("search", "green frog", "--path", tmp_path / "x", "-k", 1, "--json").stdout)["hits"][0]
    assert (found["id"], found["metadata"]) == ("c1", {"color": "green"})
    found = json.loads(run("search", "foxes", "--path", tmp_path / "x", "-k", 1, "--json").stdout)["hits"][0]
    assert found["id"].endswith("notes/one.md")


def test_wrong_input_is_one_clear_line(tmp_path, made, corpus):
    here = ["--path", made]
    assert "k must be an integer >= 1; got 0" in fails("search", "x", *here, "-k", 0)
    assert "mode must be one of hybrid, dense" in fails("search", "x", *here, "--mode", "bm25")
    assert "--weights takes three numbers such as .4,.2,.4; got '1,2'" in fails("search", "x", *here, "--weights", "1,2")
    assert "not numbers" in fails("search", "x", *here, "--weights", "a,b,c")
    assert "not all 0" in fails("search", "x", *here, "--weights", "0,0,0")
    assert "--where takes JSON" in fails("search", "x", *here, "--where", "lang=en")
    assert "--where takes a filter; got null: leave the option out for none" in fails("search", "x", *here, "--where", "null")
    assert "--where-document takes a filter; got null" in fails("explain", "x", "fox", *here, "--where-document", "null")
    assert "the key 'lang' comes more than once" in fails("search", "x", *here, "--where", '{"lang": "en", "lang": "zh"}')
    assert "--where-document takes JSON" in fails("search", "x", *here, "--where-document", "tax")
    assert "where_document must be" in fails("search", "x", *here, "--where-document", '["tax"]')
    assert "exactly one of $eq" in fails("search", "x", *here, "--where", '{"lang": {"$like": "e"}}')
    assert "threshold must be a number" in fails("search", "x", *here, "--threshold", "high")
    assert "not in the store: 'nobody'" in fails("explain", "x", "nobody", *here)
    assert "no collection 'other' in" in fails("search", "x", *here, "--collection", "other")
    assert "made with the model 'hashing-256'" in fails("search", "x", *here, "--model", "mini")
    assert "no such folder: 'minni'" in fails("index", corpus, "--path", tmp_path / "y", "--model", "minni")
    assert "hf download BAAI/bge-m3" in fails("index", corpus, "--path", tmp_path / "y")
    assert "no such file or folder" in fails("index", tmp_path / "nothing.jsonl", "--path", tmp_path / "y")
    assert "Missing option '--path'" in fails("search", "x", code=2)
    assert "No such command" in fails("serach", "x", code=2)


def test_reading_never_creates_an_index(tmp_path):
    place = tmp_path / "empty"
    assert "make one with: m3retriever index" in fails("search", "x", "--path", place)
    assert "make one with" in fails("info", "--path", place)
    assert "make one with" in fails("inspect", "--path", place)
    assert not place.exists()


def test_a_broken_line_is_named_and_nothing_is_lost(tmp_path, corpus):
    run("index", corpus, "--path", tmp_path / "x", "--model", "hashing")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"_id": "a", "text": "fine"}\n{"_id": "b", "text": \n{"_id": "c"}\n', encoding="utf-8")
    assert f"{broken}, line 2 is not JSON" in fails("index", broken, "--path", tmp_path / "x")
    assert json.loads(run("info", "--path", tmp_path / "x", "--json").stdout)["documents"] == 3
    done = run("index", broken, "--path", tmp_path / "x", "--skip-bad", "--json")
    assert json.loads(done.stdout) == {"new": 1, "replaced": 0, "unchanged": 0, "skipped": 2, "documents": 4}
    assert len(done.stderr.splitlines()) == 2
    assert "line 3: want '_id' or 'id', and 'text'" in done.stderr
    twice = write_jsonl(tmp_path / "twice.jsonl", [DOCUMENTS[0], DOCUMENTS[0]])
    assert f"{twice}, line 2: the id 'fox' comes a second time in this run" in fails("index", twice, "--path", tmp_path / "x")


def test_skipping_bad_lines_costs_no_good_one(tmp_path):
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_bytes(b'{"id": "a", "text": "one"}\n{"id": "b", "text": "\xff"}\nnull\n{"id": "d", "text": "four"}\n')
    table = tmp_path / "table.csv"
    table.write_text('id,text\n1,fox\n2,"bad" x\n3,cat,extra\n4,dog\n', encoding="utf-8")
    done = run("index", mixed, table, "--path", tmp_path / "x", "--model", "hashing", "--skip-bad", "--json")
    assert json.loads(done.stdout) == {"new": 4, "replaced": 0, "unchanged": 0, "skipped": 4, "documents": 4}
    assert "line 2 is not UTF-8" in done.stderr
    assert "row 3: want 2 cells as in the header; got 3" in done.stderr


def test_an_interrupted_run_says_so(tmp_path):
    rows = [{"_id": f"d{row}", "text": "w " * 50} for row in range(20_000)]
    big = write_jsonl(tmp_path / "big.jsonl", rows)
    command = [PROGRAM, "index", str(big), "--path", str(tmp_path / "x"), "--model", "hashing"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "x" / "m3").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1:]) == (130, ["error: interrupted; what was stored is kept"])


def test_without_arguments_the_help_is_shown():
    assert run().stdout == run("--help").stdout


def test_a_reader_that_closes_the_pipe_is_no_error(made):
    command = f"{PROGRAM} search fox --path {made} --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{", "")


def test_control_characters_of_a_document_do_not_reach_the_terminal(tmp_path):
    hostile = write_jsonl(
        tmp_path / "h.jsonl", [{"_id": "h\u001b[31m", "text": "fox \u001b[31mred\u001b[0m [bold]x[/bold] \u0007"}]
    )
    run("index", hostile, "--path", tmp_path / "x", "--model", "hashing")
    out = run("search", "fox", "--path", tmp_path / "x").stdout
    assert "[bold]x[/bold]" in out
    out += run("explain", "fox", "h\u001b[31m", "--path", tmp_path / "x").stdout
    bad = write_jsonl(tmp_path / "evil\u001b[31m.jsonl", [{"_id": 1}])
    out += fails("index", bad, "--path", tmp_path / "x")
    assert "\u001b" not in out
    assert "\u0007" not in out


def test_help_loads_nothing_heavy_and_names_every_command():
    done = run("--help")
    for command in ("index", "search", "explain", "info", "doctor", "inspect", "demo"):
        assert f"  {command} " in done.stdout
        assert run(command, "--help").stdout.startswith("Usage")
    code = (
        "import sys\nfrom m3retriever.cli import app\n"
        "print([m for m in ('torch', 'chromadb', 'transformers', 'FlagEmbedding', 'streamlit', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert run("--version").stdout.startswith("m3retriever ")


def test_the_short_name_is_the_same_program():
    short = subprocess.run([str(Path(PROGRAM).with_name("m3")), "--version"], capture_output=True, text=True, check=True)
    assert short.stdout == run("--version").stdout


def test_indexing_killed_at_any_moment_and_run_again_ends_as_if_undisturbed(tmp_path):
    words, chosen = [f"w{number}" for number in range(300)], random.Random(3)
    rows = [{"_id": f"d{row}", "text": " ".join(chosen.choices(words, k=20)), "metadata": {"row": row}} for row in range(3000)]
    big = write_jsonl(tmp_path / "big.jsonl", rows)
    run("index", big, "--path", tmp_path / "calm", "--model", "hashing")
    command = [PROGRAM, "index", str(big), "--path", str(tmp_path / "killed"), "--model", "hashing"]
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (tmp_path / "killed" / "m3").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chosen.random() * 0.7)
        if process.poll() is None:
            kills += 1
            os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert kills, "nothing was interrupted: lengthen the input"
    run("index", big, "--path", tmp_path / "killed")
    answers = []
    for folder in ("calm", "killed"):
        info = json.loads(run("info", "--path", tmp_path / folder, "--json").stdout)
        assert (info["documents"], info["without_vectors"]) == (3000, 0)
        answers.append(
            [run("search", query, "--path", tmp_path / folder, "-k", 50, "--json").stdout for query in ("w1 w2 w3", "w77")]
        )
    assert answers[0] == answers[1], "the same hits to the last digit"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Two documents, of which one is long, and an index of them with passages of 20 tokens."""
    folder = tmp_path_factory.mktemp("book")
    text = " ".join(f"word{number}." for number in range(100))
    rows = [{"_id": "book", "title": "", "text": text, "metadata": {"lang": "en"}}, {"_id": "note", "text": "word99 alone"}]
    files = write_jsonl(folder / "corpus.jsonl", rows)
    made = run("index", files, "--path", folder / "index", "--model", "hashing", "--split", "--size", 20, "--overlap", 5)
    assert made.stdout == "2 new; the index holds 8 documents and passages\n"
    return folder / "index", files, text


def test_a_long_document_is_one_hit_that_names_its_passage(book):
    path, _, text = book
    found = json.loads(run("search", "word98", "--path", path, "--by-document", "--json", "--where", '{"lang": "en"}').stdout)
    [hit] = found["hits"]
    assert set(hit) == {"rank", "id", "score", "scores", "ranks", "found_by", "text", "metadata", "passage"}
    assert hit["id"] == hit["metadata"]["passage_of"] == "book"
    assert text[hit["passage"]["start"] : hit["passage"]["end"]] == hit["text"]
    assert "word98" in hit["text"]
    assert hit["passage"]["id"] == f"book#{hit['metadata']['passage']}"
    best = json.loads(run("search", "word98", "--path", path, "--json", "-k", 1).stdout)["hits"][0]
    assert (hit["score"], hit["passage"]["id"]) == (best["score"], best["id"])
    both = json.loads(run("search", "word99", "--path", path, "--by-document", "--json").stdout)["hits"]
    assert [hit["id"] for hit in both] == ["note", "book"]
    assert both[0]["passage"] == {"id": "note", "start": 0, "end": 12}


def test_a_person_sees_which_characters_of_a_document_were_found(book):
    path, _, text = book
    [first, second] = run("search", "word99", "--path", path, "--by-document").stdout.splitlines()
    assert first.split()[0] == "1"
    assert first.endswith("note  note, characters 0 to 12: word99 alone")
    assert "book  book#7, characters" in second
    assert "word99" in text[slice(*(int(number) for number in re.search(r"characters (\d+) to (\d+)", second).groups()))]
    assert "no document for 'xyz'" in run("search", "xyz", "--mode", "sparse", "--path", path, "--by-document").stdout


def test_documents_that_are_split_are_skipped_when_unchanged_and_replaced_as_one(book, tmp_path):
    _, files, _ = book
    place = ["--path", tmp_path / "x", "--json"]
    sizes = ["--split", "--size", 20]
    assert json.loads(run("index", files, *place, *sizes, "--model", "hashing").stdout)["new"] == 2
    done = json.loads(run("index", files, *place, *sizes).stdout)
    assert (done["new"], done["replaced"], done["unchanged"]) == (0, 0, 2)
    done = json.loads(run("index", files, *place, "--split", "--size", 50).stdout)
    assert (done["replaced"], done["unchanged"], done["documents"]) == (1, 1, 4)


def test_texts_that_are_cut_name_the_remedy_and_with_it_nothing_is_cut(tmp_path):
    files = write_jsonl(tmp_path / "long.jsonl", [{"_id": "long", "text": "the fox runs " * 200 + "to the whale"}])
    done = run("index", files, "--path", tmp_path / "x", "--model", "mini")
    assert "1 texts are longer than 256 tokens; only their beginning was indexed: --split cuts" in done.stderr
    done = run("index", files, "--path", tmp_path / "x", "--split", "--json")
    assert "longer than" not in done.stderr
    assert json.loads(done.stdout) == {"new": 0, "replaced": 1, "unchanged": 0, "skipped": 0, "documents": 3}


def test_options_of_splitting_that_cannot_be_are_one_clear_line(tmp_path, corpus):
    place = ["--path", tmp_path / "x", "--model", "hashing"]
    assert "--size and --overlap go with --split" in fails("index", corpus, *place, "--overlap", 3)
    assert "HashingEncoder has no max_length" in fails("index", corpus, *place, "--split")
    assert "overlap must be at most half of the size, 10; got 11" in fails(
        "index", corpus, *place, "--split", "--size", 20, "--overlap", 11
    )
    taken = write_jsonl(tmp_path / "taken.jsonl", [{"_id": "a", "text": "x", "metadata": {"passage": 3}}])
    assert "the metadata key 'passage'" in fails("index", taken, *place, "--split", "--size", 20)


def test_dirty_texts_and_titles_are_cleaned_where_that_is_asked_for(tmp_path):
    row = {"_id": "d", "title": "Ti\u00adtle ", "text": "af\u00adfix\r\n\r\n\r\n  end "}
    dirty = write_jsonl(tmp_path / "dirty.jsonl", [row])

    def kept(*options):
        folder = tmp_path / f"x{len(options)}"
        run("index", dirty, "--path", folder, "--model", "hashing", *options)
        hit = json.loads(run("search", "end", "--path", folder, "--json").stdout)["hits"][0]
        return hit["text"], hit["metadata"]["title"]

    assert kept("--clean") == ("Title\naffix\n\n end", "Title")
    assert kept() == ("Ti\u00adtle \naf\u00adfix\r\n\r\n\r\n  end ", "Ti\u00adtle ")
