"""Why a document is not among the hits, and what would bring it in: words by key, with the values to fill in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from m3retriever import MODES, Explanation, Mode
from m3retriever.inspector.analysis.settings import K_MAX, K_STEP

Words = tuple[str, Mapping[str, object]]
STAGES = {
    "hit": "hit",
    "below k": "below_k",
    "below threshold": "below_threshold",
    "not a candidate": "not_found",
    "filtered out": "filtered",
}


@dataclass(frozen=True)
class Place:
    """A document's score in one mode, and its place when ranked by that mode alone; None where no search finds it."""

    mode: Mode
    score: float
    rank: int | None
    found: bool


def places(explanation: Explanation) -> list[Place]:
    """The document mode by mode; of one that is no candidate its places in the deeper search that finds it."""
    ranks = explanation.ranks or (explanation.deeper.ranks if explanation.deeper else {})
    modes = [mode for mode in MODES if mode in explanation.scores]  # none where it is filtered out
    return [Place(mode, explanation.scores[mode], ranks.get(mode), mode in explanation.found_by) for mode in modes]


def verdict(explanation: Explanation, k: int) -> Words:
    """What became of it: the key's end names the stage that cut it."""
    values: dict[str, object] = {"rank": explanation.rank, "k": k}
    if explanation.score is not None:
        values["score"] = f"{explanation.score:.3f}"
    if explanation.threshold is not None:
        values["threshold"] = f"{explanation.threshold:.2f}"
    return f"missing.{STAGES[explanation.stage]}", values


def gap(explanation: Explanation) -> float | None:
    """What its score lacks to the k-th hit's; None where there is no k-th hit, or nothing is lacking."""
    lacking = None if explanation.last is None or explanation.score is None else explanation.last - explanation.score
    return lacking if lacking is not None and lacking > 0 else None


def remedies(explanation: Explanation, k: int) -> list[Words]:
    """What would bring it in, the stage that cut it first, then what would cut it next; none for a hit."""
    found: list[Words] = []
    if explanation.stage == "filtered out" or explanation.score is None:
        return [("missing.do_filter", {})]
    if explanation.stage == "not a candidate":
        deeper = explanation.deeper
        found.append(("missing.do_words", {}) if deeper is None else ("missing.do_depth", {"depth": deeper.depth}))
    if explanation.stage == "hit":
        return found
    if explanation.threshold is not None and explanation.score < explanation.threshold:
        found.append(("missing.do_threshold", {"threshold": f"{floored(explanation.score):.2f}"}))
    rank = explanation.rank or (explanation.deeper.rank if explanation.deeper else 0)
    if rank > k:
        wanted = -(-rank // K_STEP) * K_STEP
        found.append(("missing.do_k" if wanted <= K_MAX else "missing.do_more", {"k": wanted}))
    if (gap(explanation) or 0) > 0:
        best = min((place for place in places(explanation) if place.rank), key=lambda place: place.rank or 0, default=None)
        if best is not None and best.rank is not None and best.rank <= k:
            found.append(("missing.do_weight", {"mode": best.mode, "rank": best.rank}))
    return found


def floored(score: float) -> float:
    """The score cut, not rounded, to a slider's two digits: a threshold that it reaches."""
    return math.floor(score * 100 + 1e-9) / 100
