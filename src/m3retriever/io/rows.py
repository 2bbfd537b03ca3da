"""Files as rows, each with the place it stands at, which every error names."""

from __future__ import annotations

import csv
import itertools
import json
from collections import deque
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
    lines = _CsvLines(path)
    rows = csv.reader(lines, strict=True)
    header = _csv_header(path, rows)
    for number in itertools.count(1):
        place, first = f"{path}, row {number}", lines.begin_row()
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, InvalidDocumentError(f"{path}, line {first} is not CSV: {error}")
            lines.go_back()
            continue
        if broken := _what_is_no_text(lines.row, first):
            yield place, InvalidDocumentError(f"{path}, {broken}")
        elif cells:
            yield place, _csv_row(place, header, cells, f"{path.as_posix()}:{number}")


class _CsvLines(Iterator[str]):
    """Lines of a CSV file, in which bytes that are no UTF-8 are lone surrogates: their row is refused, and no other.

    A quote too many makes one row of all that follows, up to where another one shows it: `go_back` then gives those
    lines again. Of a whole file no more than MAX_LINE characters are given again, so that no file is read for ever.
    """

    def __init__(self, path: Path) -> None:
        self.row: list[str] = []  # the lines of the row under way
        self._read, self._again = 0, MAX_LINE
        self._waiting: deque[str] = deque()
        self._lines = _lines(path, errors="surrogateescape")

    def __next__(self) -> str:
        if self._waiting:
            line = self._waiting.popleft()
        else:
            _, found = next(self._lines)
            line = found if isinstance(found, str) else TOO_LONG
        self.row.append(line)
        self._read += 1
        return line

    def begin_row(self) -> int:
        """Number of the row's first line, which comes next."""
        self.row = []
        return self._read + 1

    def go_back(self) -> None:
        """Give the lines of the row again, but for its first."""
        swallowed = self.row[1:]
        self._again -= sum(map(len, swallowed))
        if self._again >= 0:
            self._waiting.extendleft(reversed(swallowed))
            self._read -= len(swallowed)


def _csv_header(path: Path, rows: Iterator[list[str]]) -> list[str]:
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise InvalidDocumentError(f"{path}, line 1 is not CSV: {error}") from error
    if "text" not in header:
        raise InvalidDocumentError(f"{path}: want a header with a column 'text'; got {shown(header)}")
    if "" in header:
        raise InvalidDocumentError(
            f"{path}: want a name for each column; column {header.index('') + 1} has none: leave it out, as pandas does with "
            "to_csv(index=False)"
        )
    if len(set(header)) != len(header):
        raise InvalidDocumentError(f"{path}: want a header without a name twice; got {shown(header)}")
    return header


def _what_is_no_text(lines: Sequence[str], first: int) -> str:
    """Which line of a row is no text, and why, in words; empty where all are."""
    for number, line in enumerate(lines, start=first):
        try:
            line.encode("utf-8", "surrogateescape").decode()
        except UnicodeDecodeError as error:
            return f"line {number} is not UTF-8 text: {error.reason}"
        except UnicodeEncodeError:
            return f"line {number} is longer than {MAX_LINE} bytes"
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


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key comes twice, for one of the two values would be lost without a word."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} comes more than once")
    return found


def with_types(row: Mapping[str, Any]) -> str:
    """An object's keys with the types of their values, as a message shows them."""
    return shown({key: type(value).__name__ for key, value in sorted(row.items())})


def json_object(place: str, row: Any) -> Mapping[str, Any]:
    """A row as a JSON object; InvalidDocumentError where it is none."""
    if isinstance(row, InvalidDocumentError):
        raise row
    if isinstance(row, str):
        try:
            row = json.loads(row, object_pairs_hook=without_doubles)
        except (ValueError, RecursionError) as error:
            raise InvalidDocumentError(f"{place} is not JSON: {shown(str(error))[1:-1]}") from error
    if not isinstance(row, Mapping):
        raise InvalidDocumentError(f"{place}: want a JSON object; got {type(row).__name__}")
    return row
