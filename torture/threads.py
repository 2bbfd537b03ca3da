"""Many threads that search and change one index at once, held against what one thread alone gets."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, ModeScores

ENCODER = HashingEncoder(64)
FROZEN = [Document(f"f{row}", f"a{row % 41} a{row % 17} a{row % 5}") for row in range(200)]  # searched for, never changed
QUERIES = [f"a{number} a{number % 17} a{number % 3}" for number in range(40)]
DEPTH = 10


@dataclass
class Work:
    """What the threads did, and what was not as it would have been for one alone."""

    queries: int = 0
    adds: int = 0
    deletes: int = 0
    problems: list[str] = field(default_factory=list)


def run(folder: Path, threads: int, operations: int) -> Work:
    """So many threads with so many operations each on an index, and then a look at what they left."""
    work, held = Work(), {document.id: document for document in FROZEN}
    with M3Index(ENCODER, ChromaStore(folder / "index")) as index:
        index.add(FROZEN)
        alone = [_frozen(index.score_many([query], depth=DEPTH)[0]) for query in QUERIES]
        workers = [_Worker(index, number, operations, alone) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            work.queries, work.adds, work.deletes = (
                work.queries + worker.queries,
                work.adds + worker.adds,
                work.deletes + worker.deletes,
            )
            work.problems += worker.problems
            held |= worker.held
        work.problems += _unlike_serial(index, held, folder / "serial")
    return work


class _Worker(threading.Thread):
    """One thread: it searches what nobody changes, and changes documents that no other thread knows."""

    def __init__(self, index: M3Index, number: int, operations: int, alone: list[dict[str, bytes]]) -> None:
        super().__init__(name=f"worker {number}")
        self.index, self.number, self.operations, self.alone = index, number, operations, alone
        self.chosen, self.held, self.problems = random.Random(number), dict[str, Document](), list[str]()
        self.queries = self.adds = self.deletes = 0

    def run(self) -> None:
        try:
            for serial in range(self.operations):
                draw = self.chosen.random()
                if draw < 0.08:
                    self._add(serial)
                elif draw < 0.1 and self.held:
                    self._remove()
                else:
                    self._query()
        except Exception as error:
            self.problems.append(f"{self.name}: {type(error).__name__}: {error}")

    def _query(self) -> None:
        self.queries += 1
        place = self.chosen.randrange(len(QUERIES))
        found = _frozen(self.index.score_many([QUERIES[place]], depth=DEPTH)[0])
        if found != self.alone[place]:
            self.problems.append(f"{self.name}: {QUERIES[place]!r} gives other scores than alone")

    def _add(self, serial: int) -> None:
        self.adds += 1
        id = f"t{self.number}d{self.chosen.randrange(8)}"
        document = Document(id, f"t{self.number}s{serial} t{self.number}", {"serial": serial})
        before = self.held.get(id)
        self.index.add([document])
        self.held[id] = document
        for mode in ("dense", "sparse", "colbert"):
            hits = self.index.search(document.text, 1, mode=mode)
            if [hit.document for hit in hits] != [document]:
                self.problems.append(f"{self.name}: {mode} does not find what was just added")
        if before is not None and self.index.search(before.text.split()[0], 1, mode="sparse"):
            self.problems.append(f"{self.name}: the text that was replaced is still found")

    def _remove(self) -> None:
        self.deletes += 1
        gone = self.held.pop(self.chosen.choice(sorted(self.held)))
        self.index.delete([gone.id])
        if self.index.search(gone.text.split()[0], 1, mode="sparse"):
            self.problems.append(f"{self.name}: what was deleted is still found")


def _frozen(scores: ModeScores) -> dict[str, bytes]:
    """Of the frozen documents that share a word with the query: no other shares one, so these are always candidates."""
    rows = [row for row, id in enumerate(scores.ids) if scores.values[row, 1] > 0]
    return {scores.ids[row]: scores.values[row].tobytes() for row in rows if "sparse" in scores.found_by[row]}


def _unlike_serial(index: M3Index, held: dict[str, Document], folder: Path) -> list[str]:
    """Scores that are not, to the last bit, those of an index to which one thread added what is left."""
    problems = []
    if {document.id: document for document in index.find()} != held:
        problems.append("the documents are not those that were left")
    with M3Index(ENCODER, ChromaStore(folder)) as serial:
        serial.add(list(held.values()))
        for text in [*QUERIES, *(document.text for document in list(held.values())[len(FROZEN) :: 5])]:
            ours, theirs = (each.score_many([text], depth=len(held))[0] for each in (index, serial))
            left, right = (one.values[np.argsort(one.ids)].tobytes() for one in (ours, theirs))
            if sorted(ours.ids) != sorted(theirs.ids) or left != right:
                problems.append(f"{text!r} gives other scores than in a serial run")
    return problems
