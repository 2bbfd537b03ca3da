"""Compare: two ways to rank, or kept runs, on the same questions, and how documents moved from one to the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from m3retriever import M3RetrieverError
from m3retriever.evaluation import DEFAULT_MEASURES, Comparison, Run, compare_values
from m3retriever.inspector import charts, contenders, golden, markup, state
from m3retriever.inspector.analysis import comparing as analysis
from m3retriever.inspector.analysis.comparing import Difference, Line
from m3retriever.inspector.analysis.quality import RunOf, titles_of
from m3retriever.inspector.charts.quality import PICK, QUERY, difference_bars
from m3retriever.inspector.contenders import Contender
from m3retriever.inspector.context import Page, current
from m3retriever.inspector.golden import Judged
from m3retriever.inspector.markup import Tile
from m3retriever.measures import measure_named

FIRST, SECOND = "A", "B"
DEFAULTS = {FIRST: (state.FIRST, f"{contenders.MODE}:dense"), SECOND: (state.SECOND, contenders.SIDEBAR)}
BOXES = [2, 2, 1.1, 0.9]  # widths of the two pickers, the measure and the upload
COLUMNS = [1, 1.15]  # widths of the differences and the two rankings
ROW_PIXELS, TITLE_PIXELS = 34, 196
CHART_PIXELS = 480  # of the bars; more are scrolled to
QUESTION_CHARACTERS = 120
EXAMPLES = 3  # ids that a message names


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two that are compared.

    Attributes
    ----------
    letter : FIRST or SECOND
    label : how the user's language calls it
    find : its answers by question
    values : of the measure, by question
    """

    letter: str
    label: str
    find: RunOf
    values: Mapping[str, float]


def draw() -> None:
    """Draw the page."""
    page = current()
    judged = golden.choose(page)
    if judged is None:
        return
    *boxes, measure_box, upload_box = st.columns(BOXES, gap="small", vertical_alignment="bottom")
    with upload_box, st.popover(page.t("compare.upload"), icon=":material/upload:", width="stretch"):
        contenders.upload(page)
    names = [_choose(page, letter, box) for letter, box in zip(DEFAULTS, boxes, strict=True)]
    with measure_box:
        measure = _measure(page)
    notes = st.columns(BOXES, gap="small")
    loaded = [_load(page, letter, name, box) for letter, name, box in zip(DEFAULTS, names, notes, strict=False)]
    if measure is None:
        return
    sides: list[Side] = []
    for letter, name, contender in zip(DEFAULTS, names, loaded, strict=True):
        side = None if contender is None else _side(page, judged, letter, name, contender, measure)
        if side is None:
            return
        sides.append(side)
    _compared(page, judged, sides[0], sides[1], measure)


# -- what is compared ------------------------------------------------------------------------------


def _choose(page: Page, letter: str, box: Any) -> str:
    name, default = DEFAULTS[letter]
    options = contenders.names(page)
    key = f"{name}_{state.language()}"  # the browser would keep showing the other language's name
    with box:
        chosen: str = st.selectbox(
            letter,
            options,
            index=options.index(state.chosen(name, options, default)),
            format_func=lambda option: contenders.label(option, page.t),
            key=key,
            on_change=state.choose_shown,
            args=(name, key),
        )
    return chosen


def _load(page: Page, letter: str, name: str, box: Any) -> Contender | None:
    """What was chosen, with a line that describes it; None, with what is wrong on the page, where it cannot be used."""
    with box:
        try:
            contender = contenders.load(page, name)
        except M3RetrieverError as error:
            markup.show(markup.notice("error", page.t("compare.broken", side=letter), str(error)))
            return None
        markup.show(markup.note(contenders.described(contender, page.t), name=f"about-{letter}"))
    return contender


def _measure(page: Page) -> str | None:
    """The measure; None, with what is wrong on the page, where there is none such."""
    chosen = st.selectbox(
        page.t("compare.measure"), DEFAULT_MEASURES, key=state.MEASURE, bind="query-params", accept_new_options=True
    )
    try:
        measure_named(chosen)
    except M3RetrieverError as error:
        markup.show(markup.notice("error", page.t("compare.no_measure"), str(error)))
        return None
    return chosen


def _side(page: Page, judged: Judged, letter: str, name: str, contender: Contender, measure: str) -> Side | None:
    """A side with its values; None while they are being computed, which the page then shows."""
    find = contenders.run_of(page, judged, contender)
    quality = None if find is None else contenders.quality(page, judged, contender, find, measure)
    if find is None or quality is None:
        return None
    if contender.run is not None:
        _overlap(page, judged, letter, contender.run)
    return Side(letter, contenders.label(name, page.t), find, quality.values[measure])


def _overlap(page: Page, judged: Judged, letter: str, run: Run) -> None:
    """Say which questions a run and the set do not have in common."""
    found = analysis.overlap(run, judged.qrels)
    if len(found.lacking) == len(judged.answerable):
        markup.show(markup.notice("warning", page.t("compare.other_set", side=letter)))
    elif found.lacking:
        text = page.t("compare.lacking", side=letter, n=len(found.lacking))
        markup.show(markup.notice("warning", text, ", ".join(found.lacking[:EXAMPLES])))
    if found.beyond:
        text = page.t("compare.beyond", side=letter, n=len(found.beyond), names=", ".join(found.beyond[:EXAMPLES]))
        markup.show(markup.note(text, name=f"beyond-{letter}"))


# -- the comparison --------------------------------------------------------------------------------


def _compared(page: Page, judged: Judged, first: Side, second: Side, measure: str) -> None:
    values = tuple(first.values.items()), tuple(second.values.items())
    found = _comparison(first.values, second.values, hash(values))
    _tiles(page, found, first, second, measure)
    differences = analysis.differences(first.values, second.values)
    by_size = [one.query for one in sorted(differences, key=lambda one: -abs(one.value))]
    query = state.chosen(state.QUESTION, by_size, by_size[0])
    left, right = st.columns(COLUMNS, gap="large")
    with left:
        _differences(page, judged, differences, query, measure)
    with right:
        _question(page, judged, by_size, query)
        _rankings(page, judged, query, first, second)


@st.cache_resource(show_spinner=False, max_entries=50)
def _comparison(_first: Mapping[str, float], _second: Mapping[str, float], digest: int) -> Comparison:
    return compare_values(_first, _second)


def _tiles(page: Page, found: Comparison, first: Side, second: Side, measure: str) -> None:
    t = page.t
    shown = [
        Tile("first", f"A · {measure}", f"{found.first:.3f}", detail=first.label),
        Tile("second", f"B · {measure}", f"{found.second:.3f}", detail=second.label),
        Tile("difference", "B − A", f"{found.difference:+.3f}", detail=analysis.arrow(found.difference)),
        Tile("wins", t("compare.wins"), str(found.wins), detail="▲"),
        Tile("losses", t("compare.losses"), str(found.losses), detail="▼"),
        Tile("ties", t("compare.ties"), str(found.ties), detail="="),
        Tile("p", t("compare.p"), f"{found.p_value:.4f}"),
    ]
    markup.show(markup.tiles(shown))
    outcome = analysis.outcome(found)
    words = t(f"outcome.{outcome}", difference=f"{abs(found.difference):.3f}", p=f"{found.p_value:.4f}", n=found.queries)
    markup.show(markup.note(words, name="outcome"))


def _differences(page: Page, judged: Judged, differences: Sequence[Difference], query: str, measure: str) -> None:
    """The bars; one that is clicked is chosen."""
    t, shown = page.t, analysis.largest(differences)
    markup.show(markup.section(t("compare.differences"), f"{measure}, B − A"))
    if not shown:
        markup.show(markup.notice("info", t("compare.no_difference")))
        return
    seen = repr((query, [(one.query, one.value) for one in shown]))
    key = "differences_" + hashlib.sha256(seen.encode("utf-8", "replace")).hexdigest()[:16]

    def pick() -> None:
        if picked := st.session_state[key].selection.get(PICK):
            state.choose(state.QUESTION, picked[0][QUERY])

    gained, lost = sum(one.value > 0 for one in differences), sum(one.value < 0 for one in differences)
    best = f"{differences[0].query} {differences[0].value:+.3f}, {differences[-1].query} {differences[-1].value:+.3f}"
    words = t("compare.bars", n=len(shown), wins=gained, losses=lost, best=best)
    bars = difference_bars(shown, judged.queries, chosen=query, palette=page.palette, t=t)
    with st.container(height=CHART_PIXELS, border=False):
        charts.show(bars, alt_text=words, palette=page.palette, key=key, on_select=pick)
    if gained + lost > len(shown):
        markup.show(markup.note(t("compare.cut", shown=len(shown), n=gained + lost), name="cut"))


def _question(page: Page, judged: Judged, by_size: Sequence[str], query: str) -> None:
    """The picker of a question, those with the largest differences first, and the way to Search."""
    key = "question_" + hashlib.sha256(repr((query, by_size[0])).encode("utf-8", "replace")).hexdigest()[:16]
    box, opening = st.columns([3, 1], gap="small", vertical_alignment="bottom")
    with box:
        st.selectbox(
            page.t("compare.question"),
            by_size,
            index=by_size.index(query),
            format_func=lambda id: f"{id} · {judged.queries[id][:QUESTION_CHARACTERS]}",
            key=key,
            on_change=state.choose_shown,
            args=(state.QUESTION, key),
        )
    with opening:
        icon, words = ":material/search:", page.t("compare.open")
        if st.button(words, key="open", icon=icon, width="stretch", on_click=state.ask, args=(judged.queries[query],)):
            state.open_search()


def _rankings(page: Page, judged: Judged, query: str, first: Side, second: Side) -> None:
    """The first places of both, side by side."""
    t = page.t
    lines = analysis.side_by_side(first.find(query), second.find(query), judged.qrels[query])
    if not lines:
        markup.show(markup.notice("info", t("compare.nothing")))
        return
    titles = titles_of(page.index, [id for line in lines for id in (line.first, line.second) if id is not None])
    column = st.column_config
    mark, moved = column.TextColumn("★", width=44), column.TextColumn(t("compare.moved"), width=64)
    st.dataframe(
        _frame(lines, titles, t("compare.new")),
        hide_index=True,
        height="content",
        row_height=ROW_PIXELS,
        column_config={
            "rank": column.NumberColumn("#", width=36),
            "first_mark": mark,
            "first": column.TextColumn(FIRST, width=TITLE_PIXELS),
            "second_mark": mark,
            "second": column.TextColumn(SECOND, width=TITLE_PIXELS),
            "moved": moved,
        },
        alt=t("compare.table", n=len(lines)),
    )
    values = t("compare.values", first=f"{first.values[query]:.3f}", second=f"{second.values[query]:.3f}")
    markup.show(markup.note(f"{values} {t('compare.marks')}", name="values"))


def _frame(lines: Sequence[Line], titles: Mapping[str, str], new: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rank": [line.rank for line in lines],
            "first_mark": [line.first_mark for line in lines],
            "first": [titles.get(line.first or "", "") for line in lines],
            "second_mark": [line.second_mark for line in lines],
            "second": [titles.get(line.second or "", "") for line in lines],
            "moved": [_moved(line, new) for line in lines],
        }
    )


def _moved(line: Line, new: str) -> str:
    """By how many places the second's document rose, such as "▲ 3"."""
    if line.second is None:
        return ""
    if line.moved is None:
        return new
    return f"{analysis.arrow(line.moved)} {abs(line.moved)}" if line.moved else analysis.arrow(0)


if __name__ == "__main__":
    draw()
