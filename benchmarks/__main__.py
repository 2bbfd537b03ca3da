"""The benchmarks: ratios against other ways to do the same work, and how a store grows.

    python -m benchmarks [--quick] [--only encoding,kernels,search,ingest,growth] [--growth 1000,10000] [--out docs]

Prints every row as it is measured. A full run writes benchmarks.json, benchmarks.md and their pictures into --out (docs); a
quick one only where --out is given.
"""

from __future__ import annotations

import argparse
import datetime
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import growth, ingest, kernels, machine, mini_encoding, page, search
from benchmarks.kept import Group, Kept
from benchmarks.measuring import Ratio, Row
from benchmarks.sizes import FULL, QUICK, Size

ENCODING_ROUNDS = 5  # or more, of `encoding.py`
WANTED = {"openvino int8, a query": 9.0, "openvino int8, 12 documents": 8.0}  # times FlagEmbedding's speed: the targets
DOCS = Path(__file__).parents[1] / "docs"


def encoding(size: Size) -> Iterator[Row]:
    """BGE-M3's shape with random weights, then a real model."""
    if size.real_encoding:
        from benchmarks.encoding import rows

        note = "BGE-M3's shape, random weights" + (", 4 of 24 layers" if size is not FULL else "")
        for what, ratio in rows(quick=size is not FULL):
            wanted = next((times for name, times in WANTED.items() if size is FULL and what.startswith(name)), None)
            yield Row("encoding", what, "FlagEmbedding encode", ENCODING_ROUNDS, Ratio(*ratio), at_least=wanted, note=note)
    yield from mini_encoding.rows(size)


GROUPS: dict[str, Callable[[Size], Iterator[Row]]] = {
    "encoding": encoding,
    "kernels": kernels.rows,
    "search": search.rows,
    "ingest": ingest.rows,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, print it, and keep it."""
    options = _parser().parse_args(arguments)
    warnings.simplefilter("ignore")  # of the peers and what they import
    size = QUICK if options.quick else FULL
    out = options.out or (None if options.quick else DOCS)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    words = "; ".join(filter(None, [machine.described(), machine.measured(), machine.busy()]))
    print(f"{words}\n")
    for name in [name for name in GROUPS if name in options.only]:
        rows = list(_printed(GROUPS[name](size)))
        _keep(out, lambda kept, name=name, rows=rows: kept.with_group(name, Group(date, words, rows)))
    for documents in options.growth if "growth" in options.only else ():
        found = growth.grown(documents, date=date, machine=words, dim=size.dim)
        print(f"growth: {found.to_dict()}", flush=True)
        _keep(out, lambda kept, found=found: kept.with_growth(found))
    if out is not None:
        page.write(Kept.read(out), out)


def _keep(out: Path | None, change: Callable[[Kept], Kept]) -> None:
    """At once, so that a run that is stopped has kept what it measured."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        change(Kept.read(out)).write(out)


def _printed(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(page.as_text([row]), flush=True)
        yield row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller, and nothing is written without --out")
    parser.add_argument("--only", type=_names, default=[*GROUPS, "growth"], help="groups, separated by commas")
    parser.add_argument("--growth", type=_numbers, default=growth.DEFAULT, help="numbers of documents, separated by commas")
    parser.add_argument("--out", type=Path, help="the folder that is written to; default: docs")
    return parser


def _names(given: str) -> list[str]:
    names = given.split(",")
    if unknown := set(names) - {*GROUPS, "growth"}:
        raise argparse.ArgumentTypeError(f"groups are {', '.join(GROUPS)} and growth; got {', '.join(sorted(unknown))}")
    return names


def _numbers(given: str) -> list[int]:
    return [int(one.replace("_", "")) for one in given.split(",")]


if __name__ == "__main__":
    main()
