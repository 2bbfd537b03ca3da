"""Documents and questions from files: every kind, every encoding accident, errors that name the line."""

import json
from pathlib import Path

import pytest

from m3retriever.errors import InvalidDocumentError
from m3retriever.io import GoldenQuestion, read_documents, read_golden, rows
from m3retriever.types import Document

CHINESE = "BGE-M3 是一個支援稠密檢索的嵌入模型。狐狸 🦊"


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read(path: Path | str) -> list[Document]:
    return list(read_documents(path))


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# JSONL


def test_a_beir_corpus_becomes_documents_with_the_title_before_the_text(write):
    path = write(
        "corpus.jsonl",
        lines(
            {"_id": "a", "title": "Foxes", "text": "are red", "metadata": {"page": 3, "tags": ["x"], "none": None}},
            {"_id": "b", "title": "", "text": CHINESE, "metadata": {}},
            {"id": "c", "text": ""},
        ),
    )
    assert (
        read(path)
        == read(str(path))
        == [
            Document("a", "Foxes\nare red", {"title": "Foxes", "page": 3, "tags": ["x"]}),
            Document("b", CHINESE, {}),
            Document("c", "", {}),
        ]
    )


def test_the_metadata_s_own_title_stays(write):
    path = write("a.jsonl", lines({"_id": "a", "title": "Foxes", "text": "t", "metadata": {"title": "mine"}}))
    assert read(path) == [Document("a", "Foxes\nt", {"title": "mine"})]


def test_numeric_ids_become_text(write):
    path = write("a.jsonl", lines({"_id": 7, "text": "a"}, {"id": -1, "text": "b"}, {"_id": "007", "text": "c"}))
    assert [document.id for document in read(path)] == ["7", "-1", "007"]


def test_blank_lines_and_a_byte_order_mark_are_no_documents(write):
    path = write("a.JSONL", "\ufeff\n" + lines({"_id": "a", "text": "x"}) + "  \n\n" + lines({"_id": "b", "text": "y"}))
    assert [document.id for document in read(path)] == ["a", "b"]


def test_line_separators_inside_a_text_do_not_end_its_line(write):
    text = "one\u2028two\x85three\x0bfour"
    path = write("a.jsonl", json.dumps({"_id": "a", "text": text}, ensure_ascii=False) + "\r\n")
    assert read(path) == [Document("a", text)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json}", "is not JSON"),
        ('"a text"', "want a JSON object; got str"),
        ("[1]", "want a JSON object; got list"),
        ("[" * 100_000, "is not JSON"),
        ('{"text": "x"}', "want '_id' or 'id', and 'text', as strings"),
        ('{"_id": "x"}', "got {'_id': 'str'}"),
        ('{"_id": true, "text": "x"}', "want '_id' or 'id', and 'text', as strings; got {'_id': 'bool', 'text': 'str'}"),
        ('{"_id": 1.5, "text": "x"}', "got {'_id': 'float', 'text': 'str'}"),
        ('{"_id": null, "text": "x"}', "want '_id' or 'id'"),
        ('{"_id": "x", "text": 5}', "got {'_id': 'str', 'text': 'int'}"),
        ('{"_id": "", "text": "x"}', "non-empty"),
        ('{"_id": "x", "text": "lone \\ud800"}', "surrogate"),
        ('{"_id": "x", "text": "x", "metadata": [1]}', "metadata must be an object; got list"),
        ('{"_id": "x", "text": "x", "metadata": {"a": {"b": 1}}}', "metadata key 'a'"),
        ('{"_id": "x", "text": "x", "metadata": {"a": []}}', "metadata key 'a'"),
        ('{"_id": "x", "text": "x", "metadata": {"a": NaN}}', "finite"),
        ('{"_id": "x", "text": "x", "metadata": {"a": 9223372036854775808}}', "64 bits"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_line_is_refused_with_file_and_number(write, line, message):
    path = write("a.jsonl", lines({"_id": "a", "text": "fine"}) + "\n" + line + "\n")
    reading = read_documents(path)
    assert next(reading).id == "a"
    with pytest.raises(InvalidDocumentError, match=message) as raised:
        next(reading)
    assert str(raised.value).startswith(f"{path}, line 3")


def test_on_bad_is_told_of_bad_lines_and_reading_goes_on(write):
    path = write("a.jsonl", "{\n" + lines({"_id": "a", "text": "x"}, {"_id": "b"}, {"_id": "c", "text": "z"}))
    told: list[InvalidDocumentError] = []
    assert [document.id for document in read_documents(path, on_bad=told.append)] == ["a", "c"]
    assert [str(error).split(":")[0].removeprefix(str(path)) for error in told] == [", line 1 is not JSON", ", line 3"]


def test_on_bad_is_told_of_a_file_that_cannot_be_read_and_the_next_is_read(write, tmp_path):
    write("a.txt", b"\xff\xfe")
    write("b.csv", "id\n1\n")
    write("c.jsonl", lines({"_id": "c", "text": "x"}).encode() + b"\xff\n")
    write("d.txt", "fine")
    told: list[str] = []
    documents = list(read_documents(tmp_path, on_bad=lambda error: told.append(str(error))))
    assert documents[-1].text == "fine"
    assert [error.split(": ")[0].removeprefix(str(tmp_path)) for error in told] == [
        "/a.txt, line 1 is not UTF-8 text",
        "/b.csv",
        "/c.jsonl, line 2 is not UTF-8 text",
    ]


def test_a_byte_that_is_not_utf_8_is_found_by_its_line_in_a_large_file_too(write):
    fine = lines({"_id": "a", "text": "狐" * 1000}) * 30
    path = write("a.jsonl", fine.encode() + b'{"_id": "caf\xe9", "text": "latin 1"}\n')
    with pytest.raises(InvalidDocumentError, match="line 31 is not UTF-8 text: invalid continuation byte"):
        read(path)


def test_documents_come_one_at_a_time(write):
    path = write("a.jsonl", lines({"_id": "a", "text": "x"}) + "broken\n")
    assert next(read_documents(path)).id == "a"


# CSV


def test_a_csv_s_other_columns_are_metadata(write):
    path = write("a.csv", f'id,text,title,page\na,"with, comma\nand line",Foxes,3\nb,{CHINESE},,\n')
    assert read(path) == [
        Document("a", "Foxes\nwith, comma\nand line", {"title": "Foxes", "page": "3"}),
        Document("b", CHINESE, {"page": ""}),
    ]


def test_csv_rows_without_an_id_are_named_after_file_and_row(write):
    path = write("a.csv", "text\nx\ny\n")
    assert [document.id for document in read(path)] == [f"{path}:1", f"{path}:2"]
    path = write("b.csv", "id,text\n,x\n7,y\n")
    assert [document.id for document in read(path)] == [f"{path}:1", "7"]


def test_a_csv_from_excel_begins_with_a_byte_order_mark(write):
    assert read(write("a.csv", "\ufefftext,id\r\nx,a\r\n")) == [Document("a", "x")]


def test_a_cell_longer_than_python_s_default_limit_is_read(write):
    assert len(read(write("a.csv", "text\n" + "x" * 200_000 + "\n"))[0].text) == 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,body\na,x\n", r"want a header with a column 'text'; got \['id', 'body'\]"),
        ("", "want a header with a column 'text'; got \\[\\]"),
        ('text\nx\n"a" b\n', "line 3 is not CSV"),
        ('text\n"never closed\n', "line 2 is not CSV"),
        ("id,text\na\n", "row 1: want 2 cells as in the header; got 1"),
        ("id,text\na,x\nb\n", "row 2: want"),
        ("text,\nx,y\n", "want a name for each column; column 2 has none"),
        (",id,text\n0,a,x\n", r"column 1 has none: leave it out, as pandas does with to_csv\(index=False\)"),
        ("id,text\r1,x\r", "line 1 is not CSV: new-line character"),
        ('id,"text\n1,x\n', "line 1 is not CSV: unexpected end of data"),
        (b"text\n\xff\n", "line 2 is not UTF-8 text: invalid start byte"),
    ],
)
def test_a_bad_csv_is_refused_with_file_and_row(write, content, message):
    path = write("a.csv", content)
    with pytest.raises(InvalidDocumentError, match=message) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))


def test_a_quote_too_many_costs_its_own_line_and_no_other(write):
    content = 'id,text,lang\n1,one,en\n2,"he said "stop" loudly",en\n3,three,en\n4,"unterminated,en\n5,five,en\n'
    path = write("a.csv", content + '6,"six\nand more",en\n7,seven,en\n8,"never closed,en\n9,nine,en\n')
    told: list[str] = []
    found = list(read_documents(path, on_bad=lambda error: told.append(str(error))))
    assert [document.id for document in found] == ["1", "3", "5", "6", "7", "9"]
    assert found[3].text == "six\nand more"
    assert [error.removeprefix(f"{path}, ").split(":")[0] for error in told] == [f"line {n} is not CSV" for n in (3, 5, 10)]


def test_a_csv_of_quotes_that_never_end_is_not_read_for_ever(write, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE", 100_000)
    path, told = write("a.csv", "id,text\n" + 'a","\n' * 50_000), []
    assert list(read_documents(path, on_bad=told.append)) == []
    assert 1 <= len(told) <= 2, "the lines after the first are read again, and not those after each of them"


# text files and folders


@pytest.mark.parametrize("name", ["note.txt", "note.md", "NOTE.MD"])
def test_a_text_file_is_one_document_named_by_its_path(write, name):
    path = write(name, f"\ufeff# {CHINESE}\n\nmore\n")
    assert read(path) == [Document(path.as_posix(), f"# {CHINESE}\n\nmore\n", {"source": path.as_posix()})]


def test_a_text_file_in_another_encoding_is_refused_by_name(write):
    path = write("note.txt", CHINESE.encode("utf-16"))
    with pytest.raises(InvalidDocumentError, match="is not UTF-8 text") as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_a_folder_with_a_corpus_is_that_corpus(write, tmp_path):
    write("corpus.jsonl", lines({"_id": "a", "text": "x"}))
    write("queries.jsonl", lines({"_id": "q", "text": "not a document"}))
    write("readme.md", "nor this")
    assert [document.id for document in read(tmp_path)] == ["a"]


def test_a_folder_gives_every_file_it_knows_in_order(write, tmp_path):
    write("z.txt", "last")
    write("b/deep/note.md", "second")
    write("a.csv", "text\nfirst\n")
    write("image.png", b"\x89PNG")
    write("no_suffix", "x")
    assert [document.text for document in read(tmp_path)] == ["first", "second", "last"]


def test_a_folder_without_documents_is_refused(tmp_path):
    with pytest.raises(InvalidDocumentError, match=r"holds no \.jsonl, \.csv, \.txt, \.md files"):
        read(tmp_path)


@pytest.mark.parametrize(("name", "got"), [("a.pdf", "'.pdf'"), ("notes", "'none'"), ("a.jsonl.gz", "'.gz'")])
def test_a_file_of_another_kind_is_refused_with_the_kinds_there_are(write, name, got):
    with pytest.raises(InvalidDocumentError, match=rf"\.jsonl, \.csv, \.txt, \.md; got {got}"):
        read(write(name, "x"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_a_missing_file_is_refused_by_name(tmp_path, name):
    with pytest.raises(InvalidDocumentError, match=rf"cannot read .*{name}: No such file"):
        read(tmp_path / name)


# golden questions


def test_golden_questions_are_read_with_ids_from_their_place_where_they_have_none(write):
    path = write(
        "golden.jsonl",
        "\ufeff"
        + lines({"question": CHINESE, "relevant": ["a", 7]})
        + "\n"
        + lines(
            {"id": "x", "question": "b?", "relevant": ["b"]},
            {"question": "c?", "relevant": ["c"]},
            {"id": 9, "question": "d?", "relevant": [1]},
        ),
    )
    assert (
        read_golden(path)
        == read_golden(str(path))
        == [
            GoldenQuestion("1", CHINESE, ("a", "7")),
            GoldenQuestion("x", "b?", ("b",)),
            GoldenQuestion("3", "c?", ("c",)),
            GoldenQuestion("9", "d?", ("1",)),
        ]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "a?"}', r"want 'question' \(a str\) and 'relevant'"),
        ('{"question": "a?", "relevant": []}', "want 'question'"),
        ('{"question": "a?", "relevant": "b"}', "want 'question'"),
        ('{"question": 5, "relevant": ["b"]}', "want 'question'"),
        ('{"question": "a?", "relevant": ["b", null]}', "want an id, and those in 'relevant', as strings; got None"),
        ('{"question": "a?", "relevant": [true]}', "as strings; got True"),
        ('{"question": "a?", "relevant": [{"id": "b"}]}', "as strings; got {'id': 'b'}"),
        ('{"id": 1.5, "question": "a?", "relevant": ["b"]}', "as strings; got 1.5"),
        ('{"relevant": ["b"]}', r"got \['relevant'\]"),
        ("[]", "want a JSON object; got list"),
        ("{", "is not JSON"),
    ],
)
def test_a_bad_golden_question_is_refused_with_file_and_number(write, line, message):
    path = write("golden.jsonl", lines({"question": "a?", "relevant": ["a"]}) + line + "\n")
    with pytest.raises(InvalidDocumentError, match=message) as raised:
        read_golden(path)
    assert str(raised.value).startswith(f"{path}, line 2")


def test_a_missing_or_unreadable_golden_file_is_refused_by_name(write, tmp_path):
    with pytest.raises(InvalidDocumentError, match="cannot read"):
        read_golden(tmp_path / "golden.jsonl")
    with pytest.raises(InvalidDocumentError, match="is not UTF-8 text"):
        read_golden(write("golden.jsonl", b"\xff"))
