"""The app's colours, for light and dark; `.streamlit/config.toml` gives Streamlit's own widgets the same."""

from __future__ import annotations

from dataclasses import dataclass

from m3retriever import Mode


@dataclass(frozen=True)
class Palette:
    """Colours as #rrggbb: one per mode, and what stands around them."""

    dense: str
    sparse: str
    colbert: str
    above: str
    limit: str
    grid: str
    text: str
    muted: str
    background: str

    def of(self, mode: Mode) -> str:
        """A mode's colour."""
        return {"dense": self.dense, "sparse": self.sparse, "colbert": self.colbert}[mode]


LIGHT = Palette(
    dense="#2f6fdb",
    sparse="#d9822b",
    colbert="#7b55c7",
    above="#1f8a5b",
    limit="#c8413b",
    grid="#e6e9ef",
    text="#1b2130",
    muted="#6b7385",
    background="#ffffff",
)
DARK = Palette(
    dense="#6fa0ff",
    sparse="#f0a557",
    colbert="#b394f5",
    above="#4fc38f",
    limit="#f07a72",
    grid="#252b37",
    text="#e4e8f0",
    muted="#8b94a7",
    background="#11141b",
)


def rgba(colour: str, alpha: float) -> str:
    """A colour made transparent. `rgba("#ff0000", 0.5)` is "rgba(255, 0, 0, 0.50)"."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha:.2f})"
