"""Chroma's own tables, read without Chroma: what its interface does not tell, or tells slowly.

They are only read, as they were in Chroma 1.5. Where they are not like that, or Chroma's log holds what they do
not show yet, every function says that it does not know: None.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

AT_ONCE = 500  # parameters of a statement: every SQLite takes 999

Result = TypeVar("Result")


@dataclass(frozen=True)
class Tables:
    """One collection of a Chroma folder, by the id that Chroma gave it."""

    database: Path
    collection: str

    def count(self) -> int | None:
        """How many documents there are: Chroma's `count` took half a second for 100,000, and this 8 ms."""

        def counted(connected: sqlite3.Connection, segment: str) -> int:
            [(count,)] = connected.execute("select count(*) from embeddings where segment_id = ?", [segment])
            return int(count)

        return self._asked(counted)

    def position(self) -> int | None:
        """The number of the last change, whoever made it; it grows with every one."""
        return self._asked(lambda connected, segment: _applied(connected, segment))

    def changed_since(self, position: int) -> int | None:
        """How many of the documents there are were changed, by anyone, since a `position`."""

        def changed(connected: sqlite3.Connection, segment: str) -> int:
            numbers = connected.execute("select seq_id from embeddings where segment_id = ?", [segment])
            return sum(_number(number) > position for (number,) in numbers)

        return self._asked(changed)

    def untouched_since(self, position: int, ids: Sequence[str]) -> set[str] | None:
        """Those of the documents that are there and that nobody has changed through Chroma since a `position`."""

        def untouched(connected: sqlite3.Connection, segment: str) -> set[str]:
            found: set[str] = set()
            for page in _pages(ids):
                statement = (
                    f"select embedding_id, seq_id from embeddings where segment_id = ? and embedding_id in ({_marks(page)})"
                )
                found |= {id for id, number in connected.execute(statement, [segment, *page]) if _number(number) <= position}
            return found

        return self._asked(untouched)

    def copies(self, ids: Sequence[str]) -> dict[str, str] | None:
        """The texts of documents as Chroma's full-text search keeps them: a second copy."""

        def copied(connected: sqlite3.Connection, segment: str) -> dict[str, str]:
            found: dict[str, str] = {}
            for page in _pages(ids):
                found |= connected.execute(
                    "select embedding_id, c0 from embeddings join embedding_fulltext_search_content on "
                    "embedding_fulltext_search_content.id = embeddings.id "
                    f"where segment_id = ? and embedding_id in ({_marks(page)})",
                    [segment, *page],
                )
            return found

        return self._asked(copied)

    def vector_segment(self) -> tuple[str, bool] | None:
        """The name of the vector index's folder, and whether Chroma has written the index there."""
        try:
            with self._connected() as connected:
                [(segment,)] = connected.execute(
                    "select id from segments where scope = 'VECTOR' and collection = ?", [self.collection]
                )
                written = connected.execute("select 1 from max_seq_id where segment_id = ?", [segment]).fetchone()
            return str(UUID(segment)), written is not None  # a name that cannot lead elsewhere
        except (sqlite3.Error, ValueError, TypeError, AttributeError):
            return None

    def _asked(self, ask: Callable[[sqlite3.Connection, str], Result]) -> Result | None:
        try:
            with self._connected() as connected:
                [(segment,)] = connected.execute(
                    "select id from segments where scope = 'METADATA' and collection = ?", [self.collection]
                )
                waiting = connected.execute(
                    "select 1 from embeddings_queue where topic like ? and seq_id > ? limit 1",
                    [f"%{self.collection}", _applied(connected, segment)],
                ).fetchone()
                return None if waiting else ask(connected, segment)
        except (sqlite3.Error, ValueError, TypeError, UnicodeError):
            return None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(f"{self.database.resolve().as_uri()}?mode=ro", uri=True)) as connected:
            yield connected


def _applied(connected: sqlite3.Connection, segment: str) -> int:
    [(applied,)] = connected.execute("select max(seq_id) from max_seq_id where segment_id = ?", [segment])
    return -1 if applied is None else _number(applied)


def _number(value: Any) -> int:
    """A number of a change: an integer, big-endian bytes in databases of earlier versions."""
    return int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)


def _pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))


def _marks(page: Sequence[str]) -> str:
    return ",".join("?" * len(page))
