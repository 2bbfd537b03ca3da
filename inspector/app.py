"""The inspector's frame: page configuration, navigation and sidebar. Run by `launch`."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from m3retriever import M3Index, M3RetrieverError
from m3retriever.inspector import markup, sidebar, state
from m3retriever.inspector.i18n import Translate, translator
from m3retriever.inspector.project import Project
from m3retriever.inspector.retrieval import open_index
from m3retriever.inspector.source import Source

HERE = Path(__file__).parent

# A page: views/<name>.py, its title under "nav.<name>" in the locale tables, and a line here.
PAGES = {
    "search": ":material/search:",
    "pairs": ":material/compare_arrows:",
    "thresholds": ":material/tune:",
    "tune": ":material/change_history:",
    "evaluate": ":material/fact_check:",
    "compare": ":material/difference:",
    "index": ":material/database:",
}


def main() -> None:
    """One run of the app."""
    icon = HERE / "icon.png"  # a Material icon here would make the browser load fonts from outside
    st.set_page_config(page_title="m3retriever", page_icon=str(icon), layout="wide", initial_sidebar_state="expanded")
    t = translator(state.language())
    markup.show(markup.styles(state.palette()))
    page = st.navigation([_page(name, t) for name in PAGES], position="top")
    source = Source.from_arguments(sys.argv[1:])
    index = _open(source, t)
    if index is not None:
        try:
            sidebar.draw(index, source, Project.of(source), t)
            _run(page, index, t)
        except M3RetrieverError as error:
            markup.show(markup.notice("error", t("error.page"), str(error)))
    markup.show(markup.ready(state.count_run(), page.url_path))


def _run(page: st.Page, index: M3Index, t: Translate) -> None:
    """The page, below what went wrong in a callback; nothing can be scored while all weights are 0."""
    if (problem := state.problem()) is not None:
        markup.show(markup.notice("error", t("error.change"), problem))
    if index.profile_problem is not None:
        markup.show(markup.notice("warning", t("error.profile"), index.profile_problem))
    if state.settings(index.profile).weights is None:
        markup.show(markup.notice("warning", t("error.no_weights")))
    else:
        page.run()


def _page(name: str, t: Translate) -> st.Page:
    return st.Page(HERE / "views" / f"{name}.py", title=t(f"nav.{name}"), icon=PAGES[name], url_path=name)


def _open(source: Source, t: Translate) -> M3Index | None:
    """The index, or None with the reason on the page."""
    try:
        with st.spinner(t("error.opening"), show_time=True):
            return open_index(source)
    except M3RetrieverError as error:
        markup.show(markup.notice("error", t("error.open"), str(error)))
        return None


if __name__ == "__main__":
    main()
