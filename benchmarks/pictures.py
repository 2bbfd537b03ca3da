"""The page's pictures as SVG files: ratios as bars and times by size as lines, both on logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from benchmarks.growth import Growth
from benchmarks.measuring import Row, duration, number
from m3retriever.palette import DARK, LIGHT, Palette, variables
from m3retriever.quality_page.markup import Markup, shortened, tag
from m3retriever.quality_page.shapes import Scale, box, label, line, path

WIDTH = 920
LEFT, RIGHT = 470, 860  # pixels: the bars' axis
ROW, HEAD, FOOT = 34, 30, 34  # heights of a bar with its words, of a group's title, of the axis
LONGEST = 66  # characters of a label
TOP, FLOOR, END = 24, 380, 700  # of the lines: the upper and lower end, and the right one
SERIES: dict[str, tuple[str, Callable[[Growth], float]]] = {  # name: what is drawn, and in which colour
    "search": ("hybrid", lambda one: one.legs["search"]),
    "dense": ("dense", lambda one: one.legs["dense"]),
    "sparse": ("sparse", lambda one: one.legs["sparse"]),
    "scoring": ("colbert", lambda one: one.legs["scoring"]),
}


def ratios(rows: Sequence[Row]) -> str:
    """A bar from 1 to the median ratio of each row, with a line from the lowest to the highest."""
    taken = [(row, row.ratio) for row in rows if row.ratio is not None]
    values = [value for _, ratio in taken for value in (ratio.low, ratio.high)]
    across = _powers([*values, 0.5, 2.0], LEFT, RIGHT)
    shapes, y = [], 0.0
    groups = [(name, list(held)) for name, held in groupby(taken, key=lambda pair: pair[0].group)]
    height = HEAD * len(groups) + ROW * len(taken) + FOOT
    shapes += _powers_axis(across, height - FOOT)
    for name, held in groups:
        shapes.append(label(0, y + 20, name, class_="title"))
        y += HEAD
        for row, ratio in held:
            ends = sorted((across(1.0), across(ratio.median)))
            shapes += [
                label(LEFT - 12, y + 11, shortened(row.what, LONGEST), anchor="end"),
                label(LEFT - 12, y + 24, f"against {shortened(row.peer, LONGEST)}", anchor="end", class_="muted"),
                box(ends[0], y + 5, ends[1] - ends[0], 14, "faster" if ratio.median >= 1 else "slower"),
                line(across(ratio.low), y + 12, across(ratio.high), y + 12, "whisker"),
                label(RIGHT + 8, y + 16, number(ratio.median), class_="value"),
            ]
            y += ROW
    shapes.append(line(across(1.0), 4, across(1.0), height - FOOT, "one"))
    return _document(height, f"{len(taken)} ratios of peers' times over ours, on a logarithmic scale", shapes)


def growth(found: Sequence[Growth]) -> str:
    """Times by number of documents, a line for each leg."""
    across = _powers([one.documents for one in found], 70, END, whole=False)
    every = [read(one) for _, read in SERIES.values() for one in found]
    down = _powers(every, FLOOR, TOP)
    shapes = [*_times_axis(down), *(_size(one, across) for one in found)]
    for colour, read in SERIES.values():
        points = [(across(one.documents), down(read(one))) for one in found]
        shapes.append(path(points, f"series {colour}"))
        shapes += [tag("circle", cx=x, cy=y, r=4, class_=f"dot {colour}") for x, y in points]
    ends = sorted((down(read(found[-1])), name, colour) for name, (colour, read) in SERIES.items())
    last = -math.inf
    for y, name, colour in ends:
        last = max(y + 4, last + 18)  # names of lines that end close together stand below one another
        value = duration(SERIES[name][1](found[-1]))
        shapes += [box(END + 16, last - 9, 10, 10, f"dot {colour}"), label(END + 32, last, f"{name}, {value}")]
    return _document(FLOOR + FOOT + 12, "Time of a search and of its parts by number of documents, logarithmic", shapes)


def _powers(values: Iterable[float], start: float, end: float, *, whole: bool = True) -> Callable[[float], float]:
    """A logarithmic scale over values above 0; `whole` powers of ten at its ends."""
    exponents = [math.log10(value) for value in values]
    if whole:
        exponents = [math.floor(min(exponents)), math.ceil(max(exponents))]
    scale = Scale.over(exponents, start, end)
    return lambda value: scale(math.log10(value))


def _powers_axis(across: Callable[[float], float], bottom: float) -> list[Markup]:
    shapes = []
    for power in range(-6, 7):
        x = across(10.0**power)
        if LEFT - 1 <= x <= RIGHT + 1:
            shapes += [
                line(x, 4, x, bottom, "grid"),
                label(x, bottom + 16, f"{10.0**power:g}", anchor="middle", class_="muted"),
            ]
    return [*shapes, label(RIGHT, bottom + 30, "the peer's cost over ours", anchor="end", class_="muted")]


def _times_axis(down: Callable[[float], float]) -> list[Markup]:
    shapes = []
    for power in range(-7, 4):
        y = down(10.0**power)
        if TOP - 1 <= y <= FLOOR + 1:
            shapes += [line(70, y, END, y, "grid"), label(62, y + 4, duration(10.0**power), anchor="end", class_="muted")]
    return shapes


def _size(one: Growth, across: Callable[[float], float]) -> Markup:
    return label(across(one.documents), FLOOR + 22, f"{one.documents:,} documents", anchor="middle", class_="muted")


def _document(height: float, description: str, shapes: Iterable[Markup]) -> str:
    style = tag("style", Markup(_css()))
    svg = tag(
        "svg", style, box(0, 0, WIDTH, height, "background"), *shapes, xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}", width=WIDTH, height=height, role="img", aria_label=description,
    )  # fmt: skip
    return svg + "\n"


def _css() -> str:
    modes = "".join(
        f".dot.{mode}{{fill:var(--{mode})}}.series.{mode}{{stroke:var(--{mode})}}"
        for mode in ("hybrid", "dense", "sparse", "colbert")
    )
    return (
        f"svg{{{_named(LIGHT)}}}@media (prefers-color-scheme:dark){{svg{{{_named(DARK)}}}}}"
        "text{font:12px system-ui,sans-serif;fill:var(--text)}.muted{fill:var(--muted);font-size:11px}"
        ".title,.value{font-weight:600}.background{fill:var(--background)}.grid{stroke:var(--grid)}"
        ".faster{fill:var(--hybrid)}.slower{fill:var(--limit)}.whisker,.one{stroke:var(--text)}"
        f".series{{fill:none;stroke-width:2}}{modes}"
    )


def _named(palette: Palette) -> str:
    """The colours, without the map's ramp."""
    return "".join(f"{part};" for part in variables(palette).split(";") if part and not part.startswith("--step"))
