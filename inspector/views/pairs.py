"""Pairs: two texts scored with each other and compared token by token, and a matrix of many."""

from __future__ import annotations

import streamlit as st

from m3retriever import M3Index
from m3retriever.inspector import alignment, charts, markup, retrieval, state, texts
from m3retriever.inspector.analysis import pairs as analysis
from m3retriever.inspector.analysis import tokens
from m3retriever.inspector.analysis.pairs import PairScore
from m3retriever.inspector.analysis.tokens import Comparison
from m3retriever.inspector.charts.pairs import score_matrix
from m3retriever.inspector.context import Page, current
from m3retriever.inspector.i18n import Translate
from m3retriever.ranking import SEARCH_MODES, SearchMode
from m3retriever.types import FloatArray

KEPT = 20  # pairs, and matrices
SHOWN_MODE = "matrix_shown"  # key of the widget
AREA_PIXELS, LINES_PIXELS = 110, 150
TEXT_COLUMNS, RESULT_COLUMNS = [8, 1, 8], [1, 1.1]  # widths


def draw() -> None:
    """Draw the page."""
    page = current()
    query, document = _texts(page.t)
    if query and document:
        with st.spinner(page.t("pairs.encoding"), show_time=True):
            values, compared = _compared(page.index, query, document, retrieval.state_of(page.index, page.source))
        _scores(page, analysis.pair_scores(values, query, page.profile))
    left, right = st.columns(RESULT_COLUMNS, gap="medium")
    with left:
        if query and document:
            _tokens(page, compared, document, float(values[1]))
        else:
            markup.show(markup.notice("info", page.t("pairs.empty")))
    with right:
        _matrix(page)


def _texts(t: Translate) -> tuple[str, str]:
    """The two texts, without the blanks around them."""
    left, middle, right = st.columns(TEXT_COLUMNS, gap="small", vertical_alignment="center")
    with left:
        query = _area(t("pairs.query"), state.TEXT, t("pairs.query_example"), AREA_PIXELS)
    with right:
        document = _area(t("pairs.document"), state.OTHER, t("pairs.document_example"), AREA_PIXELS)
    with middle:
        st.button(t("pairs.swap"), key="swap", on_click=state.swap_texts, icon=":material/swap_horiz:", type="tertiary")
    return query, document


def _area(label: str, key: str, example: str, height: int) -> str:
    state.share_text(key)
    entered = st.text_area(
        label,
        key=key,
        height=height,
        max_chars=state.TEXT_CHARACTERS,
        placeholder=example,
        persist_state="session",
    )
    return (entered or "").strip()


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _compared(_index: M3Index, query: str, document: str, state: retrieval.State) -> tuple[FloatArray, Comparison]:
    """The raw scores, (3,), and the two texts token by token."""
    [asked] = texts.vectors(_index, state.source, "query", [query])
    [held] = texts.vectors(_index, state.source, "document", [document])
    sides = alignment.side(_index, query, asked), alignment.side(_index, document, held)
    return analysis.raw_matrix([asked], [held])[0, 0], tokens.compare(*sides)


def _scores(page: Page, scores: list[PairScore]) -> None:
    t = page.t
    markup.show(
        markup.tiles(
            [
                markup.Tile(one.mode, t(f"mode.{one.mode}"), f"{one.score:.3f}", _meaning(one, t), one.mode, one.score)
                for one in scores
            ]
        )
    )
    if not state.thresholds_apply(page.profile):
        markup.show(markup.note(t("pairs.ranks", fusion=page.profile.fusion)))
    if any(one.level is None for one in scores):
        markup.show(markup.note(t("pairs.calibrate"), name="calibrate"))


def _meaning(one: PairScore, t: Translate) -> str:
    """The score in a word, and the probability where the profile knows it."""
    if one.level is None:
        return t("pairs.uncalibrated")
    level = t(f"level.{one.level.replace(' ', '_')}")
    return level if one.probability is None else f"{level} · p = {one.probability:.2f}"


def _tokens(page: Page, compared: Comparison, document: str, sparse: float) -> None:
    t = page.t
    for unread, side in zip(compared.unread, (t("pairs.query"), t("pairs.document")), strict=True):
        if unread is not None:
            markup.show(markup.note(f"{side}: {t('tokens.unread', n=unread)}", name="unread"))
    matches, weights, text = st.tabs([t("tab.alignment"), t("tab.lexical"), t("tab.text")])
    with matches:
        alignment.draw_matches(compared, page.palette, t)
    with weights:
        alignment.draw_weights(compared, sparse, t)
    with text:
        alignment.draw_text(compared, document, t)


# -- many with many --------------------------------------------------------------------------------


def _matrix(page: Page) -> None:
    t = page.t
    markup.show(markup.section(t("pairs.matrix"), t("pairs.matrix_detail")))
    lines = analysis.lines_of(_area(t("pairs.lines"), state.LINES, t("pairs.lines_example"), LINES_PIXELS))
    mode = _mode(t)
    if not lines:
        return
    shown = lines[: analysis.LINES]
    if len(lines) > len(shown):
        markup.show(markup.note(t("pairs.cut", n=len(lines), shown=len(shown)), name="cut"))
    with st.spinner(t("pairs.encoding"), show_time=True):
        values = _raw_matrix(page.index, tuple(shown), retrieval.state_of(page.index, page.source))
    scores = analysis.matrix(values, shown, page.profile, mode)
    drawn = score_matrix(scores, shown, mode=mode, palette=page.palette, t=t)
    charts.show(drawn, alt_text=t("pairs.matrix_alt", n=len(shown), mode=t(f"mode.{mode}")), palette=page.palette)


def _mode(t: Translate) -> SearchMode:
    st.segmented_control(
        t("column.mode"),
        SEARCH_MODES,
        format_func=lambda one: t(f"mode.{one}"),
        key=SHOWN_MODE,
        default=state.chosen(state.MATRIX, SEARCH_MODES, SEARCH_MODES[0]),
        required=True,
        on_change=state.choose_shown,
        args=(state.MATRIX, SHOWN_MODE),
        label_visibility="collapsed",
    )
    return st.session_state[SHOWN_MODE]


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _raw_matrix(_index: M3Index, lines: tuple[str, ...], state: retrieval.State) -> FloatArray:
    asked = texts.vectors(_index, state.source, "query", lines)
    return analysis.raw_matrix(asked, texts.vectors(_index, state.source, "document", lines))


if __name__ == "__main__":
    draw()
