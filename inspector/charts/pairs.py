"""The chart of many texts scored with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from m3retriever.inspector.charts.tokens import UNNUMBERED
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette, rgba
from m3retriever.types import FloatArray

ROW_PIXELS, SMALL_ROW_PIXELS = 34, 19  # of few texts, and of many
WRITTEN = 14  # texts up to which a cell has room for its number
HEAD_PIXELS = 96  # the slanted labels above
STRONG = 0.62  # share of the strongest colour from which a number is written in the background's


def score_matrix(scores: FloatArray, texts: Sequence[str], *, mode: str, palette: Palette, t: Translate) -> alt.LayerChart:
    """Each text as a query (row) with each as a document (column); the higher the score, the stronger its mode's colour."""
    names = [f"{place:02d} {text}" for place, text in enumerate(texts, start=1)]
    data = pd.DataFrame(
        [
            {"query": names[row], "document": names[column], "first": texts[row], "second": texts[column], "score": value}
            for row, line in enumerate(scores.tolist())
            for column, value in enumerate(line)
        ]
    )
    low, high = min(0.0, data["score"].min()), max(data["score"].max(), 1.0 if mode != "sparse" else 1e-9)
    data["strong"] = (data["score"] - low) / (high - low) > STRONG
    base = alt.Chart(data).encode(
        x=alt.X("document:N", sort=None, title=None, axis=_axis(orient="top", labelAngle=-40, limit=130)),
        y=alt.Y("query:N", sort=None, title=None, axis=_axis(limit=170)),
    )
    colours = alt.Scale(domain=[low, high], clamp=True, range=[rgba(palette.of(mode), 0.03), palette.of(mode)])
    squares = base.mark_rect(cornerRadius=2, stroke=palette.background, strokeWidth=1).encode(
        color=alt.Color("score:Q", scale=colours, legend=None),
        tooltip=[
            alt.Tooltip("first:N", title=t("column.query")),
            alt.Tooltip("second:N", title=t("column.document")),
            alt.Tooltip("score:Q", format=".3f", title=t("column.score")),
        ],
    )
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("score:Q", format=".2f"),
        color=alt.condition("datum.strong", alt.value(palette.background), alt.value(palette.text)),
    )
    few = len(texts) <= WRITTEN
    height = (ROW_PIXELS if few else SMALL_ROW_PIXELS) * len(texts) + HEAD_PIXELS
    chart: alt.LayerChart = alt.layer(squares, *([numbers] if few else [])).properties(height=height)
    return chart


def _axis(*, limit: int, **options: Any) -> alt.Axis:
    return alt.Axis(labelExpr=UNNUMBERED, labelFontSize=11, labelLimit=limit, ticks=False, domain=False, **options)
