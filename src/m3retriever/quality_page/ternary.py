"""The map of a measure over all weights of three modes: a triangle whose corners are the modes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from m3retriever.palette import STEPS
from m3retriever.quality_page.markup import Markup, pixels, tag, text
from m3retriever.quality_page.shapes import Scale, box, label, line, picture
from m3retriever.types import Weights

Grid: TypeAlias = Sequence[tuple[Weights, float]]
"""Weights that sum to 1, with the mean of a measure."""

WIDTH, HEIGHT = 420, 416
SIDE = 300.0  # pixels of the triangle
DENSE = (60.0, 322.0)
COLBERT = (DENSE[0] + SIDE, DENSE[1])
SPARSE = (DENSE[0] + SIDE / 2, DENSE[1] - SIDE * math.sqrt(3) / 2)
LEGEND = 368  # the upper edge of the colours' key
LOWEST = 0.2  # share of the weights that the first colour stands for: one bad mode would take all the others' colours


class Mark(NamedTuple):
    """A place on the map that has a name; `value` is None where it is not known."""

    name: str
    weights: Weights
    value: float | None


def point(weights: Weights) -> tuple[float, float]:
    """Where weights lie: each corner pulls by its share, so that equal weights lie in the middle."""
    shares = tuple(weights.normalized())
    x, y = (
        sum(share * corner[axis] for share, corner in zip(shares, (DENSE, SPARSE, COLBERT), strict=True)) for axis in (0, 1)
    )
    return x, y


def step_of(value: float, low: float, high: float) -> int:
    """The step of the ramp for a value: equal parts from low to high, all below low in the first, high in the last."""
    if high <= low:
        return STEPS - 1
    return max(0, min(int((value - low) / (high - low) * STEPS), STEPS - 1))


def ternary_picture(measure: str, grid: Grid, *, best: Mark, usual: Mark) -> Markup:
    """The map with its key, the best and the usual weights marked."""
    low, high = limits(grid)
    cells = (_cell(weights, value, step_of(value, low, high), spacing(len(grid))) for weights, value in grid)
    lowest = min(value for _, value in grid)
    description = (
        f"Mean {measure} over all weights of dense, sparse and colbert, from {lowest:.3f} to {high:.3f}. "
        f"{_told(best)}; {_told(usual)}."
    )
    left, right = sorted((best, usual), key=lambda mark: point(mark.weights)[0])  # so that their lines do not cross
    marks = (
        *_mark(left, at=(8, 76), anchor="start", square=left is usual),
        *_mark(right, at=(WIDTH - 8, 76), anchor="end", square=right is usual),
    )
    return picture(WIDTH, HEIGHT, description, *cells, *_corners(), *marks, *_legend(measure, low, high))


def corners(center: tuple[float, float], spacing: float) -> list[tuple[float, float]]:
    """Of the hexagon of a point whose neighbours are `spacing` pixels away."""
    reach = spacing / math.sqrt(3)
    angles = (math.radians(60 * corner + 30) for corner in range(6))
    return [(center[0] + reach * math.cos(angle), center[1] + reach * math.sin(angle)) for angle in angles]


def hexagon(center: tuple[float, float], spacing: float) -> str:
    """Its corners as SVG's `points`."""
    return " ".join(f"{pixels(x)},{pixels(y)}" for x, y in corners(center, spacing))


def limits(grid: Grid) -> tuple[float, float]:
    """The values at which the ramp begins, with the lowest LOWEST of the weights below, and ends."""
    values = sorted(value for _, value in grid)
    return values[int(LOWEST * len(values))], values[-1]


def spacing(points: int) -> float:
    """Pixels between neighbours of a full grid of so many points: (p + 1)(p + 2) / 2 of them have p steps on a side."""
    steps = (math.sqrt(8 * points + 1) - 3) / 2
    return SIDE / max(steps, 1.0)


def _cell(weights: Weights, value: float, step: int, spacing: float) -> Markup:
    hover = tag("title", text(f"{_shares(weights)}: {value:.4f}"))
    return tag("polygon", hover, points=hexagon(point(weights), spacing + 0.4), class_=f"step-{step}")


def _corners() -> tuple[Markup, ...]:
    return (
        label(DENSE[0] - 14, DENSE[1] + 26, "dense", anchor="middle", class_="strong"),
        label(COLBERT[0] + 14, COLBERT[1] + 26, "colbert", anchor="middle", class_="strong"),
        label(SPARSE[0], SPARSE[1] - 16, "sparse", anchor="middle", class_="strong"),
    )


def _mark(mark: Mark, *, at: tuple[float, float], anchor: str, square: bool) -> tuple[Markup, ...]:
    """A ring or a square on the place, and a line to its name, beside the map where nothing is covered."""
    x, y = point(mark.weights)
    start = (at[0] + (44 if anchor == "start" else -44), at[1] + 21)
    outer, inner = (_outline(x, y, size, square) for size in (6.0, 2.6))
    value = "" if mark.value is None else f" {mark.value:.3f}"
    return (
        line(*start, x, y, "leader under"),
        line(*start, x, y, "leader"),
        outer,
        inner,
        label(*at, f"{mark.name}{value}", anchor=anchor, class_="strong halo"),
        label(at[0], at[1] + 15, _short(mark.weights), anchor=anchor, class_="muted halo"),
    )


def _outline(x: float, y: float, size: float, square: bool) -> Markup:
    if square:
        return tag("rect", x=x - size, y=y - size, width=2 * size, height=2 * size, class_="ring")
    return tag("circle", cx=x, cy=y, r=size, class_="ring")


def _legend(measure: str, low: float, high: float) -> list[Markup]:
    across = Scale(0, STEPS, DENSE[0], COLBERT[0])
    width = across(1) - across(0)
    boxes = [box(across(step), LEGEND, width + 0.3, 12, f"step-{step}") for step in range(STEPS)]
    ends = ((0, f"≤ {low:.3f}"), (STEPS / 2, f"{(low + high) / 2:.3f}"), (STEPS, f"{high:.3f}"))
    numbers = [label(across(place), LEGEND + 27, name, anchor="middle", class_="muted") for place, name in ends]
    return [*boxes, *numbers, label(DENSE[0] + SIDE / 2, LEGEND + 44, f"mean {measure}", anchor="middle", class_="muted")]


def _told(mark: Mark) -> str:
    value = "" if mark.value is None else f": {mark.value:.3f}"
    return f"{mark.name} at {_shares(mark.weights)}{value}"


def _shares(weights: Weights) -> str:
    dense, sparse, colbert = weights.normalized()
    return f"dense {dense:.3g}, sparse {sparse:.3g}, colbert {colbert:.3g}"


def _short(weights: Weights) -> str:
    return " / ".join(f"{share:.3g}" for share in weights.normalized())
