"""The chart of an index: how long its documents are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from m3retriever.inspector.analysis.index import Bin
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette

PIXELS = 190


def token_histogram(bins: Sequence[Bin], *, reads: int | None, palette: Palette, t: Translate) -> alt.LayerChart:
    """Documents by their number of tokens; a line where the model stops reading, if one comes near it."""
    data = pd.DataFrame([vars(one) for one in bins])
    data["end"], data["range"] = data["high"] + 1, [f"{one.low}–{one.high}" for one in bins]
    bars = (
        alt.Chart(data)
        .mark_bar(color=palette.colbert, opacity=0.8, stroke=palette.background, strokeWidth=1)
        .encode(
            x=alt.X("low:Q", bin="binned", title=t("index.tokens"), axis=_axis(grid=False, tickCount=6)),
            x2="end:Q",
            y=alt.Y("count:Q", title=t("index.documents"), axis=_axis(tickCount=4, format="d")),
            tooltip=[
                alt.Tooltip("range:N", title=t("index.tokens")),
                alt.Tooltip("count:Q", title=t("index.documents")),
            ],
        )
    )
    near = reads is not None and reads <= data["end"].max()
    line = alt.Chart(pd.DataFrame({"reads": [reads]})).mark_rule(color=palette.limit, strokeWidth=2).encode(x="reads:Q")
    chart: alt.LayerChart = alt.layer(bars, *([line] if near else [])).properties(height=PIXELS)
    return chart


def _axis(**options: Any) -> alt.Axis:
    return alt.Axis(tickMinStep=1, titleFontWeight="normal", **options)
