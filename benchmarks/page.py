"""docs/benchmarks.md, from what is kept and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import pictures
from benchmarks.growth import USUAL_TOKENS, Growth
from benchmarks.kept import Group, Kept
from benchmarks.measuring import Row, duration, number
from benchmarks.synthetic import (
    BANK,
    CENTRES,
    HEAVY,
    LEAN,
    LIGHT,
    NEAR,
    NONZERO,
    QUERY_NONZERO,
    QUERY_TOKENS,
    SPREAD,
    VOCABULARY,
)
from m3retriever.quality_page.markup import counted

PAGE, RATIOS, GROWTH = "benchmarks.md", "benchmarks-ratios.svg", "benchmarks-growth.svg"
INTRODUCTION = """# Benchmarks

`make bench` measures all of this on your machine in some minutes and writes this page; `make bench ARGS="--quick"` prints a
smaller run, `--only kernels,search` some of the groups, `--growth 100000,1000000` larger indexes. Longer runs of earlier
days stay on the page, with the day and the machine they were measured on.

A **ratio** is the peer's time over ours for the same work, measured in turn in one process (who begins changes with every
round, and each begins after 20 ms, when no thread of the other spins any more): above 1 we are faster, below 1 slower.
Given are the lowest, the **median** and the highest of n rounds. Times of a shared machine mean little, ratios within one
run do. "Ours" is the median of our own time. A **bound** says how far that is from what the machine allows: reading every
byte that must be read once (C's memchr over them, on all threads), multiplying each query token's codes with each document
token's at the best speed of torch's int8 matrix product, or summing the posting lists that a query reads (NumPy's sums of
their places and of their weights, each joined to one array beforehand). Every row first checks that what is fast gives what
the plain computation gives, and fails where it does not.
"""
NOT_TAKEN = "Nothing is measured yet: run `make bench`.\n"
TITLES = {
    "encoding": "Encoding",
    "kernels": "Inner loops",
    "search": "Whole searches",
    "ingest": "Adding documents",
}
DATA = f"""## The synthetic documents

Where no model runs, documents are made of a fixed seed (`benchmarks/synthetic.py`), each following from its number alone:

- dense vectors lie about {CENTRES:,} centres, with noise {SPREAD:g} times as long as a centre, brought to norm 1;
- {NONZERO} sparse tokens a document of {VOCABULARY:,}, the token of rank r drawn with a chance that goes with 1/r, so
  that the commonest are in nearly every document; weights are even between {LIGHT:g} and {HEAVY:g};
- token vectors lean from one of {BANK:,} directions to their document's dense vector, {LEAN:g} times as far as they are long;
- a query lies near a document (noise {NEAR:g} times as long), with {QUERY_NONZERO} of its tokens, and {QUERY_TOKENS} vectors.

Real texts are the docstrings of Python's standard library.
"""


def write(kept: Kept, folder: Path) -> None:
    """The page and its pictures."""
    (folder / PAGE).write_text(render(kept), encoding="utf-8")
    for name, picture in drawn(kept).items():
        (folder / name).write_text(picture, encoding="utf-8")


def drawn(kept: Kept) -> dict[str, str]:
    """The pictures by file name; none of what was not measured."""
    rows = [row for name in _order(kept) for row in kept.groups[name].rows if row.ratio is not None]
    found = {RATIOS: pictures.ratios(rows)} if rows else {}
    return found | ({GROWTH: pictures.growth([kept.growth[size] for size in sorted(kept.growth)])} if kept.growth else {})


def render(kept: Kept) -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    if not kept.groups and not kept.growth:
        parts.append(NOT_TAKEN)
    if RATIOS in drawn(kept):
        parts.append(f"![Every ratio on a logarithmic scale]({RATIOS})\n")
    machines = list(dict.fromkeys(one.machine for one in (*kept.groups.values(), *kept.growth.values())))
    parts += [_section(TITLES[name], kept.groups[name], machines) for name in _order(kept)]
    if kept.growth:
        parts.append("\n".join(_growth([kept.growth[size] for size in sorted(kept.growth)], machines)))
    parts.append(DATA)
    if machines:
        parts += ["## Machines\n", *(f"{place}. {words}" for place, words in enumerate(machines, start=1)), ""]
    return "\n".join(parts)


def as_text(rows: Sequence[Row]) -> str:
    """Rows for the terminal."""
    return "\n".join(f"{row.group}: {row.what}\n    against {row.peer}: {_summary(row)}" for row in rows)


def _summary(row: Row) -> str:
    ratio = _ratio(row, bold=False) + (f" ({counted(row.n, 'round')})" if row.n else "")
    ours = "" if row.seconds is None else f"ours {duration(row.seconds)}"
    return "; ".join(filter(None, [ratio, ours, *map(str, row.bounds), *row.goals(), row.note]))


def _section(title: str, group: Group, machines: Sequence[str]) -> str:
    head = ["what", "against", "n", "ratio", "ours", "bound", "wanted", "remark"]
    rows = [
        [
            row.what, row.peer, str(row.n or ""), _ratio(row), "" if row.seconds is None else duration(row.seconds),
            "; ".join(map(str, row.bounds)), "; ".join(row.goals()), row.note,
        ]
        for row in group.rows
    ]  # fmt: skip
    return "\n".join([f"## {title}\n", f"{group.date}, {_named(group.machine, machines)}.\n", *_table(head, rows), ""])


def _ratio(row: Row, *, bold: bool = True) -> str:
    if row.ratio is None:
        return "–"
    low, median, high = map(number, (row.ratio.low, row.ratio.median, row.ratio.high))
    middle = f"**{median}**" if bold else median
    return middle if row.n == 1 else f"{low} – {middle} – {high}"


def _growth(found: Sequence[Growth], machines: Sequence[str]) -> Iterator[str]:
    yield "## Growth\n"
    yield f"![Time of each leg by number of documents]({GROWTH})\n"
    yield (
        "Synthetic documents; the best 100 of each leg are candidates; median times in a fresh process, files cached. "
        '"Dense" is what is taken by default, a scan or Chroma\'s HNSW; its column holds the scoring of the 100 best as well. '
        '"Calculated" adds the measured time of late interaction over as many made-up documents of '
        f"{USUAL_TOKENS} token vectors to what was measured with fewer.\n"
    )
    yield from _table(["documents", *(name for name, _ in COLUMNS)], [[f"{one.documents:,}", *_cells(one)] for one in found])
    yield "\nBytes on disk for each document:\n"
    parts = list(found[0].disk)
    rows = [[f"{one.documents:,}", *(f"{one.disk[part]:,.0f}" for part in parts)] for one in found]
    yield from _table(["documents", *parts], rows)
    yield ""
    for one in found:
        where = _named(one.machine, machines)
        yield f"- {one.documents:,} documents, {one.tokens} token vectors each, d = {one.dim}: {one.date}, {where}"
    yield ""


COLUMNS: Sequence[tuple[str, Callable[[Growth], str]]] = (
    ("dense", lambda one: duration(one.legs["dense"])),
    ("scan", lambda one: duration(one.legs["scan"])),
    ("HNSW", lambda one: duration(one.legs["hnsw"])),
    ("recall of HNSW", lambda one: f"{one.recall['hnsw']:.3f}"),
    ("recall of dense", lambda one: f"{one.recall['dense']:.3f}"),
    ("sparse", lambda one: duration(one.legs["sparse"])),
    ("candidates", lambda one: f"{one.candidates:.0f}"),
    ("scoring them", lambda one: duration(one.legs["scoring"])),
    ("search", lambda one: duration(one.legs["search"])),
    (f"search, {USUAL_TOKENS} tokens, calculated", lambda one: duration(one.usual["search"])),
    ("open", lambda one: duration(one.opened)),
    ("memory, mapped files included", lambda one: f"{one.resident / 1e6:,.0f} MB"),
    ("memory of its own", lambda one: f"{one.own / 1e6:,.0f} MB"),
    ("added a second", lambda one: f"{one.added_a_second:,.0f}"),
)


def _cells(one: Growth) -> list[str]:
    return [cell(one) for _, cell in COLUMNS]


def _named(machine: str, machines: Sequence[str]) -> str:
    return f"machine {machines.index(machine) + 1}"


def _order(kept: Kept) -> list[str]:
    return [name for name in TITLES if name in kept.groups]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
