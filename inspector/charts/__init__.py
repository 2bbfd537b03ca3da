"""The charts, in Altair with our own colours. Each is shown with an alternative text."""

from __future__ import annotations

from collections.abc import Callable

import altair as alt
import streamlit as st

from m3retriever.palette import Palette

AXIS_PIXELS = 22  # Streamlit counts the axis into a chart's height
PADDING = {"left": 0, "top": 2, "right": 2, "bottom": 2}


def show(
    chart: alt.Chart | alt.LayerChart,
    *,
    alt_text: str,
    palette: Palette,
    key: str | None = None,
    on_select: Callable[[], None] | None = None,
) -> None:
    """Put a chart on the page. The text is shown by nothing that reads Markdown.

    `on_select` is a callback, and `key` where the session then holds what was selected.
    """
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
            titleFontSize=11,
            titleFontWeight="normal",
        )
    )
    st.altair_chart(styled, theme=None, alt=alt_text, width="stretch", key=key, on_select=on_select or "ignore")
