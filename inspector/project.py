"""What is kept in the index's folder beside the index: judgements, earlier queries, saved runs, the profile.

    golden.jsonl     questions with judged documents, as the command line's --golden reads them
    history.jsonl    queries that were asked on the page Search, newest last
    runs/NAME.run    saved runs in TREC's form
    profile.toml     what every search reads

Of another collection than m3retriever's own the names end with the collection's: `golden-notes.jsonl`, `runs-notes`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import filelock

from m3retriever import InvalidArgumentError, M3RetrieverError, Profile, StoreError, save_profile
from m3retriever.evaluation import Run
from m3retriever.inspector.source import Source
from m3retriever.io import GoldenQuestion, read_golden, read_run, replace_text, run_text
from m3retriever.stores.inside import inside

HISTORY_KEPT = 200
HISTORY_BYTES = 4 << 20  # of the file's end: older queries than those are forgotten
RUN_NAME = re.compile(r"\w[\w .+-]{0,79}")
GRADES = {"relevant": 2, "partly": 1, "no": 0}
LOCK = ".inspector.lock"
WAIT = 5.0  # seconds for another process that is writing

Result = TypeVar("Result")


class ReadOnlyError(M3RetrieverError, PermissionError):
    """The inspector was started with --read-only, and something was to be written."""


@dataclass(frozen=True)
class Project:
    """The files of one collection's project; every write is whole or not at all, and refused when read-only."""

    folder: Path
    collection: str | None = None
    profile: Path | str | None = None
    read_only: bool = False
    beside_server: bool = False  # the folder is no index's own: it is made with the first file

    @classmethod
    def of(cls, source: Source) -> Project:
        """The project in an index's folder; for a server's in the user's, which is made with the first file."""
        return cls(source.folder, source.collection, source.profile, source.read_only, not source.place.is_folder)

    # -- judgements ----------------------------------------------------------------------------------

    @property
    def golden_path(self) -> Path:
        """The file of judgements."""
        return self.folder / f"golden{self._suffix}.jsonl"

    def golden(self) -> list[GoldenQuestion]:
        """The judged questions; none where nothing was judged. InvalidDocumentError for a file that is broken."""
        return read_golden(inside(self.folder, self.golden_path)) if self.golden_path.is_file() else []

    def judge(self, question: str, id: str, grade: int | None) -> None:
        """Keep a grade, or take it back with None; every other line, and what else a line holds, stays as it is."""

        def change() -> None:
            questions = self.golden()
            lines = self._golden_lines()
            held = next((one for one in questions if asks(one, question)), None)
            judged = _judged(held or GoldenQuestion(_name_of(question, questions), question, ()), id, grade)
            if held is None:
                lines.append(_line({"id": judged.id, "question": question}, judged))
            else:
                at = questions.index(held)
                lines[at] = _line(json.loads(lines[at]), judged)
            replace_text(self.golden_path, "".join(f"{line}\n" for line in lines if line))

        self._write(self.golden_path, change)

    def _golden_lines(self) -> list[str]:
        """The lines of the file of judgements, one for each question."""
        if not self.golden_path.is_file():
            return []
        lines = self.golden_path.read_bytes().decode("utf-8-sig").split("\n")
        return [line.rstrip("\r") for line in lines if line.strip()]

    # -- earlier queries -----------------------------------------------------------------------------

    @property
    def _history_path(self) -> Path:
        return self.folder / f"history{self._suffix}.jsonl"

    def history(self) -> list[str]:
        """Earlier queries, newest first; a broken line is passed over."""
        try:
            with inside(self.folder, self._history_path).open("rb") as file:
                file.seek(max(0, self._history_path.stat().st_size - HISTORY_BYTES))
                lines = file.read(HISTORY_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        return list(dict.fromkeys(query for line in reversed(lines) if (query := _query_of(line)) is not None))

    def remember(self, query: str) -> None:
        """Put a query in front."""

        def change() -> None:
            queries = [query, *(other for other in self.history() if other != query)][:HISTORY_KEPT]
            lines = (json.dumps({"query": one}, ensure_ascii=False) + "\n" for one in reversed(queries))
            replace_text(self._history_path, "".join(lines))

        self._write(self._history_path, change)

    def forget(self) -> None:
        """Clear the earlier queries."""
        self._write(self._history_path, lambda: self._history_path.unlink(missing_ok=True))

    # -- saved runs ----------------------------------------------------------------------------------

    @property
    def _runs_folder(self) -> Path:
        return self.folder / f"runs{self._suffix}"

    def runs(self) -> list[str]:
        """Names of the saved runs, ascending."""
        return sorted(path.stem for path in self._runs_folder.glob("*.run") if RUN_NAME.fullmatch(path.stem))

    def run(self, name: str) -> Run:
        """A saved run."""
        return read_run(inside(self.folder, self.run_path(name)))

    def save_run(self, name: str, run: Run) -> Path:
        """Keep a run under a name; one that is taken is replaced."""
        path, text = self.run_path(name), run_text(run, tag=re.sub(r"\s+", "-", name))

        def change() -> None:
            self._runs_folder.mkdir(exist_ok=True)
            replace_text(path, text)

        self._write(path, change)
        return path

    def run_path(self, name: str) -> Path:
        """The file of a saved run; InvalidArgumentError for a name that none can have."""
        if not RUN_NAME.fullmatch(name) or name.endswith((".", " ")):
            raise InvalidArgumentError(
                f"a run's name is at most 80 letters, digits, blanks and .+-, the first a letter or a digit; got {name!r}"
            )
        return self._runs_folder / f"{name}.run"

    # -- the profile ---------------------------------------------------------------------------------

    @property
    def profile_path(self) -> Path:
        """The file that `save_profile` writes: the one that was given, else the folder's own."""
        return self.folder / "profile.toml" if self.profile is None or self.on_preset else Path(self.profile)

    @property
    def on_preset(self) -> bool:
        """Whether the index was opened with a preset, so that a profile in a file would not be read."""
        return isinstance(self.profile, str)

    def save_profile(self, profile: Profile) -> Path:
        """Write the profile that every search reads."""
        self._write(self.profile_path, lambda: save_profile(profile, self.profile_path))
        return self.profile_path

    # -- steps ---------------------------------------------------------------------------------------

    @property
    def _suffix(self) -> str:
        return "" if self.collection is None else f"-{self.collection}"

    def _write(self, path: Path, change: Callable[[], Result]) -> Result:
        """Change a file while no other process changes it."""
        if self.read_only:
            raise ReadOnlyError(f"the inspector runs with --read-only: {path.name} is not written")
        if self.beside_server:
            self.folder.mkdir(parents=True, exist_ok=True)
        if not self.folder.is_dir():
            raise StoreError(f"the folder {self.folder} is gone")
        own = path if path != self.profile else self.folder  # a profile that the user named may lie anywhere
        for one in (own, self.folder / LOCK):
            inside(self.folder, one)
        try:
            with filelock.FileLock(self.folder / LOCK, timeout=WAIT):
                return change()
        except filelock.Timeout as error:
            raise StoreError(f"{path} is being written to by another process; try again") from error
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error


def asks(golden: GoldenQuestion, question: str) -> bool:
    """Whether a golden question is the one that was asked: blanks around it do not count."""
    return golden.question.strip() == question.strip()


def _line(row: dict[str, object], judged: GoldenQuestion) -> str:
    """A line of the golden file with new judgements; empty where none is left."""
    if not judged.judged:
        return ""
    row = {**row, "relevant": list(judged.relevant), "grades": dict(judged.grades)}
    return json.dumps(row if judged.grades else {key: row[key] for key in row if key != "grades"}, ensure_ascii=False)


def _judged(question: GoldenQuestion, id: str, grade: int | None) -> GoldenQuestion:
    """The question with one document's grade, or without it."""
    grades = {other: held for other, held in question.grades.items() if other != id}
    relevant = tuple(other for other in question.relevant if other != id)
    if grade is not None:
        grades[id] = grade
        relevant += (id,) if grade else ()
    return question._replace(relevant=relevant, grades=grades)


def _name_of(question: str, others: Sequence[GoldenQuestion]) -> str:
    """An id for a new question: short, the same in every file, and of no other question here."""
    digest, taken = hashlib.sha256(question.encode("utf-8", "replace")).hexdigest(), {one.id for one in others}
    return next(name for length in range(8, 65) if (name := f"q-{digest[:length]}") not in taken)


def _query_of(line: str) -> str | None:
    try:
        query = json.loads(line)["query"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return query if isinstance(query, str) and query.strip() else None
