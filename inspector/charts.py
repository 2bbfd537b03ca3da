"""The charts, in Altair with our own colours. Each is shown with an alternative text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from m3retriever import MODES
from m3retriever.inspector.analysis import Cell, Match, Part, Tick
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette, rgba

HEAT_RANGE = [0.2, 1.0]  # similarities below are as pale as can be
AXIS_PIXELS = 22  # Streamlit counts the axis into a chart's height
PADDING = {"left": 0, "top": 2, "right": 2, "bottom": 2}
HEAD_PIXELS = 74  # the slanted labels above the heatmap
STRIP_PIXELS, TICK_TOP = 38, 14  # height of the strip, and where its ticks begin: the threshold's number stands above
UNNUMBERED = "replace(datum.label, /^[0-9]+ /, '')"  # labels carry a number so that equal tokens stay apart


def show(chart: alt.Chart | alt.LayerChart, *, alt_text: str, palette: Palette) -> None:
    """Put a chart on the page. The text is shown by nothing that reads Markdown."""
    styled = (
        chart.properties(padding=PADDING, background="transparent")
        .configure(font="inherit")
        .configure_view(strokeWidth=0)
        .configure_axis(
            gridColor=palette.grid,
            domainColor=palette.grid,
            tickColor=palette.grid,
            labelColor=palette.muted,
            titleColor=palette.muted,
            labelFontSize=11,
        )
    )
    st.altair_chart(styled, theme=None, alt=alt_text, width="stretch")


def score_strip(ticks: Sequence[Tick], *, threshold: float | None, palette: Palette, t: Translate) -> alt.LayerChart:
    """Every candidate as a tick on the scale of the score, and the threshold as a line across."""
    data = pd.DataFrame([vars(tick) for tick in ticks])
    low, high = min(0.0, data["score"].min()), data["score"].max()
    scale = alt.Scale(domain=[low, 1.0 if high > 0.1 else high * 1.05], nice=False, clamp=True)
    axis = alt.Axis(tickCount=10, format=".1f" if high > 0.1 else ".3f", offset=2, domain=False)
    marks = (
        alt.Chart(data)
        .mark_rule(strokeWidth=2)
        .encode(
            x=alt.X("score:Q", scale=scale, title=None, axis=axis),
            y=alt.value(TICK_TOP),
            y2=alt.value("height"),
            color=alt.condition("datum.above", alt.value(palette.hybrid), alt.value(palette.muted)),
            opacity=alt.condition("datum.listed", alt.value(0.9), alt.value(0.3)),
            tooltip=[
                alt.Tooltip("label:N", title=t("column.title")),
                alt.Tooltip("score:Q", format=".3f", title=t("mode.hybrid")),
            ],
        )
    )
    line = () if threshold is None else _threshold_line(threshold, palette)
    strip: alt.LayerChart = alt.layer(marks, *line).properties(height=STRIP_PIXELS + AXIS_PIXELS)
    return strip


def contribution_bar(parts: Sequence[Part], *, palette: Palette, t: Translate) -> alt.Chart:
    """The parts of one score, end to end: the bar is as long as the score."""
    names = [t(f"mode.{part.mode}") for part in parts]
    data = pd.DataFrame([vars(part) for part in parts]).assign(name=names, order=range(len(parts)))
    bar: alt.Chart = (
        alt.Chart(data)
        .mark_bar(height=16)
        .encode(
            x=alt.X(
                "value:Q",
                stack="zero",
                scale=alt.Scale(domain=[min(0.0, *data["value"]), 1.0], nice=False),
                title=None,
                axis=alt.Axis(tickCount=5, format=".1f", offset=2, domain=False),
            ),
            color=alt.Color(
                "name:N", sort=None, legend=None, scale=alt.Scale(domain=names, range=[palette.of(mode) for mode in MODES])
            ),
            order="order:Q",
            tooltip=[
                alt.Tooltip("name:N", title=t("column.mode")),
                alt.Tooltip("score:Q", format=".3f", title=t("column.score")),
                alt.Tooltip("weight:Q", format=".2f", title=t("column.weight")),
                alt.Tooltip("value:Q", format=".3f", title=t("column.part")),
            ],
        )
        .properties(height=18 + AXIS_PIXELS)
    )
    return bar


def match_bars(matches: Sequence[Match], *, palette: Palette) -> alt.LayerChart:
    """A bar per query token, as long as its best match and named after it."""
    data = pd.DataFrame([vars(match) for match in matches])
    data["token"] = [f"{row:03d} {match.query}" for row, match in enumerate(matches)]
    data["found"] = [f"{match.document}  {match.similarity:.2f}" for match in matches]
    base = alt.Chart(data).encode(y=alt.Y("token:N", sort=None, title=None, axis=_token_axis(size=12)))
    bars = base.mark_bar(height=13, cornerRadiusEnd=2, color=palette.colbert, opacity=0.8).encode(
        x=alt.X("similarity:Q", scale=alt.Scale(domain=[0, 1.35], clamp=True), axis=None)
    )
    words = base.mark_text(align="left", dx=6, color=palette.text, fontSize=12, limit=140).encode(
        x="similarity:Q", text="found:N"
    )
    chart: alt.LayerChart = alt.layer(bars, words).properties(height=20 * len(matches))
    return chart


def heatmap(
    cells: Sequence[Cell], *, rows: Sequence[str], columns: Sequence[str], palette: Palette, t: Translate
) -> alt.LayerChart:
    """Query tokens against document tokens; each row's best cell is framed."""
    data = pd.DataFrame([vars(cell) for cell in cells])
    data["query"], data["document"] = [rows[cell.row] for cell in cells], [columns[cell.column] for cell in cells]
    data["y"] = [f"{cell.row:03d} {rows[cell.row]}" for cell in cells]
    data["x"] = [f"{cell.column:05d} {columns[cell.column]}" for cell in cells]
    top = _token_axis(size=11, labelAngle=-60, orient="top")
    base = alt.Chart(data).encode(
        x=alt.X("x:N", sort=None, title=None, axis=top),
        y=alt.Y("y:N", sort=None, title=None, axis=_token_axis(size=12)),
    )
    colours = alt.Scale(domain=HEAT_RANGE, clamp=True, range=[rgba(palette.colbert, 0.04), palette.colbert])
    squares = base.mark_rect(cornerRadius=2, stroke=palette.background, strokeWidth=1).encode(
        color=alt.Color("similarity:Q", scale=colours, legend=None),
        tooltip=[
            alt.Tooltip("query:N", title=t("column.query_token")),
            alt.Tooltip("document:N", title=t("column.document_token")),
            alt.Tooltip("similarity:Q", format=".3f", title=t("column.similarity")),
        ],
    )
    frames = base.transform_filter("datum.best").mark_rect(fillOpacity=0, stroke=palette.text, strokeWidth=1.6, cornerRadius=2)
    chart: alt.LayerChart = alt.layer(squares, frames).properties(height=22 * data["row"].nunique() + HEAD_PIXELS)
    return chart


def _threshold_line(threshold: float, palette: Palette) -> tuple[alt.Chart, alt.Chart]:
    base = alt.Chart(pd.DataFrame({"threshold": [threshold], "text": [f"{threshold:.2f}"]}))
    line = base.mark_rule(color=palette.limit, strokeWidth=2).encode(x="threshold:Q", y=alt.value(0), y2=alt.value("height"))
    label = base.mark_text(align="left", dx=5, baseline="top", color=palette.limit, fontWeight=600).encode(
        x="threshold:Q", y=alt.value(1), text="text:N"
    )
    return line, label


def _token_axis(*, size: int, **options: Any) -> alt.Axis:
    return alt.Axis(labelExpr=UNNUMBERED, labelFontSize=size, labelLimit=110, ticks=False, domain=False, **options)
