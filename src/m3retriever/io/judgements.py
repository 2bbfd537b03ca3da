"""Reading questions and what answers them, and runs, in the field's formats; every error names file and line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, shown
from m3retriever.io.rows import json_lines, json_object, rows_of, text_lines, with_types
from m3retriever.io.writing import replace_text

RUN_COLUMNS = 6  # query, Q0, document, rank, score, tag
MOST_BYTES = 1 << 30  # of a file that is held whole: a thousand answers to each of MS MARCO's 7,000 questions take 0.4 GB
GOLDEN_BYTES = 64 << 20  # of questions that people judged: a million of them
RELEVANT = 2  # the grade that says relevant where there are grades, as 1 says partly and 0 no
HIGHEST = 1_000  # of a grade


class GoldenQuestion(NamedTuple):
    """A question with the ids (or the texts) of the documents that answer it.

    `grades` says of documents by id how well they do, 0 for those that do not. A relevant one without a grade has 1, or
    beside others that have grades 2: where there are grades, 1 says that a document answers in part.
    """

    id: str
    question: str
    relevant: tuple[str, ...]
    grades: Mapping[str, int] = {}  # never changed

    @property
    def judged(self) -> dict[str, int]:
        """{id or text: grade}, of all that was judged."""
        return {**dict.fromkeys(self.relevant, RELEVANT if self.grades else 1), **self.grades}


def read_golden(path: str | Path) -> list[GoldenQuestion]:
    """Questions with their relevant ids or texts: JSONL of `{"id", "question", "relevant": [...]}`; ids may be left out.

    `"grades": {id: grade}` may say more, and stand for "relevant"; a grade is a whole number from 0, which is not relevant.
    """
    questions: list[GoldenQuestion] = []
    for place, row in rows_of(json_lines, _bounded(path, GOLDEN_BYTES)):
        row = json_object(place, row)
        question, relevant, grades = row.get("question"), row.get("relevant", []), row.get("grades", {})
        if not isinstance(question, str) or not isinstance(relevant, list) or not (relevant or grades):
            got = (
                "an empty 'relevant'"
                if relevant == [] and isinstance(question, str) and "relevant" in row
                else shown(sorted(row))
            )
            raise InvalidDocumentError(
                f"{place}: want 'question' (a str) and 'relevant' (a list of at least one id), or 'grades'; got {got}"
            )
        if wrong := [one for one in (row.get("id", ""), *relevant) if not isinstance(one, str | int) or isinstance(one, bool)]:
            raise InvalidDocumentError(f"{place}: want an id, and those in 'relevant', as strings; got {shown(wrong[0])}")
        id = str(row.get("id", len(questions) + 1))
        answers = tuple(_clean(str(one)) for one in relevant)
        questions.append(GoldenQuestion(id, _clean(question), answers, _grades(place, grades)))
    return questions


def write_golden(questions: Iterable[GoldenQuestion], path: str | Path) -> None:
    """Write what `read_golden` reads; the file is replaced in one step, so a reader never sees half of it."""
    replace_text(path, golden_text(questions))


def golden_text(questions: Iterable[GoldenQuestion]) -> str:
    """Questions as `read_golden` reads them."""
    lines = []
    for one in questions:
        row: dict[str, Any] = {"id": one.id, "question": one.question, "relevant": list(one.relevant)}
        row |= {"grades": dict(one.grades)} if one.grades else {}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def _grades(place: str, grades: Any) -> dict[str, int]:
    if not isinstance(grades, Mapping) or any(type(one) is not int or not 0 <= one <= HIGHEST for one in grades.values()):
        raise InvalidDocumentError(
            f"{place}: want 'grades' as an object of ids with whole numbers from 0 to {HIGHEST}; got {str(grades)[:200]}"
        )
    return {_clean(str(id)): grade for id, grade in grades.items()}


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON can write and nothing can show."""
    return text.encode("utf-8", "replace").decode()


def read_queries(path: str | Path) -> dict[str, str]:
    """{query id: text}, of BEIR's queries.jsonl (`_id` or `id`, and `text`) or lines of `id<TAB>text`."""
    path = _bounded(path)
    queries: dict[str, str] = {}
    for place, id, text in _json_queries(path) if path.suffix.lower() == ".jsonl" else _tab_queries(path):
        if id in queries:
            raise InvalidDocumentError(f"{place}: the query id {shown(id)} comes a second time")
        queries[id] = text
    return queries


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """{query id: {document id: grade}}, of BEIR's qrels or TREC's.

    BEIR: query, document, grade, and a header. TREC: query, 0, document, grade.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, (place, cells) in enumerate(_cells(path)):
        if len(cells) not in (3, 4):
            raise InvalidDocumentError(
                f"{place}: want query, document, grade (BEIR) or query, 0, document, grade (TREC); got {len(cells)} columns"
            )
        try:
            grade = int(cells[-1])
        except ValueError:
            if number == 0 and not _is_number(cells[-1]):  # a header
                continue
            raise InvalidDocumentError(f"{place}: want a whole number as grade; got {shown(cells[-1])}") from None
        qrels.setdefault(cells[0], {})[cells[-2]] = grade
    return qrels


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """{query id: {document id: score}}, of a TREC run: query, Q0, document, rank, score, tag.

    The scores decide, as in trec_eval, not the ranks.
    """
    run: dict[str, dict[str, float]] = {}
    for place, cells in _cells(path):
        try:
            query, _, document, _, score, _ = cells
            value = float(score)
        except ValueError:
            raise InvalidDocumentError(
                f"{place}: want {RUN_COLUMNS} columns, the fifth a number (query, Q0, document, rank, score, tag); "
                f"got {shown(cells)}"
            ) from None
        if not math.isfinite(value):
            raise InvalidDocumentError(f"{place}: want a finite score; got {shown(score)}")
        run.setdefault(query, {})[document] = value
    return run


def write_run(run: Mapping[str, Mapping[str, float]], path: str | Path, *, tag: str = "m3retriever") -> None:
    """Write a TREC run in one step; see `run_text`."""
    replace_text(path, run_text(run, tag=tag))


def run_text(run: Mapping[str, Mapping[str, float]], *, tag: str = "m3retriever") -> str:
    """A TREC run, best first, ties by id; columns are parted by tabs, so that ids may hold spaces.

    InvalidArgumentError for an id that holds a tab or a line break.
    """
    lines = []
    for query, scored in run.items():
        ranking = sorted(scored, key=lambda id: (-scored[id], id))
        for rank, document in enumerate(ranking, start=1):
            cells = (query, "Q0", document, str(rank), repr(float(scored[document])), tag)
            if any(character in cell for cell in cells for character in "\t\r\n"):
                raise InvalidArgumentError(
                    f"a run holds ids without tabs and line breaks; got {shown(query)}, {shown(document)}"
                )
            lines.append("\t".join(cells) + "\n")
    return "".join(lines)


def _bounded(path: str | Path, most: int = MOST_BYTES) -> Path:
    """The path of a file that is to be held whole; InvalidDocumentError for one that is larger than any such file is."""
    path = Path(path)
    size = path.stat().st_size if path.is_file() else 0  # what is no file, or not there, is told where it is read
    if size > most:
        raise InvalidDocumentError(f"{path}: want at most {most} bytes; got {size}: keep only the questions you need")
    return path


def _json_queries(path: Path) -> Iterator[tuple[str, str, str]]:
    for place, row in rows_of(json_lines, path):
        row = json_object(place, row)
        id, text = row.get("_id", row.get("id")), row.get("text")
        if not isinstance(id, str | int) or isinstance(id, bool) or not isinstance(text, str):
            raise InvalidDocumentError(f"{place}: want '_id' or 'id', and 'text', as strings; got {with_types(row)}")
        yield place, str(id), text


def _tab_queries(path: Path) -> Iterator[tuple[str, str, str]]:
    for place, line in rows_of(text_lines, path):
        id, tab, text = line.partition("\t")
        if not tab or not id:
            raise InvalidDocumentError(f"{place}: want id, a tab and the query's text; got {line[:80]!r}")
        yield place, id, text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cells(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Lines as cells: parted by tabs where there are any, else by spaces."""
    for place, line in rows_of(text_lines, _bounded(path)):
        yield place, line.split("\t") if "\t" in line else line.split()
