"""Files as rows, each with the place it stands at, which every error names."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from m3retriever.errors import InvalidDocumentError, shown

MAX_LINE = 64 << 20  # bytes: a longer line is no document but a file of another kind; so is a longer text file
TOO_LONG = "\ud800\n"  # stands in a CSV for a line that is
csv.field_size_limit(MAX_LINE)

Reader: TypeAlias = Callable[[Path], Iterator[tuple[str, Any]]]
RESERVED = {"_id", "id", "text", "title"}  # columns that are not metadata


def rows_of(reader: Reader, path: Path) -> Iterator[tuple[str, Any]]:
    """What a reader yields: (place, row); InvalidDocumentError where the file cannot be read."""
    try:
        yield from reader(path)
    except OSError as error:
        raise InvalidDocumentError(f"cannot read {path}: {error.strerror}") from error


def _lines(path: Path, *, errors: str = "strict") -> Iterator[tuple[int, str | InvalidDocumentError]]:
    """Lines with their numbers, decoded one by one, so that a broken one costs no other.

    No more than MAX_LINE bytes of one are ever held. `errors` is `bytes.decode`'s.
    """
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE + 1)
            if not line:
                return
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)
                yield number, InvalidDocumentError(f"{path}, line {number} is longer than {MAX_LINE} bytes")
                continue
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", errors)
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
    """A row a line after the header, as an object; a row that is none, or is no UTF-8 text, as its error."""
    rows = csv.reader(_csv_lines(path), strict=True)
    header = next(rows, [])
    if "text" not in header:
        raise InvalidDocumentError(f"{path}: want a header with a column 'text'; got {shown(header)}")
    if len(set(header)) != len(header):
        raise InvalidDocumentError(f"{path}: want a header without a name twice; got {shown(header)}")
    for number in itertools.count(1):
        place = f"{path}, row {number}"
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, InvalidDocumentError(f"{path}, line {rows.line_num} is not CSV: {error}")
            continue
        if broken := _what_is_no_text(cells):
            yield place, InvalidDocumentError(f"{path}, line {rows.line_num} {broken}")
        elif cells:
            yield place, _csv_row(place, header, cells, f"{path.as_posix()}:{number}")


def _csv_lines(path: Path) -> Iterator[str]:
    """Lines in which bytes that are no UTF-8 are lone surrogates: their row is refused, and no other."""
    for _, line in _lines(path, errors="surrogateescape"):
        yield line if isinstance(line, str) else TOO_LONG


def _what_is_no_text(cells: Sequence[str]) -> str:
    """Why a row is no text, in words; empty where it is."""
    try:
        for cell in cells:
            cell.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text: {error.reason}"
    except UnicodeEncodeError:
        return f"is longer than {MAX_LINE} bytes"
    return ""


def _csv_row(place: str, header: list[str], cells: list[str], id: str) -> Mapping[str, Any] | InvalidDocumentError:
    if len(cells) != len(header):
        return InvalidDocumentError(f"{place}: want {len(header)} cells as in the header; got {len(cells)}")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    extra = {key: value for key, value in row.items() if key not in RESERVED}
    return {"id": row.get("_id") or row.get("id") or id, "text": row["text"], "title": row.get("title"), "metadata": extra}


def whole_text(path: Path) -> Iterator[tuple[str, Any]]:
    """The whole file as one row."""
    place = path.as_posix()
    if (size := path.stat().st_size) > MAX_LINE:
        raise InvalidDocumentError(f"{path} has {size} bytes; a text file is one document, of at most {MAX_LINE}")
    lines = [line for _, line in _lines(path)]
    for line in lines:
        if isinstance(line, InvalidDocumentError):
            raise line
    yield place, {"id": place, "text": "".join(map(str, lines)), "metadata": {"source": place}}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key comes twice, for one of the two values would be lost without a word."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} comes more than once")
    return found


def json_object(place: str, row: Any) -> Mapping[str, Any]:
    """A row as a JSON object; InvalidDocumentError where it is none."""
    if isinstance(row, InvalidDocumentError):
        raise row
    if isinstance(row, str):
        try:
            row = json.loads(row, object_pairs_hook=_without_doubles)
        except (ValueError, RecursionError) as error:
            raise InvalidDocumentError(f"{place} is not JSON: {shown(str(error))[1:-1]}") from error
    if not isinstance(row, Mapping):
        raise InvalidDocumentError(f"{place}: want a JSON object; got {type(row).__name__}")
    return row
