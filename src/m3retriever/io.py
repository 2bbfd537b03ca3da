"""Reading documents and questions from files; every error names the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from m3retriever.checks import check_documents
from m3retriever.errors import InvalidDocumentError
from m3retriever.types import Document

MAX_LINE = 64 << 20  # characters: a longer line is no document but a file of another kind
csv.field_size_limit(MAX_LINE)


class GoldenQuestion(NamedTuple):
    """A question with the ids of the documents that answer it."""

    id: str
    question: str
    relevant: tuple[str, ...]


def read_documents(path: str | Path, *, on_bad: Callable[[InvalidDocumentError], None] | None = None) -> Iterator[Document]:
    """The documents in a file or folder, one at a time.

    JSONL: an object a line with `_id` or `id`, `text`, and if wanted `title` and `metadata` (BEIR's
    corpus.jsonl). CSV: a header with `text` and if wanted `id` and `title`; other columns are metadata.
    `.txt`, `.md`: the whole file is one document, its id the path. A folder: its corpus.jsonl, or every
    file of these kinds in it. A title is put before the text and kept in the metadata.

    Raises
    ------
    InvalidDocumentError
        A line or file that is no document, by name and number; with `on_bad`, that is called instead and
        reading goes on with the next.
    """
    path = Path(path)
    if path.is_dir():
        corpus = path / "corpus.jsonl"
        files = (file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in READERS)
        inside = [corpus] if corpus.is_file() else sorted(files)
        if not inside:
            raise InvalidDocumentError(f"{path} holds no {', '.join(READERS)} files")
        for one in inside:
            yield from read_documents(one, on_bad=on_bad)
        return
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidDocumentError(
            f"{path}: want a folder or a file of kind {', '.join(READERS)}; got {path.suffix or 'none'!r}"
        )
    for found in _documents(reader, path):
        if isinstance(found, Document):
            yield found
        elif on_bad is None:
            raise found
        else:
            on_bad(found)


def read_golden(path: str | Path) -> list[GoldenQuestion]:
    """Questions with their relevant ids: JSONL of `{"id", "question", "relevant": [ids]}`; ids may be left out."""
    questions: list[GoldenQuestion] = []
    for place, row in _rows(_jsonl, Path(path)):
        row = _object(place, row)
        question, relevant = row.get("question"), row.get("relevant")
        if not isinstance(question, str) or not isinstance(relevant, list) or not relevant:
            raise InvalidDocumentError(f"{place}: want 'question' (a str) and 'relevant' (a list of ids); got {sorted(row)}")
        id = str(row.get("id", len(questions) + 1))
        questions.append(GoldenQuestion(id, question, tuple(str(one) for one in relevant)))
    return questions


def _documents(reader: Reader, path: Path) -> Iterator[Document | InvalidDocumentError]:
    """A file's documents, and in the place of each that is none its error."""
    try:
        for place, row in _rows(reader, path):
            try:
                document = _document(place, row)
            except InvalidDocumentError as error:
                yield error
            else:
                yield document
    except InvalidDocumentError as error:  # of the file as a whole
        yield error


def _rows(reader: Reader, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        yield from reader(path)
    except OSError as error:
        raise InvalidDocumentError(f"cannot read {path}: {error.strerror}") from error


def _lines(path: Path) -> Iterator[tuple[int, str | InvalidDocumentError]]:
    """Lines with their numbers, decoded one by one, so that a broken one costs no other."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield number, InvalidDocumentError(f"{path}, line {number} is not UTF-8 text: {error.reason}")


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in _lines(path):
        if isinstance(line, InvalidDocumentError) or line.strip():
            yield f"{path}, line {number}", line


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    broken: list[InvalidDocumentError] = []

    def decoded() -> Iterator[str]:
        for _, line in _lines(path):
            if isinstance(line, str):
                yield line
            else:
                broken.append(line)

    rows = csv.reader(decoded(), strict=True)
    header = next(rows, [])
    if "text" not in header:
        raise InvalidDocumentError(f"{path}: want a header with a column 'text'; got {header}")
    number = 0
    while True:
        number += 1
        try:
            cells = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            yield f"{path}, row {number}", InvalidDocumentError(f"{path}, line {rows.line_num} is not CSV: {error}")
            continue
        if cells:
            yield f"{path}, row {number}", _csv_row(f"{path}, row {number}", header, cells, f"{path.as_posix()}:{number}")
    yield from ((str(error), error) for error in broken)


def _csv_row(place: str, header: list[str], cells: list[str], id: str) -> Mapping[str, Any] | InvalidDocumentError:
    if len(cells) != len(header):
        return InvalidDocumentError(f"{place}: want {len(header)} cells as in the header; got {len(cells)}")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    extra = {key: value for key, value in row.items() if key not in RESERVED}
    return {"id": row.get("_id") or row.get("id") or id, "text": row["text"], "title": row.get("title"), "metadata": extra}


def _text(path: Path) -> Iterator[tuple[str, Any]]:
    place = path.as_posix()
    lines = [line for _, line in _lines(path)]
    for line in lines:
        if isinstance(line, InvalidDocumentError):
            raise line
    yield place, {"id": place, "text": "".join(map(str, lines)), "metadata": {"source": place}}


Reader: TypeAlias = Callable[[Path], Iterator[tuple[str, Any]]]
READERS: dict[str, Reader] = {".jsonl": _jsonl, ".csv": _csv, ".txt": _text, ".md": _text}
RESERVED = {"_id", "id", "text", "title"}


def _object(place: str, row: Any) -> Mapping[str, Any]:
    if isinstance(row, InvalidDocumentError):
        raise row
    if isinstance(row, str):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise InvalidDocumentError(f"{place} is not JSON: {error}") from error
    if not isinstance(row, Mapping):
        raise InvalidDocumentError(f"{place}: want a JSON object; got {type(row).__name__}")
    return row


def _document(place: str, row: Any) -> Document:
    row = _object(place, row)
    id, text, title = row.get("_id", row.get("id")), row.get("text"), row.get("title")
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str) or not isinstance(text, str):
        raise InvalidDocumentError(f"{place}: want '_id' or 'id', and 'text', as strings; got the keys {sorted(map(str, row))}")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise InvalidDocumentError(f"{place}: metadata must be an object; got {type(metadata).__name__}")
    if isinstance(title, str) and title:
        text, metadata = f"{title}\n{text}", {"title": title, **metadata}
    document = Document(id, text, {key: value for key, value in metadata.items() if value is not None})
    try:
        check_documents([document])
    except InvalidDocumentError as error:
        raise InvalidDocumentError(f"{place}: {error}") from error
    return document
