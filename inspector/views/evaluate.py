"""Evaluate: every mode and the hybrid on questions with known answers, as a whole and question by question."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from m3retriever import MODES, M3RetrieverError, ModeScores, Profile
from m3retriever.evaluation import Run
from m3retriever.exactness import QUESTIONS, Exactness, exactness
from m3retriever.inspector import charts, downloads, golden, jobs, markup, retrieval, state
from m3retriever.inspector.analysis import quality as analysis
from m3retriever.inspector.analysis.quality import Mean, Quality, Question
from m3retriever.inspector.charts.quality import mean_bars
from m3retriever.inspector.context import Page, current
from m3retriever.inspector.golden import Judged
from m3retriever.inspector.markup import Measured, Tile
from m3retriever.io import golden_text, run_text
from m3retriever.ranking import SEARCH_MODES, Ranking, SearchMode

MEASURES = "nDCG@10, R@10, R@100, RR@10"
ROW_PIXELS = 34
TABLE_PIXELS = 16 * ROW_PIXELS
BAR_PIXELS = 92
BAR_COLOURS = {"hybrid": "green", "dense": "blue", "sparse": "orange", "colbert": "violet"}  # Streamlit's names
MARKS = {"exact": "●", "related": "◐", "miss": "○"}
COLUMNS = [1.2, 1]  # widths of the means as a table and as a chart
RUN_NAME = "run_name"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What the page shows: a set, its scores, and by mode and for "hybrid" how good they are."""

    judged: Judged
    scores: Mapping[str, ModeScores]
    qualities: Mapping[str, Quality]
    means: Sequence[Mean]
    mode: SearchMode


def draw() -> None:
    """Draw the page."""
    page = current()
    judged = golden.choose(page)
    if judged is None:
        return
    box, mode_box, saving, taking = st.columns([2.2, 2.4, 1, 1], gap="small", vertical_alignment="bottom")
    with box:
        measures = _measures(page)
    with mode_box:
        mode = _mode(page)
    scores = golden.scores(page, judged) if measures else None
    measured = None if scores is None else _measured(page, judged, scores, measures)
    if scores is None or measured is None:
        return
    found = Evaluated(judged, scores, *measured, mode)
    left, right = st.columns(COLUMNS, gap="large")
    with left:
        _means(page, found)
    with right:
        _chart(page, found)
        below = st.container()
    rows = _questions(page, found, measures)
    with below:
        _verdicts(page, found, rows)
    with saving, st.popover(page.t("evaluate.save"), icon=":material/save:", width="stretch"):
        _save(page, found)
    with taking, st.popover(page.t("evaluate.take"), icon=":material/download:", width="stretch"):
        _downloads(page, found, rows)
    _exactness(page, judged)


# -- what is measured ------------------------------------------------------------------------------


def _measures(page: Page) -> list[str]:
    """The measures that are named; none, with what is wrong on the page, where they are not."""
    text = st.text_input(page.t("evaluate.measures"), MEASURES, key=state.MEASURES, bind="query-params", max_chars=200)
    try:
        return analysis.measures_of(text or "")
    except M3RetrieverError as error:
        markup.show(markup.notice("error", page.t("evaluate.no_measure"), str(error)))
        return []


def _mode(page: Page) -> SearchMode:
    chosen: SearchMode = st.segmented_control(
        page.t("evaluate.mode"),
        SEARCH_MODES,
        format_func=lambda mode: page.t(f"mode.{mode}"),
        key=f"{state.MODE}_shown",
        default=state.chosen(state.MODE, SEARCH_MODES, "hybrid"),
        required=True,
        on_change=state.choose_shown,
        args=(state.MODE, f"{state.MODE}_shown"),
        width="stretch",
    )
    return chosen


def _measured(
    page: Page, judged: Judged, scores: Mapping[str, ModeScores], measures: Sequence[str]
) -> tuple[dict[str, Quality], list[Mean]] | None:
    """Qualities and means by mode; None while they are being measured. The modes alone do not depend on the sliders."""
    hybrid = _job(page, judged, scores, measures, {"hybrid": page.profile}, slot="evaluated")
    modes = _job(page, judged, scores, measures, dict.fromkeys(MODES, page.index.profile))
    if hybrid is None or modes is None:
        return None
    return {**hybrid[0], **modes[0]}, [*hybrid[1], *modes[1]]


def _job(
    page: Page,
    judged: Judged,
    scores: Mapping[str, ModeScores],
    measures: Sequence[str],
    profiles: Mapping[Any, Profile],
    slot: str | None = None,
) -> tuple[dict[str, Quality], list[Mean]] | None:
    rankings = {mode: Ranking.of(profile, mode, None, None) for mode, profile in profiles.items()}

    def work(step: jobs.Step) -> tuple[dict[str, Quality], list[Mean]]:
        found = {
            mode: analysis.quality_of(analysis.ranked(scores, ranking), judged.qrels, measures, on_step=step)
            for mode, ranking in rankings.items()
        }
        return found, [one for mode, quality in found.items() for one in analysis.means_of(mode, quality)]

    held = retrieval.state_of(page.index, page.source), page.index.profile.depth, judged.digest
    total = len(rankings) * len(judged.answerable)
    name = page.t("evaluate.measuring", n=len(judged.answerable))
    return jobs.run(name, ("evaluated", *held, repr(rankings), tuple(measures)), work, total=total, t=page.t, slot=slot)


# -- what is shown ---------------------------------------------------------------------------------


def _means(page: Page, found: Evaluated) -> None:
    t = page.t
    modes, measures = list(found.qualities), list(found.qualities["hybrid"].values)
    by_mode = {mode: [Measured(one.value, one.low, one.high) for one in found.means if one.mode == mode] for mode in modes}
    markup.show(markup.section(t("evaluate.means"), t("evaluate.interval", n=len(found.judged.answerable))))
    markup.show(markup.measure_table(measures, [(mode, t(f"mode.{mode}"), by_mode[mode]) for mode in modes]))


def _chart(page: Page, found: Evaluated) -> None:
    t = page.t
    words = ", ".join(f"{one.measure} {t(f'mode.{one.mode}')} {one.value:.3f}" for one in found.means)
    bars = mean_bars(found.means, palette=page.palette, t=t)
    charts.show(bars, alt_text=f"{t('evaluate.means')}. {words}", palette=page.palette)


def _questions(page: Page, found: Evaluated, measures: Sequence[str]) -> list[Question]:
    """The section of questions; gives their lines, worst first."""
    title, box = st.columns([3.4, 1], gap="small", vertical_alignment="bottom")
    with box:
        measure = st.selectbox(page.t("evaluate.order"), measures, key=state.MEASURE, bind="query-params")
    judged = found.judged
    rows = analysis.question_rows(judged.queries, judged.qrels, found.qualities, mode=found.mode, measure=measure)
    with title:
        detail = page.t("evaluate.worst_first", measure=measure, mode=page.t(f"mode.{found.mode}"))
        markup.show(markup.section(page.t("evaluate.questions"), detail))
        markup.show(markup.note(f"{_explained(page, found)} {page.t('evaluate.open')}", name="open"))
    _table(page, found, rows[: analysis.ROWS], measure)
    if len(rows) > analysis.ROWS:
        markup.show(markup.note(page.t("evaluate.cut", shown=analysis.ROWS, n=len(rows)), name="cut"))
    return rows


def _verdicts(page: Page, found: Evaluated, rows: Sequence[Question]) -> None:
    levels = analysis.has_levels(found.judged.qrels)
    shown = [
        Tile(
            name=verdict,
            label=f"{page.t('evaluate.top', k=analysis.TOP)} {MARKS[verdict]} {_verdict(page, verdict, levels=levels)}",
            value=str(count),
            detail=f"{count / len(rows):.0%}",
            mode=found.mode,
        )
        for verdict, count in analysis.verdict_counts(rows).items()
        if levels or verdict != "related"
    ]
    markup.show(markup.tiles(shown))


def _explained(page: Page, found: Evaluated) -> str:
    levels = analysis.has_levels(found.judged.qrels)
    return page.t("evaluate.top_levels", k=analysis.TOP) if levels else page.t("evaluate.top_plain", k=analysis.TOP)


def _verdict(page: Page, verdict: str, *, levels: bool) -> str:
    """Without levels nothing is only related, so that what is exact is a hit."""
    return page.t("verdict.hit") if verdict == "exact" and not levels else page.t(f"verdict.{verdict}")


def _table(page: Page, found: Evaluated, rows: Sequence[Question], measure: str) -> None:
    """The questions; a selected one is asked on the page Search."""
    titles = analysis.titles_of(page.index, [row.first for row in rows if row.first is not None])
    levels = analysis.has_levels(found.judged.qrels)
    seen = repr((found.judged.name, found.mode, measure, [row.id for row in rows]))
    key = "questions_" + hashlib.sha256(seen.encode("utf-8", "replace")).hexdigest()[:16]

    def ask() -> None:
        if chosen := st.session_state[key].selection.rows:
            state.ask(rows[chosen[0]].text)

    event = st.dataframe(
        _frame(page, rows, titles, levels=levels),
        key=key,
        hide_index=True,
        on_select=ask,
        selection_mode="single-row",
        height=min(ROW_PIXELS * (len(rows) + 1), TABLE_PIXELS),
        row_height=ROW_PIXELS,
        column_config=_columns(page),
        alt=page.t("evaluate.table", n=len(rows)),
    )
    if event.selection.rows:
        state.open_search()


def _frame(page: Page, rows: Sequence[Question], titles: Mapping[str, str], *, levels: bool) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "question": [row.text for row in rows],
            "verdict": [f"{MARKS[row.verdict]} {_verdict(page, row.verdict, levels=levels)}" for row in rows],
            "score": [row.score for row in rows],
            **{mode: [row.values[mode] for row in rows] for mode in SEARCH_MODES},
            "first": ["" if row.first is None else titles[row.first] for row in rows],
        }
    )


def _columns(page: Page) -> dict[str, Any]:
    column, t = st.column_config, page.t
    columns: dict[str, Any] = {
        "id": column.TextColumn(t("column.id"), width=90),
        "question": column.TextColumn(t("column.question"), width=330),
        "verdict": column.TextColumn(t("evaluate.top", k=analysis.TOP), width=84),
        "score": column.NumberColumn(t("evaluate.score"), format="%.3f", width=70),
        "first": column.TextColumn(t("evaluate.first")),
    }
    for mode in SEARCH_MODES:
        columns[mode] = column.ProgressColumn(
            t(f"mode.{mode}"), format="%.3f", min_value=0.0, max_value=1.0, color=BAR_COLOURS[mode], width=BAR_PIXELS
        )
    return columns


# -- what can be kept and taken away ---------------------------------------------------------------


def _run(page: Page, found: Evaluated) -> Run:
    """The run of the chosen mode, as `m3retriever evaluate --run-out` writes it."""
    find = analysis.ranked(found.scores, Ranking.of(page.profile, found.mode, None, None))
    return {query: find(query) for query in found.judged.answerable}


def _save(page: Page, found: Evaluated) -> None:
    t, project, writable = page.t, page.project, analysis.can_be_written(found.scores)
    default = analysis.run_name(found.mode, page.weights)
    key = f"{RUN_NAME}_{default}"
    name = st.text_input(t("evaluate.name"), default, key=key, max_chars=80)

    def save() -> None:
        project.save_run(st.session_state[key].strip(), _run(page, found))

    st.button(
        t("evaluate.save_run"),
        key="save_run",
        icon=":material/save:",
        on_click=state.attempt,
        args=(save,),
        disabled=project.read_only or not writable,
        help=t("evaluate.read_only") if project.read_only else None if writable else t("evaluate.no_run"),
    )
    if name and name.strip() in project.runs():
        markup.show(markup.note(t("evaluate.taken"), name="taken"))
    if saved := project.runs():
        markup.show(markup.note(t("evaluate.saved", names=", ".join(saved)), name="saved"))


def _downloads(page: Page, found: Evaluated, rows: Sequence[Question]) -> None:
    t, mode, writable = page.t, found.mode, analysis.can_be_written(found.scores)
    run, questions = partial(_run_text, page, found), partial(_questions_text, page, found, rows)
    downloads.csv_button(t("evaluate.means_csv"), analysis.mean_table(found.means), "means.csv", key="means_csv")
    downloads.button(t("evaluate.questions_csv"), questions, "questions.csv", key="questions_csv", mime="text/csv")
    downloads.button(t("evaluate.run", mode=t(f"mode.{mode}")), run, f"{mode}.run", key="run_trec", disabled=not writable)
    if not writable:
        markup.show(markup.note(t("evaluate.no_run"), name="no-run"))
    downloads.button(t("evaluate.golden"), partial(golden_text, found.judged.questions), "golden.jsonl", key="golden_jsonl")


def _run_text(page: Page, found: Evaluated) -> str:
    return run_text(_run(page, found))


def _questions_text(page: Page, found: Evaluated, rows: Sequence[Question]) -> str:
    titles = analysis.titles_of(page.index, [row.first for row in rows if row.first is not None])
    return downloads.csv_text(analysis.question_table(rows, found.qualities, titles))


# -- the approximate search against the exact one --------------------------------------------------


def _exactness(page: Page, judged: Judged) -> None:
    queries = judged.answerable
    total = min(QUESTIONS, len(queries))
    markup.show(markup.section(page.t("evaluate.exactness"), page.t("evaluate.exactness_what")))
    ranking = repr(Ranking.of(page.profile, "hybrid", None, None)), page.profile.depth
    key = "exactness", retrieval.state_of(page.index, page.source), ranking, tuple(queries.items())

    def work(step: jobs.Step) -> Exactness:
        return exactness(page.index, queries, profile=page.profile, on_step=step)

    if not jobs.jobs().holds(key):
        label = page.t("evaluate.exactness_start", n=total)
        st.button(label, key="exactness", on_click=jobs.jobs().started, args=(key, work, total), icon=":material/speed:")
        return
    found = jobs.run(page.t("evaluate.exactness_runs", n=total), key, work, total=total, t=page.t)
    if found is not None:
        _shares(page, found)


def _shares(page: Page, found: Exactness) -> None:
    t = page.t
    shown = [
        Tile(mode, t(f"mode.{mode}"), f"{share:.3f}", mode=mode, share=share, detail=t("evaluate.recall", k=found.k))
        for mode, share in found.found.items()
    ]
    shown.append(Tile("kept", t("evaluate.kept"), f"{found.kept:.3f}"))
    shown.append(Tile("difference", t("evaluate.difference"), f"{found.difference:.5f}"))
    markup.show(markup.tiles(shown))
    markup.show(markup.note(t("evaluate.shares", n=found.questions, k=found.k), name="shares"))


if __name__ == "__main__":
    draw()
