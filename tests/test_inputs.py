"""What is fed to an index: what torture/inputs.py holds in the long run, in few cases, and each fault that was found."""

import json
import math
import subprocess
import sys
from datetime import date
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torture.arguments import FILTERS, SETTINGS, check_filter, check_setting, filters, junk
from torture.broken import BAD_LINES, GOOD_LINES, VECTORS, check_encoder, check_lines, check_vectors, lines
from torture.inputs import DIM, WAYS, batches, check_batch, check_stored, guarded, revision, state

from m3retriever import (
    ChromaStore,
    Document,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    InvalidVectorsError,
    M3Index,
    M3Vectors,
    MemoryStore,
    Profile,
    UnknownDocumentError,
    Weights,
)
from m3retriever.io import read_documents, rows
from m3retriever.langchain import M3VectorStore
from m3retriever.llama_index import M3VectorStore as LlamaStore
from m3retriever.passages import Split

PROGRAM = str(Path(sys.executable).with_name("m3retriever"))
few = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate]
)
many = settings(few, max_examples=150)


@pytest.fixture(scope="module", params=["chroma", "memory"])
def index(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs") if request.param == "chroma" else None
    with guarded(folder) as opened:
        yield opened


@few
@given(st.sampled_from(sorted(WAYS)), batches())
def test_a_batch_goes_in_whole_and_comes_back_exactly_or_not_at_all(index, way, documents):
    check_batch(index, way, documents)


@many
@given(st.sampled_from(sorted(SETTINGS)), junk)
def test_a_setting_is_taken_where_it_means_something_and_else_refused_in_words(index, name, value):
    check_setting(index, name, value)


@few
@given(st.sampled_from(sorted(FILTERS)), filters)
def test_a_filter_is_understood_or_refused_in_words(index, name, value):
    check_filter(index, name, value)


@pytest.mark.parametrize("name", VECTORS)
def test_broken_vectors_are_refused_and_change_nothing(index, name):
    check_vectors(index, name, ["fox", "", "sea"], 7)


@pytest.mark.parametrize("how", ["NaN", "no vectors", "a row less", "another dimension", "a negative weight"])
def test_an_encoder_that_fails_in_a_later_batch_leaves_whole_batches(tmp_path, how):
    for store in (MemoryStore(), ChromaStore(tmp_path)):
        check_encoder(store, how, 300)


@many
@given(lines, st.sampled_from([b"\n", b"\r\n"]))
def test_every_broken_line_is_named_and_no_good_one_is_lost(tmp_path_factory, chosen, ending):
    check_lines(tmp_path_factory.getbasetemp() / "drawn.jsonl", chosen, ending=ending)


# -- documents -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ({f"k{number}": number for number in range(6_000)}, "k5000"),
        ({"a": 1, "list": [1] * 5_000}, "list"),
        ({"chroma:anything": 1}, "chroma:anything"),
        ({"digits": 10**5_000}, "digits"),
    ],
    ids=["keys", "list", "chroma", "digits"],
)
def test_metadata_that_would_break_the_collection_for_good_or_vanish_are_refused_by_key(index, metadata, key):
    before = state(index), revision(index)
    with pytest.raises(InvalidDocumentError, match=f"document 'x', metadata key '{key}'"):
        index.add([Document("fine", "fine"), Document("x", "x", metadata)])
    assert (state(index), revision(index)) == before


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.bool_(True), "got numpy.bool_?: write value.item"),
        (np.float32(0.5), "got numpy.float32: write value.item"),
        (np.int64(5), "got numpy.int64: write value.item"),
        (np.array([1]), "got numpy.ndarray: write value.tolist"),
        (date(2026, 1, 2), "got datetime.date: write value.isoformat"),
        ((1, 2), "got tuple: write list"),
        ({"a": 1}, "got dict: write json.dumps"),
        (HTTPStatus.OK, "got http.HTTPStatus: write value.value"),
        (b"raw", r"got bytes: write str\(value\)"),
        (Path("a"), r"got pathlib.*Path: write str\(value\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_stored_is_named_with_what_to_write_instead(value, said):
    with M3Index(HashingEncoder(DIM), MemoryStore()) as index, pytest.raises(InvalidDocumentError, match=said):
        index.add([Document("a", "x", {"k": value})])


def test_as_many_values_as_may_be_are_stored_and_replaced(tmp_path):
    with M3Index(HashingEncoder(DIM), ChromaStore(tmp_path)) as full:
        for start in (0, 4_000):
            held = {f"k{number}": number for number in range(start, start + 4_990)}
            full.add([Document("x", "x", {**held, "list": [True] * 10})])
        assert full.get(["x"])[0].metadata == {**held, "list": [True] * 10}


def test_an_error_is_one_short_line_however_long_what_was_wrong():
    long = "x" * 100_000
    with M3Index(HashingEncoder(DIM), MemoryStore()) as index:
        for call in (
            lambda: index.add([Document(long + "\ud800", "x")]),
            lambda: index.add([Document("a", "x", {long + "\ud800": 1})]),
            lambda: index.add([Document(long, "x"), Document(long, "x")]),
            lambda: index.search("x", where={long: {"$like": [long]}}),
            lambda: index.search("x", where={"n": {"$gt": [10**5_000]}}),
            lambda: index.search("x", mode=long),
            lambda: index.search("x", threshold=long),
            lambda: index.get([long]),
        ):
            with pytest.raises((InvalidArgumentError, UnknownDocumentError)) as refused:
                call()
            assert len(str(refused.value)) < 1_000
            assert "\n" not in str(refused.value)


def test_floats_that_chroma_rounds_are_no_reason_to_store_a_document_again(tmp_path):
    rounded = [-23957.515365261122, 1.5212603486793025e-05, 944535844414.4967]  # come back two floats beside
    document = Document("a", "red fox", {"list": rounded, "one": rounded[0]})
    with M3Index(HashingEncoder(DIM), ChromaStore(tmp_path)) as index:
        index.add([document])
        assert index.add([document]).unchanged == 1
        assert index.add([Document("a", "red fox", {"list": rounded, "one": rounded[0] * (1 + 1e-15)})]).replaced == 1
        assert index.add([Document("a", "red fox", {"list": rounded[:2], "one": rounded[0]})]).replaced == 1
        [back] = index.get(["a"])
        assert math.isclose(back.metadata["one"], rounded[0], rel_tol=4e-16)


def test_a_key_that_passages_have_is_refused_before_any_batch_is_stored():
    with M3Index(HashingEncoder(DIM), MemoryStore()) as index:
        documents = [Document(str(number), "red fox") for number in range(300)]
        with pytest.raises(InvalidDocumentError, match="'last'.*'passage_of'"):
            index.add([*documents, Document("last", "x", {"passage_of": "y"})], split=Split(8))
        assert len(index) == 0


def test_what_an_iterator_gave_in_the_run_in_which_it_failed_is_not_stored():
    def failing():
        yield Document("a", "red fox")
        raise OSError("the source is gone")

    with M3Index(HashingEncoder(DIM), MemoryStore()) as index:
        with pytest.raises(OSError, match="the source is gone"):
            index.add(failing())
        assert len(index) == 0


@pytest.mark.parametrize("wrong", [None, 5, "documents", b"documents"], ids=str)
def test_what_is_no_list_of_documents_is_refused_in_words(wrong):
    with M3Index(HashingEncoder(DIM), MemoryStore()) as index:
        for call in (index.add, M3VectorStore(index).add_documents, M3VectorStore(index).add_texts):
            with pytest.raises(InvalidArgumentError):
                call(wrong)
        with pytest.raises(InvalidArgumentError, match="metadatas must be as many"):
            M3VectorStore(index).add_texts(["x"], 5)
        assert M3VectorStore(index).add_texts(["x"], iter([{"n": 1}]), iter(["id"])) == ["id"]


# -- vectors, numbers ------------------------------------------------------------------------------


def test_vectors_that_are_no_numbers_are_never_taken_for_others():
    dense, tokens = np.ones((1, 2), np.float32), [np.ones((1, 2), np.float32)]
    for wrong in (dense.astype(str), dense * 1j, [[1.0], [1.0, 2.0]], [["a", "b"]], [[10**400, 1]], [[None, 1]]):
        with pytest.raises(InvalidVectorsError):
            M3Vectors.from_rows(wrong, [{1: 0.5}], tokens)
    for wrong in ({"word": 0.5}, {1: "heavy"}, {2**31: 0.5}, {1: None}, [1, 2], {-(2**40): 0.5}):
        with pytest.raises(InvalidVectorsError):
            M3Vectors.from_rows(dense, [wrong], tokens)
    with M3Index(HashingEncoder(2), MemoryStore()) as index:
        for wrong in (["1", "2"], [10**400, 1], np.array([1j, 1]), [None, 1], "12"):
            with pytest.raises(InvalidVectorsError):
                index.search_by_vector(wrong)


@pytest.mark.parametrize("weights", [(10**400, 1, 1), b"abc", {1, 2, 3}, {"dense": 10**400}, {1: 1, "a": 2}], ids=repr)
def test_weights_without_order_or_beyond_a_float_are_refused(weights):
    with pytest.raises(InvalidArgumentError, match="weights"):
        Weights.of(weights)


@pytest.mark.parametrize("k", [10**9 + 1, 2**63, 10**400])
def test_more_than_any_index_holds_is_refused_by_every_call_and_a_billion_is_not(k):
    with M3Index(HashingEncoder(DIM), MemoryStore()) as index:
        index.add([Document("a", "red fox")])
        for call in (index.search, index.search_documents, index.search_diverse):
            assert len(call("red", 10**9)) == 1
            with pytest.raises(InvalidArgumentError, match="at most"):
                call("red", k)
        for wrong in (True, 2.5, "3", None, math.nan, k):
            with pytest.raises(InvalidArgumentError, match="depth must be"):
                index.store.search(index.encoder.encode_queries(["red"]), depth=wrong)
        for wrong in (10**400, {1: 1, "a": 2}, {"dense": 10**400}):
            with pytest.raises(InvalidArgumentError):
                Profile(thresholds=wrong)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40].decode("ascii", "replace"))
def test_a_bad_line_is_refused_with_its_number_and_the_next_is_read(tmp_path, line):
    check_lines(tmp_path / "a.jsonl", [(GOOD_LINES[2], True), (line, False), (GOOD_LINES[3], True)])


def test_a_line_that_is_too_long_costs_no_other_and_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE", 100)
    long, told = b"x" * 1_000, []
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(b'{"id": "a", "text": "x"}\n{"id": "l", "text": "' + long + b'"}\n{"id": "b", "text": "x"}')
    assert [one.id for one in read_documents(lines, on_bad=told.append)] == ["a", "b"]
    table = tmp_path / "a.csv"
    table.write_bytes(b'id,text\na,x\nl,"' + long + b'"\nb,x\n')
    assert [one.id for one in read_documents(table, on_bad=told.append)] == ["a", "b"]
    (tmp_path / "a.txt").write_bytes(long)
    assert list(read_documents(tmp_path / "a.txt", on_bad=told.append)) == []
    places = ["a.jsonl, line 2 is longer than 100", "a.csv, line 3 is longer than 100", "a.txt has 1000 bytes"]
    assert [place in str(error) for place, error in zip(places, told, strict=True)] == [True] * 3


def test_a_csv_row_of_several_lines_with_a_broken_one_is_not_stored_without_it(tmp_path):
    table, told = tmp_path / "a.csv", []
    table.write_bytes(b'id,text\na,"first\nsec\xffond\nthird"\nb,fine\nc,"also\nfine"\n')
    assert [(one.id, one.text) for one in read_documents(table, on_bad=told.append)] == [("b", "fine"), ("c", "also\nfine")]
    assert ["line 3 is not UTF-8 text" in str(error) for error in told] == [True]


def test_a_csv_whose_header_has_a_name_twice_is_refused(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("text,lang,lang\nx,en,de\n", encoding="utf-8")
    with pytest.raises(InvalidDocumentError, match="without a name twice"):
        list(read_documents(table))


def test_the_command_line_counts_what_it_skips_and_says_what_it_stored(tmp_path):
    file = tmp_path / "a.jsonl"
    good = [json.dumps({"id": f"d{row}", "text": "red fox"}).encode() for row in range(300)]
    file.write_bytes(b"\n".join([*good, *BAD_LINES[:5], good[7], b'{"id": "z", "text": "last"}']))
    command = [PROGRAM, "index", str(file), "--path", str(tmp_path / "x"), "--model", "hashing"]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert f"{file}, line 301 is not JSON" in stopped.stderr
    assert "the 256 documents before it are stored" in stopped.stderr
    assert len(stopped.stderr.splitlines()) == 1
    done = subprocess.run([*command, "--skip-bad", "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = {"new": 45, "replaced": 0, "unchanged": 256, "skipped": 6, "documents": 301}
    assert json.loads(done.stdout) == told
    assert f"{file}, line 306: the id 'd7' comes a second time" in done.stderr


@pytest.mark.model
def test_the_mini_model_takes_odd_texts_and_gives_them_back(tmp_path):
    odd = ["", " ", "\x00", "a\x00b", "\u202ertl", "e\u0301", "the quick\nfox", "\ufeffx", "12 %_*"]
    documents = [Document(f"../{row}\n", text, {"n": row}) for row, text in enumerate(odd)]
    with M3Index.open(tmp_path, model="mini") as index:
        index.add(documents)
        assert index.get([one.id for one in documents]) == documents
        for one in documents:
            for mode in ("hybrid", "dense", "colbert"):
                assert [hit.document for hit in index.search("fox", mode=mode, where={"#id": one.id})] == [one]
        with pytest.raises(InvalidDocumentError, match="lone surrogate"):
            index.add([Document("good", "good"), Document("bad", "\ud800")])
        assert len(index) == len(documents)
        assert len(index.search("fox \ud800 \x00")) == len(documents)


def test_a_node_keeps_the_floats_that_it_had(tmp_path):
    from llama_index.core.schema import TextNode

    with M3Index(HashingEncoder(DIM), ChromaStore(tmp_path)) as index:
        node = TextNode(id_="a", text="red fox", metadata={"f": -23957.515365261122, "none": None})
        LlamaStore(index).add([node])
        [back] = LlamaStore(index).get_nodes(["a"])
        assert (back.metadata, back.hash) == (node.metadata, node.hash)


def test_a_text_of_a_hundred_thousand_tokens_is_found_in_every_mode(index):
    long = [Document("long", "w1 unusual " * 50_000, {})]
    index.add(long)
    check_stored(index, "add", long)
    index.delete(["long"])
