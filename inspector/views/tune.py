"""Tune: the weights and the fusion that suit judged questions, and what to expect of them on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from m3retriever import MODES, M3RetrieverError, Profile
from m3retriever.evaluation import DEFAULT_MEASURES, Comparison
from m3retriever.fusion import SUMMANDS
from m3retriever.inspector import charts, fits, golden, markup, state
from m3retriever.inspector.analysis import weights as analysis
from m3retriever.inspector.charts import weights as drawn
from m3retriever.inspector.context import Page, current
from m3retriever.inspector.golden import Judged
from m3retriever.inspector.markup import Tile
from m3retriever.quality_page.fits import NEAR, USUAL
from m3retriever.quality_page.ternary import limits
from m3retriever.tuning import MIN_QUERIES, Tuning, fusions_of

COLUMNS = [1, 1.25]  # widths of the map and of what is said of it
OPTIONS = [1, 2.6, 0.7]  # of measure, fusions and button
ROW_PIXELS = 30


def draw() -> None:
    """Draw the page."""
    page = current()
    if not len(page.index):
        markup.show(markup.notice("info", page.t("search.no_documents")))
        return
    found = golden.choose(page)
    if found is None:
        return
    if len(found.answerable) < MIN_QUERIES:
        words = page.t("tune.few", n=len(found.answerable), least=MIN_QUERIES)
        markup.show(markup.notice("info", words, page.t("golden.how", path=page.project.golden_path)))
        return
    measure, fusions, learners = _options(page, found)
    if fusions:
        _tuned(page, found, fusions, learners, measure)


def _tuned(page: Page, found: Judged, fusions: Sequence[str], learners: Sequence[str], measure: str) -> None:
    """Tune where the button was pressed for this, and draw what was found."""
    key = fits.tuning_key(page, found, fusions, learners, measure)
    if not state.started(key):
        markup.show(markup.notice("info", page.t("tune.start", n=len(found.answerable)), page.t("tune.start_how")))
        return
    scores = golden.scores(page, found)
    if scores is None:
        return
    try:
        done = fits.tuning(page, found, scores, fusions, learners, measure)
    except M3RetrieverError as error:
        markup.show(markup.notice("error", page.t("tune.failed"), str(error)))
        return
    if done is not None:
        _found(page, *done)


def _options(page: Page, found: Judged) -> tuple[str, list[str], list[str]]:
    """Measure, fusions and learners, and the button that begins."""
    t = page.t
    left, middle, right = st.columns(OPTIONS, gap="small", vertical_alignment="bottom")
    with left:
        measure = st.selectbox(
            t("tune.measure"), DEFAULT_MEASURES, key=state.MEASURE, bind="query-params", persist_state="session"
        )
    with middle:
        chosen = st.multiselect(
            t("tune.fusions"), list(SUMMANDS), list(SUMMANDS), key=state.FUSIONS, bind="query-params", persist_state="session"
        )
    with st.container(horizontal=True, gap="medium"):
        for key, words in ((state.LEARNED, t("tune.learned")), (state.ROUTED, t("tune.routed"))):
            st.checkbox(words, key=key, bind="query-params", persist_state="session")
    fusions, learners = _named(chosen)
    with right:
        st.button(
            t("tune.do"),
            key="tune",
            type="primary",
            icon=":material/change_history:",
            on_click=state.start,
            args=(fits.tuning_key(page, found, fusions, learners, measure),),
            disabled=not fusions,
            width="stretch",
        )
    if not fusions:
        markup.show(markup.notice("info", t("tune.no_fusion")))
    return measure, fusions, learners


def _named(chosen: Sequence[str]) -> tuple[list[str], list[str]]:
    """As `tune --fusion` reads names; no fusions where none is chosen."""
    options = [name for name in (state.LEARNED, state.ROUTED) if st.session_state.get(name)]
    fusions, learners = fusions_of([*(name for name in SUMMANDS if name in chosen), *options])
    return (fusions if chosen else []), learners


def _found(page: Page, tuning: Tuning, profile: Profile) -> None:
    t = page.t
    markup.show(markup.tiles(_tiles(page, tuning)))
    left, right = st.columns(COLUMNS, gap="medium")
    with left:
        _map(page, tuning)
        _folds(page, tuning)
    with right:
        markup.show(markup.section(t("tune.chosen"), str(tuning.best)))
        if tuning.best.fusion in SUMMANDS:
            markup.show(markup.weight_bar(tuning.best.weights, t))
        markup.show(markup.notice("info", _reason(page, tuning)))
        _buttons(page, tuning, profile)
        _table(page, tuning.against, t("tune.against"), t("tune.against_of", measure=tuning.measure), t("tune.tuned"))
        if tuning.learned:
            _table(page, tuning.learned, t("tune.others"), t("tune.others_of", measure=tuning.measure), t("tune.other"))


def _tiles(page: Page, tuning: Tuning) -> list[Tile]:
    t, held_out, usual = page.t, analysis.held_out(tuning), tuning.against[USUAL]
    difference = t("tune.against_usual", difference=f"{usual.difference:+.3f}", p=f"{usual.p_value:.3f}")
    return [
        Tile("held_out", t("tune.held_out", measure=tuning.measure), f"{held_out:.3f}", mode="hybrid", share=held_out),
        Tile("fitted", t("tune.fitted", measure=tuning.measure), f"{tuning.fitted:.3f}", share=tuning.fitted, mode="hybrid"),
        Tile("usual", t("tune.usual"), f"{usual.first:.3f}", difference, share=usual.first, mode="hybrid"),
        Tile("fusion", t("tune.fusion"), tuning.best.fusion),
        Tile("questions", t("tune.questions"), f"{len(tuning.held_out):,}", t("tune.folds", n=len(tuning.folds))),
    ]


def _reason(page: Page, tuning: Tuning) -> str:
    why = analysis.reason(tuning)
    p_value = "" if why.p_value is None else f"{why.p_value:.3f}"
    name = page.t(f"mode.{why.name}") if why.name in MODES else why.name
    return page.t(f"tune.why_{why.kind}", name=name, p=p_value)


# -- the map ---------------------------------------------------------------------------------------


def _map(page: Page, tuning: Tuning) -> None:
    t, palette = page.t, page.palette
    spots = analysis.spots(tuning, page.weights)
    markup.show(markup.section(t("tune.map"), t("tune.map_of", measure=tuning.measure)))
    chart = drawn.weights_map(analysis.cells(tuning.grid), spots, measure=tuning.measure, palette=palette, t=t)
    low, high = limits(tuning.grid)
    said = "; ".join(_spot(page, spot) for spot in spots)
    charts.show(chart, alt_text=t("tune.map_told", measure=tuning.measure, spots=said), palette=palette)
    key = drawn.key(low, high, measure=tuning.measure, palette=palette)
    charts.show(key, alt_text=t("tune.key", low=f"{low:.3f}", high=f"{high:.3f}"), palette=palette)
    markup.show(markup.note(f"○ {_spot(page, spots[0])}   □ {_spot(page, spots[1])}", name="spots"))
    near = t("tune.near", n=analysis.near(tuning.grid), of=len(tuning.grid), near=NEAR, high=f"{high:.3f}")
    markup.show(markup.note(near, name="near"))


def _spot(page: Page, spot: analysis.Spot) -> str:
    shares = " / ".join(f"{share:.3g}" for share in spot.shares)
    value = "" if spot.value is None else f" → {spot.value:.3f}"
    name = page.t(f"tune.spot_{spot.name}")
    return f"{name} {shares}{value}"


# -- what is said of it ----------------------------------------------------------------------------


def _buttons(page: Page, tuning: Tuning, profile: Profile) -> None:
    t, best = page.t, tuning.best
    fits_here = best.fusion == page.profile.fusion
    with st.container(horizontal=True, gap="small"):
        st.button(
            t("tune.use"),
            key="use_weights",
            type="primary",
            icon=":material/check:",
            on_click=state.use_weights,
            args=(best.weights,),
            disabled=not fits_here,
            help=None if fits_here else t("tune.other_fusion", fusion=best.fusion, own=page.profile.fusion),
        )
        fits.save_buttons(page, profile, t("tune.save_help"))


def _table(page: Page, compared: Mapping[str, Comparison], title: str, about: str, second: str) -> None:
    t, column = page.t, st.column_config
    markup.show(markup.section(title, about))
    columns: dict[str, Any] = {
        "name": column.TextColumn(t("tune.name"), width=124),
        "first": column.NumberColumn(t("tune.first"), format="%.3f", width=64),
        "second": column.NumberColumn(second, format="%.3f", width=64),
        "difference": column.NumberColumn(t("tune.difference"), format="%+.3f", width=78),
        "counts": column.TextColumn(t("tune.counts"), width=108),
        "p": column.NumberColumn("p", format="%.4f", width=64),
    }
    frame = pd.DataFrame(analysis.rows(compared))
    frame["counts"] = [f"{one.wins:,} / {one.losses:,} / {one.ties:,}" for one in compared.values()]
    st.dataframe(
        frame[list(columns)],
        hide_index=True,
        row_height=ROW_PIXELS,
        height=ROW_PIXELS * (len(frame) + 1) + 4,
        column_config=columns,
        alt=about,
    )


def _folds(page: Page, tuning: Tuning) -> None:
    """How far the weights lie apart that were found without each part of the questions."""
    t, ranges = page.t, analysis.fold_ranges(tuning.folds)
    markup.show(markup.section(t("tune.stable"), t("tune.stable_of")))
    rows = [(t(f"mode.{mode}"), f"{low:.2f} – {high:.2f}") for mode, (low, high) in ranges.items()]
    fusions = ", ".join(f"{name} × {count}" for name, count in analysis.fold_fusions(tuning.folds))
    markup.show(markup.facts([*rows, (t("tune.fusion"), fusions)]))


if __name__ == "__main__":
    draw()
