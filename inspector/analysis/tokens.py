"""Query and document token by token: what matches what, and where in the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from m3retriever import M3Vectors, SharedToken, Token
from m3retriever.types import FloatArray

END_TOKEN = "</s>"  # what BGE-M3's tokenizer calls the token after the text

WHOLE_TOKENS = 700  # a document up to this length is shown whole
PASSAGE_TOKENS = 120  # a longer one by its best passages of this length
PASSAGE_STEP = 30  # tokens from the beginning of one possible passage to the next
PASSAGES = 3
PASSAGE_GAIN = 0.01  # of the ColBERT score: a passage that adds less is not shown


@dataclass(frozen=True)
class Tint:
    """Characters text[start:end] of a document, and how well they match the query."""

    start: int
    end: int
    similarity: float
    shared: bool


@dataclass(frozen=True)
class Passage:
    """A run of a document's characters with the tints inside it."""

    start: int
    end: int
    tints: tuple[Tint, ...]


@dataclass(frozen=True)
class Match:
    """A query token with the document token that is most like it."""

    query: str
    document: str
    similarity: float


@dataclass(frozen=True)
class Cell:
    """The similarity of one query token (row) and one document token (column); `best` of its row."""

    row: int
    column: int
    similarity: float
    best: bool


def similarities(query: M3Vectors, document: M3Vectors) -> FloatArray:
    """Inner products of one query's token vectors with one document's, (q, d)."""
    products: FloatArray = query.colbert_row(0) @ document.colbert_row(0).T
    return products


def token_labels(text: str, tokens: Sequence[Token]) -> list[str]:
    """Each token's characters; the end-of-text token has none and is written as its name."""
    return [text[token.start : token.end].strip() or END_TOKEN for token in tokens]


def tints(text: str, tokens: Sequence[Token], similarity: FloatArray, shared_ids: Set[int]) -> list[Tint]:
    """Each document token's best match with any query token, in the order of the text.

    similarity is (q, d) with d = len(tokens). A token that covers no characters of its own is left
    out; tokens over the same characters (bytes of one letter) count once, with the best of them.
    """
    best = similarity.max(axis=0, initial=-1.0)
    found: list[Tint] = []
    for token, value in zip(tokens, best.tolist(), strict=True):
        start, shared = _after_spaces(text, token), token.id in shared_ids
        if start >= token.end:
            continue
        if found and start < found[-1].end:
            last = found.pop()
            start, value, shared = last.start, max(value, last.similarity), shared or last.shared
            found.append(Tint(start, max(token.end, last.end), value, shared))
        else:
            found.append(Tint(start, token.end, value, shared))
    return found


def passages(text: str, tokens: Sequence[Token], similarity: FloatArray, marked: Sequence[Tint]) -> list[Passage]:
    """The text whole, or where it is long its best passages in the order of the text.

    The first passage is the one with the highest ColBERT score of its own, each further one adds most
    to the score of those before. They do not overlap; neighbours are joined. similarity is (q, d) with
    d = len(tokens).
    """
    if len(tokens) <= WHOLE_TOKENS:
        return [Passage(0, len(text), tuple(marked))]
    windows: list[tuple[int, int]] = []
    for start in _best_windows(similarity):
        end = min(start + PASSAGE_TOKENS, len(tokens))
        if windows and windows[-1][1] == start:
            windows[-1] = windows[-1][0], end
        else:
            windows.append((start, end))
    spans = [(tokens[start].start, max(token.end for token in tokens[start:end])) for start, end in windows]
    return [
        Passage(start, end, tuple(tint for tint in marked if start <= tint.start and tint.end <= end)) for start, end in spans
    ]


def matches(query_labels: Sequence[str], document_labels: Sequence[str], similarity: FloatArray) -> list[Match]:
    """For each query token the best document token: the mean of the similarities is the ColBERT score."""
    if not len(document_labels):
        return []
    columns = similarity.argmax(axis=1).tolist()
    return [
        Match(label, document_labels[column], float(similarity[row, column]))
        for row, (label, column) in enumerate(zip(query_labels, columns, strict=True))
    ]


def heat_cells(similarity: FloatArray, *, rows: int, columns: int) -> list[Cell]:
    """The first `rows` query tokens against at most `columns` document tokens, in the order of the text.

    A row's best column comes before a column that is best for none, then the higher similarity wins.
    """
    shown = similarity[:rows]
    if not shown.size:
        return []
    best = shown.argmax(axis=1)
    peaks = shown.max(axis=0)
    chosen = set(best.tolist())
    order = sorted(range(len(peaks)), key=lambda column: (column not in chosen, -peaks[column], column))
    return [
        Cell(row, column, float(shown[row, column]), column == best[row])
        for row in range(len(shown))
        for column in sorted(order[:columns])
    ]


def shared_tokens(query: Mapping[int, float], document: Mapping[int, float], names: Mapping[int, str]) -> list[SharedToken]:
    """Every token of the query with both weights, largest product first; 0 where the document lacks it.

    The products sum to the sparse score. A token without a name is written as its number.
    """
    tokens = [SharedToken(names.get(token, str(token)), weight, document.get(token, 0.0)) for token, weight in query.items()]
    return sorted(tokens, key=lambda token: (-token.product, -token.query_weight, token.token))


def _after_spaces(text: str, token: Token) -> int:
    piece = text[token.start : token.end]
    return token.start + len(piece) - len(piece.lstrip())


def _best_windows(similarity: FloatArray) -> list[int]:
    """The tokens at which the best passages begin, ascending; at equal scores the earlier one."""
    starts = list(range(0, similarity.shape[1] - PASSAGE_TOKENS + 1, PASSAGE_STEP))
    peaks = np.stack([similarity[:, start : start + PASSAGE_TOKENS].max(axis=1) for start in starts])  # (windows, q)
    reached, chosen = np.full(len(similarity), -1.0), list[int]()
    while len(chosen) < PASSAGES:
        gains = np.maximum(peaks, reached).mean(axis=1) - reached.mean()
        gains[[any(abs(start - other) < PASSAGE_TOKENS for other in chosen) for start in starts]] = 0.0
        best = int(gains.argmax())
        if gains[best] < PASSAGE_GAIN:
            break
        chosen.append(starts[best])
        reached = np.maximum(reached, peaks[best])
    return sorted(chosen)
