"""Files as rows, each with the place it stands at, which every error names."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from m3retriever.errors import InvalidDocumentError

MAX_LINE = 64 << 20  # characters: a longer line is no document but a file of another kind
csv.field_size_limit(MAX_LINE)

Reader: TypeAlias = Callable[[Path], Iterator[tuple[str, Any]]]
RESERVED = {"_id", "id", "text", "title"}  # columns that are not metadata


def rows_of(reader: Reader, path: Path) -> Iterator[tuple[str, Any]]:
    """What a reader yields: (place, row); InvalidDocumentError where the file cannot be read."""
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


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Every line that is not blank, to be read by `json_object`."""
    for number, line in _lines(path):
        if isinstance(line, InvalidDocumentError) or line.strip():
            yield f"{path}, line {number}", line


def text_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Every line that is not blank, without its end; of a line that is no UTF-8 its error is raised."""
    for number, line in _lines(path):
        if isinstance(line, InvalidDocumentError):
            raise line
        if line.strip():
            yield f"{path}, line {number}", line.rstrip("\r\n")


def csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """A row a line after the header, as an object; a row that is none as its error."""
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


def whole_text(path: Path) -> Iterator[tuple[str, Any]]:
    """The whole file as one row."""
    place = path.as_posix()
    lines = [line for _, line in _lines(path)]
    for line in lines:
        if isinstance(line, InvalidDocumentError):
            raise line
    yield place, {"id": place, "text": "".join(map(str, lines)), "metadata": {"source": place}}


def json_object(place: str, row: Any) -> Mapping[str, Any]:
    """A row as a JSON object; InvalidDocumentError where it is none."""
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
