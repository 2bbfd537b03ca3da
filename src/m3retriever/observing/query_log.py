"""What was asked and what was answered, as a JSON object a line. Off unless an index is given such a log.

A line is written whole, by one call that appends, so that threads and processes may share a file; no file stays open
between lines. What cannot be logged is counted and said once: a search never fails because of its log.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from errno import EFBIG, ENOSPC
from hashlib import blake2b
from math import inf
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from m3retriever.checks import as_path
from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.observing.counters import count
from m3retriever.passages import DocumentHit, owner_of
from m3retriever.types import MODES, Hit, Where

if TYPE_CHECKING:
    from m3retriever.ranking import Ranking

logger = logging.getLogger(__name__)

Redact: TypeAlias = Literal["none", "hash"] | Callable[[str], str]

MAX_BYTES = 64 << 20  # of a file, before it becomes the older one
MAX_LINE = 16 << 20  # bytes: more is not written, and not read
LOGGED_HITS = 1_000  # of one answer: as deep as TREC's runs go
LOGGED_CHARACTERS = 8_192  # of a query: enough to tell which it was
OLDER = ".1"
HASHED = "blake2b:"  # before a query that was hashed
DIGEST = 16  # bytes
INFINITE = (inf, -inf)  # thresholds such as "p>=0.9" may stand for: where no score is as probable, or every one
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
OWNER_ONLY = 0o600

Row: TypeAlias = tuple[str, str, float, Mapping[Any, float]]  # id, document, score, scores by mode


class QueryLog:
    """A file that each answer of an index is appended to.

    Parameters
    ----------
    path
        A file in a folder that exists. It is made readable for its owner only; one that is there keeps its rights.
    redact
        "none" keeps queries as they are. "hash" keeps BLAKE2 digests of them, so that equal queries are still
        equal. A function is given each query and what it returns is kept. What goes for a query goes for the
        values in a `where`; its keys stay, and so do the ids of the documents found.
    key
        Goes into the digests. Without one, whoever reads the file can check a guess at a query.
    max_bytes
        A file that would grow beyond it is renamed to end in ".1", over the one before it, and a new one begun.

    Raises
    ------
    InvalidArgumentError
        There is no such folder, or a setting has no meaning.
    """

    def __init__(self, path: str | Path, *, redact: Redact = "none", key: str = "", max_bytes: int = MAX_BYTES) -> None:
        if not (callable(redact) or redact in ("none", "hash")):
            raise InvalidArgumentError(f'redact is "none", "hash" or a function of a str; got {shown(redact)}')
        if not isinstance(key, str):
            raise InvalidArgumentError(f"key is a str; got {type(key).__name__}: write key.decode(), for instance")
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int | np.integer) or max_bytes < 1:
            raise InvalidArgumentError(f"max_bytes must be a whole number >= 1; got {shown(max_bytes)}")
        wanted = "a query log is a file in a folder that exists"
        self.path, self._max_bytes = as_path(path, wanted).absolute(), int(max_bytes)  # wherever the process goes
        if not self.path.name or self.path.is_dir() or not self.path.parent.is_dir():
            raise InvalidArgumentError(f"{wanted}; got {shown(str(path))}")
        self._redact, self._key = redact, key
        self._failing, self._rotating = False, Lock()

    def redacted(self, text: str) -> str:
        """A query as it stands in the file."""
        text = clean(text)
        if callable(self._redact):
            redacted = self._redact(text)
            if not isinstance(redacted, str):
                raise InvalidArgumentError(f"redact must give a str; got {type(redacted).__name__}")
            return clean(redacted)
        return hashed(text, self._key) if self._redact == "hash" else text

    def record(self, index: Any, query: str, hits: Sequence[Hit | DocumentHit], **about: Any) -> None:
        """Append what an M3Index answered; `about` is what else the line says. Never raises."""
        try:
            time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            about["where"] = self._redacted_where(about.get("where"))
            line = {"time": time, "query": self.redacted(query), **about, **made_of(index), **answer_of(hits)}
            self._append(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._failing = False
        except Exception as error:  # noqa: BLE001  # a search is worth more than its log
            self._failed(error)

    def _redacted_where(self, where: Any) -> Any:
        if isinstance(where, Mapping):
            return {key: self._redacted_where(value) for key, value in where.items()}
        if isinstance(where, list | tuple):
            return [self._redacted_where(value) for value in where]
        return where if where is None or self._redact == "none" else self.redacted(str(where))

    def _append(self, line: bytes) -> None:
        if len(line) > MAX_LINE:
            raise OSError(EFBIG, f"a line of {len(line)} bytes, of at most {MAX_LINE}")
        if not append(self.path, line, within=self._max_bytes):
            self._rotate(len(line))
            append(self.path, line)

    def _rotate(self, coming: int) -> None:
        """Make the file the older one, unless another thread or process is doing so or has just done so."""
        import filelock

        if not self._rotating.acquire(blocking=False):
            return
        try:
            with filelock.FileLock(f"{self.path}.lock", timeout=0, mode=OWNER_ONLY):
                if self.path.stat().st_size + coming > self._max_bytes:
                    self.path.replace(f"{self.path}{OLDER}")
        except (filelock.Timeout, FileNotFoundError):
            return
        finally:
            self._rotating.release()

    def _failed(self, error: Exception) -> None:
        count("query_log_failures")
        first, self._failing = not self._failing, True
        if first:  # of an error that is not the system's only the kind: its words may be the query's
            reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
            logger.warning("queries are not being logged in %s: %s; searching goes on", self.path, reason)


def as_query_log(given: QueryLog | str | Path | None) -> QueryLog | None:
    """A log as it is, a path as a log with the defaults."""
    return given if given is None or isinstance(given, QueryLog) else QueryLog(given)


def hashed(text: str, key: str = "") -> str:
    """A text's digest: equal texts have the same, and it holds no word of them."""
    short = blake2b(key.encode("utf-8", "replace")).digest() if key else b""  # BLAKE2's own keys have 64 bytes at most
    return HASHED + blake2b(clean(text).encode(), key=short, digest_size=DIGEST).hexdigest()


def clean(query: str) -> str:
    """A query as an index encodes it, without lone surrogates, and no longer than a log keeps it."""
    return query[:LOGGED_CHARACTERS].encode("utf-8", "replace").decode()


def made_of(index: Any) -> dict[str, Any]:
    """The encoder of an M3Index, and the state of its store where that has one."""
    revision, precision = getattr(index.store, "revision", None), getattr(index.encoder, "precision", None)
    return {"model": index.encoder.name, "precision": precision, "revision": None if revision is None else revision()}


def settings_of(ranking: Ranking, depth: int, where: Where | None) -> dict[str, Any]:
    """How a search ranked, and among what."""
    threshold = ranking.threshold
    return {
        "mode": ranking.mode,
        "depth": int(depth),
        "weights": list(map(float, ranking.weights)),
        "fusion": ranking.fusion,
        "threshold": str(threshold) if threshold in INFINITE else threshold,  # JSON has no infinite numbers
        "where": where,
    }


def answer_of(hits: Sequence[Hit | DocumentHit]) -> dict[str, Any]:
    """Ids, the documents that they are passages of where they are, and scores, in the order of the answer."""
    rows = [_row(hit) for hit in hits[:LOGGED_HITS]]
    ids, documents = [row[0] for row in rows], [row[1] for row in rows]
    by_mode = {mode: [row[3][mode] for row in rows] for mode in MODES if rows and mode in rows[0][3]}
    owned = {} if documents == ids else {"documents": documents}
    return {"ids": ids, **owned, "scores": [row[2] for row in rows], "by_mode": by_mode}


def _row(hit: Hit | DocumentHit) -> Row:
    if isinstance(hit, DocumentHit):
        return hit.id, hit.id, hit.score, hit.best.scores
    return hit.document.id, owner_of(hit.document), hit.score, hit.scores


def append(path: Path, line: bytes, *, within: int | None = None) -> bool:
    """Append a line in one write, unless the file would then be larger than it may be; whether it was done.

    A part of a line that is at the end, left by a full disk or a crash, stays a line of its own.
    """
    file = os.open(path, FLAGS, OWNER_ONLY)
    try:
        held = os.fstat(file).st_size
        if held:
            if within is not None and held + len(line) > within:
                return False
            os.lseek(file, -1, os.SEEK_END)
            line = line if os.read(file, 1) == b"\n" else b"\n" + line
        if os.write(file, line) < len(line):
            raise OSError(ENOSPC, "there was room for a part of a line only")
    finally:
        os.close(file)
    return True
