"""The charts of quality: means of every mode, and the difference of two rankings question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from m3retriever.inspector.analysis.comparing import Difference, arrow
from m3retriever.inspector.analysis.quality import Mean
from m3retriever.inspector.charts import AXIS_PIXELS
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette

MEANS_PIXELS, LEGEND_PIXELS = 150, 26
BAR_PIXELS = 17  # of one question
LABEL_PIXELS, LABEL_CHARACTERS = 250, 60
PICK, QUERY = "pick", "query"  # the selection of a bar, and the field that it gives


def mean_bars(means: Sequence[Mean], *, palette: Palette, t: Translate) -> alt.LayerChart:
    """A group of bars for each measure, a bar for each mode, and the 95 % interval as a line on it."""
    modes = list(dict.fromkeys(one.mode for one in means))
    names = [t(f"mode.{mode}") for mode in modes]
    data = pd.DataFrame([vars(one) for one in means]).assign(name=[t(f"mode.{one.mode}") for one in means])
    base = alt.Chart(data).encode(
        x=alt.X("measure:N", sort=None, title=None, axis=alt.Axis(labelAngle=0, ticks=False, domain=False)),
        xOffset=alt.XOffset("name:N", sort=None),
        tooltip=[
            alt.Tooltip("name:N", title=t("column.mode")),
            alt.Tooltip("measure:N", title=t("evaluate.measure")),
            alt.Tooltip("value:Q", format=".3f", title=t("evaluate.mean")),
            alt.Tooltip("low:Q", format=".3f", title=t("evaluate.low")),
            alt.Tooltip("high:Q", format=".3f", title=t("evaluate.high")),
        ],
    )
    scale = alt.Scale(domain=[0, 1], nice=False)
    bars = base.mark_bar(cornerRadiusEnd=2).encode(
        y=alt.Y("value:Q", scale=scale, title=None, axis=alt.Axis(values=[0, 0.5, 1], format=".1f", domain=False)),
        color=alt.Color(
            "name:N",
            sort=None,
            scale=alt.Scale(domain=names, range=[palette.of(mode) for mode in modes]),
            legend=alt.Legend(orient="top", title=None, labelColor=palette.muted, symbolType="square"),
        ),
    )
    lines = base.mark_rule(color=palette.text, strokeWidth=1.2, opacity=0.75).encode(y="low:Q", y2="high:Q")
    chart: alt.LayerChart = alt.layer(bars, lines).properties(height=MEANS_PIXELS + AXIS_PIXELS + LEGEND_PIXELS)
    return chart


def difference_bars(
    found: Sequence[Difference], queries: Mapping[str, str], *, chosen: str, palette: Palette, t: Translate
) -> alt.LayerChart:
    """A bar for each question from 0 to the second's value less the first's, in the order given; can be clicked."""
    data = pd.DataFrame(
        {
            QUERY: [one.query for one in found],
            "chosen": [one.query == chosen for one in found],
            "label": [f"{one.query}  {queries[one.query][:LABEL_CHARACTERS]}" for one in found],
            "text": [queries[one.query] for one in found],
            "first": [one.first for one in found],
            "second": [one.second for one in found],
            "value": [one.value for one in found],
            "sign": [f"{arrow(one.value)} {one.value:+.3f}" for one in found],
        }
    )
    reach = max([0.1, *data["value"].abs()]) * 1.3
    labels = alt.Axis(ticks=False, domain=False, labelLimit=LABEL_PIXELS, labelPadding=6, grid=False)
    base = alt.Chart(data).encode(
        x=alt.X(
            "value:Q",
            title=None,
            scale=alt.Scale(domain=[-reach, reach], nice=False),
            axis=alt.Axis(format=".1f", tickCount=5, domain=False, orient="top"),
        ),
        y=alt.Y("label:N", sort=None, title=None, axis=labels),
        tooltip=[
            alt.Tooltip("text:N", title=t("compare.question")),
            alt.Tooltip("first:Q", format=".3f", title="A"),
            alt.Tooltip("second:Q", format=".3f", title="B"),
            alt.Tooltip("value:Q", format="+.3f", title="B − A"),
        ],
    )
    colour = alt.condition("datum.value > 0", alt.value(palette.hybrid), alt.value(palette.limit))
    opacity = alt.condition("datum.chosen", alt.value(1), alt.value(0.62))
    pick = alt.selection_point(name=PICK, fields=[QUERY], toggle=False)
    bars = base.mark_bar(cornerRadiusEnd=2, cursor="pointer").encode(color=colour, opacity=opacity).add_params(pick)
    gains = _signs(base.transform_filter("datum.value > 0"), "left", palette)
    losses = _signs(base.transform_filter("datum.value < 0"), "right", palette)
    chart: alt.LayerChart = alt.layer(bars, gains, losses).properties(height=BAR_PIXELS * len(found) + AXIS_PIXELS)
    return chart


def _signs(base: alt.Chart, align: str, palette: Palette) -> alt.Chart:
    """The difference in figures, at the end of its bar."""
    offset = 4 if align == "left" else -4
    marks: alt.Chart = base.mark_text(align=align, dx=offset, fontSize=11, color=palette.muted).encode(text="sign:N")
    return marks
