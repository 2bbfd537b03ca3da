"""The charts of an alignment: the best match of each query token, and all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from m3retriever.inspector.analysis.tokens import Cell, Match
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette, rgba

HEAT_RANGE = [0.2, 1.0]  # similarities below are as pale as can be
HEAD_PIXELS = 74  # the slanted labels above the heatmap
UNNUMBERED = "replace(datum.label, /^[0-9]+ /, '')"  # labels carry a number so that equal tokens stay apart


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


def _token_axis(*, size: int, **options: Any) -> alt.Axis:
    return alt.Axis(labelExpr=UNNUMBERED, labelFontSize=size, labelLimit=110, ticks=False, domain=False, **options)
