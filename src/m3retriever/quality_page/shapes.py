"""Shapes of an SVG, and the scales that say where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from m3retriever.quality_page.markup import Markup, tag, text


@dataclass(frozen=True)
class Scale:
    """A straight line from numbers to pixels: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> Scale:
        """From the lowest to the highest of finite values; around a single one, and 0 to 1 without any."""
        held = list(values) or [0.0, 1.0]
        low, high = min(held), max(held)
        if high == low:
            low, high = low - 0.5, high + 0.5
        return cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        """`Scale(0, 10, 100, 200)(2.5)` is 125.0."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the scale, evenly apart: `Scale(0, 1, 0, 1).ticks()` is 0, 0.2, 0.4 and so on to 1."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def picture(width: float, height: float, description: str, *shapes: Markup) -> Markup:
    """An SVG with its text for those who cannot see it."""
    return tag("svg", *shapes, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=description)


def decoration(width: float, height: float, *shapes: Markup, class_: str) -> Markup:
    """An SVG that stretches, and says nothing that the numbers beside it do not."""
    return tag(
        "svg", *shapes, viewBox=f"0 0 {width:g} {height:g}", preserveAspectRatio="none", aria_hidden="true", class_=class_
    )


def box(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A rectangle from its upper left corner."""
    return tag("rect", x=x, y=y, width=max(width, 0), height=height, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def label(x: float, y: float, name: str, *, anchor: str = "start", class_: str | None = None) -> Markup:
    """A text whose start, middle or end lies at a point of its base line."""
    return tag("text", text(name), x=x, y=y, text_anchor=anchor, class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """A line from point to point."""
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)
