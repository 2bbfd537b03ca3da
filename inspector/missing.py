"""The panel "Why is a document missing?": the stage that cut it, its places and scores, and what would bring it in."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from m3retriever import Explanation, M3RetrieverError, UnknownDocumentError
from m3retriever.inspector import markup, state
from m3retriever.inspector.analysis import missing
from m3retriever.inspector.analysis.ranking import title_of
from m3retriever.inspector.context import Page
from m3retriever.inspector.retrieval import explained
from m3retriever.types import Where

ID_CHARACTERS = 1_000


def draw(page: Page, query: str, where: Where | None) -> None:
    """Ask for an id, and say what became of that document."""
    t = page.t
    markup.show(markup.section(t("missing.title")))
    id = st.text_input(
        t("missing.title"),
        key=state.MISSING,
        bind="query-params",
        placeholder=t("missing.placeholder"),
        label_visibility="collapsed",
        max_chars=ID_CHARACTERS,
    ).strip()
    if not id:
        return
    try:
        settings = {"profile": page.profile, "k": page.k, "threshold": page.threshold, "where": where}
        with st.spinner(t("missing.looking"), show_time=True):
            found = explained(page.index, page.source, query, id, **settings)
    except UnknownDocumentError:
        markup.show(markup.notice("warning", t("missing.unknown"), id))
    except M3RetrieverError as error:
        markup.show(markup.notice("error", t("error.page"), str(error)))
    else:
        _explain(page, found)


def _explain(page: Page, found: Explanation) -> None:
    t = page.t
    key, values = missing.verdict(found, page.k)
    kind = "info" if found.stage == "hit" else "warning"
    remedies = [
        t(one, **{name: t(f"mode.{held}") if name == "mode" else held for name, held in given.items()})
        for one, given in missing.remedies(found, page.k)
    ]
    markup.show(markup.notice(kind, t(key, **values), title_of(found.document), name="missing"))
    if remedies:
        markup.show(markup.listed(t("missing.do"), remedies))
    if found.score is not None:  # else it does not pass the filter, and there is nothing more to say of it
        st.dataframe(_frame(page, found), hide_index=True, height="content", alt=t("missing.table"))
    lacking = missing.gap(found)
    if lacking is not None and found.last is not None:
        words = t("missing.gap", k=page.k, last=f"{found.last:.3f}", score=f"{found.score:.3f}", gap=f"{lacking:.3f}")
        markup.show(markup.note(words, name="gap"))
    if found.deeper is not None:
        markup.show(markup.note(t("missing.deeper")))


def _frame(page: Page, found: Explanation) -> pd.DataFrame:
    t, places = page.t, missing.places(found)
    return pd.DataFrame(
        {
            t("column.mode"): [t("mode.hybrid"), *(t(f"mode.{place.mode}") for place in places)],
            t("column.score"): [f"{score:.3f}" for score in (found.score, *(place.score for place in places))],
            t("missing.rank"): [
                "–" if rank is None else f"#{rank}" for rank in (found.rank, *(place.rank for place in places))
            ],
            t("missing.found"): ["", *("●" if place.found else "" for place in places)],
        }
    )
