"""Thresholds: what a score must reach to count, for what is wanted of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import streamlit as st

from m3retriever import M3RetrieverError, ModeScores, Profile
from m3retriever.calibrating import MIN_QUESTIONS, Calibrated, Wanted
from m3retriever.calibrating.thresholds import Measured, Pairs
from m3retriever.calibration import LEVELS
from m3retriever.inspector import charts, fits, golden, markup, retrieval, state
from m3retriever.inspector.analysis import thresholds as analysis
from m3retriever.inspector.analysis.thresholds import Bar, Sample
from m3retriever.inspector.charts import thresholds as drawn
from m3retriever.inspector.context import Page, current
from m3retriever.inspector.fits import Calibration
from m3retriever.inspector.golden import Judged
from m3retriever.inspector.markup import Tile
from m3retriever.quality_page.markup import score
from m3retriever.ranking import SEARCH_MODES, SearchMode

COLUMNS = [1.85, 1]  # widths of the charts and of what is fitted
KEPT = 8  # modes and weights whose pairs are kept
FINE = 0.001  # step of a mode's own threshold: sparse scores are small
Wish = Literal["f", "precision", "recall", "fpr"]
VALUES: dict[Wish, dict[str, Any]] = {  # by wish: bounds, first value and step of its number
    "f": {"min_value": 0.1, "max_value": 10.0, "value": 1.0, "step": 0.5, "format": "%.2f"},
    "precision": {"min_value": 0.01, "max_value": 1.0, "value": 0.9, "step": 0.05, "format": "%.2f"},
    "recall": {"min_value": 0.01, "max_value": 1.0, "value": 0.9, "step": 0.05, "format": "%.2f"},
    "fpr": {"min_value": 0.0, "max_value": 1.0, "value": 0.01, "step": 0.005, "format": "%.3f"},
}
WISHES = list(VALUES)


def draw() -> None:
    """Draw the page."""
    page = current()
    if not len(page.index):
        markup.show(markup.notice("info", page.t("search.no_documents")))
        return
    found = golden.choose(page)
    if found is None:
        _unlabelled(page)
    else:
        _labelled(page, found)


def _labelled(page: Page, found: Judged) -> None:
    """All widgets come before what may have to wait: one that is not drawn would lose its URL parameter."""
    top = st.columns(COLUMNS, gap="medium", vertical_alignment="bottom")
    with top[0]:
        mode = _mode(page)
    with top[1]:
        cut = _cut(page, mode)
    tiles = st.container()
    left, right = st.columns(COLUMNS, gap="medium")
    with right:
        wanted = _wish(page, found)
    with left:
        scores = golden.scores(page, found, queries=found.queries)
    if scores is None:
        return
    seen = _seen(page, found, scores, mode)
    at_cut = None if cut is None else seen.pairs.measured(cut)
    with tiles:
        markup.show(markup.tiles(_tiles(page, mode, seen, cut, at_cut)))
    with right:
        fit = None if wanted is None else _fit(page, mode, found, wanted)
    with left:
        levels = _levels(page, mode, fit)
        _spread(page, mode, seen, cut, at_cut, levels)
        _editor(page, mode, levels, fit)


def _mode(page: Page) -> SearchMode:
    shown = f"{state.MODE}_shown"
    mode: SearchMode = st.segmented_control(
        page.t("thresholds.mode"),
        SEARCH_MODES,
        format_func=lambda one: page.t(f"mode.{one}"),
        key=shown,
        default=state.chosen(state.MODE, SEARCH_MODES, "hybrid"),
        required=True,
        on_change=state.choose_shown,
        args=(state.MODE, shown),
        label_visibility="collapsed",
    )
    return mode


def _cut(page: Page, mode: SearchMode) -> float | None:
    """The threshold whose numbers are shown: the sidebar's, or the mode's own slider."""
    if mode == "hybrid":
        fusion = page.profile.fusion
        words = page.t("sidebar.no_threshold", fusion=fusion) if page.threshold is None else page.t("thresholds.sidebar")
        markup.show(markup.note(words, name="cut"))
        return page.threshold
    held = page.index.profile.thresholds.get(mode, 0.0)
    shown = round(min(1.0, max(0.0, held)), 3)
    cut = st.slider(
        page.t("thresholds.cut", mode=page.t(f"mode.{mode}")),
        0.0,
        1.0,
        shown,
        FINE,
        format="%.3f",
        key=state.cut_key(mode),
        bind="query-params",
        persist_state="session",
    )
    return held if cut == shown else cut


@dataclass(frozen=True, eq=False)
class Seen:
    """The candidates of all questions as a mode scores them, under a key of what they depend on."""

    pairs: Pairs
    area: float | None
    key: tuple[object, ...]


def _seen(page: Page, found: Judged, scores: Mapping[str, ModeScores], mode: SearchMode) -> Seen:
    state.edits_belong_to((found.digest, tuple(round(share, 2) for share in page.weights.normalized())))
    depends = retrieval.state_of(page.index, page.source), page.index.profile.depth, found.digest
    return _kept(scores, found, page.profile, mode, (*depends, fits.ranking_key(page.profile, mode)))


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _kept(
    _scores: Mapping[str, ModeScores], _found: Judged, _profile: Profile, mode: SearchMode, key: tuple[object, ...]
) -> Seen:
    pairs = analysis.pairs_of(_scores, _found.qrels, _profile, mode)
    return Seen(pairs, analysis.roc_auc(pairs), key)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _outlines(_pairs: Pairs, ends: tuple[float, float], key: tuple[object, ...]) -> tuple[list[Bar], list[Sample]]:
    return analysis.bars(_pairs, *ends), analysis.samples(_pairs, *ends)


def _tiles(page: Page, mode: str, seen: Seen, cut: float | None, at_cut: Measured | None) -> list[Tile]:
    t = page.t
    shown = []
    if at_cut is not None and cut is not None:
        for name, value in (("precision", at_cut.precision), ("recall", at_cut.recall), ("f1", at_cut.f())):
            label = t("thresholds.at", measure=t(f"thresholds.{name}"), threshold=f"{cut:.3f}")
            shown.append(Tile(name, label, f"{value:.3f}", mode=mode, share=value))
        of = t("thresholds.of", right=f"{at_cut.right:,}")
        shown.append(Tile("answers", t("thresholds.answers"), f"{at_cut.returned:,}", of))
        of = t("thresholds.of_questions", n=f"{at_cut.questions:,}")
        shown.append(Tile("answered", t("thresholds.answered"), f"{at_cut.answered:,}", of))
    shown.append(Tile("auc", "ROC AUC", "–" if seen.area is None else f"{seen.area:.3f}", t("thresholds.candidates")))
    return shown


def _spread(page: Page, mode: str, seen: Seen, cut: float | None, at_cut: Measured | None, levels: Mapping[str, float]) -> None:
    t, palette, pairs = page.t, page.palette, seen.pairs
    ends = analysis.axis_of(pairs.scores, cut, *levels.values())
    bars, samples = _outlines(pairs, ends, seen.key)
    relevant = int(pairs.relevant.sum())
    told = t("thresholds.spread_told", relevant=f"{relevant:,}", other=f"{len(pairs.scores) - relevant:,}")
    markup.show(markup.section(t("thresholds.spread"), t("thresholds.spread_of")))
    if bars:
        chart = drawn.histogram(bars, mode=mode, ends=ends, cut=cut, palette=palette, t=t)
        charts.show(chart, alt_text=told, palette=palette)
    markup.show(markup.section(t("thresholds.curves")))
    bands, colour = analysis.bands(levels, *ends), palette.of(mode)
    chart = drawn.curves(samples, bands, ends=ends, cut=cut, at_cut=at_cut, colour=colour, palette=palette, t=t)
    charts.show(chart, alt_text=_curves_told(page, cut, at_cut), palette=palette)


def _curves_told(page: Page, cut: float | None, at_cut: Measured | None) -> str:
    if cut is None or at_cut is None:
        return page.t("thresholds.curves")
    named = {"precision": at_cut.precision, "recall": at_cut.recall, "f1": at_cut.f()}
    return page.t("thresholds.curves_told", threshold=f"{cut:.3f}", **{name: f"{value:.3f}" for name, value in named.items()})


# -- what is fitted --------------------------------------------------------------------------------


def _fit(page: Page, mode: SearchMode, found: Judged, wanted: Wanted) -> Calibration | None:
    """Draw what was fitted for a wish; None where there is nothing (yet)."""
    fit = _calibration(page, found, wanted)
    if fit is not None:
        _result(page, mode, wanted, fit)
        _reliability(page, mode, fit.modes[mode])
    return fit


def _wish(page: Page, found: Judged) -> Wanted | None:
    """Let it be said what the threshold is for; None, with the reason, where there are too few questions."""
    markup.show(markup.section(page.t("thresholds.wish")))
    count = len(found.answerable)
    if count < MIN_QUESTIONS:
        markup.show(markup.notice("info", page.t("thresholds.few", n=count, least=MIN_QUESTIONS), page.t("thresholds.few_do")))
        return None
    shown = f"{state.WISH}_shown"
    left, right = st.columns([1.5, 1], gap="small", vertical_alignment="bottom")
    with left:
        what: Wish = st.selectbox(
            page.t("thresholds.for"),
            WISHES,
            index=WISHES.index(state.chosen(state.WISH, WISHES, WISHES[0])),
            format_func=lambda one: page.t(f"thresholds.for_{one}"),
            key=shown,
            on_change=state.choose_shown,
            args=(state.WISH, shown),
        )
    with right:
        value = _value(what, page.t(f"thresholds.value_{what}"))
    return Wanted(what, value, _confidence(page) if what == "recall" else None)


def _confidence(page: Page) -> float | None:
    confidence: float | None = st.number_input(
        page.t("thresholds.confidence"),
        0.5,
        0.999,
        None,
        0.05,
        format="%.2f",
        key=state.CONFIDENCE,
        bind="query-params",
        placeholder=page.t("thresholds.no_confidence"),
        help=page.t("thresholds.confidence_help"),
        persist_state="session",
    )
    return None if confidence is None else round(confidence, 6)


def _value(what: Wish, label: str) -> float:
    key = state.WISHES[what]
    return round(float(st.number_input(label, **VALUES[what], key=key, bind="query-params", persist_state="session")), 6)


def _calibration(page: Page, found: Judged | None, wanted: Wanted) -> Calibration | None:
    try:
        return fits.calibration(page, found, wanted)
    except M3RetrieverError as error:
        markup.show(markup.notice("error", page.t("thresholds.not_fitted"), str(error)))
        return None


def _result(page: Page, mode: SearchMode, wanted: Wanted, fit: Calibration) -> None:
    one, t = fit.modes[mode], page.t
    if one.threshold is None:
        markup.show(markup.notice("warning", t("thresholds.impossible", mode=t(f"mode.{mode}")), one.problem or ""))
    else:
        markup.show(markup.tiles(_found(page, mode, wanted, one)))
    if not state.thresholds_apply(page.profile) and mode == "hybrid":
        markup.show(markup.notice("warning", t("thresholds.by_rank", fusion=page.profile.fusion)))
    _buttons(page, mode, one.threshold, fit)


def _found(page: Page, mode: str, wanted: Wanted, one: Calibrated) -> list[Tile]:
    """The threshold, what it gives on the questions it was fitted on, and what on others."""
    t = page.t
    what = t(f"thresholds.gives_{wanted.what}", beta=f"{wanted.value:g}")
    shown = [Tile("threshold", t("sidebar.threshold"), score(one.threshold or 0.0), mode=mode)]
    if one.held_out is not None:
        deviation = f"± {one.held_out.deviation:.3f}"
        shown.append(Tile("held_out", t("thresholds.held_out", what=what), f"{one.held_out.mean:.3f}", deviation))
    inside = None if one.measured is None else analysis.given(one.measured, wanted)
    if inside is not None:
        shown.append(Tile("fitted", t("thresholds.fitted", what=what), f"{inside:.3f}"))
    if one.false_positives is not None:
        shown.append(Tile("fpr", t("thresholds.unrelated"), f"{one.false_positives:.2%}"))
    return shown


def _buttons(page: Page, mode: SearchMode, threshold: float | None, fit: Calibration) -> None:
    t, edited = page.t, state.edited_levels()
    broken = any(analysis.out_of_order(levels) for levels in edited.values())
    out_of_reach = not 0 <= (threshold or 0.0) <= 1 or (mode == "hybrid" and page.threshold is None)
    with st.container(horizontal=True, gap="small"):
        st.button(
            t("thresholds.use_none") if threshold is None else t("thresholds.use", threshold=score(threshold)),
            key="use_threshold",
            type="primary",
            icon=":material/check:",
            on_click=state.use_cut,
            args=(mode, threshold or 0.0),
            disabled=threshold is None or out_of_reach,
            help=t("thresholds.use_help") if mode == "hybrid" else None,
        )
        whole = not broken and fit.profile.thresholds
        fits.save_buttons(page, analysis.with_levels(fit.profile, edited) if whole else None, t("thresholds.save_help"))


def _reliability(page: Page, mode: SearchMode, one: Calibrated) -> None:
    t, palette = page.t, page.palette
    markup.show(markup.section(t("thresholds.reliability"), t("thresholds.reliability_of")))
    if not one.reliability or one.brier is None or one.calibration_error is None:
        markup.show(markup.note(t("thresholds.no_probabilities"), name="reliability"))
        return
    points = analysis.reliability_points(one.reliability)
    words = "; ".join(t("thresholds.point", said=f"{p.said:.2f}", true=f"{p.true:.2f}", n=f"{p.pairs:,}") for p in points)
    chart = drawn.reliability(points, colour=palette.of(mode), palette=palette, t=t)
    charts.show(chart, alt_text=f"{t('thresholds.reliability')}: {words}", palette=palette)
    numbers = t("thresholds.trust", brier=f"{one.brier:.4f}", error=f"{one.calibration_error:.4f}", method=one.method)
    markup.show(markup.note(numbers, name="reliability"))


# -- levels ----------------------------------------------------------------------------------------


def _levels(page: Page, mode: SearchMode, fit: Calibration | None) -> dict[str, float]:
    """The bounds that are shown: edited, else fitted, else the profile's."""
    edited = state.edited_levels().get(mode)
    return edited if edited is not None else analysis.levels_of(page.profile, mode, None if fit is None else fit.modes[mode])


def _editor(page: Page, mode: SearchMode, levels: Mapping[str, float], fit: Calibration | None) -> None:
    t = page.t
    edited = mode in state.edited_levels()
    markup.show(markup.section(t("thresholds.levels"), t("thresholds.edited" if edited else "thresholds.levels_of")))
    if not levels and not edited and fit is None:
        markup.show(markup.note(t("thresholds.uncalibrated"), name="uncalibrated"))
        return
    columns = st.columns([1, 1, 1, 0.6], gap="small", vertical_alignment="bottom")
    for column, level in zip(columns, LEVELS[1:], strict=False):
        key = state.level_key(mode, level)
        st.session_state[key] = round(levels[level], 3) if level in levels else None
        with column:
            st.number_input(
                t("thresholds.starts", level=_level(page, level)),
                value=None,
                step=0.01,
                format="%.3f",
                key=key,
                on_change=state.edit_level,
                args=(mode, level, levels),
            )
    with columns[-1]:
        st.button(t("thresholds.reset"), key="reset_levels", on_click=state.reset_levels, args=(mode,), disabled=not edited)
    if wrong := analysis.out_of_order(levels):
        low, high = (_level(page, level) for level in wrong)
        markup.show(markup.notice("error", t("thresholds.falling", low=low, high=high)))


def _level(page: Page, level: str) -> str:
    return page.t(f"level.{level.replace(' ', '_')}")


# -- without labels --------------------------------------------------------------------------------


def _unlabelled(page: Page) -> None:
    """What can be known without questions: how unrelated texts score. It asks the model, so it waits for a button."""
    t, key = page.t, ("unrelated", retrieval.state_of(page.index, page.source))
    markup.show(markup.section(t("thresholds.unlabelled")))
    if not state.started(key):
        markup.show(markup.note(t("thresholds.unlabelled_how")))
        st.button(t("thresholds.unlabelled_do"), key="unrelated", type="primary", on_click=state.start, args=(key,))
        return
    mode = _mode(page)
    left, right = st.columns(COLUMNS, gap="medium")
    with right:
        wanted = Wanted("fpr", _value("fpr", t("thresholds.for_fpr")))
        fit = _calibration(page, None, wanted)
        if fit is not None:
            _result(page, mode, wanted, fit)
    if fit is not None:
        with left:
            _rates(page, mode, fit)


def _rates(page: Page, mode: SearchMode, fit: Calibration) -> None:
    t, palette, one = page.t, page.palette, fit.modes[mode]
    levels = _levels(page, mode, fit)
    if one.calibration.unrelated is not None:
        steps = analysis.rate_steps(one.calibration.unrelated)
        ends = analysis.axis_of(np.array([at for at, _ in steps]), one.threshold)
        chart = drawn.rates(steps, ends=ends, cut=one.threshold, colour=palette.of(mode), palette=palette, t=t)
        markup.show(markup.section(t("thresholds.rates"), t("thresholds.rates_of")))
        charts.show(chart, alt_text=t("thresholds.rates_told", n=len(steps)), palette=palette)
    _editor(page, mode, levels, fit)


if __name__ == "__main__":
    draw()
