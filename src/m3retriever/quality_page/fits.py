"""The sections about what was fitted: weights, thresholds, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from m3retriever.calibration import LEVELS
from m3retriever.quality_page.charts import line_sample, reliability_picture, strip, swatch, threshold_picture
from m3retriever.quality_page.markup import (
    NOTHING,
    Markup,
    chance,
    counted,
    joined,
    paragraph,
    score,
    signed,
    table,
    tag,
    text,
)
from m3retriever.quality_page.shapes import Scale
from m3retriever.quality_page.ternary import Mark, ternary_picture
from m3retriever.types import Weights

if TYPE_CHECKING:
    from m3retriever.calibrating import Calibrated
    from m3retriever.calibrating.thresholds import Pairs
    from m3retriever.calibration import Calibration
    from m3retriever.evaluation import Comparison
    from m3retriever.tuning import Tuning

NEAR = 0.01  # of a measure: weights that come so near to the best are as good in practice
USUAL = "default"  # the name of the baseline with BGE-M3's own weights
BANDS = {"unrelated": 3, "weak": 7, "related": 11, "nearly identical": 15}  # steps of the ramp


def tuning_section(tuning: Tuning) -> Markup:
    """What the weights do, and what tuning them brings on questions it has not seen."""
    folds = ", ".join(str(setting) for setting in tuning.folds)
    held_out = sum(tuning.held_out.values()) / max(len(tuning.held_out), 1)
    said = paragraph(
        f"Best setting: {tuning.best}. Its mean {tuning.measure} is {tuning.fitted:.3f} on the questions it was found on,",
        f"which flatters it; expect {held_out:.3f}, what settings found on the other questions give.",
    )
    apart = paragraph(f"Found in each fold: {folds}. Far apart they mean that there are too few questions.", class_="note")
    right = [against_table(tuning), *([learned_table(tuning)] if tuning.learned else []), apart]
    return joined([said, tag("div", weights_map(tuning), tag("div", *right), class_="beside")])


def weights_map(tuning: Tuning) -> Markup:
    """The ternary picture, and how much it matters where on it one is."""
    if not tuning.grid:
        return paragraph("There is no map: no grid of weights was searched.", class_="empty")
    best = best_mark(tuning)
    usual = tuning.against.get(USUAL)
    drawn = ternary_picture(
        tuning.measure, tuning.grid, best=best, usual=Mark(USUAL, Weights(), None if usual is None else usual.first)
    )
    highest = max(value for _, value in tuning.grid)
    near = sum(value >= highest - NEAR for _, value in tuning.grid)
    caption = (
        f"Weighted sums, each cell one weighting, coloured by its mean {tuning.measure} over all questions; a corner is one "
        f"mode alone. {near} of {len(tuning.grid)} weightings come within {NEAR} of the highest, {highest:.3f}."
    )
    return tag("figure", drawn, tag("figcaption", text(caption), class_="note"))


def best_mark(tuning: Tuning) -> Mark:
    """The chosen weights where they are of a weighted sum, else the best of the grid."""
    if tuning.best.fusion == "weighted_sum":
        return Mark("best", tuning.best.weights, tuning.fitted)
    weights, value = max(tuning.grid, key=lambda one: one[1])
    return Mark("best sum", weights, value)


def against_table(tuning: Tuning) -> Markup:
    """Each baseline's mean beside the tuned setting's on held-out questions."""
    rows = [_compared(name, one) for name, one in tuning.against.items()]
    caption = f"Mean {tuning.measure}: baselines, and the tuned setting on questions that it was not found on"
    return table(caption, ["baseline", "mean", "tuned", "difference", "won/lost/same", "p"], rows)


def learned_table(tuning: Tuning) -> Markup:
    """Each learner's mean beside the best weighted setting's, both held out."""
    rows = [_compared(name, one) for name, one in tuning.learned.items()]
    caption = f"Mean {tuning.measure}, held out: the best weights for all questions, and fusions that look at the question"
    return table(caption, ["learner", "linear", "learned", "difference", "won/lost/same", "p"], rows)


def thresholds_section(
    calibrated: Mapping[str, Calibrated] | None,
    pairs: Mapping[str, Pairs] | None,
    thresholds: Mapping[str, float],
    wanted: str | None,
) -> Markup:
    """The table of thresholds, and for each mode how its scores part relevant from other documents."""
    parts = [] if calibrated is None else [thresholds_table(calibrated, wanted)]
    if pairs is None:
        parts.append(paragraph("The curves need the scored pairs (pairs=), which this report was not given.", class_="empty"))
        return joined(parts)
    figures = [
        _threshold_figure(mode, held, chosen_threshold(mode, calibrated, thresholds))
        for mode, held in pairs.items()
        if len(held.scores)
    ]
    if not figures:
        parts.append(paragraph("No scored pair was given, so there is no curve.", class_="empty"))
        return joined(parts)
    return joined([*parts, _threshold_key(), tag("div", *figures, class_="charts")])


def chosen_threshold(mode: str, calibrated: Mapping[str, Calibrated] | None, thresholds: Mapping[str, float]) -> float | None:
    """What was fitted, else what the profile holds."""
    fitted = calibrated[mode].threshold if calibrated and mode in calibrated else None
    return thresholds.get(mode) if fitted is None else fitted


def thresholds_table(calibrated: Mapping[str, Calibrated], wanted: str | None) -> Markup:
    """Each mode's threshold and what it gives, on the questions it was fitted on and on others."""
    what = "" if wanted is None else f" for {wanted}"
    caption = (
        f"Thresholds{what}. Held out: what was wanted, on halves of the questions that the threshold was not fitted on, "
        "mean ± standard deviation. Wrong: unanswerable questions (else unrelated pairs) that reach it"
    )
    header = ["mode", "threshold", "precision", "recall", "F1", "answers", "wrong", "held out"]
    rows = [_threshold_row(mode, one) for mode, one in calibrated.items()]
    problems = [paragraph(f"{mode}: {one.problem}.", class_="empty") for mode, one in calibrated.items() if one.problem]
    return joined([table(caption, header, rows, stacked=True), *problems])


def reliability_section(calibrated: Mapping[str, Calibrated]) -> Markup:
    """How far the probabilities can be trusted, and what scores mean in words."""
    drawn = {mode: one for mode, one in calibrated.items() if one.reliability}
    parts = [levels_table(calibrated)]
    if not drawn:
        missing = "No probabilities were fitted: they need questions with known answers, found and not found."
        return joined([paragraph(missing, class_="empty"), *parts])
    said = paragraph(
        "Each point stands for pairs of about the same probability, its area for how many they are (the largest is cut). On",
        "the diagonal probabilities keep their word: of the pairs said to be relevant with 0.7, that share is. All this on",
        "questions that the curve was not fitted on.",
    )
    figures = tag("div", *(_reliability_figure(mode, one) for mode, one in drawn.items()), class_="charts small")
    return joined([said, figures, *parts])


def levels_table(calibrated: Mapping[str, Calibrated]) -> Markup:
    """From which score on a text is weak, related or nearly identical, also as bands of a strip."""
    named = {mode: one.calibration for mode, one in calibrated.items() if one.calibration.levels}
    if not named:
        return paragraph("No levels were fitted: they need labels or unrelated pairs.", class_="empty")
    names = [name for name in LEVELS[1:] if any(name in one.levels for one in named.values())]
    rows = [
        [_mode(mode), *(text(score(one.levels[name]) if name in one.levels else "–") for name in names), levels_strip(one)]
        for mode, one in named.items()
    ]
    caption = "From which score on a text is weak, related or nearly identical, by mode"
    key = (tag("li", swatch(f"step-{BANDS[name]}"), text(name)) for name in (LEVELS[0], *names))
    header = ["mode", *(f"{name} from" for name in names), "as bands, low to high"]
    return joined([table(caption, header, rows), tag("ul", *key, class_="key")])


def levels_strip(calibration: Calibration) -> Markup:
    """The levels as bands over the range of scores that are known."""
    held = [name for name in LEVELS[1:] if name in calibration.levels]
    bounds = [calibration.levels[name] for name in held]
    scale = Scale.over([*calibration.scores, *bounds], 0, 100)
    return strip(bounds, [BANDS[name] for name in (LEVELS[0], *held)], scale)


def _compared(name: str, found: Comparison) -> list[Markup]:
    numbers = [
        f"{found.first:.3f}",
        f"{found.second:.3f}",
        signed(found.difference),
        f"{found.wins:,}/{found.losses:,}/{found.ties:,}",
        chance(found.p_value),
    ]
    return [text(name), *map(text, numbers)]


def _threshold_row(mode: str, one: Calibrated) -> list[Markup]:
    measured, held_out = one.measured, one.held_out
    shares = [None] * 3 if measured is None else [measured.precision, measured.recall, measured.f()]
    cells = [
        "–" if one.threshold is None else score(one.threshold),
        *("–" if share is None else f"{share:.3f}" for share in shares),
        "–" if measured is None else f"{measured.returned:,}",
        "–" if one.false_positives is None else f"{one.false_positives:.1%}",
        "–" if held_out is None else f"{held_out.mean:.3f} ± {held_out.deviation:.3f}",
    ]
    return [_mode(mode), *map(text, cells)]


def _threshold_figure(mode: str, pairs: Pairs, threshold: float | None) -> Markup:
    relevant, other = int(pairs.relevant.sum()), int((~pairs.relevant).sum())
    note = text(f"{relevant:,} relevant, {counted(other, 'other pair')}")
    title = tag("h3", _mode(mode))
    return tag("figure", title, threshold_picture(mode, pairs, threshold), tag("figcaption", note, class_="note"))


def _threshold_key() -> Markup:
    """What is what in the pictures of thresholds."""
    said = paragraph(
        "Above, how scores are spread: relevant pairs upwards in the mode's colour, others downwards in grey, each as shares",
        "of their own number. Below, what a threshold at each score gives, where at least 5 answers are left.",
    )
    lines = {"line precision": "precision", "line recall": "recall", "line f1": "F1", "limit": "chosen threshold"}
    key = [tag("li", swatch("other"), text("other pairs")), *(tag("li", line_sample(one), text(lines[one])) for one in lines)]
    return joined([said, tag("ul", *key, class_="key")])


def _reliability_figure(mode: str, one: Calibrated) -> Markup:
    error = one.calibration_error
    numbers = [
        NOTHING if one.brier is None else text(f"Brier {one.brier:.4f}, "),
        NOTHING if error is None else text(f"calibration error {error:.4f}"),
        NOTHING if one.method is None else text(f", {one.method}"),
    ]
    picture = reliability_picture(mode, one.reliability)
    return tag("figure", tag("h3", _mode(mode)), picture, tag("figcaption", *numbers, class_="note"))


def _mode(mode: str) -> Markup:
    return joined([swatch(mode), text(mode)])
