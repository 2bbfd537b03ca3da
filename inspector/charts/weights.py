"""The map of a measure over all weights of three modes: a triangle whose corners are the modes alone."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from m3retriever import MODES
from m3retriever.inspector.analysis.weights import Cell, Spot
from m3retriever.inspector.charts import AXIS_PIXELS
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import STEPS, Palette
from m3retriever.quality_page.ternary import COLBERT, DENSE, SPARSE

MAP_PIXELS, KEY_PIXELS = 400, 12
CORNERS = {"dense": (DENSE, 26), "sparse": (SPARSE, -22), "colbert": (COLBERT, 26)}  # and where their names stand, in pixels
FRAME = ((DENSE[0], SPARSE[1] - 26), (COLBERT[0], DENSE[1] + 30))  # what the map needs beside its cells
SHAPES = {"best": "circle", "current": "square"}


def weights_map(
    cells: Sequence[Cell], spots: Sequence[Spot], *, measure: str, palette: Palette, t: Translate
) -> alt.LayerChart:
    """Every weighting as a cell in its value's colour, with the best and the sliders' marked, in true shape at any width."""
    chart: alt.LayerChart = (
        alt.layer(_cells(cells, measure, palette, t), *_corners(palette, t), *_spots(spots, measure, palette, t), _frame())
        .project(type="identity")
        .properties(height=MAP_PIXELS)
    )
    return chart


def key(low: float, high: float, *, measure: str, palette: Palette) -> alt.Chart:
    """What the map's colours stand for."""
    step = (high - low) / STEPS or 1e-9
    edges = [low + place * step for place in range(STEPS + 1)]
    data = pd.DataFrame({"start": edges[:-1], "end": edges[1:], "colour": palette.ramp})
    axis = alt.Axis(values=[low, (low + high) / 2, high], format=".3f", domain=False, ticks=False)
    chart: alt.Chart = (
        alt.Chart(data)
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("start:Q", scale=alt.Scale(domain=[edges[0], edges[-1]], nice=False), title=measure, axis=axis),
            x2="end:Q",
            color=alt.Color("colour:N", scale=None, legend=None),
        )
        .properties(height=KEY_PIXELS + 2 * AXIS_PIXELS)
    )
    return chart


def _cells(cells: Sequence[Cell], measure: str, palette: Palette, t: Translate) -> alt.Chart:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*map(list, cell.corners), list(cell.corners[0])]]},
            "colour": palette.ramp[cell.step],
            **dict(zip(MODES, cell.shares, strict=True)),
            "value": cell.value,
        }
        for cell in cells
    ]
    chart: alt.Chart = (
        alt.Chart(alt.Data(values=features))
        .mark_geoshape(stroke=None)
        .encode(
            color=alt.Color("colour:N", scale=None, legend=None),
            tooltip=[
                *(alt.Tooltip(f"{mode}:Q", format=".2f", title=t(f"mode.{mode}")) for mode in MODES),
                alt.Tooltip("value:Q", format=".4f", title=measure),
            ],
        )
    )
    return chart


def _frame() -> alt.Chart:
    """Invisible points that keep room for the names beside the triangle."""
    data = pd.DataFrame(FRAME, columns=["x", "y"])
    frame: alt.Chart = alt.Chart(data).mark_point(opacity=0).encode(longitude="x:Q", latitude="y:Q")
    return frame


def _corners(palette: Palette, t: Translate) -> list[alt.Chart]:
    """The modes' names."""
    return [
        alt.Chart(pd.DataFrame({"x": [place[0]], "y": [place[1]], "text": [t(f"mode.{mode}")]}))
        .mark_text(dy=away, fontSize=13, fontWeight=600, color=palette.text)
        .encode(longitude="x:Q", latitude="y:Q", text="text:N")
        for mode, (place, away) in CORNERS.items()
    ]


def _spots(spots: Sequence[Spot], measure: str, palette: Palette, t: Translate) -> list[alt.Chart]:
    """A ring for the best weights, a square for the sliders'."""
    drawn = []
    for spot in spots:
        row = {
            "x": spot.place[0],
            "y": spot.place[1],
            "name": t(f"tune.spot_{spot.name}"),
            "value": spot.value,
        }
        row |= dict(zip(MODES, spot.shares, strict=True))
        tooltip = [
            alt.Tooltip("name:N", title=" "),
            *(alt.Tooltip(f"{mode}:Q", format=".3f", title=t(f"mode.{mode}")) for mode in MODES),
            *([] if spot.value is None else [alt.Tooltip("value:Q", format=".4f", title=measure)]),
        ]
        base = alt.Chart(pd.DataFrame([row])).encode(longitude="x:Q", latitude="y:Q", tooltip=tooltip)
        shape = SHAPES[spot.name]
        drawn.append(base.mark_point(shape=shape, size=190, stroke=palette.background, strokeWidth=5, filled=False, opacity=1))
        drawn.append(base.mark_point(shape=shape, size=190, stroke=palette.text, strokeWidth=2, filled=False, opacity=1))
    return drawn
