"""Is an index what was written into it? Every value is read, and what is kept twice is compared.

Of what lies in Chroma's own files a change of text or metadata by another client cannot be told from damage:
both are reported, by id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m3retriever.errors import DamagedIndexError, StoreError
from m3retriever.kernels import SEGMENT, split_posting
from m3retriever.stores.agreement import PAGE
from m3retriever.stores.payload import metadata_hash, text_hash
from m3retriever.stores.snapshot import CHUNK, PAIR, DenseCodes, Row
from m3retriever.stores.vector_index import alike, vectors_held
from m3retriever.stores.writer import DERIVED, DERIVED_META

if TYPE_CHECKING:
    from m3retriever.stores.connection import Connection
    from m3retriever.stores.payload import Payload
    from m3retriever.stores.snapshot import Snapshot

Problem = Literal[
    "unreadable", "values", "entries", "derived", "without vectors", "text", "metadata", "full text", "dense vectors",
    "vector index", "chroma",
]  # fmt: skip
SAID = {
    "unreadable": "the payload cannot be read: every document is to be encoded again",
    "values": "stored vectors are not what was written: those documents are to be encoded again",
    "entries": "they have no whole entry",
    "derived": "the inverted index, the int8 codes or the list of slots do not fit the documents",
    "without vectors": "they are in Chroma and have no vectors in every mode",
    "text": "their texts in Chroma are not those whose vectors are stored: changed by another client, or damaged",
    "metadata": "their metadata in Chroma are not what was stored: changed by another client, or damaged",
    "full text": "Chroma's full-text search holds other texts than theirs",
    "dense vectors": "their dense vectors in Chroma are not those that are stored",
    "vector index": "Chroma's vector index has lost documents",
    "chroma": "Chroma's database is damaged",
}
ASKED_OF_HNSW = 200  # documents, evenly
NEAREST = 10
LOST = 0.1  # of those not found: more than a whole HNSW misses among texts that are nearly the same, up to a twentieth was seen
SAME_DIRECTION = 1e-6  # less than 1 a cosine may be between vectors that are the same to HNSW
OF_DOCUMENTS: tuple[Problem, ...] = ("without vectors", "text", "metadata", "full text", "dense vectors", "vector index")

Step = Callable[[int], object]


@dataclass(frozen=True)
class Finding:
    """One kind of problem: which documents have it, none where it is the index's as a whole, and details."""

    problem: Problem
    ids: tuple[str, ...] = ()
    detail: str = ""

    def __str__(self) -> str:
        count = f"{len(self.ids):,} documents: " if self.ids else ""
        return f"{count}{SAID[self.problem]}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True)
class Verdict:
    """What was looked at, and what was found: no findings where all is whole."""

    documents: int
    values: int
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def ids(self, *problems: Problem) -> list[str]:
        """The documents that have one of these problems, ascending."""
        return sorted({id for one in self.findings if one.problem in problems for id in one.ids})

    def has(self, *problems: Problem) -> bool:
        """Whether one of these problems was found."""
        return any(one.problem in problems for one in self.findings)


def verify(payload: Payload, connection: Connection, *, on_step: Step | None = None) -> Verdict:
    """Read all of an index, and say what is not as it was written. The caller holds the right to write.

    `on_step` is called with the number of documents done since its last call.
    """
    with payload.read() as snapshot:
        if damaged := list(snapshot.damaged()):
            findings = [_of_damaged(damaged)]
        else:
            try:
                findings = [*_relations(snapshot), *_against_chroma(snapshot, connection, on_step)]
            except DamagedIndexError as error:  # something refers to what is not there
                findings = [Finding("entries", detail=str(error))]
        return Verdict(len(snapshot), snapshot.entries(), tuple(findings))


def _of_damaged(damaged: Sequence[tuple[str, bytes]]) -> Finding:
    """What values that are not whole mean: what is made of others can be made anew, settings are gone."""
    detail = ", ".join(f"{count} of {name!r}" for name, count in Counter(name for name, _ in damaged).items())
    if any(name == "meta" and key not in DERIVED_META for name, key in damaged):
        return Finding("unreadable", detail=detail)
    derived = all(name in DERIVED or name == "meta" for name, _ in damaged)
    return Finding("derived" if derived else "values", detail=detail)


def _relations(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether each document has everything, and what is made of others fits them."""
    rows = dict(snapshot.all_rows())
    slots, ids = np.array(list(rows), np.int64), [row.id for row in rows.values()]
    whole = np.isin(slots, snapshot.numbers("blobs")) & np.isin(slots // CHUNK, snapshot.numbers("dense"))
    if not whole.all():
        yield Finding("entries", tuple(sorted(ids[place] for place in np.flatnonzero(~whole))))
    elif not np.array_equal(slots, np.flatnonzero(snapshot.live())) or not np.array_equal(slots, snapshot.slots(ids)):
        yield Finding("derived", detail="list of slots")
    elif (lists := _wrong_lists(snapshot, slots)) or (codes := _wrong_codes(snapshot, slots)):
        yield Finding("derived", detail=f"{lists} posting lists" if lists else f"{codes} chunks of codes")


def _wrong_lists(snapshot: Snapshot, slots: np.ndarray) -> int:
    """How many posting lists are not what the documents' entries make, or too many, or lack."""
    stored, wrong = Counter(PAIR.unpack(key)[1] for key, _ in snapshot.postings()), 0
    for segment in sorted({*stored, *np.unique(slots // SEGMENT).tolist()}):
        expected = 0
        for key, places, weights in snapshot.grouped(slots[slots // SEGMENT == segment]):
            expected += 1
            held = snapshot.posting(key)
            wrong += held is None or _sorted(*split_posting(held)) != _sorted(*_arrays(places, weights))
        wrong += abs(stored[segment] - expected)
    return wrong


def _arrays(places: bytes, weights: bytes) -> tuple[np.ndarray, np.ndarray]:
    return np.frombuffer(places, "<u2"), np.frombuffer(weights, "<f4")


def _sorted(places: np.ndarray, weights: np.ndarray) -> tuple[bytes, bytes]:
    order = np.argsort(places, kind="stable")
    return places[order].tobytes(), weights[order].tobytes()


def _wrong_codes(snapshot: Snapshot, slots: np.ndarray) -> int:
    wrong = 0
    for chunk in np.unique(slots // CHUNK).tolist():
        rows = slots[slots // CHUNK == chunk] % CHUNK
        held, vectors = snapshot.codes(chunk), snapshot.dense(chunk * CHUNK + rows)
        made = DenseCodes.empty(vectors.shape[1])
        made.put(rows, vectors)
        pairs = ((held.codes, made.codes), (held.scales, made.scales), (held.residuals, made.residuals))
        wrong += any(not np.array_equal(left[rows], right[rows]) for left, right in pairs)
    return wrong


def _against_chroma(snapshot: Snapshot, connection: Connection, on_step: Step | None) -> Iterator[Finding]:
    """Whether both hold the same documents, texts, metadata and dense vectors, and the vector index finds them."""
    found: dict[Problem, list[str]] = {problem: [] for problem in OF_DOCUMENTS}
    known: list[str] = []
    for page in _pages(connection):
        rows = snapshot.rows_of(page["ids"])
        known += rows
        for id, text, metadata in zip(page["ids"], page["documents"], page["metadatas"], strict=True):
            for problem in _differences(rows.get(id), text, metadata or {}):
                found[problem].append(id)
        texts = {id: text for id, text in zip(page["ids"], page["documents"], strict=True) if text and id in rows}
        found["full text"] += _other_copies(connection, texts, rows)
        for problem, ids in _other_vectors(snapshot, connection, list(rows)):
            found[problem] += ids
        if on_step is not None:
            on_step(len(page["ids"]))
    if gone := sorted({row.id for _, row in snapshot.all_rows()}.difference(known)):
        yield Finding("entries", tuple(gone), "Chroma does not hold them")
    if connection.full_text_fits() is False and not found["full text"]:
        yield Finding("full text", detail="its index does not fit its texts")
    if broken := _vector_index(snapshot, connection, sorted(set(known).difference(*found.values()))):
        found["vector index"].clear()
        yield Finding("vector index", detail=broken)
    yield from (Finding(problem, tuple(sorted(ids))) for problem, ids in found.items() if ids)


def _pages(connection: Connection) -> Iterator[dict[str, Any]]:
    start, include = 0, ["documents", "metadatas"]
    while (page := connection.get(limit=PAGE // 5, offset=start, include=include))["ids"]:
        yield page
        start += len(page["ids"])


def _differences(row: Row | None, text: str | None, metadata: Any) -> Iterator[Problem]:
    if row is None:
        if text is not None:  # a record without a text is not ours to encode
            yield "without vectors"
        return
    if row.hash != text_hash(text or ""):
        yield "text"
    if row.metadata not in (bytes(len(row.metadata)), metadata_hash(metadata)):
        yield "metadata"


def _other_copies(connection: Connection, texts: Mapping[str, str], rows: Mapping[str, Row]) -> list[str]:
    """Of which documents Chroma's full-text search holds neither the text nor what was stored, where it can be looked at."""
    copies = connection.tables.copies(list(texts)) if connection.tables is not None else None
    if copies is None:
        return []
    other = {id: copies.get(id, "") for id, text in texts.items() if copies.get(id) != text}
    return [id for id, copy in other.items() if text_hash(copy) != rows[id].hash]


def _other_vectors(snapshot: Snapshot, connection: Connection, ids: Sequence[str]) -> Iterator[tuple[Problem, list[str]]]:
    """Which dense vectors Chroma has lost, and which are not those that are stored."""
    theirs, ours = vectors_held(connection, ids), snapshot.dense(snapshot.slots(ids))
    yield "vector index", [id for id in ids if id not in theirs]
    held = [(id, theirs[id], vector) for id, vector in zip(ids, ours, strict=True) if id in theirs]
    yield "dense vectors", [id for id, left, right in held if right.any() and not alike(left, right)]


def _vector_index(snapshot: Snapshot, connection: Connection, ids: Sequence[str]) -> str:
    """What is wrong with the vector index as a whole; empty where nothing is.

    A whole one too misses some documents where many are nearly the same: that is no damage, and where it counts the
    candidates come from an exact scan.
    """
    some = [ids[place] for place in np.unique(np.linspace(0, len(ids) - 1, ASKED_OF_HNSW).astype(int))] if ids else []
    try:
        lost = sum(not _found(snapshot, connection, id) for id in some)
    except StoreError:
        return "it does not answer"
    return f"{lost} of {len(some)} documents are not found by their own vectors" if lost > max(1, LOST * len(some)) else ""


def _found(snapshot: Snapshot, connection: Connection, id: str) -> bool:
    """Whether a document, or others whose vectors are the same to HNSW, comes first for its own vector."""
    [vector] = snapshot.dense(snapshot.slots([id]))
    found = connection.nearest(vector, NEAREST)
    if id in found or not np.linalg.norm(vector):
        return True
    slots = snapshot.slots(found)
    others = snapshot.dense(slots[slots >= 0])
    norms = np.linalg.norm(others, axis=1) * np.linalg.norm(vector)
    return bool(len(others) == NEAREST and (others @ vector >= (1 - SAME_DIRECTION) * norms).all())
