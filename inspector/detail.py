"""One hit in detail: the sum that makes its score, and its text, alignment and shared tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from m3retriever import Document
from m3retriever.inspector import alignment, charts, markup, state
from m3retriever.inspector.analysis import ranking
from m3retriever.inspector.analysis.ranking import Part, Row
from m3retriever.inspector.charts.ranking import contribution_bar
from m3retriever.inspector.context import Page
from m3retriever.inspector.i18n import Translate


def draw(page: Page, query: str, row: Row, document: Document) -> None:
    """Draw the detail of one hit."""
    t = page.t
    markup.show(markup.heading(row))
    if page.profile.fusion == "weighted_sum":
        _sum(ranking.parts_of(row, page.weights), row.score, t)
    else:
        markup.show(markup.note(t("detail.no_sum", fusion=page.profile.fusion, score=f"{row.score:.4f}")))
    compared = alignment.of_document(page, query, document)
    contents: dict[str, Callable[[], object]] = {
        t("tab.text"): lambda: alignment.draw_text(compared, document.text, t),
        t("tab.alignment"): lambda: alignment.draw_matches(compared, page.palette, t),
        t("tab.lexical"): lambda: alignment.draw_weights(compared, row.scores["sparse"], t),
        t("tab.raw"): lambda: st.json(_raw(row, document), expanded=True),
    }
    tabs = st.tabs(list(contents), key=f"{state.TAB}_{state.language()}", on_change="rerun")
    for tab, draw_content in zip(tabs, contents.values(), strict=True):
        if tab.open:  # what is hidden would cost half of a moved slider's time
            with tab:
                draw_content()


def _sum(parts: Sequence[Part], score: float, t: Translate) -> None:
    palette = state.palette()
    words = ", ".join(f"{t(f'mode.{part.mode}')} {part.score:.3f} × {part.weight:.2f}" for part in parts)
    bar = contribution_bar(parts, palette=palette, t=t)
    charts.show(bar, alt_text=f"{t('detail.parts')} {words}", palette=palette)
    markup.show(markup.sum_of_parts(parts, score, t))


def _raw(row: Row, document: Document) -> dict[str, object]:
    return {
        "id": document.id,
        "metadata": dict(document.metadata),
        "scores": {"hybrid": row.score, **{str(mode): score for mode, score in row.scores.items()}},
        "ranks": {"hybrid": row.rank, **{str(mode): rank for mode, rank in row.ranks.items()}},
    }
