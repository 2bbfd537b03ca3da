"""From an index and questions to a profile, in one call each: scored once, then tuned or calibrated."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from m3retriever.calibrating import Calibrated, Evidence, Wanted, calibrate, fitted_profile
from m3retriever.calibrating.thresholds import Pairs
from m3retriever.calibrating.unrelated import identical_pairs, questions_of, unrelated_pairs
from m3retriever.evaluation import Qrels, answerable, by_owner, mean, run_of, score_all
from m3retriever.fusion import SUMMANDS
from m3retriever.index import M3Index
from m3retriever.passages import parents_of
from m3retriever.profile import PRESETS
from m3retriever.ranking import Ranking
from m3retriever.rates import Rates
from m3retriever.tuning import Setting, Tuning, tune
from m3retriever.types import MODES, ModeScores, Profile

Step: TypeAlias = Callable[[int], None]

SPARE = 0.3  # of what a wanted recall lacks to 1: by so much more than wanted must be among the candidates


def calibrate_index(
    index: M3Index,
    queries: Mapping[str, str],
    qrels: Qrels,
    wanted: Wanted | None = None,
    *,
    profile: Profile | None = None,
    scores: Mapping[str, ModeScores] | None = None,
    unanswerable: Sequence[str] = (),
    on_step: Step = lambda done: None,
) -> tuple[dict[str, Calibrated], Profile]:
    """What the index's scores mean, and its profile with that in it; see `calibrating.calibrate`.

    Parameters
    ----------
    queries, qrels
        Judged questions; without any (both empty) only the rates of unrelated pairs are known. Judged documents
        that the index does not hold are left out, and counted in the profile's `fitted`.
    wanted
        What the thresholds are for. For a recall that the profile's depth cannot give, the depth is doubled
        until it can, and the returned profile has that depth; where no depth can, it stays.
    profile
        What the scores are fused with, of the index's own depth; default: the index's own.
    scores
        Of the questions, taken before with `evaluation.score_all`; default: they are taken here.
    unanswerable
        Texts of questions that no document answers.
    on_step
        Called with the number of questions scored after each batch, and with 1 after each mode.
    """
    gathered = gather(index, queries, qrels, scores=scores, unanswerable=unanswerable, on_step=on_step)
    profile, gathered = deep_enough(index, gathered, profile or index.profile, wanted, on_step=on_step)
    calibrated = calibrate(gathered.evidence, profile, wanted, on_step=on_step)
    return calibrated, calibrated_profile(index, gathered, profile, calibrated, wanted)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What `calibrate_index` learns from: all that the model is asked for, unless a recall wants a larger depth.

    Attributes
    ----------
    queries : {question: text}
    unanswerable : texts of questions that no document answers
    evidence : the scores of both, and of what goes with them
    lost : judged documents that the index does not hold
    """

    queries: Mapping[str, str]
    unanswerable: Sequence[str]
    evidence: Evidence
    lost: int


def gather(
    index: M3Index,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    scores: Mapping[str, ModeScores] | None = None,
    unanswerable: Sequence[str] = (),
    on_step: Step = lambda done: None,
) -> Gathered:
    """What calibrating learns from, for any weights and any wish; the parameters are `calibrate_index`'s."""
    judged, lost = held_judgements(index, qrels)
    scores = _scores_of(index, queries, judged, scores, on_step)
    evidence = evidence_of(index, queries, judged, scores, unanswerable=unanswerable, on_step=on_step)
    return Gathered(queries, unanswerable, evidence, lost)


def calibrated_profile(
    index: M3Index, gathered: Gathered, profile: Profile, calibrated: Mapping[str, Calibrated], wanted: Wanted | None
) -> Profile:
    """The profile with what was calibrated, tied to the index's model; it says what it was fitted on."""
    counts = {"questions": len(gathered.evidence.qrels), "unanswerable": len(gathered.unanswerable), "documents": len(index)}
    counts |= {"judged_but_not_in_the_index": gathered.lost} if gathered.lost else {}
    return fitted_profile(_bound(profile, index), calibrated, wanted, **counts)


def _scores_of(
    index: M3Index,
    queries: Mapping[str, str],
    wanted: Collection[str],
    taken: Mapping[str, ModeScores] | None,
    on_step: Step,
) -> dict[str, ModeScores]:
    """Scores of the questions wanted: those taken before, or taken now."""
    if taken is None:
        return score_all(index, queries, wanted, on_step=on_step)
    return {query: taken[query] for query in wanted}


def held_judgements(index: M3Index, qrels: Qrels) -> tuple[dict[str, dict[str, int]], int]:
    """The judgements of documents that the index holds, whole or in passages, and how many others there are.

    A judged passage stands for its document. Every question stays, be it with nothing relevant.
    """
    parents = parents_of(index)
    known = {*index.ids(), *parents.values()}
    owned = by_owner(qrels, parents)
    held = {query: {id: grade for id, grade in judged.items() if id in known} for query, judged in owned.items()}
    return held, sum(map(len, owned.values())) - sum(map(len, held.values()))


def deep_enough(
    index: M3Index, gathered: Gathered, profile: Profile, wanted: Wanted | None, *, on_step: Step = lambda done: None
) -> tuple[Profile, Gathered]:
    """The profile and the evidence at a depth that gives the recall wanted; as they are where none does, or none is."""
    deeper, found = profile, gathered.evidence
    while (lack := _lack(found, deeper, wanted)) > 0 and deeper.depth < len(index):
        deeper = replace(deeper, depth=min(2 * deeper.depth, len(index)))
        found = replace(
            found,
            scores=score_all(index, gathered.queries, found.qrels, depth=deeper.depth, on_step=on_step),
            unanswerable=_scored(index, gathered.unanswerable, deeper.depth, on_step),
        )
    hopeless = wanted is not None and lack > SPARE * (1 - wanted.value)
    return (profile, gathered) if hopeless else (deeper, replace(gathered, evidence=found))


def evidence_of(
    index: M3Index,
    queries: Mapping[str, str],
    qrels: Qrels,
    scores: Mapping[str, ModeScores],
    *,
    unanswerable: Sequence[str] = (),
    on_step: Step = lambda done: None,
) -> Evidence:
    """What calibrating learns from: judged questions' scores, those of unanswerable ones, of unrelated pairs and of
    nearly identical texts. Without questions the openings of documents stand in for them."""
    given = queries or None
    texts = questions_of(index, index.ids(), given)
    return Evidence(
        scores,
        qrels,
        _scored(index, unanswerable, index.profile.depth, on_step),
        unrelated_pairs(index, given, qrels, on_step=on_step),
        identical_pairs(index.encoder, list(texts.values())),
    )


def _scored(index: M3Index, texts: Sequence[str], depth: int, on_step: Step) -> list[ModeScores]:
    named = {str(place): text for place, text in enumerate(texts)}
    return list(score_all(index, named, depth=depth, on_step=on_step).values())


def _lack(evidence: Evidence, profile: Profile, wanted: Wanted | None) -> float:
    """How much recall the candidates lack for the one that is wanted, with something to spare."""
    if wanted is None or wanted.what != "recall" or not evidence.qrels:
        return 0.0
    ranking = Ranking.of(profile, "hybrid", None, None)
    run = {query: run_of(scores, ranking) for query, scores in evidence.scores.items()}
    measured = Pairs.of(run, evidence.qrels).measured(-math.inf)
    reached = measured.recall if wanted.confidence is None else measured.mean_recall
    return wanted.value + SPARE * (1 - wanted.value) - reached


def _bound(profile: Profile, index: M3Index) -> Profile:
    """The profile, tied to the model whose scores it was fitted on."""
    return replace(profile, model=index.encoder.name, precision=getattr(index.encoder, "precision", None))


def tune_index(
    index: M3Index,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    scores: Mapping[str, ModeScores] | None = None,
    fusions: Sequence[str] = tuple(SUMMANDS),
    on_step: Step = lambda done: None,
    **settings: Any,
) -> tuple[Tuning, Profile]:
    """The weights and the fusion that suit judged questions, and the index's profile with them in it.

    Every preset is a baseline, beside the default and each mode alone. `scores` as in `calibrate_index`, `settings` are
    those of `tuning.tune`; `on_step` is called with the number of questions scored, after each batch, and with 1 after
    each of `tuning.steps_of`. What was calibrated for other weights is left out of the profile: calibrate again.
    """
    judged = by_owner(qrels, parents_of(index))
    scores = _scores_of(index, queries, answerable(judged), scores, on_step)
    parameters = {"null_cdf": {"unrelated": _rates(unrelated_pairs(index, queries, judged))}} if "null_cdf" in fusions else {}
    presets = {name: Setting(weights) for name, weights in PRESETS.items()}
    tuning = tune(scores, judged, fusions=fusions, parameters=parameters, baselines=presets, on_step=on_step, **settings)
    return tuning, tuned_profile(_bound(index.profile, index), tuning, documents=len(index))


def tuned_profile(profile: Profile, tuning: Tuning, **on: Any) -> Profile:
    """The profile with what tuning chose, and `on`, which says what it was tuned on."""
    best = tuning.best
    single = {mode: held for mode, held in (profile.calibration or {}).items() if mode != "hybrid"}
    calibrated = {name: held for name, held in profile.fitted.get("calibration", {}).items() if name != "hybrid"}
    numbers = {
        "measure": tuning.measure,
        "questions": len(tuning.held_out),
        "held_out": mean(tuning.held_out),
        "chosen": tuning.chosen,
        "against": {name: {"mean": one.first, "p": one.p_value} for name, one in tuning.against.items()},
    }
    return replace(
        profile,
        weights=best.weights,
        fusion=best.fusion,
        parameters=best.parameters,
        depth=best.depth or profile.depth,
        thresholds={mode: held for mode, held in profile.thresholds.items() if mode != "hybrid"},
        calibration=single or None,
        fitted={"tuning": {**on, **numbers}, **({"calibration": calibrated} if single else {})},
    )


def _rates(pairs: Sequence[ModeScores]) -> dict[str, dict[str, list[float]]]:
    """Of unrelated pairs, by mode, as `null_cdf` takes them."""
    by_mode = {mode: Rates.of(np.concatenate([one.column(mode) for one in pairs])) for mode in MODES}
    return {mode: {"scores": list(one.scores), "rates": list(one.rates)} for mode, one in by_mode.items()}
