"""Search: every mode's score of every hit, and why a hit has its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from m3retriever import MODES, Document, InvalidFilterError
from m3retriever.inspector import charts, detail, downloads, judging, markup, missing, state
from m3retriever.inspector.analysis import ranking as analysis
from m3retriever.inspector.analysis.filters import parsed_filter
from m3retriever.inspector.analysis.ranking import Row, Tick
from m3retriever.inspector.charts.ranking import score_strip
from m3retriever.inspector.context import Page, current
from m3retriever.inspector.i18n import Translate
from m3retriever.inspector.retrieval import QUERY_CHARACTERS, raw_scores
from m3retriever.passages import owner_of
from m3retriever.ranking import Ranking
from m3retriever.types import Where

ROW_PIXELS = 34
TABLE_PIXELS = 720  # 20 rows and the header
BOX = [9, 1.15]  # widths of the query and of the filter's button
BROKEN = object()  # a filter that is none
COLUMNS = [1.8, 1]  # widths of ranking and detail
BAR_COLOURS = {"dense": "blue", "sparse": "orange", "colbert": "violet"}  # Streamlit's names for the theme's
BAR_PIXELS = 86


def draw() -> None:
    """Draw the page."""
    page = current()
    left, right = st.columns(BOX, gap="small")
    with left:
        _query_box(page.t)
    with right, st.popover(page.t("search.filter"), icon=":material/filter_alt:", width="stretch"):
        _filter_box(page.t)
    query, where = state.query(), _filter(page)
    if not len(page.index):
        markup.show(markup.notice("info", page.t("search.no_documents"), page.t("search.add", path=page.source.path)))
    elif not query:
        markup.show(markup.notice("info", page.t("search.empty")))
    elif where is not BROKEN:
        _results(page, query, where)


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


def _filter_box(t: Translate) -> None:
    st.text_input(
        t("search.where"), key=state.WHERE, bind="query-params", placeholder='{"lang": "en"}', max_chars=QUERY_CHARACTERS
    )
    markup.show(markup.note(t("search.where_help")))


def _filter(page: Page) -> Any:
    """The filter, None for none, BROKEN with the reason on the page for one that is none."""
    text = str(st.session_state.get(state.WHERE, "")).strip()
    if not text:
        return None
    try:
        where = parsed_filter(text)
    except InvalidFilterError as error:
        markup.show(markup.notice("error", page.t("search.bad_filter"), str(error)))
        return BROKEN
    markup.show(markup.note(page.t("search.filtered", where=text), name="filter"))
    return where


def _results(page: Page, query: str, where: Where | None) -> None:
    scores = raw_scores(page.index, page.source, query, k=page.k, where=where)
    state.remember(page.project, query)
    if not len(scores):
        markup.show(markup.notice("info", page.t("search.nothing")))
        missing.draw(page, query, where)
        return
    ranking = Ranking.of(page.profile, "hybrid", None, None)
    fused = ranking.fuse(scores)
    documents = _documents(page, analysis.top_ids(scores, fused, page.k))
    if lost := set(analysis.top_ids(scores, fused, page.k)) - documents.keys():  # another client deleted them
        scores = analysis.without(scores, lost)
        fused = ranking.fuse(scores)
        documents = _documents(page, analysis.top_ids(scores, fused, page.k))
    titles = {id: analysis.title_of(document) for id, document in documents.items()}
    rows = analysis.result_rows(scores, fused, titles, k=page.k, threshold=page.threshold)
    ticks = analysis.strip_ticks(scores, fused, titles, k=page.k, threshold=page.threshold)
    grades = _grades(page, query, documents)
    left, right = st.columns(COLUMNS, gap="medium")
    with left:
        _strip(page, ticks, rows)
        _count(page, rows)
        chosen = _table(page, query, rows, grades)
        _exports(page, rows, grades)
        missing.draw(page, query, where)
    with right:
        judging.draw(page, query, [row.id for row in rows], chosen.id, grades.get(chosen.id))
        detail.draw(page, query, chosen, documents[chosen.id])


def _documents(page: Page, ids: Sequence[str]) -> dict[str, Document]:
    return {document.id: document for document in page.index.get(ids, skip_unknown=True)}


def _grades(page: Page, query: str, documents: Mapping[str, Document]) -> dict[str, int]:
    """{id: grade} of what was judged, a passage by its document where it has no grade of its own."""
    held = judging.grades_of(page, query)
    found = {id: held.get(id, held.get(owner_of(document))) for id, document in documents.items()}
    return {id: grade for id, grade in found.items() if grade is not None}


def _exports(page: Page, rows: Sequence[Row], grades: Mapping[str, int]) -> None:
    with st.container(horizontal=True, gap="small"):
        downloads.csv_button(page.t("search.csv"), analysis.table(rows, grades), "results.csv", key="results_csv")
        judging.export(page)


def _strip(page: Page, ticks: Sequence[Tick], rows: Sequence[Row]) -> None:
    alt_text = f"{page.t('search.strip', n=len(ticks))} {_count_text(page, rows)}"
    strip = score_strip(ticks, threshold=page.threshold, palette=page.palette, t=page.t)
    charts.show(strip, alt_text=alt_text, palette=page.palette)


def _table(page: Page, query: str, rows: Sequence[Row], grades: Mapping[str, int]) -> Row:
    """The results; gives the row that is selected."""
    ids = tuple(row.id for row in rows)
    key = state.table_key(query, ids)
    at = state.selected_row(ids)
    event = st.dataframe(
        _frame(rows, grades),
        key=key,
        hide_index=True,
        on_select=lambda: state.select(key, ids),
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [at]}},
        height=min(ROW_PIXELS * (len(rows) + 1), TABLE_PIXELS),
        row_height=ROW_PIXELS,
        column_config=_columns(page, rows),
        alt=page.t("search.table", n=len(rows)),
    )
    chosen = event.selection.rows
    return rows[chosen[0]] if chosen and chosen[0] < len(rows) else rows[at]


def _frame(rows: Sequence[Row], grades: Mapping[str, int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rank": [row.rank for row in rows],
            "above": ["●" if row.above else "○" for row in rows],
            "title": [row.title for row in rows],
            "score": [row.score for row in rows],
            **{str(mode): [row.scores[mode] for row in rows] for mode in MODES},
            "ranks": ["·".join(str(row.ranks[mode]) for mode in MODES) for row in rows],
            "grade": [judging.mark(grades.get(row.id)) for row in rows],
        }
    )


def _columns(page: Page, rows: Sequence[Row]) -> dict[str, Any]:
    column, t = st.column_config, page.t
    full = 1.0 if state.thresholds_apply(page.profile) else max(row.score for row in rows)
    columns: dict[str, Any] = {
        "rank": column.NumberColumn("#", width=36),
        "above": column.TextColumn("≥", width=30, help=t("search.above_help")),
        "title": column.TextColumn(t("column.title"), width=180),
        "score": _bar(t("mode.hybrid"), "green", full),
        "ranks": column.TextColumn(t("column.ranks"), width=84, help=t("search.ranks_help")),
        "grade": column.TextColumn(t("column.grade"), width=40, help=t("search.grade_help")),
    }
    return columns | {mode: _bar(t(f"mode.{mode}"), BAR_COLOURS[mode], 1.0) for mode in MODES}


def _bar(label: str, colour: Any, full: float) -> Any:
    return st.column_config.ProgressColumn(label, format="%.3f", min_value=0.0, max_value=full, color=colour, width=BAR_PIXELS)


def _count(page: Page, rows: Sequence[Row]) -> None:
    markup.show(markup.note(_count_text(page, rows), name="count"))
    miss = analysis.nearest_miss(rows)
    if miss is not None and page.threshold is not None:
        gap = page.threshold - miss.score
        text = page.t("search.none_above", score=f"{miss.score:.3f}", gap=f"{gap:.3f}")
        markup.show(markup.notice("warning", text, miss.title))


def _count_text(page: Page, rows: Sequence[Row]) -> str:
    if page.threshold is None:
        return page.t("search.listed", n=len(rows))
    threshold = f"{page.threshold:.2f}"
    return page.t("search.above", n=analysis.above_count(rows), k=len(rows), threshold=threshold)


if __name__ == "__main__":
    draw()
