"""The sections about quality as it is: the headline, the table of modes, the worst questions, exactness, the profile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from itertools import groupby

import numpy as np

from m3retriever.evaluation import Evaluation, Qrels, compare_values
from m3retriever.exactness import Exactness
from m3retriever.fusion import SUMMANDS
from m3retriever.measures import NOT_FOUND, ranks_of, relevant_of
from m3retriever.profile import plain
from m3retriever.quality_page.charts import bar, shares, swatch
from m3retriever.quality_page.markup import (
    NOTHING,
    Markup,
    chance,
    counted,
    joined,
    paragraph,
    shortened,
    signed,
    table,
    tag,
    text,
)
from m3retriever.types import MODES, Profile

WORST = 20  # questions
QUESTION = 240  # characters of a question that are shown
SIGNIFICANT = 0.05  # a difference that chance alone gives more rarely is called one
DECIMALS = 3  # that are shown: what looks the same is marked the same
LISTED = 3  # numbers shown at either end of a long list
NUMBER = re.compile(r"\s*-?[\d.]+(e[-+]?\d+)?,")
PERFECT = 1.0  # the highest value of every measure
UNMEASURED = paragraph("No question has a known answer, so nothing was measured.", class_="empty")


def headline(evaluation: Evaluation, measure: str, profile: Profile) -> Markup:
    """What the numbers mean, in words and in a few of them."""
    if not evaluation.queries:
        return UNMEASURED
    return joined([_verdict(evaluation, measure), _weights(profile)])


def best_single(evaluation: Evaluation, measure: str) -> str:
    """The mode that is best alone; of equals the first of MODES."""
    return max(MODES, key=lambda mode: evaluation.mean(mode, measure))


def modes_table(evaluation: Evaluation) -> Markup:
    """Every mode's mean of every measure, with where it would lie on other questions like these."""
    if not evaluation.queries:
        return UNMEASURED
    measures = list(evaluation.values["hybrid"])
    best = {name: max(evaluation.mean(mode, name) for mode in evaluation.values) for name in measures}
    rows = [
        [joined([swatch(mode), text(mode)]), *(_mean_cell(evaluation, mode, name, best[name]) for name in measures)]
        for mode in evaluation.values
    ]
    caption = (
        f"Means over {counted(len(evaluation.queries), 'question')}, with 95% intervals "
        "(bootstrap over the questions; the thin line on each bar)"
    )
    return table(caption, ["mode", *measures], rows, stacked=True)


def questions_table(evaluation: Evaluation, measure: str, queries: Mapping[str, str], qrels: Qrels | None) -> Markup:
    """The questions that the hybrid answers worst, with what each mode would have made of them."""
    if not evaluation.queries:
        return UNMEASURED
    worst = worst_questions(evaluation, measure)
    if not worst:
        return paragraph(f"There is none: every question has the highest {measure}.", class_="empty")
    modes = list(evaluation.values)
    rows = []
    for query in worst:
        values = {mode: evaluation.values[mode][measure][query] for mode in modes}
        cells = (_question_cell(evaluation, mode, query, values, qrels) for mode in modes)
        rows.append([_question(query, queries.get(query, "")), *cells])
    ranks = "" if qrels is None else "; # is the rank of the first relevant document, – where it is not found"
    mark = "; “best” marks a mode that alone is better than the hybrid"
    return table(f"Lowest {measure} of the hybrid first{ranks}{mark}", ["question", *modes], rows, stacked=True)


def worst_questions(evaluation: Evaluation, measure: str) -> list[str]:
    """Up to WORST questions, the hybrid's lowest first; of equals first where another mode does better. None is perfect."""
    values = {mode: by_measure[measure] for mode, by_measure in evaluation.values.items()}
    hybrid = values["hybrid"]

    def place(query: str) -> tuple[float, float, str]:
        return hybrid[query], -max(of_mode[query] for of_mode in values.values()), query

    return sorted((query for query in evaluation.queries if hybrid[query] < PERFECT), key=place)[:WORST]


def first_rank(run: Mapping[str, float], judged: Mapping[str, int]) -> int | None:
    """The rank, from 1, of the best relevant document; None where a run has none. Ties are broken by id."""
    relevant, _ = relevant_of(judged)
    ranks = ranks_of(relevant, list(run), np.fromiter(run.values(), np.float64, len(run))[:, None])
    first = int(ranks.min(initial=NOT_FOUND))
    return None if first == NOT_FOUND else first


def exactness_table(found: Exactness) -> Markup:
    """What speed costs."""
    asked = counted(found.questions, "question")
    rows = [
        [joined([swatch(mode), text(mode)]), joined([tag("div", text(f"{share:.1%}"), class_="value"), bar(mode, share)])]
        for mode, share in found.found.items()
    ]
    said = paragraph(
        f"On {asked}, against scoring every document:",
        f"with token vectors encoded anew instead of read from 8 bits, {found.kept:.1%} of the hybrid's best {found.k} stay",
        f"the best {found.k}, and no ColBERT score changes by more than {found.difference:.2g}.",
    )
    return joined([said, table(f"Share of the true best {found.k} that the search returns", ["mode", "found"], rows)])


def profile_text(profile: Profile) -> Markup:
    """The profile as TOML, closed until someone opens it."""
    import tomli_w

    content = {field.name: getattr(profile, field.name) for field in fields(profile)}
    content["weights"] = dict(zip(MODES, map(float, profile.weights), strict=True))
    held = {name: plain(value) for name, value in content.items() if value is not None and value != {}}
    code = tag("pre", text(without_long_lists(tomli_w.dumps(held))), tabindex="0")
    return tag("details", tag("summary", text("The profile as TOML, long lists shortened")), code)


def without_long_lists(toml: str) -> str:
    """TOML with the middle of long lists of numbers told as a comment."""
    lines: list[str] = []
    for number, run in groupby(toml.splitlines(), key=lambda line: bool(NUMBER.fullmatch(line))):
        held = list(run)
        if number and len(held) > 2 * LISTED + 1:
            indent = held[0][: len(held[0]) - len(held[0].lstrip())]
            held = [*held[:LISTED], f"{indent}# {len(held) - 2 * LISTED} more numbers", *held[-LISTED:]]
        lines += held
    return "\n".join(lines)


def _verdict(evaluation: Evaluation, measure: str) -> Markup:
    single = best_single(evaluation, measure)
    values = evaluation.values
    found = compare_values(values[single][measure], values["hybrid"][measure])
    sentence = verdict(single, found.difference, found.p_value)
    detail = (
        f"It is better on {counted(found.wins, 'question')}, worse on {found.losses:,} and the same on {found.ties:,}. "
        "p is how often chance alone would give so large a difference (paired randomisation test)."
    )
    tiles = {
        "questions": f"{found.queries:,}",
        f"hybrid, {measure}": f"{found.second:.3f}",
        f"{single} alone, the best mode": f"{found.first:.3f}",
        "difference": signed(found.difference),
        "p": chance(found.p_value),
    }
    boxes = (tag("div", tag("dt", text(name)), tag("dd", text(value))) for name, value in tiles.items())
    return joined([paragraph(sentence, class_="lead"), tag("dl", *boxes, class_="tiles"), paragraph(detail, class_="note")])


def verdict(single: str, difference: float, p_value: float) -> str:
    """Whether the hybrid is better than the best single mode, in a sentence."""
    size = f"{abs(difference):.3f}"
    if p_value >= SIGNIFICANT:
        return (
            f"These questions do not tell the hybrid from {single} alone: the difference of {signed(difference)} may be "
            f"chance (p = {chance(p_value)})."
        )
    better = "better" if difference > 0 else "worse"
    advice = "" if difference > 0 else f" Tune the weights, or search by {single}."
    p = chance(p_value)
    return (
        f"The hybrid is {better} than {single}, the best single mode, by {size} (p {p if p[0] == '<' else '= ' + p}).{advice}"
    )


def _weights(profile: Profile) -> Markup:
    fitted = "" if profile.model is None else f" It was fitted on {profile.model}."
    if profile.fusion not in SUMMANDS:
        return paragraph(f"The profile: fusion {profile.fusion}, depth {profile.depth}.{fitted}", class_="note")
    weights: dict[str, float] = dict(zip(MODES, profile.weights.normalized(), strict=True))
    key = (tag("li", swatch(mode), text(f"{mode} {weight:.3g}")) for mode, weight in weights.items())
    said = paragraph(f"The profile: fusion {profile.fusion}, depth {profile.depth}, and these weights.{fitted}", class_="note")
    return joined([said, shares(weights), tag("ul", *key, class_="key")])


def _mean_cell(evaluation: Evaluation, mode: str, measure: str, best: float) -> Markup:
    value, (low, high) = evaluation.mean(mode, measure), evaluation.interval(mode, measure)
    is_best = round(value, DECIMALS) == round(best, DECIMALS)
    number = tag("span", text(f"{value:.3f}"), class_="best" if is_best else None)
    mark = tag("span", text("best"), class_="mark") if is_best else NOTHING
    between = tag("span", text(f"{low:.3f}–{high:.3f}"), class_="between")
    return joined([tag("div", number, text(" "), between, mark, class_="value"), bar(mode, value, (low, high))])


def _question_cell(evaluation: Evaluation, mode: str, query: str, values: Mapping[str, float], qrels: Qrels | None) -> Markup:
    parts = [tag("span", text(f"{values[mode]:.3f}"))]
    if qrels is not None:
        rank = first_rank(evaluation.runs[mode].get(query, {}), qrels.get(query, {}))
        parts.append(tag("span", text(" –" if rank is None else f" #{rank}"), class_="muted"))
    if mode != "hybrid" and values[mode] > values["hybrid"] and values[mode] == max(values.values()):
        parts.append(tag("span", text("best"), class_="mark"))
    return joined([tag("div", *parts, class_="value"), bar(mode, values[mode])])


def _question(query: str, question: str) -> Markup:
    name = tag("div", text(shortened(query, QUESTION)), class_="id", dir="auto")
    asked = tag("div", text(shortened(question, QUESTION)), dir="auto") if question else NOTHING
    return tag("div", asked, name, class_="question")
