"""The charts of a ranking: every candidate's score, and the parts of one."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from m3retriever import MODES
from m3retriever.inspector.analysis.ranking import Part, Tick
from m3retriever.inspector.charts import AXIS_PIXELS
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette

STRIP_PIXELS, TICK_TOP = 38, 14  # height of the strip, and where its ticks begin: the threshold's number stands above


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


def _threshold_line(threshold: float, palette: Palette) -> tuple[alt.Chart, alt.Chart]:
    base = alt.Chart(pd.DataFrame({"threshold": [threshold], "text": [f"{threshold:.2f}"]}))
    line = base.mark_rule(color=palette.limit, strokeWidth=2).encode(x="threshold:Q", y=alt.value(0), y2=alt.value("height"))
    label = base.mark_text(align="left", dx=5, baseline="top", color=palette.limit, fontWeight=600).encode(
        x="threshold:Q", y=alt.value(1), text="text:N"
    )
    return line, label
