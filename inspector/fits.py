"""Calibrating and tuning as jobs. What the model is asked for is kept for all weights and wishes; the rest is arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from m3retriever import ModeScores, Profile
from m3retriever.calibrating import Calibrated, Wanted, calibrate
from m3retriever.evaluation import answerable
from m3retriever.fitting import Gathered, calibrated_profile, deep_enough, gather, tune_index, tuned_profile
from m3retriever.inspector import downloads, jobs, retrieval, state
from m3retriever.profile import profile_text
from m3retriever.ranking import SEARCH_MODES, SearchMode
from m3retriever.tuning import Tuning, steps_of

if TYPE_CHECKING:
    from m3retriever.inspector.context import Page
    from m3retriever.inspector.golden import Judged


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was calibrated, by mode, and the profile with it."""

    modes: Mapping[str, Calibrated]
    profile: Profile


def ranking_key(profile: Profile, mode: SearchMode) -> str:
    """What the scores of a mode depend on beside the index: nothing, or for the hybrid weights and fusion."""
    if mode != "hybrid":
        return mode
    return profile_text(Profile(weights=profile.weights, fusion=profile.fusion, parameters=profile.parameters))


def calibration(page: Page, found: Judged | None, wanted: Wanted) -> Calibration | None:
    """`fitting.calibrate_index` for a wish, without labels where nothing is judged; None while it goes on, which is shown.

    Raises
    ------
    M3RetrieverError
        What is wanted cannot be fitted on these questions, or this index.
    """
    key = (
        "calibrate",
        retrieval.state_of(page.index, page.source),
        page.index.profile.depth,
        None if found is None else found.digest,
    )
    gathered, profile = _gathered(page, found, key), page.profile
    if gathered is not None and wanted.what == "recall":
        doublings = math.ceil(math.log2(max(2.0, len(page.index) / profile.depth)))
        deepen, most = partial(_deeper, page, gathered, wanted), doublings * len(gathered.evidence.qrels)
        deeper = jobs.run(page.t("thresholds.deepening"), (*key, wanted), deepen, total=most, t=page.t)
        gathered, profile = (None, profile) if deeper is None else (deeper[1], replace(profile, depth=deeper[0].depth))
    if gathered is None:
        return None
    calibrated: dict[str, Calibrated] = {}
    for name, modes in ((page.t("mode.hybrid"), SEARCH_MODES[:1]), (page.t("thresholds.alone"), SEARCH_MODES[1:])):
        own = (*key, wanted, *(ranking_key(profile, mode) for mode in modes))
        work = partial(_calibrated, gathered, profile, wanted, modes)
        found_by_mode = jobs.run(page.t("thresholds.fitting", what=name), own, work, total=len(modes), t=page.t)
        if found_by_mode is None:
            return None
        calibrated |= found_by_mode
    return Calibration(calibrated, calibrated_profile(page.index, gathered, profile, calibrated, wanted))


def tuning_key(page: Page, found: Judged, fusions: Sequence[str], learners: Sequence[str], measure: str) -> tuple[object, ...]:
    """What `tuning` depends on."""
    state, depth = retrieval.state_of(page.index, page.source), page.index.profile.depth
    return "tune", state, depth, found.digest, tuple(fusions), tuple(learners), measure


def tuning(
    page: Page, found: Judged, scores: Mapping[str, ModeScores], fusions: Sequence[str], learners: Sequence[str], measure: str
) -> tuple[Tuning, Profile] | None:
    """`fitting.tune_index`, and the index's profile as it is now with what was found; None while it goes on, which is shown."""

    def work(step: jobs.Step) -> tuple[Tuning, Profile]:
        judged = answerable(found.qrels)
        settings = {"measure": measure, "learners": learners}
        return tune_index(page.index, found.queries, judged, scores=scores, fusions=fusions, on_step=step, **settings)

    key, total = tuning_key(page, found, fusions, learners, measure), steps_of(fusions, learners)
    done = jobs.run(page.t("tune.running", measure=measure), key, work, total=total, t=page.t)
    if done is None:
        return None
    tuned, fitted = done
    current = replace(page.index.profile, model=fitted.model, precision=fitted.precision)
    return tuned, tuned_profile(current, tuned, documents=len(page.index))


def _gathered(page: Page, found: Judged | None, key: tuple[object, ...]) -> Gathered | None:
    queries, qrels = ({}, {}) if found is None else (found.queries, found.qrels)

    def work(step: jobs.Step) -> Gathered:
        scores = retrieval.scores_of(page.index, page.source, queries, on_step=step)
        return gather(page.index, queries, qrels, scores=scores, on_step=step)

    return jobs.run(page.t("thresholds.gathering"), key, work, total=0, t=page.t)


def _deeper(page: Page, gathered: Gathered, wanted: Wanted, step: jobs.Step) -> tuple[Profile, Gathered]:
    return deep_enough(page.index, gathered, page.profile, wanted, on_step=step)


def _calibrated(
    gathered: Gathered, profile: Profile, wanted: Wanted, modes: Sequence[SearchMode], step: jobs.Step
) -> dict[str, Calibrated]:
    return calibrate(gathered.evidence, profile, wanted, modes=modes, on_step=step)


def save_buttons(page: Page, profile: Profile | None, about: str) -> None:
    """What can be done with a fitted profile; None where there is none to keep. `about` says what goes into it."""
    t, project = page.t, page.project
    why_not = t("fit.read_only") if project.read_only else t("fit.preset") if project.on_preset else None
    st.button(
        t("fit.save"),
        key="save_profile",
        icon=":material/save:",
        on_click=state.attempt,
        args=(state.save_profile, page.project, profile),
        disabled=why_not is not None or profile is None,
        help=why_not or f"{about} {t('fit.file', name=project.profile_path.name)}",
    )
    text = "" if profile is None else profile_text(profile)
    downloads.button(t("fit.download"), text, "profile.toml", key="download_profile", disabled=profile is None)
