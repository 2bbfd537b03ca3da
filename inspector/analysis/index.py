"""What an index holds: sizes of documents, what a profile was fitted on, and looking for documents."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3retriever import Document
from m3retriever.inspector.analysis.ranking import title_of
from m3retriever.types import IntArray

SAMPLE = 500  # documents whose sizes are looked at
BINS = 30  # of the histogram
ROWS = 200  # documents listed
LARGEST_COUNT = 10**12  # of changes
UNITS = ("bytes", "kB", "MB", "GB", "TB")
METADATA_CHARACTERS, VALUE_CHARACTERS = 300, 100


@dataclass(frozen=True)
class Bin:
    """How many documents have from `low` to `high` tokens, the last one included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True)
class Sizes:
    """Of n documents looked at.

    Attributes
    ----------
    sparse, colbert : how many have any sparse token, and any token vector
    sparse_mean, colbert_mean : how many of them on average
    longest : the most token vectors
    full : how many documents are as long as the model reads, or longer; None where it says no length
    bins : of the number of token vectors
    """

    n: int
    sparse: int
    colbert: int
    sparse_mean: float
    colbert_mean: float
    longest: int
    full: int | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Listed:
    """A document's line in the table."""

    id: str
    title: str
    metadata: str
    characters: int


@dataclass(frozen=True)
class Fit:
    """One thing that a profile was fitted for, such as "tuning".

    Attributes
    ----------
    numbers : name and value
    table : rows with a name, in the same columns; "" where a row has no such value
    """

    name: str
    numbers: list[tuple[str, str]]
    table: list[dict[str, str]]


def sample_of(ids: Sequence[str]) -> list[str]:
    """At most SAMPLE of the ids, the same ones every time."""
    if len(ids) <= SAMPLE:
        return list(ids)
    chosen = np.random.default_rng(0).choice(len(ids), SAMPLE, replace=False)
    return [ids[place] for place in sorted(chosen.tolist())]


def sizes_of(counts: IntArray, reads: int | None) -> Sizes | None:
    """A summary of sparse tokens and token vectors, (n, 2), for a model that reads so many tokens; None of nothing."""
    if not len(counts):
        return None
    sparse, colbert = counts.T
    return Sizes(
        n=len(counts),
        sparse=int((sparse > 0).sum()),
        colbert=int((colbert > 0).sum()),
        sparse_mean=float(sparse.mean()),
        colbert_mean=float(colbert.mean()),
        longest=int(colbert.max()),
        full=None if reads is None else int((colbert >= reads).sum()),
        bins=_bins(colbert),
    )


def _bins(values: IntArray) -> tuple[Bin, ...]:
    """At most BINS bins of equal width over whole numbers."""
    low, high = int(values.min()), int(values.max())
    width = math.ceil((high - low + 1) / BINS)
    counts = np.bincount((values - low) // width).tolist()
    return tuple(Bin(low + place * width, low + (place + 1) * width - 1, count) for place, count in enumerate(counts))


def size_in_words(count: int) -> str:
    """A number of bytes with its unit: `size_in_words(8949760)` is "8.9 MB"."""
    power = 0 if count < 1_000 else min(int(math.log10(count) / 3), len(UNITS) - 1)
    return f"{count} {UNITS[0]}" if power == 0 else f"{count / 1_000**power:.1f} {UNITS[power]}"


def revision_in_words(revision: int) -> str:
    """A revision as people compare it: a store's count of changes as it is, and one made of a time (Qdrant's, 28 digits) as
    eight hexadecimal digits that change with it."""
    return f"{revision:,}" if revision < LARGEST_COUNT else f"#{zlib.crc32(str(revision).encode()):08x}"


# -- the profile -----------------------------------------------------------------------------------


def fits_of(fitted: Mapping[str, Any]) -> list[Fit]:
    """What a profile's `fitted` says: numbers as names with values, mappings by name as a table's rows."""
    return [_fit(str(name), held) for name, held in fitted.items()]


def _fit(name: str, held: Any) -> Fit:
    if not isinstance(held, Mapping):
        return Fit(name, [("", _shown(held))], [])
    numbers = [(str(key), _shown(value)) for key, value in held.items() if not isinstance(value, Mapping)]
    rows: dict[str, Mapping[str, Any]] = {}
    for key, value in held.items():
        if isinstance(value, Mapping):
            nested = {str(inner): row for inner, row in value.items() if isinstance(row, Mapping)}
            rows |= nested or {str(key): value}
    columns = list(dict.fromkeys(str(column) for row in rows.values() for column in row))
    table = [{"": key, **{column: _shown(row.get(column, "")) for column in columns}} for key, row in rows.items()]
    return Fit(name, numbers, table)


def _shown(value: Any) -> str:
    """A number with 3 digits, anything else as text."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


# -- documents -------------------------------------------------------------------------------------


def ids_like(ids: Sequence[str], text: str) -> list[str]:
    """The ids that contain a text, whatever its case; the one that is it comes first."""
    wanted = text.casefold()
    found = [id for id in ids if wanted in id.casefold()]
    return sorted(found, key=lambda id: id != text)


def listed(document: Document) -> Listed:
    """A document's line in the table."""
    metadata = json.dumps(dict(document.metadata), ensure_ascii=False, default=str) if document.metadata else ""
    return Listed(document.id, title_of(document), metadata[:METADATA_CHARACTERS], len(document.text))
