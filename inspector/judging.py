"""Going from hit to hit, and saying of each whether it answers the question: kept as a golden set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from m3retriever import M3RetrieverError
from m3retriever.inspector import downloads, golden, markup, state
from m3retriever.inspector.context import Page
from m3retriever.inspector.project import GRADES, asks
from m3retriever.io import golden_text
from m3retriever.io.judgements import RELEVANT

MARKS = ("✕", "★", "★★")  # of grades from 0, in tables; higher ones have the last
KEYS = {"relevant": "1", "partly": "2", "no": "3"}


def mark(grade: int | None) -> str:
    """A grade in a table; nothing for what was not judged."""
    return "" if grade is None else MARKS[min(grade, RELEVANT)]


def grades_of(page: Page, question: str) -> Mapping[str, int]:
    """{id: grade} of what was judged for a question; none where the file is broken, which is said on the page."""
    try:
        questions = golden.load(page.project.golden_path).questions if page.project.golden_path.is_file() else ()
    except M3RetrieverError as error:
        markup.show(markup.notice("warning", page.t("golden.broken"), str(error), name="broken-golden"))
        return {}
    found = next((one for one in questions if asks(one, question)), None)
    return {} if found is None else {**dict.fromkeys(found.relevant, RELEVANT), **found.grades}


def draw(page: Page, query: str, ids: Sequence[str], chosen: str, grade: int | None) -> None:
    """Buttons for the hit before and after, and for the three grades; the grade that holds is taken back by its button."""
    t, at, frozen = page.t, ids.index(chosen), page.project.read_only
    with st.container(horizontal=True, gap="xsmall", key="judge"):
        for name, icon, key, other in (("before", "arrow_upward", "K", at - 1), ("after", "arrow_downward", "J", at + 1)):
            st.button(
                t(f"judge.{name}"),
                key=f"go_{name}",
                icon=f":material/{icon}:",
                shortcut=key,
                disabled=not 0 <= other < len(ids),
                on_click=state.go_to,
                args=(ids[other] if 0 <= other < len(ids) else None,),
            )
        for name, value in GRADES.items():
            held = grade is not None and min(grade, RELEVANT) == value
            st.button(
                t(f"judge.{name}"),
                key=f"judge_{name}",
                shortcut=KEYS[name],
                type="primary" if held else "secondary",
                help=t("judge.read_only") if frozen else None,
                disabled=frozen,
                on_click=state.attempt,
                args=(page.project.judge, query, chosen, None if held else value),
            )


def export(page: Page) -> None:
    """A button that downloads the judgements, where there are any."""
    try:
        questions = page.project.golden()
    except M3RetrieverError:
        return
    if questions:
        text = golden_text(questions)
        downloads.button(page.t("judge.export"), text, page.project.golden_path.name, key="export_golden")
