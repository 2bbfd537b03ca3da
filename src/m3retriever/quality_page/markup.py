"""The one module that makes markup of data. `Markup` is what may stand on the page as it is; a text becomes one by `text`.

Texts are hostile until they went through `escaped`, and `tag` sends every attribute through it too, so a type checker
finds what was forgotten.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

Markup = NewType("Markup", str)

NOTHING = Markup("")
REPLACEMENT = "\ufffd"  # what stands for a character that must not stand on a page
REORDERS = frozenset(
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # could reverse what surrounds it
VOID = {"meta"}  # elements without content or end


def escaped(value: str) -> str:
    """A text as it may stand in an element or a quoted attribute: no markup, no control, no lone surrogate.

    `escaped('<b> & "c"')` is `'&lt;b&gt; &amp; &quot;c&quot;'`. Line breaks and tabs are kept.
    """
    return escape("".join(REPLACEMENT if _forbidden(sign) else sign for sign in value), quote=True)


def text(value: str) -> Markup:
    """A text as markup that shows it, sign by sign."""
    return Markup(escaped(value))


def joined(parts: Iterable[Markup]) -> Markup:
    """Markup after markup."""
    return Markup("".join(parts))


def tag(element: str, /, *children: Markup, **attributes: str | float | None) -> Markup:
    """An element. `class_` is class, `stroke_width` is stroke-width; None leaves an attribute out.

    `tag("p", text("a < b"), class_="note")` is `<p class="note">a &lt; b</p>`.
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    opening = "".join([f"<{element}", *(f' {key}="{_attribute(value)}"' for key, value in named.items()), ">"])
    return Markup(opening if element in VOID else f"{opening}{joined(children)}</{element}>")


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Markup]], *, stacked: bool = False) -> Markup:
    """A table that scrolls sideways where it does not fit; the first cell of each row is its header.

    A stacked one fills the page, and on a telephone shows each row as a block of cells under their names.
    """
    head = tag("tr", *(tag("th", text(name), scope="col") for name in header))
    body = (_row(header, row) for row in rows)
    class_ = "stacked" if stacked else None
    inner = tag("table", tag("caption", text(caption)), tag("thead", head), tag("tbody", *body), class_=class_)
    return tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex="0")


def paragraph(*sentences: str, class_: str | None = None) -> Markup:
    """Sentences in one paragraph, without those that are empty."""
    return tag("p", text(" ".join(filter(None, sentences))), class_=class_)


def shortened(value: str, length: int) -> str:
    """A text on one line, of at most `length` characters, with … where some were left out."""
    flat = " ".join(value.split())
    return flat if len(flat) <= length else flat[: length - 1].rstrip() + "…"


def pixels(value: float) -> str:
    """A coordinate, to a hundredth: `pixels(12.50)` is "12.5"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def score(value: float) -> str:
    """A score to three decimals, or to three digits where it is small: 0.512, 0.00731."""
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"


def signed(value: float) -> str:
    """A difference with its sign: "+0.012", "−0.004", and "0.000" for what rounds to it."""
    plain = f"{value:+.3f}".replace("-", "−")
    return plain[1:] if plain[1:] == "0.000" else plain


def chance(p_value: float) -> str:
    """A p-value: "0.042", "< 0.001"."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 question", "2,000 questions"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _row(header: Sequence[str], row: Sequence[Markup]) -> Markup:
    cells = (tag("td", cell, data_name=name) for name, cell in zip(header[1:], row[1:], strict=True))
    return tag("tr", tag("th", row[0], scope="row"), *cells)


def _attribute(value: str | float) -> str:
    return escaped(value) if isinstance(value, str) else pixels(value)


def _forbidden(sign: str) -> bool:
    return sign in REORDERS or (unicodedata.category(sign) in {"Cc", "Cs"} and sign not in "\n\t")
