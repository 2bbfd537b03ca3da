"""The tables of docs/scale.md, from what scale.json holds and the formulas of `scale_costs`; the words around them stay.

Each table stands between `<!-- scale NAME -->` and `<!-- /scale -->`. Every row says whether its number was measured, is
calculated, or is assumed, and from what.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale_costs import (
    ASSUMED,
    CROSSINGS,
    EACH,
    FROM_DISK,
    IN_ENGINE,
    PLANNED,
    SAID,
    SIZES,
    Formula,
    calculated,
    everything,
    fitted,
)

PAGE = "scale.md"
WIDTH = 128  # characters of a line of prose
COMMAND = "`python -m benchmarks.scale`"
ONCE = "[speed.md](speed.md)"
ENGINE = "`python -m benchmarks.qdrant --keep`"
EXACT_BELOW = 100_000  # whole numbers without a unit, of which every digit is shown
SCALES: Mapping[str, Sequence[tuple[str, float]]] = {  # largest first
    "B": (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3), ("B", 1)),
    "s": (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)),
    "": (("trillion", 1e12), ("billion", 1e9), ("million", 1e6), ("", 1)),
}
MEASURED: Mapping[str, tuple[str, str]] = {
    "token_bytes": ("B", "a token vector on disk: int8 codes, a scale, its share of LMDB's pages"),
    "sparse_bytes": ("B", "sparse weights on disk: what the same line says of no token vector"),
    "dense_bytes": ("B", "exact dense vector on disk"),
    "code_bytes": ("B", "its int8 codes"),
    "posting_bytes": ("B", "inverted index"),
    "id_bytes": ("B", "ids, hashes, and pages that are free at the moment"),
    "text_bytes": ("B", "text (80 words), metadata and full-text index in Chroma's SQLite"),
    "hnsw_bytes": ("B", "Chroma's HNSW on disk"),
    "own_passage": ("B", "own memory of a process that searches, for each passage more: it does not grow with them"),
    "mapped_passage": ("B", "pages of mapped files that it has read, for each passage more; the system may take them back"),
    "add_passage": ("s", "adding a passage without token vectors, encoding not counted"),
    "add_token": ("s", "adding one token vector more"),
    "scan_passage": ("s", "dense scan, for each passage more"),
    "sparse_passage": ("s", "sparse search, for each passage more"),
    "maxsim_token": ("s", "MaxSim of a candidate's token vector with a query's 32"),
    "read_document": ("s", "reading a document's text and metadata"),
    "encode_token": ("s", "encoding a token: int8, BGE-M3's shape, one core"),
    "encode_query": ("s", "encoding a query of 19 tokens, likewise"),
    "opened": ("s", "opening an index, the median of all sizes"),
}
AT_A_MILLION: Mapping[str, tuple[str, str]] = {
    "million_scan": ("s", "dense scan of a query"),
    "million_sparse": ("s", "sparse search of a query"),
    "million_scoring": ("s", "scoring the candidates in every mode"),
    "million_search": ("s", "a whole search"),
    "million_own": ("B", "own memory"),
    "million_disk": ("B", "disk"),
    "million_added": ("/s", "passages added"),
}
IN_QDRANT: Mapping[str, tuple[str, str]] = {
    "engine_disk": ("B", "disk of a passage of 120 tokens, graph and codes built"),
    "engine_far": ("", "largest difference of a score from a folder's, whose token vectors are int8"),
    "engine_scores": ("s", "all three scores of 200 such passages, over REST"),
    "folder_scores": ("s", "the same in a folder, in turn"),
    "scores_ratio": ("", "Qdrant's time over the folder's"),
    "engine_recall": ("", "share of the best 100 of 20,000 passages that HNSW over int8 codes finds"),
    "engine_least": ("", "the least of 20 queries"),
    "engine_scan": ("s", "a search of them with an exact scan, over REST"),
    "engine_hnsw": ("s", "the same by HNSW, in turn"),
    "hnsw_ratio": ("", "the scan's time over HNSW's"),
}
PARTS = {
    "dense_bytes": "exact dense vectors",
    "code_bytes": "their int8 codes",
    "hnsw_bytes": "Chroma's vector index",
}


def write(found: Mapping[str, Any], folder: Path) -> None:
    """The page with new tables; a page of tables alone where there is none yet."""
    path = folder / PAGE
    text = path.read_text(encoding="utf-8") if path.is_file() else "".join(f"{_open(name)}\n{CLOSE}\n" for name in TABLES)
    path.write_text(render(text, found), encoding="utf-8")


def render(text: str, found: Mapping[str, Any]) -> str:
    """A page with each table made anew between its marks; LookupError where a mark is missing."""
    for name, table in TABLES.items():
        pattern = re.compile(f"{re.escape(_open(name))}\n.*?{re.escape(CLOSE)}", re.S)
        made = "\n".join([_open(name), "", *table(found), "", CLOSE])
        text, times = pattern.subn(lambda _, made=made: made, text)
        if times != 1:
            raise LookupError(f"{PAGE} must hold the mark {_open(name)} once, and {CLOSE} after it; got it {times} times")
    return text


def shown(value: float, unit: str) -> str:
    """Three digits in a unit that suits: `shown(1.23e9, "B")` is "1.23 GB"; "/s" is put behind."""
    base = unit.removesuffix("/s")
    if not base and value == int(value) and abs(value) < EXACT_BELOW:
        return f"{value:,.0f}{unit}"
    name, size = next(((name, size) for name, size in SCALES[base] if abs(value) >= size), SCALES[base][-1])
    scaled = float(f"{value / size:.3g}")
    number = f"{scaled:,.0f}" if abs(scaled) >= 100 or scaled == int(scaled) else f"{scaled:.3g}"
    return f"{number} {name}".strip() + ("/s" if unit.endswith("/s") else "")


CLOSE = "<!-- /scale -->"


def _open(name: str) -> str:
    return f"<!-- scale {name} -->"


def _values(found: Mapping[str, Any]) -> dict[str, float]:
    return everything({name: one["value"] for name, one in found["quantities"].items()})


def _measured(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("name", "what", "value", "points", "line", "how")
    for name, (unit, what) in MEASURED.items():
        one = found["quantities"][name]
        line = f"+ {shown(one['intercept'], unit)}, R² {one['explained']:.3f}" if "intercept" in one else ""
        yield _row(f"`{name}`", what, shown(one["value"], unit), str(one["points"]), line, f"measured: {COMMAND}")


def _million(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("name", "what", "value", "how")
    for name, (unit, what) in AT_A_MILLION.items():
        yield _row(f"`{name}`", what, shown(found["quantities"][name]["value"], unit), f"measured: {ONCE}")
    yield from _formulas(SAID, _values(found))


def _qdrant(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("name", "what", "value", "how")
    for name, (unit, what) in IN_QDRANT.items() if "qdrant" in found else ():
        yield _row(f"`{name}`", what, shown(found["qdrant"][name], unit), f"measured: {ENGINE}")
    yield from _formulas(IN_ENGINE, _values(found))


def _dims(found: Mapping[str, Any]) -> Iterator[str]:
    dims = sorted({point["dim"] for point in found["points"]})
    yield from _head("name", *(f"d = {dim}" for dim in dims), "how")
    for name, part in PARTS.items():
        slopes = [_slope(found, dim, lambda point, part=part: point["disk"][part] * point["documents"]) for dim in dims]
        yield _row(f"`{name}`", *(shown(slope, "B") for slope in slopes), f"measured: {COMMAND}")
    scans = [_slope(found, dim, lambda point: point["opened"]["legs"]["scan"]) for dim in dims]
    yield _row("`scan_passage`", *(shown(slope, "s") for slope in scans), f"measured: {COMMAND}")


def _slope(found: Mapping[str, Any], dim: int, of: Callable[[Mapping[str, Any]], float]) -> float:
    points = [point for point in found["points"] if point["dim"] == dim]
    return fitted([point["documents"] for point in points], [of(point) for point in points]).slope


def _assumed(_: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("name", "what", "value", "how")
    for name, one in ASSUMED.items():
        yield _row(f"`{name}`", one.what, shown(one.value, one.unit), f"assumed: {one.source}")


def _each(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("name", "what", "value", "how")
    yield from _formulas(EACH, _values(found))


def _disk(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("name", "what", "value", "how")
    yield from _formulas(FROM_DISK, _values(found))


def _formulas(formulas: Mapping[str, Formula], values: Mapping[str, float]) -> Iterator[str]:
    for name, one in formulas.items():
        yield _row(f"`{name}`", one.what, shown(values[name], one.unit), f"calculated: `{one.formula}`")


def _planned(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("name", "what", *SIZES, "how")
    columns = []
    for passages in SIZES.values():
        values = {**_values(found), "passages": float(passages)}
        for name, one in PLANNED.items():
            values[name] = calculated(one.formula, values)
        columns.append(values)
    for name, one in PLANNED.items():
        cells = [shown(values[name], one.unit) for values in columns]
        yield _row(f"`{name}`", one.what, *cells, f"calculated: `{one.formula}`")


def _crossings(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("when", "passages", "what then", "how")
    values = _values(found)
    for one in sorted(CROSSINGS, key=lambda one: calculated(one.formula, values)):
        yield _row(one.what, shown(calculated(one.formula, values), ""), one.then, f"calculated: `{one.formula}`")


def _run(found: Mapping[str, Any]) -> Iterator[str]:
    processor, cores, *_ = found["machine"].split(", ")
    load = re.search(r"the load was \S+", found["machine"])
    when = f" ({load[0]} when it began)" if load else ""
    words = (
        f"Measured {found['date']} in {shown(found['seconds'], 's')}, one thread, on {processor} with {cores}, a shared "
        f"machine: others worked there too{when}. scale.json has its instructions, all versions and every point."
    )
    yield from textwrap.wrap(words, WIDTH, break_on_hyphens=False)


TABLES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "run": _run,
    "measured": _measured,
    "dims": _dims,
    "million": _million,
    "qdrant": _qdrant,
    "assumed": _assumed,
    "each": _each,
    "planned": _planned,
    "crossings": _crossings,
    "disk": _disk,
}


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield _row(*["---"] * len(cells))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
