"""The charts of a threshold: how scores are spread, what each threshold gives, whether probabilities keep their word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from m3retriever.calibrating.thresholds import Measured
from m3retriever.inspector.analysis.thresholds import Band, Bar, Point, Sample
from m3retriever.inspector.charts import AXIS_PIXELS
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette, ink_on
from m3retriever.quality_page.fits import BANDS

HISTOGRAM_PIXELS, CURVES_PIXELS, RELIABILITY_PIXELS, RATES_PIXELS = 170, 220, 220, 260
HEADROOM = 1.25  # above the highest bar, for the threshold's number
EXTENT = 30  # pixels of the numbers beside an axis: charts above each other begin at the same place
BAND_TOP, BAND_FOOT = -0.05, -0.15  # of the levels' strip, below the curves' 0
NAMED = 0.09  # share of the axis from which on a band has room for its name
MEASURES = ("precision", "recall", "f1")
DASHES = [[2, 2], [7, 3], [1, 0]]
HOVER_PIXELS = 7  # width of what shows the numbers of a threshold


def histogram(
    bars: Sequence[Bar], *, mode: str, ends: tuple[float, float], cut: float | None, palette: Palette, t: Translate
) -> alt.LayerChart:
    """Relevant pairs upwards in the mode's colour, others downwards in grey, and the threshold across."""
    data = pd.DataFrame([vars(bar) for bar in bars])
    data["side"] = [t("thresholds.relevant" if bar.relevant else "thresholds.other") for bar in bars]
    data["absolute"] = data["share"].abs()
    highest = float(data["absolute"].max()) * 1.02
    domain = [-highest, highest * HEADROOM]
    axis = alt.Axis(values=_shares(highest), labelExpr="format(abs(datum.value), '.0%')", **_margin())
    marks = (
        alt.Chart(data)
        .mark_bar(binSpacing=0, stroke=palette.background, strokeWidth=0.6)
        .encode(
            x=_scores(ends, None),
            x2="end:Q",
            y=alt.Y("share:Q", scale=alt.Scale(domain=domain, nice=False), title=t("thresholds.share"), axis=axis),
            y2=alt.datum(0),
            color=alt.condition("datum.relevant", alt.value(palette.of(mode)), alt.value(palette.other)),
            tooltip=[
                alt.Tooltip("side:N", title=t("thresholds.side")),
                alt.Tooltip("start:Q", format=".3f", title=t("thresholds.from")),
                alt.Tooltip("end:Q", format=".3f", title=t("thresholds.to")),
                alt.Tooltip("pairs:Q", format=",", title=t("thresholds.pairs")),
                alt.Tooltip("absolute:Q", format=".1%", title=t("thresholds.share")),
            ],
        )
    )
    names = [_side(data, relevant, palette.text if relevant else palette.muted) for relevant in (True, False)]
    chart: alt.LayerChart = alt.layer(marks, *names, *_cut(cut, ends, palette)).properties(height=HISTOGRAM_PIXELS)
    return chart


def curves(
    samples: Sequence[Sample],
    bands: Sequence[Band],
    *,
    ends: tuple[float, float],
    cut: float | None,
    at_cut: Measured | None,
    colour: str,
    palette: Palette,
    t: Translate,
) -> alt.LayerChart:
    """Precision, recall and F1 by threshold; below them, on the same axis, the levels in words."""
    names = [t(f"thresholds.{name}") for name in MEASURES]
    floor = BAND_FOOT - 0.02 if bands else 0.0
    axis = alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f", **_margin())
    y = alt.Y("value:Q", scale=alt.Scale(domain=[floor, 1.02], nice=False), title=t("thresholds.value"), axis=axis)
    rows = [
        {"start": one.threshold, "value": getattr(one, name), "name": label, "kind": label}
        for name, label in zip(MEASURES, names, strict=True)
        for one in samples
    ]
    legend = alt.Legend(
        orient="top", title=None, labelColor=palette.muted, symbolStrokeColor=palette.text, symbolSize=400, offset=2
    )
    lines = (
        alt.Chart(pd.DataFrame(rows, columns=["start", "value", "name", "kind"]))
        .mark_line(strokeWidth=2)
        .encode(
            x=_scores(ends, t("column.score")),
            y=y,
            color=alt.Color(
                "name:N", sort=None, legend=None, scale=alt.Scale(domain=names, range=[palette.muted, palette.text, colour])
            ),
            strokeDash=alt.StrokeDash("kind:N", sort=None, legend=legend, scale=alt.Scale(domain=names, range=DASHES)),
        )
    )
    layers = [lines, *_cut(cut, ends, palette, named=False), *_strip(bands, ends, palette, t), _hover(samples, names, t)]
    if at_cut is not None and cut is not None:
        layers.append(_dots(cut, (at_cut.precision, at_cut.recall, at_cut.f()), palette))
    chart: alt.LayerChart = alt.layer(*layers).properties(height=CURVES_PIXELS + AXIS_PIXELS)
    return chart


def reliability(points: Sequence[Point], *, colour: str, palette: Palette, t: Translate) -> alt.LayerChart:
    """What was said against what is true; on the diagonal probabilities keep their word."""
    data = pd.DataFrame([vars(point) for point in points]).assign(area=lambda rows: (2 * rows["radius"]) ** 2 * 0.785)
    scale, axis = alt.Scale(domain=[-0.03, 1.03], nice=False), alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f")
    diagonal = (
        alt.Chart(pd.DataFrame({"said": [0.0, 1.0], "true": [0.0, 1.0]}))
        .mark_line(color=palette.muted, strokeWidth=1, strokeDash=[4, 3])
        .encode(x="said:Q", y="true:Q")
    )
    marks = (
        alt.Chart(data)
        .mark_circle(color=colour, opacity=0.8, stroke=palette.background, strokeWidth=1)
        .encode(
            x=alt.X("said:Q", scale=scale, axis=axis, title=t("thresholds.said")),
            y=alt.Y("true:Q", scale=scale, axis=axis, title=t("thresholds.true")),
            size=alt.Size("area:Q", scale=None, legend=None),
            tooltip=[
                alt.Tooltip("said:Q", format=".3f", title=t("thresholds.said")),
                alt.Tooltip("true:Q", format=".3f", title=t("thresholds.true")),
                alt.Tooltip("pairs:Q", format=",", title=t("thresholds.pairs")),
            ],
        )
    )
    chart: alt.LayerChart = alt.layer(diagonal, marks).properties(height=RELIABILITY_PIXELS)
    return chart


def rates(
    steps: Sequence[tuple[float, float]],
    *,
    ends: tuple[float, float],
    cut: float | None,
    colour: str,
    palette: Palette,
    t: Translate,
) -> alt.LayerChart:
    """The share of unrelated pairs that reach each score, from 1 down, in powers of ten."""
    data = pd.DataFrame(steps, columns=["start", "rate"])
    line = (
        alt.Chart(data)
        .mark_line(color=colour, strokeWidth=2, interpolate="step-before")
        .encode(
            x=_scores(ends, t("column.score")),
            y=alt.Y(
                "rate:Q",
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(format=".2~%", tickCount=4, **_margin()),
                title=t("thresholds.reached"),
            ),
        )
    )
    hover = (
        alt.Chart(data)
        .mark_rule(strokeWidth=HOVER_PIXELS, opacity=0)
        .encode(
            x="start:Q",
            tooltip=[
                alt.Tooltip("start:Q", format=".3f", title=t("column.score")),
                alt.Tooltip("rate:Q", format=".2~%", title=t("thresholds.reached")),
            ],
        )
    )
    chart: alt.LayerChart = alt.layer(line, *_cut(cut, ends, palette), hover).properties(height=RATES_PIXELS)
    return chart


def _scores(ends: tuple[float, float], title: str | None) -> alt.X:
    """The axis of scores; its numbers stand under the chart that gives it a title."""
    axis = alt.Axis(tickCount=10, labels=title is not None, ticks=title is not None, domain=False)
    return alt.X("start:Q", scale=alt.Scale(domain=list(ends), nice=False), title=title, axis=axis)


def _margin() -> dict[str, Any]:
    return {"minExtent": EXTENT, "maxExtent": EXTENT, "domain": False, "ticks": False}


def _shares(highest: float) -> list[float]:
    """Two round shares up and as many down."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0) if 2 * step >= 0.7 * highest)
    return [place * step for place in (-2, -1, 0, 1, 2)]


def _side(data: pd.DataFrame, relevant: bool, colour: str) -> alt.Chart:
    """What the bars above, or below, are, with their number."""
    own = data[data["relevant"] == relevant]
    words = f"{own['side'].iloc[0]} · {int(own['pairs'].sum()):,}" if len(own) else ""
    name: alt.Chart = (
        alt.Chart(pd.DataFrame({"text": [words]}))
        .mark_text(align="right", baseline="top" if relevant else "bottom", color=colour, fontWeight=600)
        .encode(x=alt.value("width"), y=alt.value(4 if relevant else HISTOGRAM_PIXELS - 4), text="text:N")
    )
    return name


def _cut(cut: float | None, ends: tuple[float, float], palette: Palette, *, named: bool = True) -> list[alt.Chart]:
    """The threshold as a line across, with its number beside it, on the side where there is room."""
    if cut is None:
        return []
    base = alt.Chart(pd.DataFrame({"start": [cut], "text": [f"{cut:.3f}"]}))
    line = base.mark_rule(color=palette.limit, strokeWidth=2).encode(x="start:Q", y=alt.value(0), y2=alt.value("height"))
    if not named:
        return [line]
    right = cut > (ends[0] + ends[1]) / 2
    label = base.mark_text(
        align="right" if right else "left", dx=-6 if right else 6, baseline="top", color=palette.limit, fontWeight=600
    )
    return [line, label.encode(x="start:Q", y=alt.value(4), text="text:N")]


def _strip(bands: Sequence[Band], ends: tuple[float, float], palette: Palette, t: Translate) -> list[alt.Chart]:
    """The levels as a strip in the ramp's colours, each with its name where there is room."""
    if not bands:
        return []
    ramp, wide = palette.ramp, (ends[1] - ends[0]) * NAMED
    rows = [
        {
            "start": band.start,
            "end": band.end,
            "middle": (band.start + band.end) / 2,
            "name": t(f"level.{band.level.replace(' ', '_')}"),
            "colour": ramp[BANDS[band.level]],
            "on": ink_on(ramp[BANDS[band.level]]),
            "wide": band.end - band.start >= wide,
        }
        for band in bands
    ]
    base = alt.Chart(pd.DataFrame(rows)).transform_calculate(top=str(BAND_TOP), foot=str(BAND_FOOT))
    strip = base.mark_rect().encode(
        x="start:Q",
        x2="end:Q",
        y="top:Q",
        y2="foot:Q",
        color=alt.Color("colour:N", scale=None, legend=None),
        tooltip=[
            alt.Tooltip("name:N", title=t("thresholds.level")),
            alt.Tooltip("start:Q", format=".3f", title=t("thresholds.from")),
            alt.Tooltip("end:Q", format=".3f", title=t("thresholds.to")),
        ],
    )
    names = (
        base.transform_filter("datum.wide")
        .transform_calculate(center=f"{(BAND_TOP + BAND_FOOT) / 2}")
        .mark_text(fontSize=11)
        .encode(x="middle:Q", y="center:Q", text="name:N", color=alt.Color("on:N", scale=None, legend=None))
    )
    return [strip, names]


def _hover(samples: Sequence[Sample], names: Sequence[str], t: Translate) -> alt.Chart:
    """Shows a threshold's numbers where one points."""
    data = pd.DataFrame([vars(one) for one in samples], columns=["threshold", *MEASURES, "returned"])
    hover: alt.Chart = (
        alt.Chart(data.rename(columns={"threshold": "start"}))
        .mark_rule(strokeWidth=HOVER_PIXELS, opacity=0)
        .encode(
            x="start:Q",
            tooltip=[
                alt.Tooltip("start:Q", format=".3f", title=t("sidebar.threshold")),
                *(alt.Tooltip(f"{key}:Q", format=".3f", title=name) for key, name in zip(MEASURES, names, strict=True)),
                alt.Tooltip("returned:Q", format=",", title=t("thresholds.answers")),
            ],
        )
    )
    return hover


def _dots(cut: float, values: Sequence[float], palette: Palette) -> alt.Chart:
    dots: alt.Chart = (
        alt.Chart(pd.DataFrame({"start": [cut] * len(values), "value": values}))
        .mark_point(filled=True, size=46, fill=palette.background, stroke=palette.limit, strokeWidth=2, opacity=1)
        .encode(x="start:Q", y="value:Q")
    )
    return dots
