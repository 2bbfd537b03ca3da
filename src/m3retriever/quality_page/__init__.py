"""Everything about an index's recall quality on one HTML page: no script, no request, one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from m3retriever import __version__
from m3retriever.errors import InvalidArgumentError
from m3retriever.quality_page.fits import reliability_section, thresholds_section, tuning_section
from m3retriever.quality_page.markup import Markup, joined, paragraph, tag, text
from m3retriever.quality_page.overview import exactness_table, headline, modes_table, profile_text, questions_table
from m3retriever.quality_page.style import style

if TYPE_CHECKING:
    from m3retriever.calibrating import Calibrated, Wanted
    from m3retriever.calibrating.thresholds import Pairs
    from m3retriever.evaluation import Evaluation, Qrels
    from m3retriever.exactness import Exactness
    from m3retriever.tuning import Tuning
    from m3retriever.types import Profile

__all__ = ["quality_page"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MORE = "give more in --queries and --qrels, or in --golden."
NO_TUNING = f"Weights were not tuned: it takes at least 10 questions with known answers; {MORE}"
NO_THRESHOLDS = f"No thresholds were fitted: it takes at least 10 questions with known answers; {MORE}"
NO_RELIABILITY = f"No probabilities were fitted: it takes at least 10 questions with known answers; {MORE}"
NO_EXACTNESS = "What the approximate search costs was not measured: --exact brings it."


class Section(NamedTuple):
    """A part of the page: `name` is what links to it."""

    name: str
    title: str
    content: Markup


def quality_page(
    title: str,
    evaluation: Evaluation,
    *,
    profile: Profile,
    queries: Mapping[str, str],
    qrels: Qrels | None = None,
    tuning: Tuning | None = None,
    calibrated: Mapping[str, Calibrated] | None = None,
    wanted: Wanted | None = None,
    pairs: Mapping[str, Pairs] | None = None,
    exactness: Exactness | None = None,
) -> str:
    """The page as HTML, to be written as UTF-8. Texts from data stand on it as text, whatever they hold.

    Parameters
    ----------
    title
        What was measured, such as the name of the index.
    evaluation
        With every mode and the hybrid; its first measure is the one that questions are sorted by.
    queries
        {query id: text}; a question whose text is missing stands under its id.
    qrels
        As evaluated; brings the rank of the first relevant document.
    calibrated, pairs
        By mode and "hybrid". Without `calibrated` the curves show the profile's thresholds.
    wanted
        What the thresholds in `calibrated` are for.

    Raises
    ------
    InvalidArgumentError
        An evaluation without the hybrid, or without a measure.
    """
    if not evaluation.values.get("hybrid"):
        raise InvalidArgumentError("a report needs the hybrid and at least one measure; got an evaluation without")
    measure = next(iter(evaluation.values["hybrid"]))
    held = None if calibrated is None and pairs is None else (calibrated, pairs)
    sections = [
        Section("summary", "Summary", headline(evaluation, measure, profile)),
        Section("modes", "Modes and measures", modes_table(evaluation)),
        Section("tuning", "Weights", _missing(NO_TUNING) if tuning is None else tuning_section(tuning)),
        Section(
            "thresholds",
            "Thresholds",
            _missing(NO_THRESHOLDS)
            if held is None
            else thresholds_section(*held, profile.thresholds, None if wanted is None else str(wanted)),
        ),
        Section("reliability", "Reliability", reliability_section(calibrated) if calibrated else _missing(NO_RELIABILITY)),
        Section("questions", "Worst questions", questions_table(evaluation, measure, queries, qrels)),
        Section("exactness", "Exactness", _missing(NO_EXACTNESS) if exactness is None else exactness_table(exactness)),
        Section("profile", "Profile", profile_text(profile)),
    ]
    return _page(title, sections)


def _page(title: str, sections: list[Section]) -> str:
    name = f"{title}: recall quality"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", text(name)),
        Markup(f"<style>{style()}</style>"),
    )
    links = (tag("a", text(one.title), href=f"#{one.name}") for one in sections)
    parts = (tag("section", tag("h2", text(one.title), id=one.name), one.content) for one in sections)
    foot = tag("footer", paragraph(f"Made by m3retriever {__version__}.", class_="note"))
    main = tag("main", tag("h1", text(name), dir="auto"), tag("nav", *links, aria_label="Sections"), joined(parts), foot)
    return "<!doctype html>\n" + tag("html", head, tag("body", main), lang="en") + "\n"


def _missing(sentence: str) -> Markup:
    return paragraph(sentence, class_="empty")
