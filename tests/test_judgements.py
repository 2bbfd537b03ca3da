"""Questions, judgements and runs: the field's formats, what is refused, and that what is written is read back."""

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import InvalidArgumentError, InvalidDocumentError
from m3retriever.io import (
    GoldenQuestion,
    read_golden,
    read_qrels,
    read_queries,
    read_run,
    replace_text,
    write_golden,
    write_run,
)

BEIR = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td 2\t0\nq2\td1\t1\n"
TREC = "q1 0 d1 2\nq1 0 d2 0\n\nq2 0 d1 -1\n"


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_beir_qrels_are_read_with_or_without_a_header(write):
    expected = {"q1": {"d1": 2, "d 2": 0}, "q2": {"d1": 1}}
    assert read_qrels(write("with.tsv", BEIR)) == expected
    assert read_qrels(write("without.tsv", BEIR.partition("\n")[2])) == expected


def test_trec_qrels_are_read_as_ir_measures_reads_them(write):
    path = write("qrels", TREC)
    theirs = {}
    for one in ir_measures.read_trec_qrels(str(path)):
        theirs.setdefault(one.query_id, {})[one.doc_id] = one.relevance
    assert read_qrels(path) == theirs == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}


def test_queries_are_read_from_json_lines_and_from_tabs(write):
    assert read_queries(write("q.jsonl", '{"_id": "q1", "text": "a"}\n\n{"id": 2, "text": "b c"}\n')) == {"q1": "a", "2": "b c"}
    assert read_queries(write("q.tsv", "q1\twhat is a\tb\r\nq2\t二\n")) == {"q1": "what is a\tb", "q2": "二"}


@pytest.mark.parametrize(
    ("read", "name", "text", "message"),
    [
        (read_qrels, "q", "q1\td1\n", "line 1: want query, document, grade"),
        (read_qrels, "q", "q1\td1\t1\nq1\td2\tgood\n", "line 2: want a whole number as grade; got 'good'"),
        (read_qrels, "q", "q1\td1\t1.0\nq1\td2\t1\n", "line 1: want a whole number as grade; got '1.0'"),
        (read_qrels, "q", b"\xff\n", "line 1 is not UTF-8"),
        (read_qrels, "missing/q", None, "cannot read"),
        (read_queries, "q.jsonl", '{"_id": "1"}\n', "line 1: want '_id' or 'id', and 'text'"),
        (read_queries, "q.jsonl", '{"_id": true, "text": "a"}\n', "as strings; got {'_id': 'bool', 'text': 'str'}"),
        (read_queries, "q.jsonl", "[1]\n", "line 1: want a JSON object"),
        (
            read_queries,
            "q.jsonl",
            '{"id": "1", "text": "a"}\n{"id": 1, "text": "b"}\n',
            "line 2: the query id '1' comes",
        ),
        (read_queries, "q.tsv", "no tab here\n", "line 1: want id, a tab"),
        (read_run, "r", "q1 Q0 d1 1 0.5\n", "line 1: want 6 columns"),
        (read_run, "r", "q1 Q0 d1 1 high t\n", "line 1: want 6 columns, the fifth a number"),
        (read_run, "r", "q1 Q0 d1 1 nan t\n", "line 1: want a finite score"),
    ],
)
def test_what_is_no_row_is_refused_with_file_and_line(write, tmp_path, read, name, text, message):
    path = tmp_path / name if text is None else write(name, text)
    with pytest.raises(InvalidDocumentError, match=message) as error:
        read(path)
    assert path.name in str(error.value)


@pytest.mark.parametrize(("read", "line"), [(read_run, "q " * 100_000), (read_qrels, "q1 d1 1\nq1 d2 " + "x" * 100_000)])
def test_an_error_is_short_however_long_the_line(write, read, line):
    with pytest.raises(InvalidDocumentError) as error:
        read(write("long", line))
    assert len(str(error.value)) < 1_000


ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), min_size=1, max_size=5).filter(str.strip)
runs = st.dictionaries(ids, st.dictionaries(ids, st.floats(-1e6, 1e6), min_size=1, max_size=5), max_size=4)


@settings(max_examples=100, deadline=None)
@given(run=runs)
def test_a_run_that_is_written_is_read_back_to_the_last_bit(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("run") / "run.txt"
    write_run(run, path)
    assert read_run(path) == run


def test_a_run_is_in_trec_s_form_best_first_and_ties_by_id(write, tmp_path):
    path = tmp_path / "run.txt"
    write_run({"q1": {"b": 1.0, "a": 1.0, "c": 2.5}}, path, tag="mine")
    assert path.read_text() == "q1\tQ0\tc\t1\t2.5\tmine\nq1\tQ0\ta\t2\t1.0\tmine\nq1\tQ0\tb\t3\t1.0\tmine\n"
    theirs = list(ir_measures.read_trec_run(str(path)))
    assert [(one.query_id, one.doc_id, one.score) for one in theirs] == [("q1", "c", 2.5), ("q1", "a", 1.0), ("q1", "b", 1.0)]


@pytest.mark.parametrize("id", ["a\tb", "a\nb"])
def test_an_id_that_would_break_a_run_is_refused_before_anything_is_written(tmp_path, id):
    path = tmp_path / "run.txt"
    with pytest.raises(InvalidArgumentError, match="without tabs"):
        write_run({"q": {"fine": 1.0, id: 0.5}}, path)
    assert not path.exists()


def test_golden_questions_come_back_as_they_were_written(tmp_path):
    given = [GoldenQuestion("1", "红色?\nnew line", ("a b", "c"), {"a b": 2, "d": 0}), GoldenQuestion("x", "plain", ("a",))]
    write_golden(given, tmp_path / "golden.jsonl")
    assert read_golden(tmp_path / "golden.jsonl") == given
    assert given[0].judged == {"a b": 2, "c": 2, "d": 0}
    assert given[1].judged == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["golden.jsonl"]


@pytest.mark.parametrize("grades", ['["a"]', '{"a": -1}', '{"a": 1.5}', '{"a": true}', '{"a": "2"}', '{"a": 1001}'])
def test_grades_are_whole_numbers_by_id(write, grades):
    path = write("golden.jsonl", f'{{"question": "q", "relevant": ["a"], "grades": {grades}}}')
    with pytest.raises(
        InvalidDocumentError, match="line 1: want 'grades' as an object of ids with whole numbers from 0 to 1000"
    ):
        read_golden(path)


def test_grades_can_stand_for_relevant(write):
    [one] = read_golden(write("golden.jsonl", '{"question": "q", "grades": {"a": 0}}'))
    assert (one.relevant, one.judged) == ((), {"a": 0})


def test_a_file_is_replaced_in_one_step_or_left_as_it_was(tmp_path):
    path = tmp_path / "file"
    replace_text(path, "old")
    with pytest.raises(AttributeError):
        replace_text(path, None)
    (tmp_path / "link").symlink_to(path)
    replace_text(tmp_path / "link", "new \ud800")
    assert path.read_text() == "new ?"
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2
