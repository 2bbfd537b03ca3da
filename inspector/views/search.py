"""Search: every mode's score of every hit, and why a hit has its place."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from m3retriever import MODES, M3Index, Weights
from m3retriever.inspector import charts, detail, markup, state
from m3retriever.inspector.analysis import ranking as analysis
from m3retriever.inspector.analysis.ranking import Row, Tick
from m3retriever.inspector.charts.ranking import score_strip
from m3retriever.inspector.i18n import Translate, translator
from m3retriever.inspector.retrieval import QUERY_CHARACTERS, open_index, raw_scores
from m3retriever.inspector.source import Source
from m3retriever.ranking import Ranking

ROW_PIXELS = 34
TABLE_PIXELS = 720  # 20 rows and the header
COLUMNS = [1.8, 1]  # widths of ranking and detail
BAR_COLOURS = {"dense": "blue", "sparse": "orange", "colbert": "violet"}  # Streamlit's names for the theme's
BAR_PIXELS = 86


@dataclass(frozen=True)
class View:
    """What every part of the page needs."""

    index: M3Index
    query: str
    settings: state.Settings
    t: Translate


def page() -> None:
    """Draw the page."""
    t = translator(state.language())
    source = Source.from_arguments(sys.argv[1:])
    index = open_index(source)
    _query_box(t)
    view = View(index, state.query(), state.settings(index.profile), t)
    if not len(index):
        markup.show(markup.notice("info", t("search.no_documents")))
    elif not view.query:
        markup.show(markup.notice("info", t("search.empty")))
    elif view.settings.weights is None:
        markup.show(markup.notice("warning", t("search.no_weights")))
    else:
        _results(view, source, view.settings.weights)


def _query_box(t: Translate) -> None:
    st.text_input(
        t("search.query"),
        key=state.QUERY,
        bind="query-params",
        placeholder=t("search.placeholder"),
        label_visibility="collapsed",
        icon=":material/search:",
        max_chars=QUERY_CHARACTERS,
    )


def _results(view: View, source: Source, weights: Weights) -> None:
    settings, profile = view.settings, view.index.profile
    scores = raw_scores(view.index, source, view.query, k=settings.k)
    state.remember(view.query)
    fused = Ranking.of(profile, "hybrid", None if weights == profile.weights else weights, None).fuse(scores)
    documents = {document.id: document for document in view.index.get(analysis.top_ids(scores, fused, settings.k))}
    titles = {id: analysis.title_of(document) for id, document in documents.items()}
    rows = analysis.result_rows(scores, fused, titles, k=settings.k, threshold=settings.threshold)
    ticks = analysis.strip_ticks(scores, fused, titles, k=settings.k, threshold=settings.threshold)
    left, right = st.columns(COLUMNS, gap="medium")
    with left:
        _strip(view, ticks, rows)
        _count(view, rows)
        chosen = _table(view, rows)
    with right:
        detail.draw(view.index, view.query, chosen, documents[chosen.id], weights=weights, t=view.t)


def _strip(view: View, ticks: Sequence[Tick], rows: Sequence[Row]) -> None:
    palette, threshold = state.palette(), view.settings.threshold
    alt_text = f"{view.t('search.strip', n=len(ticks))} {_count_text(view, rows)}"
    charts.show(score_strip(ticks, threshold=threshold, palette=palette, t=view.t), alt_text=alt_text, palette=palette)


def _table(view: View, rows: Sequence[Row]) -> Row:
    """The results; gives the row that is selected."""
    ids = tuple(row.id for row in rows)
    key = "results_" + hashlib.sha256(repr((view.query, ids)).encode("utf-8", "replace")).hexdigest()[:16]
    at = state.selected_row(ids)
    event = st.dataframe(
        _frame(rows),
        key=key,
        hide_index=True,
        on_select=lambda: state.select(key, ids),
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [at]}},
        height=min(ROW_PIXELS * (len(rows) + 1), TABLE_PIXELS),
        row_height=ROW_PIXELS,
        column_config=_columns(view, rows),
        alt=view.t("search.table", n=len(rows)),
    )
    chosen = event.selection.rows
    return rows[chosen[0]] if chosen and chosen[0] < len(rows) else rows[at]


def _frame(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rank": [row.rank for row in rows],
            "above": ["●" if row.above else "○" for row in rows],
            "title": [row.title for row in rows],
            "score": [row.score for row in rows],
            **{str(mode): [row.scores[mode] for row in rows] for mode in MODES},
            "ranks": ["·".join(str(row.ranks[mode]) for mode in MODES) for row in rows],
        }
    )


def _columns(view: View, rows: Sequence[Row]) -> dict[str, Any]:
    column, t = st.column_config, view.t
    full = 1.0 if state.thresholds_apply(view.index.profile) else max(row.score for row in rows)
    columns: dict[str, Any] = {
        "rank": column.NumberColumn("#", width=36),
        "above": column.TextColumn("≥", width=30, help=t("search.above_help")),
        "title": column.TextColumn(t("column.title"), width=196),
        "score": _bar(t("mode.hybrid"), "green", full),
        "ranks": column.TextColumn(t("column.ranks"), width=84, help=t("search.ranks_help")),
    }
    return columns | {mode: _bar(t(f"mode.{mode}"), BAR_COLOURS[mode], 1.0) for mode in MODES}


def _bar(label: str, colour: Any, full: float) -> Any:
    return st.column_config.ProgressColumn(label, format="%.3f", min_value=0.0, max_value=full, color=colour, width=BAR_PIXELS)


def _count(view: View, rows: Sequence[Row]) -> None:
    markup.show(markup.note(_count_text(view, rows), name="count"))
    miss = analysis.nearest_miss(rows)
    if miss is not None and view.settings.threshold is not None:
        gap = view.settings.threshold - miss.score
        text = view.t("search.none_above", score=f"{miss.score:.3f}", gap=f"{gap:.3f}")
        markup.show(markup.notice("warning", text, miss.title))


def _count_text(view: View, rows: Sequence[Row]) -> str:
    if view.settings.threshold is None:
        return view.t("search.listed", n=len(rows))
    threshold = f"{view.settings.threshold:.2f}"
    return view.t("search.above", n=analysis.above_count(rows), k=len(rows), threshold=threshold)


if __name__ == "__main__":
    page()
