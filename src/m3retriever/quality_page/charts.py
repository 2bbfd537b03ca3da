"""The page's pictures, drawn of plain numbers; what stands around them is in the sections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from m3retriever.calibrating.reliability import Bin
from m3retriever.calibrating.thresholds import Pairs
from m3retriever.quality_page.markup import Markup, score, tag, text
from m3retriever.quality_page.shapes import Scale, box, decoration, label, line, path, picture
from m3retriever.quality_page.spread import Curves, Spread

SECOND, LARGEST, SMALLEST = 8.0, 12.0, 2.2  # pixels: the radius of the second largest point, and the bounds of all
WIDTH = 420  # pixels of a threshold picture
LEFT, RIGHT = 40, 408  # its axis
MIDDLE, HALF = 88, 62  # of its histogram: the line between relevant and other, and how far both reach
TOP, FLOOR = 182, 292  # of its curves: 1 and 0


def bar(mode: str, value: float, interval: tuple[float, float] | None = None) -> Markup:
    """A value in [0, 1] as a bar in a cell, 100 wide, with its interval as a line."""
    across = Scale(0, 1, 0, 100)
    shapes = [box(0, 2, 100, 6, "track"), box(0, 2, across(min(max(value, 0), 1)), 6, mode)]
    if interval is not None:
        low, high = map(across, interval)
        shapes += [line(low, 5, high, 5, "whisker"), line(low, 1, low, 9, "whisker"), line(high, 1, high, 9, "whisker")]
    return decoration(100, 10, *shapes, class_="bar")


def shares(parts: Mapping[str, float]) -> Markup:
    """Shares that sum to 1 as one bar in the modes' colours."""
    starts = np.cumsum([0.0, *parts.values()]).tolist()
    boxes = (box(100 * start, 0, 100 * share, 10, mode) for start, (mode, share) in zip(starts, parts.items(), strict=False))
    return decoration(100, 10, *boxes, class_="weights")


def strip(bounds: Sequence[float], steps: Sequence[int], scale: Scale) -> Markup:
    """A scale cut at rising bounds into bands of the ramp's colours, one more than bounds."""
    edges = [scale.start, *(min(max(scale(bound), scale.start), scale.end) for bound in bounds), scale.end]
    bands = (box(left, 0, right - left, 10, f"step-{step}") for left, right, step in zip(edges, edges[1:], steps, strict=False))
    return decoration(scale.end, 10, *bands, class_="strip")


def swatch(mode: str) -> Markup:
    """A small square in a colour."""
    return tag("svg", box(0, 0, 10, 10, mode), viewBox="0 0 10 10", aria_hidden="true", class_="swatch")


def line_sample(kind: str) -> Markup:
    """A piece of a line, for a key."""
    return tag("svg", line(0, 5, 26, 5, kind), viewBox="0 0 26 10", aria_hidden="true", class_="sample")


def threshold_picture(mode: str, pairs: Pairs, threshold: float | None) -> Markup:
    """Where relevant and other pairs score, above precision, recall and F1 by threshold on the same axis."""
    values = pairs.scores.tolist() + ([] if threshold is None else [threshold])
    across, down = Scale.over(values, LEFT, RIGHT), Scale(0, 1, FLOOR, TOP)
    found = "no threshold is chosen" if threshold is None else f"the chosen threshold is {score(threshold)}"
    description = (
        f"{mode}: scores of {int(pairs.relevant.sum()):,} relevant and {int((~pairs.relevant).sum()):,} other pairs, "
        f"and precision, recall and F1 at every threshold from {score(across.low)} to {score(across.high)}; {found}."
    )
    shapes = [*_threshold_axes(across, down), *histogram(mode, pairs, across), *curves(pairs, across, down)]
    if threshold is not None:
        shapes += _threshold_mark(pairs, threshold, across, down)
    return picture(WIDTH, 326, description, *shapes)


def histogram(mode: str, pairs: Pairs, across: Scale) -> list[Markup]:
    """Relevant pairs upwards, others downwards, each as shares of their own number, on one scale."""
    spread = Spread.of(pairs, across.low, across.high)
    edges, up, down = spread.edges.tolist(), spread.relevant.tolist(), spread.other.tolist()
    highest = max(*up, *down, 1e-9)
    height = Scale(0, highest, 0, HALF)
    shapes = []
    for left, right, above, below in zip(edges, edges[1:], up, down, strict=False):
        start, width = across(left), across(right) - across(left) - 0.6
        shapes += [box(start, MIDDLE - height(above), width, height(above), mode)] if above else []
        shapes += [box(start, MIDDLE, width, height(below), "other")] if below else []
    most = f"{highest:.0%}"
    places = ((MIDDLE - HALF + 8, most), (MIDDLE + 4, "0"), (MIDDLE + HALF, most))
    return [
        *shapes,
        line(LEFT, MIDDLE, RIGHT, MIDDLE, "zero"),
        *(label(LEFT - 6, y, name, anchor="end", class_="muted") for y, name in places),
    ]


def curves(pairs: Pairs, across: Scale, down: Scale) -> list[Markup]:
    """Precision, recall and F1 by threshold, where at least MIN_RETURNED answers are left."""
    found = Curves.of(pairs, across.low, across.high)
    if not len(found.thresholds):
        return []
    named = {"precision": found.precision, "recall": found.recall, "f1": found.f1}
    drawn = {name: zip(found.thresholds.tolist(), values.tolist(), strict=True) for name, values in named.items()}
    return [path(((across(x), down(y)) for x, y in points), f"line {name}") for name, points in drawn.items()]


def reliability_picture(mode: str, bins: Sequence[Bin]) -> Markup:
    """What was said against what is true: on the diagonal where probabilities can be trusted."""
    size, start, end, top, floor = 230, 42, 222, 10, 190
    across, down = Scale(0, 1, start, end), Scale(0, 1, floor, top)
    second = sorted((one.pairs for one in bins), reverse=True)[:2][-1] if bins else 1
    told = "; ".join(f"said {one.said:.2f}, true {one.true:.2f} of {one.pairs:,}" for one in bins)
    shapes = [line(start, floor, end, top, "zero")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        shapes += [line(across(tick), floor, across(tick), top, "axis"), line(start, down(tick), end, down(tick), "axis")]
    for tick in (0, 0.5, 1):
        shapes.append(label(across(tick), floor + 24, f"{tick:g}", anchor="middle", class_="muted"))
        shapes.append(label(start - 14, down(tick) + 4, f"{tick:g}", anchor="end", class_="muted"))
    shapes.append(label(across(0.75), floor + 24, "said", anchor="middle", class_="muted"))
    shapes.append(label(start - 14, down(0.75) + 4, "true", anchor="end", class_="muted"))
    for one in bins:
        hover = tag("title", text(f"said {one.said:.3f}, true {one.true:.3f}, {one.pairs:,} pairs"))
        place = across(one.said), down(one.true)
        shapes.append(tag("circle", hover, cx=place[0], cy=place[1], r=radius(one.pairs, second), class_=f"point {mode}"))
    return picture(size, 220, f"{mode}: {told}.", *shapes)


def radius(pairs: int, second: int) -> float:
    """Of a point whose area goes by its pairs, within what can be seen and does not cover the rest.

    The second largest sets the scale: nearly all pairs are surely not relevant, and their point would leave none to others.
    """
    return min(max(SMALLEST, SECOND * math.sqrt(pairs / second)), LARGEST)


def _threshold_axes(across: Scale, down: Scale) -> list[Markup]:
    shapes = []
    for tick in across.ticks():
        shapes.append(line(across(tick), MIDDLE - HALF, across(tick), FLOOR, "axis"))
        shapes.append(label(across(tick), FLOOR + 15, f"{tick:g}", anchor="middle", class_="muted"))
    for level in (0, 0.5, 1):
        shapes.append(line(LEFT, down(level), RIGHT, down(level), "axis"))
        shapes.append(label(LEFT - 6, down(level) + 4, f"{level:g}", anchor="end", class_="muted"))
    shapes.append(label((LEFT + RIGHT) / 2, FLOOR + 31, "score", anchor="middle", class_="muted"))
    return shapes


def _threshold_mark(pairs: Pairs, threshold: float, across: Scale, down: Scale) -> list[Markup]:
    """The line, its number, and what precision and recall are on it."""
    place, measured = across(threshold), pairs.measured(threshold)
    anchor, shift = ("end", -5) if place > (LEFT + RIGHT) / 2 else ("start", 5)
    dots = [tag("circle", cx=place, cy=down(value), r=3.5, class_="ring") for value in (measured.precision, measured.recall)]
    name = f"threshold {score(threshold)}"
    return [
        line(place, 12, place, FLOOR, "limit"),
        *dots,
        label(place + shift, 17, name, anchor=anchor, class_="strong halo"),
    ]
