"""What the page Compare can compare: ways to rank, and runs that were kept or uploaded."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from m3retriever import MODES, InvalidArgumentError, M3RetrieverError, Profile
from m3retriever.evaluation import Run
from m3retriever.inspector import golden, jobs, markup, retrieval, state
from m3retriever.inspector.analysis.quality import Quality, RunOf, quality_of, ranked
from m3retriever.inspector.i18n import Translate
from m3retriever.io import read_run
from m3retriever.profile import PRESETS, as_profile, check_profile, load_profile
from m3retriever.ranking import Ranking, SearchMode

if TYPE_CHECKING:
    from m3retriever.inspector.context import Page

SIDEBAR, SAVED, PRESET, MODE, RUN, FILE, UPLOAD = "sidebar", "profile", "preset", "mode", "run", "file", "upload"
PROFILE_SUFFIX = ".toml"
UPLOAD_TYPES = ["run", "txt", "trec", "tsv", "toml"]


@dataclass(frozen=True, eq=False)
class Contender:
    """A way to rank, or where `run` is given a run.

    Attributes
    ----------
    digest : of what it is; two with the same give the same answers
    """

    profile: Profile
    mode: SearchMode = "hybrid"
    run: Run | None = None
    digest: Hashable = None

    @property
    def ranking(self) -> Ranking:
        """How it ranks."""
        return Ranking.of(self.profile, self.mode, None, None)


def names(page: Page) -> list[str]:
    """What there is to choose from: a kind, and of most kinds ":" and a name."""
    files = sorted(path.name for path in page.source.folder.glob(f"*{PROFILE_SUFFIX}") if path.is_file())
    return [
        SIDEBAR,
        SAVED,
        *(f"{MODE}:{mode}" for mode in MODES),
        *(f"{RUN}:{name}" for name in page.project.runs()),
        *(f"{UPLOAD}:{name}" for name in state.uploads(UPLOAD)),
        *(f"{PRESET}:{name}" for name in PRESETS),
        *(f"{FILE}:{name}" for name in files if page.source.folder / name != page.project.profile_path),
    ]


def label(name: str, t: Translate) -> str:
    """How the user's language calls it."""
    kind, _, rest = name.partition(":")
    shown = t(f"mode.{rest}") if kind == MODE else rest
    return f"{t(f'contender.{kind}')} · {shown}" if shown else t(f"contender.{kind}")


def load(page: Page, name: str) -> Contender:
    """What is behind a name; ProfileError for a profile that is broken or of another model."""
    kind, _, rest = name.partition(":")
    if kind == RUN:
        path = page.project.run_path(rest)
        changed = path.stat() if path.is_file() else None
        return _saved_run(path, changed and (changed.st_mtime_ns, changed.st_size))
    if kind == UPLOAD:
        held: Contender = state.uploads(UPLOAD)[rest]
        return held if held.run is not None else _of(page, held.profile)
    own = page.index.profile
    if kind == MODE:
        return _of(page, own, next(mode for mode in MODES if mode == rest))
    given = {SIDEBAR: page.profile, SAVED: own}.get(kind)
    return _of(page, given or (as_profile(rest) if kind == PRESET else load_profile(page.source.folder / rest)))


def described(contender: Contender, t: Translate) -> str:
    """What it is, in a line."""
    if contender.run is not None:
        return t("contender.queries", n=len(contender.run))
    if contender.mode != "hybrid":
        return t("contender.depth", n=contender.profile.depth)
    weights = " · ".join(f"{weight:.2f}" for weight in contender.profile.weights.normalized())
    return t("contender.weights", weights=weights, fusion=contender.profile.fusion, n=contender.profile.depth)


def run_of(page: Page, judged: golden.Judged, contender: Contender) -> RunOf | None:
    """Its answers by question; None while the questions are being scored, which the page then shows."""
    if contender.run is not None:
        run = contender.run
        return lambda query: run.get(query, {})
    scores = golden.scores(page, judged, depth=contender.profile.depth)
    return None if scores is None else ranked(scores, contender.ranking)


def quality(page: Page, judged: golden.Judged, contender: Contender, find: RunOf, measure: str) -> Quality | None:
    """How good it is; None while that is being measured, which the page then shows."""
    key = "quality", retrieval.state_of(page.index, page.source), judged.digest, contender.digest, measure

    def work(step: jobs.Step) -> Quality:
        return quality_of(find, judged.qrels, [measure], on_step=step)

    questions = len(judged.answerable)
    return jobs.run(page.t("contender.measuring", n=questions), key, work, total=questions, t=page.t)


def upload(page: Page) -> None:
    """Let runs and profiles be uploaded."""
    file = st.file_uploader(
        page.t("contender.file"),
        type=UPLOAD_TYPES,
        max_upload_size=golden.UPLOAD_MB,
        key="upload_contender",
        label_visibility="collapsed",
    )
    markup.show(markup.note(page.t("contender.form"), name="form"))
    if file is None or state.seen_upload(UPLOAD, file.file_id):
        return
    try:
        state.keep_upload(UPLOAD, file.name, _read(file.name, file.getvalue()))
    except M3RetrieverError as error:
        markup.show(markup.notice("error", page.t("contender.broken"), str(error)))
        return
    state.mark_upload(UPLOAD, file.file_id)
    st.rerun()


def _read(name: str, content: bytes) -> Contender:
    if name.lower().endswith(PROFILE_SUFFIX):
        return Contender(golden.parsed(name, content, load_profile))
    run = golden.parsed(name, content, read_run)
    if not run:
        raise InvalidArgumentError(f"{name} has no line of a run")
    return Contender(Profile(), run=run, digest=hash(content))


def _of(page: Page, profile: Profile, mode: SearchMode = "hybrid") -> Contender:
    check_profile(profile, page.index.encoder.name, getattr(page.index.encoder, "precision", None))
    contender = Contender(profile, mode)
    return Contender(profile, mode, digest=(repr(contender.ranking), profile.depth))


@st.cache_resource(show_spinner=False, max_entries=8)
def _saved_run(path: Path, changed: tuple[int, int] | None) -> Contender:
    return Contender(Profile(), run=read_run(path), digest=(path, changed))
