"""Reading documents and questions from files; every error names the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
        A file or line that is no document, by name and number; with `on_bad`, that is called instead
        and reading goes on.
    """
    path = Path(path)
    if path.is_dir():
        corpus = path / "corpus.jsonl"
        inside = (
            [corpus] if corpus.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in READERS)
        )
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


def _documents(reader: Callable[[Path], Iterable[tuple[str, Any]]], path: Path) -> Iterator[Document | InvalidDocumentError]:
    """A file's documents, and in the place of each that is none its error; an error of the file ends it."""
    try:
        for place, row in _rows(reader, path):
            try:
                document = _document(place, row)
            except InvalidDocumentError as error:
                yield error
            else:
                yield document
    except InvalidDocumentError as error:
        yield error


def _rows(reader: Callable[[Path], Iterable[tuple[str, Any]]], path: Path) -> Iterator[tuple[str, Any]]:
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise InvalidDocumentError(f"{path}, line {_undecodable_line(path)} is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise InvalidDocumentError(f"cannot read {path}: {error.strerror}") from error


def _undecodable_line(path: Path) -> int:
    """The decoder's own position is of no use: it counts from the block it was reading."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}, line {number}", line


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            if "text" not in (reader.fieldnames or []):
                raise InvalidDocumentError(f"{path}: want a header with a column 'text'; got {reader.fieldnames}")
            for number, row in enumerate(reader, start=1):
                extra = {key: value for key, value in row.items() if key not in RESERVED and isinstance(key, str)}
                row_id = row.get("_id") or row.get("id") or f"{path.as_posix()}:{number}"
                yield (
                    f"{path}, row {number}",
                    {"id": row_id, "text": row["text"], "title": row.get("title"), "metadata": extra},
                )
        except csv.Error as error:
            raise InvalidDocumentError(f"{path}, line {reader.reader.line_num} is not CSV: {error}") from error


def _text(path: Path) -> Iterator[tuple[str, Any]]:
    yield (
        str(path),
        {"id": path.as_posix(), "text": path.read_text(encoding="utf-8-sig"), "metadata": {"source": path.as_posix()}},
    )


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".txt": _text,
    ".md": _text,
}
RESERVED = {"_id", "id", "text", "title"}


def _object(place: str, row: Any) -> Mapping[str, Any]:
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
