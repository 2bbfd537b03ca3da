"""The one module that makes HTML from data.

Every text goes through `html.escape`; only our own numbers and class names reach attributes. What is
not made here is not shown as HTML: `Html` is the type of what `show` takes.
(Not called html: `streamlit run` puts this folder on `sys.path`, where it would hide the standard one.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, NewType

import streamlit as st

from m3retriever import MODES, Weights
from m3retriever.inspector.analysis.ranking import Part, Row
from m3retriever.inspector.analysis.tokens import Passage
from m3retriever.inspector.i18n import Translate
from m3retriever.palette import Palette, rgba

Html = NewType("Html", str)
SCORED = ("hybrid", *MODES)  # what has a colour of its own

TINTS = 10  # steps of a token's background
TINT_FLOOR = 0.45  # similarity below which a token stays plain: unrelated tokens of BGE-M3 lie there
TINT_STRONGEST = 0.55  # alpha of the strongest step, so that text stays readable on it


def show(html: Html) -> None:
    """Put HTML made here on the page."""
    st.html(html)


def styles(palette: Palette) -> Html:
    """The app's style sheet."""
    steps = "\n".join(
        f".m3-tint-{step}{{background:{rgba(palette.colbert, (step / TINTS) ** 1.5 * TINT_STRONGEST)}}}"
        for step in range(1, TINTS + 1)
    )
    modes = "\n".join(f".m3-{mode}{{background:{palette.of(mode)}}}" for mode in SCORED)
    colours = f".m3-shared{{border-bottom:2px solid {palette.sparse}}}\n.m3-warning{{border-color:{palette.sparse}}}\n"
    error = f".m3-error{{border-color:{palette.limit}}}\n"
    words = f"{STREAMLIT_TEXT}{{color:{palette.text}}}\nkbd{{color:{palette.muted}!important;opacity:1!important}}"
    return Html(f"<style>{LAYOUT}\n{steps}\n{modes}\n{colours}{error}{words}</style>")


def notice(kind: Literal["info", "warning", "error"], text: str, detail: str = "", *, name: str = "") -> Html:
    """A box with a message; unlike st.error it takes any text, for it knows no Markdown. `name` is ours, for tests."""
    role = "status" if kind == "info" else "alert"
    second = f"<div class='m3-muted'>{escape(detail)}</div>" if detail else ""
    return Html(
        f"<div class='m3-notice m3-{kind}' role='{role}' data-testid='m3-{escape(name or kind)}'>{escape(text)}{second}</div>"
    )


def note(text: str, name: str = "note") -> Html:
    """A small line under something. `name` is ours, for tests."""
    return Html(f"<div class='m3-muted' data-testid='m3-{name}'>{escape(text)}</div>")


@dataclass(frozen=True)
class Tile:
    """A number with its name.

    Attributes
    ----------
    name : ours, for tests
    detail : a word or two beside the number
    mode : whose colour it has: a mode or "hybrid"
    share : in [0, 1], drawn as a bar; None for none
    """

    name: str
    label: str
    value: str
    detail: str = ""
    mode: str | None = None
    share: float | None = None


def tiles(shown: Sequence[Tile]) -> Html:
    """Numbers side by side, each in a box."""
    return Html(f"<div class='m3-tiles'>{''.join(_tile(tile) for tile in shown)}</div>")


def _tile(tile: Tile) -> str:
    mode = tile.mode if tile.mode in SCORED else None
    dot = f"<i class='m3-dot m3-{mode}'></i>" if mode else ""
    detail = f" <span class='m3-detail'>{escape(tile.detail)}</span>" if tile.detail else ""
    share = "" if tile.share is None else f"<div class='m3-{mode}' style='width:{min(max(tile.share, 0.0), 1.0):.2%}'></div>"
    bar = f"<div class='m3-bar'>{share}</div>" if tile.share is not None else ""
    return (
        f"<div class='m3-tile' data-testid='m3-tile-{escape(tile.name)}'><div class='m3-muted'>{dot}{escape(tile.label)}</div>"
        f"<div><b class='m3-value'>{escape(tile.value)}</b>{detail}</div>{bar}</div>"
    )


@dataclass(frozen=True)
class Measured:
    """A value in [0, 1], and the interval in which it would lie on other questions."""

    value: float
    low: float
    high: float


def measure_table(columns: Sequence[str], rows: Sequence[tuple[str, str, Sequence[Measured]]]) -> Html:
    """Values as bars with their intervals; a row is a mode (or "hybrid"), its name, and a value for each column."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = "".join(
        f"<tr data-testid='m3-means-{escape(mode)}'><th><i class='m3-dot m3-{escape(mode)}'></i>{escape(name)}</th>"
        f"{''.join(_measured(mode, one) for one in values)}</tr>"
        for mode, name, values in rows
    )
    return Html(f"<table class='m3-measures'><tr><th></th>{head}</tr>{lines}</table>")


def _measured(mode: str, one: Measured) -> str:
    line = f"<i class='m3-interval' style='left:{one.low:.2%};width:{one.high - one.low:.2%}'></i>"
    return (
        f"<td><div class='m3-bar'><div class='m3-{escape(mode)}' style='width:{one.value:.2%}'></div>{line}</div>"
        f"<b>{one.value:.3f}</b> <span class='m3-muted'>{one.low:.3f}–{one.high:.3f}</span></td>"
    )


def facts(rows: Sequence[tuple[str, str]]) -> Html:
    """Names with what they are, a line each."""
    lines = "".join(f"<tr><td class='m3-muted'>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return Html(f"<table class='m3-facts' data-testid='m3-facts'>{lines}</table>")


def listed(title: str, lines: Sequence[str]) -> Html:
    """A short list under a word."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return Html(f"<div class='m3-list' data-testid='m3-list'>{escape(title)}<ul>{items}</ul></div>")


def section(title: str, detail: str = "") -> Html:
    """A heading, and in small what it is about."""
    small = f" <span class='m3-muted'>{escape(detail)}</span>" if detail else ""
    return Html(f"<h3 class='m3-section'>{escape(title)}{small}</h3>")


def weight_bar(weights: Weights, t: Translate) -> Html:
    """The three weights as shares of one bar."""
    shares = list(zip(MODES, weights.normalized(), strict=True))
    bar = "".join(f"<div class='m3-{mode}' style='width:{share:.2%}'></div>" for mode, share in shares)
    legend = "".join(f"<span><i class='m3-dot m3-{mode}'></i>{share:.2f}</span>" for mode, share in shares)
    words = escape(", ".join(f"{t(f'mode.{mode}')} {share:.2f}" for mode, share in shares))
    return Html(f"<div class='m3-bar' role='img' aria-label='{words}'>{bar}</div><div class='m3-legend'>{legend}</div>")


def heading(row: Row) -> Html:
    """A hit's rank, title and id."""
    return Html(
        f"<div class='m3-heading'><b>#{row.rank}</b><b data-testid='m3-title'>{escape(row.title)}</b>"
        f"<code data-testid='m3-id'>{escape(row.id)}</code></div>"
    )


def sum_of_parts(parts: Sequence[Part], score: float, t: Translate) -> Html:
    """The sum in figures, a line per mode: ".884 × .40 = .354 (#1)"."""
    lines = "".join(
        f"<tr><td><i class='m3-dot m3-{part.mode}'></i>{escape(t(f'mode.{part.mode}'))}</td>"
        f"<td><b>{part.score:.3f}</b></td><td>× {part.weight:.2f}</td>"
        f"<td>= <span data-testid='m3-part'>{part.value:.3f}</span></td><td class='m3-muted'>#{part.rank}</td></tr>"
        for part in parts
    )
    total = f"<tr class='m3-total'><td>{escape(t('mode.hybrid'))}</td><td></td><td></td>"
    return Html(
        f"<table class='m3-sum'>{lines}{total}<td>= <b data-testid='m3-score'>{score:.3f}</b></td><td></td></tr></table>"
    )


def tinted(text: str, passages: Sequence[Passage]) -> Html:
    """A document's passages with each token on its tint; "…" where the text goes on."""
    strongest = max((tint.similarity for passage in passages for tint in passage.tints), default=0.0)
    top = max(strongest, TINT_FLOOR + 0.15)  # so that weak matches of a poor hit stay pale
    blocks = "".join(f"<p>{_passage(text, passage, top)}</p>" for passage in passages)
    return Html(f"<div class='m3-text' data-testid='m3-text'>{blocks}</div>")


def ready(run: int, page: str) -> Html:
    """What tests wait for: invisible, says which run of which page has ended."""
    return Html(f"<i data-testid='m3-ready' data-run='{run:d}' data-page='{escape(page)}' hidden></i>")


def _passage(text: str, passage: Passage, top: float) -> str:
    pieces, position = ["… " if passage.start > 0 else ""], passage.start
    for tint in passage.tints:
        pieces.append(escape(text[position : tint.start]))
        pieces.append(_token(escape(text[tint.start : tint.end]), tint.similarity, top, shared=tint.shared))
        position = tint.end
    pieces.append(escape(text[position : passage.end]))
    pieces.append(" …" if passage.end < len(text) else "")
    return "".join(pieces)


def _token(escaped: str, similarity: float, top: float, *, shared: bool) -> str:
    step = round(TINTS * min(1.0, max(0.0, (similarity - TINT_FLOOR) / (top - TINT_FLOOR))))
    classes = [f"m3-tint-{step}"] * (step > 0) + ["m3-shared"] * shared
    return f"<span class='{' '.join(classes)}' title='{similarity:.2f}'>{escaped}</span>" if classes else escaped


# Streamlit writes these in the primary colour, which does not stand out enough on its tinted ground.
STREAMLIT_TEXT = "[data-testid=stSliderThumbValue] p,[data-testid=stButtonGroup] p,[data-testid=stTabs] p"
LAYOUT = """
.stMainBlockContainer{max-width:1760px;padding:4rem 2rem 1.5rem}
[data-testid=stSidebarHeader]{height:1.2rem;padding-bottom:0}
[data-testid=stSidebarUserContent]{padding-bottom:1rem}
[data-testid=stSidebarUserContent] [data-testid=stVerticalBlock]{gap:.45rem}
.st-key-judge button,[data-testid=stSidebarUserContent] .stButton button{min-height:1.7rem;padding:.05rem .55rem}
.m3-legend{display:flex;gap:14px;font-size:.8rem;opacity:.8;align-items:center;flex-wrap:wrap;margin-top:5px}
.m3-dot{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:6px}
.m3-bar{display:flex;height:10px;border-radius:3px;overflow:hidden;background:rgba(128,140,160,.16)}
.m3-muted{font-size:.82rem;opacity:.72;overflow-wrap:anywhere}
.m3-heading{display:flex;gap:10px;align-items:baseline;flex-wrap:wrap;overflow-wrap:anywhere;font-size:1.08rem}
.m3-heading code{font-size:.82rem;opacity:.72;background:none;padding:0;color:inherit}
.m3-sum{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
.m3-sum td{padding:1px 14px 1px 0;border:0}
.m3-sum .m3-total td{border-top:1px solid rgba(128,140,160,.35);padding-top:3px}
.m3-text{line-height:1.95;font-size:.93rem;overflow-wrap:anywhere;white-space:pre-wrap}
.m3-text p{margin:0 0 .8rem}
.m3-text span{border-radius:3px;padding:1px 0}
.m3-tiles{display:flex;flex-wrap:wrap;gap:12px}
.m3-tile{flex:1 1 130px;border:1px solid rgba(128,140,160,.3);border-radius:6px;padding:.55rem .8rem;
font-variant-numeric:tabular-nums}
.m3-tile .m3-bar{margin-top:8px;height:8px}
.m3-value{font-size:1.35rem}
.m3-detail{font-size:.9rem;font-weight:600}
.m3-measures{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
.m3-measures th{font-weight:500;text-align:left;white-space:nowrap;padding:3px 14px 3px 0;border:0}
.m3-measures td{padding:4px 14px 6px 0;border:0;border-top:1px solid rgba(128,140,160,.25);white-space:nowrap}
.m3-measures tr+tr th{border-top:1px solid rgba(128,140,160,.25)}
.m3-measures .m3-bar{position:relative;height:8px;margin-bottom:3px}
.m3-interval{position:absolute;top:3px;height:2px;background:currentColor;opacity:.75}
.m3-facts td{padding:2px 18px 2px 0;border:0;vertical-align:top;overflow-wrap:anywhere}
.m3-list ul{margin:.1rem 0;padding-left:1.2rem}
.m3-section{font-size:1.02rem;font-weight:650;margin:.6rem 0 .1rem;padding:0}
.m3-section .m3-muted{font-weight:400}
.m3-notice{border:1px solid rgba(128,140,160,.4);border-left-width:4px;border-radius:6px;padding:.55rem .8rem;
overflow-wrap:anywhere}
"""
