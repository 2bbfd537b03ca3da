"""A log of queries read back, and as a run: what was answered, to be measured like any ranking."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from m3retriever.checks import as_path
from m3retriever.errors import InvalidDocumentError
from m3retriever.observing.query_log import HASHED, INFINITE, MAX_LINE, clean, hashed
from m3retriever.types import Mode, Where


@dataclass(frozen=True, eq=False)
class LoggedQuery:
    """One line: what was asked, how, and what was answered.

    Attributes
    ----------
    time : when the answer was given, with its time zone
    query : as it was logged, redacted or not; "" where a vector was asked
    method : the method of M3Index, such as "search"
    k, mode, depth, weights, fusion, threshold, where : how it was asked, what the profile said included
    model, precision, revision : of the encoder and the index; None where they have none
    ids, scores : the answer, best first
    by_mode : {mode: raw scores}, in the order of `ids`
    documents : the ids of the documents that `ids` are passages of, or are
    milliseconds : that the call took; of `together` queries, where they were asked in one call
    """

    time: datetime
    query: str
    method: str
    k: int
    mode: str
    depth: int
    weights: tuple[float, ...]
    fusion: str
    threshold: float | None
    where: Where | None
    model: str
    precision: str | None
    revision: int | None
    ids: tuple[str, ...]
    scores: tuple[float, ...]
    by_mode: Mapping[Mode, tuple[float, ...]]
    documents: tuple[str, ...]
    milliseconds: float
    together: int = 1

    @property
    def answer(self) -> dict[str, float]:
        """{document id: score}, in the order of the answer; of a document in passages its best one.

        Where scores do not follow the order, as those of diverse hits, the places count instead: 0, -1, -2, ...
        """
        falling = all(one >= two for one, two in zip(self.scores, self.scores[1:], strict=False))
        scores = self.scores if falling else [-float(place) for place in range(len(self.ids))]
        answer: dict[str, float] = {}
        for document, score in zip(self.documents, scores, strict=True):
            answer.setdefault(document, score)
        return answer


def read_query_log(path: str | Path, *, on_bad: Callable[[InvalidDocumentError], None] | None = None) -> list[LoggedQuery]:
    """The lines of a query log, oldest first.

    Raises
    ------
    InvalidDocumentError
        A line that is none, by its number; with `on_bad` that is called instead, and the line left out.
    """
    logged = []
    for number, line in _lines(as_path(path, "a query log is a file")):
        try:
            logged.append(_logged(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)[:200]
            bad = InvalidDocumentError(f"{path}, line {number} is not of a query log: {what}")
            if on_bad is None:
                raise bad from error
            on_bad(bad)
    return logged


def run_of_log(
    logged: Sequence[LoggedQuery], questions: Mapping[str, str], *, mode: str | None = None, key: str = ""
) -> dict[str, dict[str, float]]:
    """{question id: answer} for the questions, {id: text}, that were asked: a run (`evaluation.Run`).

    Of several answers to a question the last counts, of a mode only where one is given; its filter, threshold and k may
    have been others than those of the rest. Hashed queries are found by
    the digest, for which `key` must be the log's; queries that a function has redacted, by what it left.
    """
    answers = {one.query: one for one in logged if one.query and mode in (None, one.mode)}
    found = {}
    for id, text in questions.items():
        answer = answers.get(clean(text)) or answers.get(hashed(text, key))
        if answer is not None:
            found[id] = answer.answer
    return found


def is_hashed(logged: Sequence[LoggedQuery]) -> bool:
    """Whether a log keeps digests in the place of queries."""
    return any(one.query.startswith(HASHED) for one in logged)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers; of one that is too long no more than shows that it is."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                rest = line
                while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(MAX_LINE + 1)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InvalidDocumentError(f"cannot read {path}: {error.strerror}") from error


def _logged(line: bytes) -> LoggedQuery:
    """A line as what it says; ValueError, KeyError or another error for what says something else."""
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} bytes")
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"want a JSON object; got {type(row).__name__}")
    ids, scores = _texts(row, "ids"), _numbers(row["scores"], "scores")
    by_mode = {str(mode): _numbers(given, "by_mode") for mode, given in row["by_mode"].items()}
    documents = _texts(row, "documents") if "documents" in row else ids
    if any(len(one) != len(ids) for one in (scores, documents, *by_mode.values())):
        raise ValueError(f"want as many scores and documents as ids, {len(ids)}")
    time = datetime.fromisoformat(_text(row, "time"))
    if time.tzinfo is None:
        raise ValueError("want a time with its time zone")
    return LoggedQuery(
        time=time,
        query=_text(row, "query"),
        method=_text(row, "method"),
        k=_whole(row, "k"),
        mode=_text(row, "mode"),
        depth=_whole(row, "depth"),
        weights=_numbers(row["weights"], "weights"),
        fusion=_text(row, "fusion"),
        threshold=_threshold(row.get("threshold")),
        where=_optional(row, "where", dict),
        model=_text(row, "model"),
        precision=_optional(row, "precision", str),
        revision=_optional(row, "revision", int),
        ids=ids,
        scores=scores,
        by_mode=by_mode,  # type: ignore[arg-type]  # whatever the modes were called when it was written
        documents=documents,
        milliseconds=_numbers([row["milliseconds"]], "milliseconds")[0],
        together=_whole(row, "together"),
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(value := row[name], str):
        raise ValueError(f"want {name!r} as a text; got {type(value).__name__}")
    return value


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    if not isinstance(given := row[name], list) or not all(isinstance(one, str) for one in given):
        raise ValueError(f"want {name!r} as a list of texts")
    return tuple(given)


def _whole(row: Mapping[str, Any], name: str) -> int:
    if type(value := row[name]) is not int or value < 1:
        raise ValueError(f"want {name!r} as a whole number from 1")
    return value


def _numbers(given: Any, name: str) -> tuple[float, ...]:
    if not isinstance(given, list) or any(isinstance(one, bool) or not isinstance(one, int | float) for one in given):
        raise ValueError(f"want {name!r} as numbers")
    numbers = tuple(map(float, given))
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"want {name!r} as finite numbers")
    return numbers


def _threshold(given: Any) -> float | None:
    if given is None:
        return None
    return float(given) if given in map(str, INFINITE) else _numbers([given], "threshold")[0]


def _optional(row: Mapping[str, Any], name: str, kind: type) -> Any:
    value = row.get(name)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise ValueError(f"want {name!r} as {kind.__name__} or null; got {type(value).__name__}")
    return value
