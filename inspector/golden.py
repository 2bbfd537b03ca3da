"""Questions with known answers: which sets there are, what they say of this index, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from m3retriever import M3RetrieverError, ModeScores
from m3retriever.evaluation import Qrels, answerable, judged_by
from m3retriever.inspector import jobs, markup, retrieval, state
from m3retriever.io import GoldenQuestion, read_golden

if TYPE_CHECKING:
    from m3retriever.inspector.context import Page

UPLOAD_MB = 10
UPLOADED = "upload:"  # begins the names of sets that were uploaded: a file in the folder may have the same

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Judged:
    """A golden set as an index sees it.

    Attributes
    ----------
    name : what the picker calls it
    queries : {question id: text}
    qrels : {question id: {document id: grade}}, of documents that the index has
    lost : (question id, answer) of those that it has not
    questions : as they were read
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels
    lost: tuple[tuple[str, str], ...] = ()
    questions: tuple[GoldenQuestion, ...] = ()

    @property
    def answerable(self) -> dict[str, str]:
        """{question id: text} of those with a relevant document."""
        return {id: self.queries[id] for id in answerable(self.qrels)}

    @cached_property
    def digest(self) -> int:
        """Of what it says: sets that say the same have the same."""
        return hash((tuple(self.queries.items()), tuple((id, tuple(judged.items())) for id, judged in self.qrels.items())))


@dataclass(frozen=True)
class GoldenSet:
    """Questions under a name; hashed by what they say."""

    name: str
    questions: tuple[GoldenQuestion, ...] = field(compare=False)
    digest: int = 0

    @classmethod
    def of(cls, name: str, questions: Sequence[GoldenQuestion]) -> GoldenSet:
        """With the digest of the questions."""
        return cls(name, tuple(questions), hash(tuple((one.id, one.question, tuple(one.judged.items())) for one in questions)))


def sets_in(folder: Path) -> list[str]:
    """Names of the files in a folder that may hold golden sets, ascending."""
    return sorted(path.name for path in folder.glob("golden*.jsonl") if path.is_file())


def load(path: Path) -> GoldenSet:
    """The set in a file, read again when it changes; an InvalidDocumentError names the line that is wrong."""
    try:
        stat = path.stat()
    except OSError:
        return GoldenSet.of(path.name, read_golden(path))
    return _load(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


@st.cache_resource(show_spinner=False, max_entries=20)
def _load(path: Path, stamp: tuple[int, int, int]) -> GoldenSet:
    return GoldenSet.of(path.name, read_golden(path))


def judged(page: Page, chosen: GoldenSet) -> Judged | None:
    """What a set says of the index as it is; None while its answers are looked up, which the page then shows."""

    def work(step: jobs.Step) -> Judged:
        lost: list[tuple[str, str]] = []
        queries, qrels = judged_by(page.index, chosen.questions, on_missing=lambda *one: lost.append(one))
        return Judged(chosen.name, queries, qrels, tuple(lost), chosen.questions)

    key = "judged", chosen.name, chosen.digest, retrieval.state_of(page.index, page.source)
    return jobs.run(page.t("golden.looking", n=len(chosen.questions)), key, work, total=0, t=page.t)


def scores(
    page: Page, found: Judged, *, depth: int | None = None, queries: Mapping[str, str] | None = None
) -> dict[str, ModeScores] | None:
    """Raw scores of the answerable questions, or of others; None while they are being computed, which the page then shows.

    `depth` is how many candidates dense and sparse search each bring in; by default as many as the index's profile says.
    """
    queries, depth = found.answerable if queries is None else queries, depth or page.index.profile.depth
    lacking = retrieval.missing(page.index, page.source, list(queries.values()), depth=depth)

    def work(step: jobs.Step) -> dict[str, ModeScores]:
        return retrieval.scores_of(page.index, page.source, queries, depth=depth, on_step=step)

    if not lacking:
        return work(lambda done: None)
    key = "scores", retrieval.state_of(page.index, page.source), depth, tuple(queries.items())
    return jobs.run(page.t("golden.scoring", n=len(lacking)), key, work, total=len(lacking), t=page.t)


# -- the picker ------------------------------------------------------------------------------------


def choose(page: Page) -> Judged | None:
    """Let a set be chosen or uploaded; None, with what to do on the page, where there is none or it is broken."""
    left, right = st.columns([3, 1], gap="small", vertical_alignment="bottom")
    with right, st.popover(page.t("golden.upload"), icon=":material/upload:", width="stretch"):
        _upload(page)
    uploaded = state.uploads("golden")
    names = [*sets_in(page.source.folder), *(UPLOADED + name for name in uploaded)]
    with left:
        name = st.selectbox(
            page.t("golden.set"),
            names,
            key=state.GOLDEN,
            bind="query-params",
            format_func=lambda one: one.removeprefix(UPLOADED),
            disabled=not names,
        )
    if name is None:
        markup.show(markup.notice("info", page.t("golden.none"), page.t("golden.how", path=page.project.golden_path)))
        return None
    try:
        chosen = uploaded.get(name.removeprefix(UPLOADED)) if name.startswith(UPLOADED) else None
        found = judged(page, chosen or load(page.source.folder / name))
    except M3RetrieverError as error:
        markup.show(markup.notice("error", page.t("golden.broken"), str(error)))
        return None
    if found is None:
        return None
    if found.lost:
        example = ", ".join(answer[:60] for _, answer in found.lost[:3])
        markup.show(markup.notice("warning", page.t("golden.lost", n=len(found.lost)), example))
    if not found.answerable:
        markup.show(markup.notice("info", page.t("golden.unanswerable"), page.t("golden.how", path=page.project.golden_path)))
        return None
    return found


def _upload(page: Page) -> None:
    file = st.file_uploader(
        page.t("golden.file"), type="jsonl", max_upload_size=UPLOAD_MB, key="upload_golden", label_visibility="collapsed"
    )
    markup.show(markup.note(page.t("golden.form"), name="form"))
    if file is None or state.seen_upload("golden", file.file_id):
        return
    try:
        state.keep_upload("golden", file.name, GoldenSet.of(file.name, parsed(file.name, file.getvalue(), read_golden)))
    except M3RetrieverError as error:
        markup.show(markup.notice("error", page.t("golden.broken"), str(error)))
        return
    state.mark_upload("golden", file.file_id)
    st.session_state[state.GOLDEN] = UPLOADED + file.name  # the picker is drawn after this


def parsed(name: str, content: bytes, read: Callable[[Path], Result]) -> Result:
    """What a reader of files makes of an upload, whose name stands in its errors."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content)
        try:
            return read(path)
        except M3RetrieverError as error:
            raise type(error)(str(error).replace(str(path), name)) from None
