"""The colours of every picture, light and dark: one for each mode, and a ramp of even steps for the map of weights.

`.streamlit/config.toml` in the inspector gives Streamlit's own widgets the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

STEPS = 16  # of the ramp: neighbours can be told apart, and the legend names them
CHROMA = 0.08  # of the ramp: within sRGB at each of its hues


@dataclass(frozen=True)
class Palette:
    """Colours as #rrggbb; `ramp_from` and `ramp_to` are the lightness in [0, 1] of the lowest and the highest value."""

    hybrid: str
    dense: str
    sparse: str
    colbert: str
    other: str
    limit: str
    text: str
    muted: str
    grid: str
    track: str
    background: str
    ramp_from: float
    ramp_to: float

    def of(self, mode: str) -> str:
        """The colour of a mode, or of "hybrid"."""
        return {"hybrid": self.hybrid, "dense": self.dense, "sparse": self.sparse, "colbert": self.colbert}[mode]

    @property
    def ramp(self) -> list[str]:
        """The map's colours, lowest value first."""
        return ramp(self.ramp_from, self.ramp_to)


LIGHT = Palette(
    hybrid="#1f8a5b",
    dense="#2f6fdb",
    sparse="#d9822b",
    colbert="#7b55c7",
    other="#9aa2b3",
    limit="#c8413b",
    text="#1b2130",
    muted="#5c6476",
    grid="#e0e4eb",
    track="#edf0f5",
    background="#ffffff",
    ramp_from=0.95,
    ramp_to=0.36,
)
DARK = Palette(
    hybrid="#4fc38f",
    dense="#6fa0ff",
    sparse="#f0a557",
    colbert="#b394f5",
    other="#6b7488",
    limit="#f07a72",
    text="#e4e8f0",
    muted="#98a1b3",
    grid="#2b3240",
    track="#222834",
    background="#11141b",
    ramp_from=0.27,
    ramp_to=0.93,
)


def variables(palette: Palette) -> str:
    """The palette as CSS: `--dense:#2f6fdb;`, and the ramp as `--step-0` to `--step-15`."""
    named = {field.name: value for field in fields(palette) if isinstance(value := getattr(palette, field.name), str)}
    named |= {f"step-{step}": colour for step, colour in enumerate(palette.ramp)}
    return "".join(f"--{name}:{value};" for name, value in named.items())


def ramp(start: float, end: float) -> list[str]:
    """STEPS colours from one lightness in [0, 1] to another, in even steps; light is yellow, middle teal, dark blue.

    Even in OKLab's lightness (Ottosson, 2020), which also tells the steps apart for who sees no hue.
    """
    lightnesses = [start + (end - start) * step / (STEPS - 1) for step in range(STEPS)]
    return [hexadecimal(oklch(lightness, CHROMA, 265 - 170 * _share(lightness))) for lightness in lightnesses]


def oklch(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """sRGB in [0, 1], cut to it, of OKLab's lightness, chroma and hue in degrees (Ottosson, 2020)."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    return _encoded(red), _encoded(green), _encoded(blue)


def rgba(colour: str, alpha: float) -> str:
    """A colour made transparent. `rgba("#ff0000", 0.5)` is "rgba(255, 0, 0, 0.50)"."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha:.2f})"


def ink_on(colour: str) -> str:
    """Black or white, whichever stands out more on a colour: by at least 4.5 to 1 on any (WCAG 2.2's contrast).

    `ink_on("#ffff00")` is "#000000".
    """
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    luminance = sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#000000" if (luminance + 0.05) ** 2 >= 1.05 * 0.05 else "#ffffff"


def hexadecimal(colour: tuple[float, float, float]) -> str:
    """`hexadecimal((1, 0, 0))` is "#ff0000"."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _share(lightness: float) -> float:
    """Where a lightness lies between the ramp's dark and light ends, in [0, 1]."""
    return min(max((lightness - 0.27) / 0.68, 0.0), 1.0)


def _encoded(linear: float) -> float:
    """sRGB's curve (IEC 61966-2-1)."""
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return min(max(value, 0.0), 1.0)
