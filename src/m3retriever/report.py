"""What the command line prints: hits, explanations and tables, as JSON and for a person."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3retriever.calibrating import Calibrated
from m3retriever.calibration import LEVELS
from m3retriever.evaluation import Evaluation, mean
from m3retriever.exactness import Exactness
from m3retriever.explanation import Explanation
from m3retriever.tuning import Tuning
from m3retriever.types import MODES, Hit, Profile, Weights

if TYPE_CHECKING:
    from m3retriever.stores.places import Place
    from m3retriever.types import KeptStore

WIDE = 0.03  # a spread of held-out values that is worth a word
SNIPPET = 60  # characters of a text in a table
PLAIN_WIDTH = 120  # columns where the output is no terminal
MIN_WIDTHS = {"#": 2, "score": 6, "dense": 6, "sparse": 6, "colbert": 7, "hybrid": 6, "ranks d·s·c": 11, "id": 18, "mode": 8}


def used_weights(mode: str, weights: Weights) -> dict[str, float]:
    """The weights that made the score, summing to 1: all on one mode where one was asked for."""
    if mode == "hybrid":
        return dict(zip(MODES, weights.normalized(), strict=True))
    return {one: float(one == mode) for one in MODES}


def search_json(query: str, mode: str, weights: Mapping[str, float], hits: Sequence[Hit]) -> dict[str, Any]:
    """The object that `search --json` prints."""
    return {
        "query": query,
        "mode": mode,
        "weights": dict(weights),
        "hits": [
            {
                "rank": rank,
                "id": hit.document.id,
                "score": hit.score,
                "scores": dict(hit.scores),
                "ranks": dict(hit.ranks),
                "found_by": [one for one in MODES if one in hit.found_by],
                **({} if hit.probability is None else {"probability": hit.probability}),
                "text": hit.document.text,
                "metadata": dict(hit.document.metadata),
            }
            for rank, hit in enumerate(hits, start=1)
        ],
    }


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """The object that `explain --json` prints."""
    content = asdict(explanation)
    content["found_by"] = [one for one in MODES if one in explanation.found_by]
    content["shared_tokens"] = [{**asdict(token), "product": token.product} for token in explanation.shared_tokens]
    content["advice"] = explanation.advice
    if explanation.threshold is not None and not math.isfinite(explanation.threshold):
        content["threshold"] = str(explanation.threshold)  # "inf": no score is as probable; JSON has no such number
    return content


def index_info(place: Place) -> dict[str, Any]:
    """What `info` shows of an index."""
    with closing(place.open()) as store:
        return store_info(store, place)


def store_info(store: KeptStore, place: Place) -> dict[str, Any]:
    """`index_info` of a store that is open. The bytes are the index's on this machine: a server's are not counted."""
    from m3retriever.stores.names import collection_name

    settings, profile = store.settings(), place.folder / "profile.toml"
    return {
        "path": place.given,
        "collection": collection_name(place.collection),
        "documents": len(store),
        "without_vectors": len(store.missing()),
        "model": settings["source"],
        "model_name": settings["model"],
        "dimension": int(settings["dim"]) if settings["dim"] else None,
        "revision": store.revision(),
        "bytes_on_disk": None if place.local is None else sum(map(_bytes, place.local.rglob("*"))),
        "profile": str(profile) if profile.is_file() else None,
    }


def _bytes(path: Path) -> int:
    """What a file takes on disk; 0 for a folder, and for a file that another process has just removed."""
    try:
        return path.stat().st_blocks * 512 if path.is_file() else 0
    except OSError:
        return 0


def print_hits(query: str, mode: str, weights: Mapping[str, float], hits: Sequence[Hit]) -> None:
    """A table of hits with every mode's score and rank."""
    console = _console()
    if not hits:
        console.print(_line(f"no document for {query!r}"))
        return
    judged = any(hit.probability is not None for hit in hits)
    table = _table("#", "score", *(["probability"] if judged else []), *MODES, "ranks d·s·c", "id", "text")
    for rank, hit in enumerate(hits, start=1):
        scores = [*([_number(hit.probability)] if judged else []), *(f"{hit.scores[one]:.3f}" for one in MODES)]
        ranks = "·".join(str(hit.ranks[one]) for one in MODES)
        table.add_row(*_cells(str(rank), f"{hit.score:.3f}", *scores, ranks, hit.document.id, _snippet(hit.document.text)))
    console.print(Text(f"{mode}, weights " + ", ".join(f"{one} {weight:.2f}" for one, weight in weights.items())))
    console.print(table)


def print_explanation(explanation: Explanation) -> None:
    """The scores of one document, their parts and what would bring it in."""
    console = _console()
    console.print(_line(f"{explanation.document.id}: {explanation.stage}; {explanation.advice}"))
    table = _table("mode", "score", "part", "rank", "found by it")
    for one in MODES if explanation.score is not None else ():
        part = explanation.contributions.get(one)
        rank = explanation.ranks.get(one)
        table.add_row(
            *_cells(one, f"{explanation.scores[one]:.4f}", "" if part is None else f"{part:.4f}"),
            *_cells("" if rank is None else str(rank), "yes" if one in explanation.found_by else ""),
        )
    if explanation.score is not None:
        table.add_row(*_cells("score", "", f"{explanation.score:.4f}", str(explanation.rank or ""), ""))
        console.print(table)
    if explanation.last is not None:
        console.print(Text(f"first hit {explanation.best:.4f}, last hit {explanation.last:.4f}"))
    if explanation.shared_tokens:
        shared = _table("shared token", "query", "document", "product")
        for token in explanation.shared_tokens:
            weights = f"{token.query_weight:.4f}", f"{token.document_weight:.4f}", f"{token.product:.4f}"
            shared.add_row(*_cells(token.token, *weights))
        console.print(shared)


def print_side_by_side(question: str, hits: Mapping[str, Sequence[Hit]], *, weights: Weights, documents: int) -> None:
    """The first hits of every mode in columns, then the hybrid's with all their scores."""
    console = _console()
    console.print(Text(f"\n{documents} documents; the question: {printable(question)!r}\n"))
    table = _table("#", *hits)
    for place in range(max(map(len, hits.values()))):
        row = [_side_cell(ranked[place]) if place < len(ranked) else "" for ranked in hits.values()]
        table.add_row(*_cells(str(place + 1), *row))
    console.print(table)
    print_hits(question, "hybrid", used_weights("hybrid", weights), hits["hybrid"])


def print_quality(evaluation: Evaluation) -> None:
    """A table of modes by measures."""
    console = _console()
    console.print(Text(f"\nmean over {len(evaluation.queries)} questions with known answers\n"))
    table = _table("mode", *next(iter(evaluation.values.values())))
    for mode, measures in evaluation.values.items():
        table.add_row(*_cells(mode, *(f"{evaluation.mean(mode, name):.3f}" for name in measures)))
    console.print(table)


def print_exactness(lost: Exactness) -> None:
    """What the approximate search and the stored bits cost, in two lines."""
    console = _console()
    found = ", ".join(f"{mode} {share:.3f}" for mode, share in lost.found.items())
    console.print(Text(f"\nof the {lost.k} best by scoring every document, over {lost.questions} questions, found: {found}"))
    console.print(
        Text(f"token vectors in 8 bits: {lost.kept:.3f} of them stay the best; scores move by {lost.difference:.5f} at most")
    )


def print_tuning(found: Tuning) -> None:
    """What was found, what to expect of it, and how the usual settings do."""
    console = _console()
    expected = mean(found.held_out)
    console.print(Text(f"\n{found.measure} over {len(found.held_out)} questions; held out: under settings found without them"))
    table = _table("found", "setting", "held out", "on its own", "p against linear")
    for name, one in found.found.items():
        mark = f"{name} *" if name == found.chosen else name
        numbers = _number(mean(one.held_out), 4), _number(one.fitted, 4)
        learned = found.learned.get(name)
        table.add_row(*_cells(mark, str(one.setting), *numbers, "" if learned is None else _number(learned.p_value, 4)))
    console.print(table)
    against = _table("against", "mean", "difference", "better", "worse", "p")
    for name, two in found.against.items():
        counts = str(two.wins), str(two.losses)
        against.add_row(*_cells(name, _number(two.first, 4), f"{two.difference:+.4f}", *counts, _number(two.p_value, 4)))
    console.print(Text(f"\nthe chosen one (*), {expected:.4f} on held-out questions, against"))
    console.print(against)


def print_calibration(found: Mapping[str, Calibrated], profile: Profile) -> None:
    """A table of modes: the threshold, what it gives, and what to expect of it on other questions."""
    console = _console()
    wanted = profile.fitted["calibration"].get("wanted")
    if wanted:
        console.print(Text(f"\nthresholds for {wanted}; held out: what they gave on halves they were not fitted on"))
        table = _table("mode", "threshold", "precision", "recall", "fpr", "held out", "brier", "cal. error")
        for mode, one in found.items():
            table.add_row(*_cells(mode, *_calibration_cells(one)))
        console.print(table)
    if any(one.held_out is not None and one.held_out.deviation > WIDE for one in found.values()):
        console.print(Text("a spread (±) above 0.03 says that other questions may get something else: judge more questions"))
    for mode, one in found.items():
        if one.problem:
            console.print(_line(f"{mode}: {one.problem}"))
    levels = _table("mode", *LEVELS[1:])
    for mode, one in found.items():
        levels.add_row(*_cells(mode, *(_number(one.calibration.levels.get(name)) for name in LEVELS[1:])))
    console.print(Text("\nfrom which score on a text is"))
    console.print(levels)


def _calibration_cells(one: Calibrated) -> list[str]:
    measured = one.measured
    held_out = "" if one.held_out is None else f"{one.held_out.mean:.3f} ±{one.held_out.deviation:.3f}"
    return [
        _number(one.threshold, 4),
        _number(None if measured is None else measured.precision),
        _number(None if measured is None else measured.recall),
        _number(one.false_positives),
        held_out,
        _number(one.brier, 4),
        _number(one.calibration_error, 4),
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _side_cell(hit: Hit) -> str:
    return f"{hit.score:.3f} {hit.document.id}"


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, no_wrap=True, min_width=MIN_WIDTHS.get(header), overflow="ellipsis")
    return table


def printable(text: str) -> str:
    """A text of unknown origin for the terminal: control characters, which could command it, become blanks."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


def _line(text: str) -> Text:
    return Text(printable(text).replace("\n", " "))


def _cells(*values: str) -> list[Text]:
    """Cells that show a document's text and nothing else: no markup, no control characters."""
    return [_line(value) for value in values]


def _snippet(text: str) -> str:
    flat = " ".join(text[: 4 * SNIPPET].split())
    return flat if len(flat) <= SNIPPET else flat[: SNIPPET - 1] + "…"
