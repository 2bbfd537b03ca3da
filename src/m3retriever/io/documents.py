"""Reading documents from files; every error names the file and the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3retriever.checks import check_documents
from m3retriever.errors import InvalidDocumentError
from m3retriever.io.rows import Reader, csv_rows, json_lines, json_object, rows_of, whole_text, with_types
from m3retriever.types import Document


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
    for _, document in placed_documents(path, on_bad=on_bad):
        yield document


def placed_documents(
    path: str | Path, *, on_bad: Callable[[InvalidDocumentError], None] | None = None
) -> Iterator[tuple[str, Document]]:
    """`read_documents`, each with the place it stands at, such as "a.jsonl, line 3"."""
    path = Path(path)
    if path.is_dir():
        corpus = path / "corpus.jsonl"
        files = (file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in READERS)
        inside = [corpus] if corpus.is_file() else sorted(files)
        if not inside:
            raise InvalidDocumentError(f"{path} holds no {', '.join(READERS)} files")
        for one in inside:
            yield from placed_documents(one, on_bad=on_bad)
        return
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidDocumentError(
            f"{path}: want a folder or a file of kind {', '.join(READERS)}; got {path.suffix or 'none'!r}"
        )
    for place, found in _documents(reader, path):
        if isinstance(found, Document):
            yield place, found
        elif on_bad is None:
            raise found
        else:
            on_bad(found)


def _documents(reader: Reader, path: Path) -> Iterator[tuple[str, Document | InvalidDocumentError]]:
    """The places and documents of a file; for a document that is none its error."""
    try:
        for place, row in rows_of(reader, path):
            try:
                document = _document(place, row)
            except InvalidDocumentError as error:
                yield place, error
            else:
                yield place, document
    except InvalidDocumentError as error:  # of the file as a whole
        yield str(path), error


READERS: dict[str, Reader] = {".jsonl": json_lines, ".csv": csv_rows, ".txt": whole_text, ".md": whole_text}


def _document(place: str, row: Any) -> Document:
    row = json_object(place, row)
    id, text, title = row.get("_id", row.get("id")), row.get("text"), row.get("title")
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str) or not isinstance(text, str):
        raise InvalidDocumentError(f"{place}: want '_id' or 'id', and 'text', as strings; got {with_types(row)}")
    metadata = {} if row.get("metadata") is None else row["metadata"]
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
