"""Chroma's SQLite database as SQLite itself sees it: is it there, is it whole, and what can be made anew of it.

SQLite has no checksums, but keeps much twice, in tables and in their indexes.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import UUID

from m3retriever.errors import DamagedIndexError, StoreError
from m3retriever.stores import hnsw_files
from m3retriever.stores.hnsw_files import links_lead_nowhere
from m3retriever.stores.inside import check_inside

DATABASE = "chroma.sqlite3"  # in Chroma's folder
PAYLOAD_FOLDER = "m3"  # inside Chroma's folder
DEFAULT_COLLECTION = "m3retriever"
FULL_TEXT = "embedding_fulltext_search"
MENDS = "to mend it"
MOST_PROBLEMS = 5  # told of
CHECKED_BYTES = 64_000_000  # of a file that is looked through whenever it is opened: 18 ms for a database of 13 MB
OF_FULL_TEXT = "malformed inverted index for FTS5 table"  # newer SQLite looks at this too
OF_AN_INDEX = re.compile(rf"row \d+ missing from index |wrong # of entries in index |{OF_FULL_TEXT}")


def collections_in(path: str | Path) -> list[str]:
    """Names of the Chroma collections in a folder; none where it holds no Chroma. Changes nothing but what a
    killed writer left half done."""
    check_inside(path)
    file = Path(path) / DATABASE
    if not file.is_file():
        return []
    mode = "rw" if Path(f"{file}-journal").is_file() else "ro"  # what a killed writer began must be rolled back first
    try:
        with _connected(path, mode) as connected:
            return [name for (name,) in connected.execute("select name from collections")]
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {file}: {error}; is it a Chroma database?") from error


def payload_folder(path: str | Path, collection: str) -> Path:
    """Where a collection's payload lies in Chroma's folder."""
    return Path(path).resolve() / PAYLOAD_FOLDER / collection


def how_to_mend(payload: Path) -> str:
    """What to do about a payload in this folder that is damaged."""
    if payload.parent.name != PAYLOAD_FOLDER:  # a server's: in the user's cache
        return f"{MENDS}: call repair() of its ChromaStore"
    name = "" if payload.name == DEFAULT_COLLECTION else f" --collection {payload.name}"
    return f"{MENDS}: m3retriever repair --path {shlex.quote(str(payload.parents[1]))}{name}"


def problem_of(path: str | Path) -> str | None:
    """What SQLite finds wrong with the database in a folder, in its words; None where nothing is.

    Raises
    ------
    StoreError
        It cannot be looked at now: another process is writing, or it may not be read.
    """
    check_inside(path)
    try:
        with _connected(path, "rw") as connected:
            return _problem(connected)
    except sqlite3.OperationalError as error:
        raise StoreError(f"cannot look through {Path(path) / DATABASE}: {error}; do it again") from error
    except sqlite3.Error as error:
        return str(error)


def check_not_lost(folder: Path) -> None:
    """Chroma would take the place of a database that is empty or gone as a new one, and all vectors would be dropped."""
    file = folder / DATABASE
    held = [path for path in (folder / PAYLOAD_FOLDER).glob("*/data.mdb") if path.stat().st_size]
    if held and not (file.is_file() and file.stat().st_size):
        raise DamagedIndexError(
            f"{file} is {'empty' if file.exists() else 'gone'}, and there are vectors of its documents in "
            f"{folder / PAYLOAD_FOLDER}: restore it from a copy, or remove {folder / PAYLOAD_FOLDER} to begin anew",
            problem="chroma",
        )


def vector_folder(path: str | Path, collection: str) -> Path | None:
    """Where Chroma keeps a collection's vector index; None where that cannot be told."""
    asked = (
        "select segments.id from segments join collections on collections.id = segments.collection "
        "where segments.scope = 'VECTOR' and collections.name = ?"
    )
    try:
        with _connected(path, "ro") as connected:
            [(segment,)] = connected.execute(asked, [collection])
        return Path(path) / str(UUID(segment))  # a name that cannot lead elsewhere
    except (sqlite3.Error, ValueError, TypeError, AttributeError):
        return None


def check_links(path: Path, collection: str, *, however_large: bool = False) -> None:
    """DamagedIndexError where hnswlib would follow links of a vector index into nowhere, which ends the process.

    A large one is looked at only where that is asked for.
    """
    folder = vector_folder(path, collection)
    if folder is not None and (however_large or hnsw_files.size(folder) <= CHECKED_BYTES) and links_lead_nowhere(folder):
        raise DamagedIndexError(
            f"the links of Chroma's vector index in {folder} lead nowhere; {how_to_mend(payload_folder(path, collection))}",
            problem="vector index",
        )


def drop_vector_index(path: str | Path, collection: str) -> None:
    """Remove the files of a vector index; the caller holds the right to write, and has closed Chroma."""
    folder = vector_folder(path, collection)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def check_whole(folder: Path) -> None:
    """DamagedIndexError where a small database is damaged; a large one is not looked at."""
    file = folder / DATABASE
    if not file.is_file() or file.stat().st_size > CHECKED_BYTES:
        return
    problem = None
    with suppress(StoreError):  # another process is in the middle of a write
        problem = problem_of(folder)
    if problem is not None:
        raise DamagedIndexError(
            f"Chroma's database {file} is damaged: {problem}; restore the folder from a copy, or "
            f"{how_to_mend(folder / PAYLOAD_FOLDER / DEFAULT_COLLECTION)}",
            problem="chroma",
        )


def make_indexes_anew(path: str | Path) -> None:
    """Where only SQLite's own indexes do not fit their tables, make them anew of those; a copy of the database as it was stays
    beside it.

    What the tables hold is left to be compared. The caller holds the right to write, and has closed Chroma.

    Raises
    ------
    DamagedIndexError
        More than indexes is damaged: the database stays as it is.
    """
    file = Path(path) / DATABASE
    copy = file.with_name(f"{DATABASE}-damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        with _connected(path, "rw") as connected:
            found = _problem(connected)
            if found is None:
                return
            if not all(OF_AN_INDEX.match(line) for line in found.split("; ")):
                raise DamagedIndexError(_beyond(file, found), problem="chroma")
            shutil.copy2(file, copy)
            connected.execute("begin immediate")
            connected.execute("reindex")
            if OF_FULL_TEXT in found:
                connected.execute(f"insert into {FULL_TEXT}({FULL_TEXT}) values ('rebuild')")
            if (left := _problem(connected)) is not None:
                connected.execute("rollback")
                raise DamagedIndexError(_beyond(file, left), problem="chroma")
            connected.execute("commit")
    except sqlite3.Error as error:
        raise DamagedIndexError(_beyond(file, str(error)), problem="chroma") from error


def full_text_fits(path: str | Path) -> bool:
    """Whether the index of Chroma's full-text search fits its texts; True where this SQLite cannot tell."""
    return _asked_of_full_text(path, "integrity-check")


def make_full_text_anew(path: str | Path) -> None:
    """Make that index anew of its texts."""
    _asked_of_full_text(path, "rebuild")


def _asked_of_full_text(path: str | Path, command: str) -> bool:
    try:
        with _connected(path, "rw") as connected:
            connected.execute("begin immediate")
            connected.execute(f"insert into {FULL_TEXT}({FULL_TEXT}) values (?)", [command])
            connected.execute("commit")
    except sqlite3.OperationalError:  # without this table, or without its tokenizer
        return True
    except sqlite3.DatabaseError:
        return False
    return True


def _problem(connected: sqlite3.Connection) -> str | None:
    found = [line for (line,) in connected.execute(f"pragma integrity_check({MOST_PROBLEMS})")]
    return None if found == ["ok"] else "; ".join(found)


def _beyond(file: Path, problem: str) -> str:
    return (
        f"Chroma's database {file} is damaged beyond its indexes: {problem}; restore the folder from a copy, it stays as it is"
    )


@contextmanager
def _connected(path: str | Path, mode: str) -> Iterator[sqlite3.Connection]:
    file = (Path(path) / DATABASE).resolve()
    with closing(sqlite3.connect(f"{file.as_uri()}?mode={mode}", uri=True, isolation_level=None)) as connected:
        yield connected
