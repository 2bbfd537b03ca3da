"""The commands that fit a profile to questions of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3retriever.cli.opening import open_index
from m3retriever.cli.options import (
    BackendOption,
    CollectionOption,
    GoldenOption,
    JsonOption,
    ModelOption,
    OutOption,
    PathOption,
    PrecisionOption,
    ProfileOption,
    QrelsOption,
    QueriesOption,
    UnanswerableOption,
    check_writable,
    names_of,
)
from m3retriever.cli.quality import read_judged
from m3retriever.cli.terminal import print_json, progress, say
from m3retriever.errors import InvalidArgumentError

if TYPE_CHECKING:
    from m3retriever.calibrating import Calibrated, Wanted
    from m3retriever.tuning import Tuning
    from m3retriever.types import Profile


def tune(
    path: PathOption,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    golden: GoldenOption = None,
    measure: Annotated[str, typer.Option(help="What is maximised.")] = "nDCG@10",
    fusion: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Names by comma, such as weighted_sum,rrf; learned and routed are tried beside them."),
    ] = None,
    search: Annotated[str, typer.Option(help="grid, or optuna: Bayesian, over depth and constants too.")] = "grid",
    step: Annotated[float, typer.Option(help="Of the grid of weights.")] = 0.05,
    trials: Annotated[int, typer.Option(help="Of the Bayesian search.")] = 100,
    folds: Annotated[int, typer.Option(help="Parts of the questions, each held out once.")] = 5,
    out: OutOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the weights that suit your questions, and what to expect of them on others."""
    from m3retriever.evaluation import answerable
    from m3retriever.fitting import tune_index
    from m3retriever.profile import save_profile
    from m3retriever.tuning import fusions_of, steps_of

    fusions, learners = fusions_of([] if fusion is None else names_of(fusion))
    check_writable(out)
    with open_index(
        path, model=model, collection=collection, profile=profile, precision=model_precision, backend=backend
    ) as opened:
        texts, judged = read_judged(opened, queries, qrels, golden)
        settings: dict[str, Any] = {"measure": measure, "step": step, "search": search, "trials": trials, "folds": folds}
        steps = len(answerable(judged)) + steps_of(fusions, learners, folds=folds)
        with progress("tuning", total=steps) as advance:
            found, fitted = tune_index(
                opened, texts, judged, fusions=fusions, learners=learners, on_step=advance, **settings
            )  # fmt: skip
    if out is not None:
        save_profile(fitted, out)
    if as_json:
        print_json(tuning_json(found, out))
    else:
        from m3retriever import report

        report.print_tuning(found)
        say(f"the profile is in {out}" if out else "nothing was written: --out FILE saves the profile")


def tuning_json(found: Tuning, out: Path | None) -> dict[str, Any]:
    """What `tune --json` prints."""
    from dataclasses import asdict

    from m3retriever.evaluation import mean
    from m3retriever.types import MODES

    best = found.best
    return {
        "queries": len(found.held_out),
        "measure": found.measure,
        "best": {
            "weights": dict(zip(MODES, best.weights.normalized(), strict=True)),
            "fusion": best.fusion,
            "depth": best.depth,
        },
        "chosen": found.chosen,
        "fitted": found.fitted,
        "held_out": mean(found.held_out),
        "folds": [str(setting) for setting in found.folds],
        "found": {name: {"setting": str(one.setting), "held_out": mean(one.held_out)} for name, one in found.found.items()},
        "against": {name: {**asdict(one), "difference": one.difference} for name, one in found.against.items()},
        "learned": {name: {**asdict(one), "difference": one.difference} for name, one in found.learned.items()},
        "profile": None if out is None else str(out),
    }


def calibrate(
    path: PathOption,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    golden: GoldenOption = None,
    unanswerable: UnanswerableOption = None,
    precision: Annotated[Optional[float], typer.Option(help="Thresholds for this share of right answers.")] = None,  # noqa: UP045
    recall: Annotated[Optional[float], typer.Option(help="Or that keep this share of the relevant documents.")] = None,  # noqa: UP045
    confidence: Annotated[Optional[float], typer.Option(help="With --recall: promise it, with this confidence.")] = None,  # noqa: UP045
    f_beta: Annotated[Optional[float], typer.Option(help="Or for the best F-beta, of this beta.")] = None,  # noqa: UP045
    fpr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Or that answer this share of unanswerable questions (without any: reached by unrelated pairs)."),
    ] = None,
    out: OutOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit probabilities and thresholds to judged questions, or without any the rates of unrelated pairs."""
    from m3retriever.fitting import calibrate_index
    from m3retriever.fusion import POINTWISE
    from m3retriever.profile import save_profile

    wanted = wanted_of({"precision": precision, "recall": recall, "f": f_beta, "fpr": fpr}, confidence)
    check_writable(out)
    wrong = unanswerable_of(unanswerable)
    with open_index(
        path, model=model, collection=collection, profile=profile, precision=model_precision, backend=backend
    ) as opened:
        unlabelled = queries is None and qrels is None and golden is None
        texts, judged = ({}, {}) if unlabelled else read_judged(opened, queries, qrels, golden)
        with progress("calibrating", total=len(judged) + len(wrong) + MODES_SHOWN) as advance:
            found, fitted = calibrate_index(opened, texts, judged, wanted, unanswerable=wrong, on_step=advance)
    if wanted is not None and all(one.threshold is None for one in found.values()):
        raise InvalidArgumentError(f"no threshold for {wanted}: {found['hybrid'].problem}")
    if fitted.fusion not in POINTWISE:
        say(f"warning: {fitted.fusion} scores a document by the other candidates: its thresholds hold for this depth only")
    if out is not None:
        save_profile(fitted, out)
    if as_json:
        print_json(calibration_json(found, fitted, out))
    else:
        from m3retriever import report

        report.print_calibration(found, fitted)
        say(f"the profile is in {out}" if out else "nothing was written: --out FILE saves the profile")


MODES_SHOWN = 4  # hybrid and each mode alone


def unanswerable_of(path: Path | None) -> list[str]:
    """The texts of questions that no document answers."""
    from m3retriever.io import read_queries

    texts = [] if path is None else list(read_queries(path).values())
    if path is not None and not texts:
        raise InvalidArgumentError(f"{path} holds no questions")
    return texts


def wanted_of(given: dict[str, float | None], confidence: float | None) -> Wanted | None:
    """What the thresholds are for, of options of which at most one may be given."""
    from m3retriever.calibrating import Wanted

    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise InvalidArgumentError("thresholds are for one thing: give one of --precision, --recall, --f-beta, --fpr")
    if not named:
        if confidence is not None:
            raise InvalidArgumentError("--confidence goes with --recall")
        return None
    [(what, value)] = named.items()
    return Wanted(what, value, confidence)  # type: ignore[arg-type]  # the names above


def calibration_json(found: dict[str, Calibrated], fitted: Profile, out: Path | None) -> dict[str, Any]:
    """What `calibrate --json` prints."""
    from m3retriever.profile import plain

    return {
        **plain({name: value for name, value in fitted.fitted["calibration"].items() if name not in found}),
        "depth": fitted.depth,
        "modes": {mode: mode_json(one) for mode, one in found.items()},
        "profile": None if out is None else str(out),
    }


def mode_json(one: Calibrated) -> dict[str, Any]:
    """One mode's calibration."""
    measured, held_out = one.measured, one.held_out
    return {
        "threshold": one.threshold,
        "problem": one.problem,
        "precision": measured and measured.precision,
        "recall": measured and measured.recall,
        "f1": measured and measured.f(),
        "returned": measured and measured.returned,
        "answered": measured and measured.answered,
        "fpr": one.false_positives,
        "held_out": held_out and {"mean": held_out.mean, "deviation": held_out.deviation, "halves": held_out.halves},
        "method": one.method,
        "brier": one.brier,
        "calibration_error": one.calibration_error,
        "reliability": [bin._asdict() for bin in one.reliability],
        "levels": dict(one.calibration.levels),
    }
