"""Flipped bits: an index is copied, one bit of one of its files is changed, and a fresh process opens and searches it."""

from __future__ import annotations

import logging
import os
import pickle
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from m3retriever import Document, HashingEncoder, M3Index, M3RetrieverError
from m3retriever.health import repair

ENCODER = HashingEncoder(32)
QUERIES = ("w1 w2 w3", "w50 w9", "w77", "w100 w101 w102 w103")
FILES = ("data.mdb", "chroma.sqlite3", "data_level0.bin", "header.bin", "length.bin")
LONGEST = 60  # seconds for a process that opens, searches and repairs


def make(folder: Path, documents: int = 300) -> None:
    """An index whose documents were added in batches and one by one, replaced and deleted."""
    draw = random.Random(1)
    words = [f"w{number}" for number in range(200)]
    rows = [
        Document(f"d{row}", " ".join(draw.choices(words, k=draw.randint(3, 30))), {"n": row, "tenant": "ab"[row % 2]})
        for row in range(documents)
    ]
    with M3Index.open(folder, model=ENCODER) as index:
        index.add(rows[: documents // 2])
        index.delete([row.id for row in rows[: documents // 8]])
        index.add(rows)
        for row in rows[:20]:
            index.add([Document(row.id, f"{row.text} again", row.metadata)])


def answers(folder: Path) -> Any:
    """What it says of itself: ids, hits with texts, metadata and scores in every mode, with a filter and without."""
    with M3Index.open(folder, model=ENCODER) as index:
        ids = index.ids()
        hits = [
            (hit.document, hit.score, dict(hit.scores))
            for query in QUERIES
            for mode in ("hybrid", "dense", "sparse", "colbert")
            for where in (None, {"tenant": "a"})
            for hit in index.search(query, 10, mode=mode, where=where)
        ]
        return len(index), ids, index.get(ids), hits


def apart(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call gives in a forked process: "gave" and its result, "error" and the words of ours, "other", "signal".

    The calling process must not have opened an index itself: what Chroma starts does not survive a fork.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST)
        logging.disable(logging.CRITICAL)
        try:
            found: tuple[str, Any] = ("gave", call())
        except M3RetrieverError as error:
            found = "error", f"{type(error).__name__}: {error}"
        except BaseException as error:  # all that is not ours is a finding
            found = "other", f"{type(error).__name__}: {error}"
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(found, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "signal", os.WTERMSIG(status)
    return pickle.loads(content)  # our own child's


def flip(folder: Path, name: str, draw: random.Random) -> str:
    """Change one bit of the file of this name; which."""
    [file] = [path for path in folder.rglob(name) if path.stat().st_size]
    content = bytearray(file.read_bytes())
    place, bit = draw.randrange(len(content)), draw.randrange(8)
    content[place] ^= 1 << bit
    file.write_bytes(content)
    return f"{name}, byte {place}, bit {bit}"


def rounds(name: str, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Flip a bit in `name`, `count` times: what came of it, and which bit.

    "same": the same answers; "refused": an error in words; "mended": `repair` brought the same answers back; anything
    else is a fault: "wrong" answers, a "signal", an error that is not ours.
    """
    draw = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        index, copy = Path(scratch, "index"), Path(scratch, "copy")
        apart(lambda: make(index))
        kind, right = apart(lambda: answers(index))
        if kind != "gave":
            raise RuntimeError(f"the undisturbed index fails: {right}")
        for _ in range(count):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(index, copy)
            where = flip(copy, name, draw)
            yield _outcome(copy, right), where


def _outcome(folder: Path, right: Any) -> str:
    kind, found = apart(lambda: answers(folder))
    if kind == "gave":
        return "same" if found == right else "wrong"
    if kind != "error":
        return f"{kind}: {found}"
    kind, _ = apart(lambda: repair(folder, model=ENCODER))
    if kind == "gave" and apart(lambda: answers(folder)) == ("gave", right):
        return "mended"
    return "refused" if kind in ("gave", "error") else kind


def tally(name: str, count: int, seed: int = 0) -> Counter[str]:
    """How often each came; RuntimeError at the first fault."""
    found: Counter[str] = Counter()
    for outcome, where in rounds(name, count, seed):
        if outcome not in ("same", "mended", "refused"):
            raise RuntimeError(f"{where}: {outcome}")
        found[outcome] += 1
    return found
