"""Query and document token by token: what matches what, where in the text, and by which words both are indexed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice

import numpy as np

from m3retriever import M3Vectors, SharedToken, Token
from m3retriever.scoring import token_similarities
from m3retriever.types import FloatArray, IntArray

END_TOKEN = "</s>"  # what BGE-M3's tokenizer calls the token after the text
BLANK = "␣"  # the token that stands for a blank alone
WITHOUT_BLANKS = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
WORD_CHARACTERS = 24  # a longer word is not written beside its piece

BARS = 40  # query tokens with their best match
HEAT_ROWS, HEAT_COLUMNS = 24, 24  # query and document tokens in the heatmap: what fits beside the table
INDEXED = 30  # heaviest tokens of a document

WHOLE_TOKENS = 700  # a document up to this length is shown whole
PASSAGE_STEPS, PASSAGE_STEP = 4, 30  # tokens from the beginning of one possible passage to the next, and how many steps it has
PASSAGE_TOKENS = PASSAGE_STEPS * PASSAGE_STEP  # a longer document is shown by its best passages of this length
PASSAGES = 3
PASSAGE_GAIN = 0.01  # of the ColBERT score: a passage that adds less is not shown


@dataclass(frozen=True, eq=False)
class Side:
    """A text as the model sees it.

    Attributes
    ----------
    vectors : of this one text
    tokens : one per ColBERT vector; None where the encoder does not say them
    reads : how many tokens the model reads at most; None where there is no such number
    """

    text: str
    vectors: M3Vectors
    tokens: Sequence[Token] | None
    reads: int | None = None

    @property
    def unread(self) -> bool:
        """Whether the model reads the beginning of the text alone."""
        if self.tokens is None or self.reads is None or len(self.tokens) < self.reads:
            return False
        return bool(self.text[max(token.end for token in self.tokens) :].strip())


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


@dataclass(frozen=True, eq=False)
class Alignment:
    """The best matches among q query tokens and d document tokens, without the (q, d) they were taken from.

    Attributes
    ----------
    nearest : (q,) the document token most like each query token, the first of equals
    peaks : (q,) how like: their mean is the ColBERT score
    reached : (d,) each document token's best similarity with any query token
    windows : the tokens at which the best passages of a long document begin, ascending
    cells : some of the similarities themselves, of the first query tokens
    """

    nearest: IntArray
    peaks: FloatArray
    reached: FloatArray
    windows: tuple[int, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, eq=False)
class Matched:
    """An alignment in words.

    Attributes
    ----------
    rows, columns : what the query's and the document's tokens are called
    matches : of the first query tokens
    score : ColBERT's
    passages : of the document; `excerpt` where they are not the whole of what the model reads
    """

    rows: list[str]
    columns: list[str]
    matches: list[Match]
    score: float
    cells: tuple[Cell, ...]
    passages: list[Passage]
    excerpt: bool


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is shown of a query and a document token by token.

    Attributes
    ----------
    matched : None where the encoder does not say which characters its vectors stand for
    shared : the query's tokens, with their weights on both sides
    indexed : the document's own heaviest tokens with their weights
    unread : how many tokens the model has read of the query and of the document, where that is not the whole text
    """

    matched: Matched | None
    shared: list[SharedToken]
    indexed: list[tuple[str, float]]
    unread: tuple[int | None, int | None]


def compare(query: Side, document: Side) -> Comparison:
    """Query and document token by token."""
    asked, held = query.vectors.sparse_row(0), document.vectors.sparse_row(0)
    return Comparison(
        _matched(query, document, asked.keys() & held.keys()),
        shared_tokens(asked, held, names_of(query)),
        heaviest(held, names_of(document)),
        (_read(query), _read(document)),
    )


def _read(side: Side) -> int | None:
    return side.reads if side.unread else None


def _matched(query: Side, document: Side, shared: Set[int]) -> Matched | None:
    asked, held = query.vectors.colbert_row(0), document.vectors.colbert_row(0)
    if not query.tokens or not document.tokens or (len(query.tokens), len(document.tokens)) != (len(asked), len(held)):
        return None
    found = align(asked, held)
    rows, columns = token_labels(query.text, query.tokens), token_labels(document.text, document.tokens)
    marked = tints(document.text, document.tokens, found.reached, shared)
    return Matched(
        rows,
        columns,
        matches(rows[:BARS], columns, found),
        float(found.peaks.mean(dtype=np.float64)),
        found.cells,
        passages(document, found.windows, marked),
        bool(found.windows),
    )


# -- matches ---------------------------------------------------------------------------------------


def align(query: FloatArray, document: FloatArray) -> Alignment:
    """The best matches of token vectors (q, dim) with token vectors (d, dim), neither empty; some of the (q, d) at a time."""
    starts = np.arange(0, len(document), PASSAGE_STEP)
    nearest, peaks, steps, cells = list[IntArray](), list[FloatArray](), list[FloatArray](), list[Cell]()
    reached = np.full(len(document), -np.inf, np.float32)
    for block in token_similarities(query, document):
        nearest.append(block.argmax(axis=1))
        peaks.append(block.max(axis=1))
        np.maximum(reached, block.max(axis=0), out=reached)
        if len(document) > WHOLE_TOKENS:
            steps.append(np.maximum.reduceat(block, starts, axis=1))
        cells = cells or heat_cells(block, rows=HEAT_ROWS, columns=HEAT_COLUMNS)
    windows = _best_windows(np.concatenate(steps), len(document)) if steps else []
    return Alignment(np.concatenate(nearest), np.concatenate(peaks), reached, tuple(windows), tuple(cells))


def matches(query_labels: Sequence[str], document_labels: Sequence[str], found: Alignment) -> list[Match]:
    """For each of the first query tokens the best document token."""
    pairs = zip(query_labels, found.nearest.tolist(), found.peaks.tolist(), strict=False)
    return [Match(label, document_labels[column], peak) for label, column, peak in pairs]


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
        Cell(row, column, float(shown[row, column]), bool(column == best[row]))
        for row in range(len(shown))
        for column in sorted(order[:columns])
    ]


def _best_windows(steps: FloatArray, tokens: int) -> list[int]:
    """The tokens at which the best passages begin, ascending; at equal scores the earlier one.

    steps is (q, s): each query token's best match in each run of PASSAGE_STEP of the document's tokens.
    """
    count = (tokens - PASSAGE_TOKENS) // PASSAGE_STEP + 1
    windows = np.lib.stride_tricks.sliding_window_view(steps, PASSAGE_STEPS, axis=1)[:, :count].max(axis=2)
    peaks, chosen = windows.T, list[int]()  # (windows, q)
    reached = np.full(len(steps), -1.0)
    while len(chosen) < PASSAGES:
        gains = np.maximum(peaks, reached).mean(axis=1) - reached.mean()
        gains[[any(abs(window - other) < PASSAGE_STEPS for other in chosen) for window in range(count)]] = 0.0
        best = int(gains.argmax())
        if gains[best] < PASSAGE_GAIN:
            break
        chosen.append(best)
        reached = np.maximum(reached, peaks[best])
    return sorted(PASSAGE_STEP * window for window in chosen)


# -- the text --------------------------------------------------------------------------------------


def tints(text: str, tokens: Sequence[Token], reached: FloatArray, shared_ids: Set[int]) -> list[Tint]:
    """Each document token's best match with any query token, in the order of the text.

    reached is (d,) with d = len(tokens). A token that covers no characters of its own is left
    out; tokens over the same characters (bytes of one letter) count once, with the best of them.
    """
    found: list[Tint] = []
    for token, value in zip(tokens, reached.tolist(), strict=True):
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


def passages(document: Side, windows: Sequence[int], marked: Sequence[Tint]) -> list[Passage]:
    """What the model reads of a text, whole, or where it is long the passages that begin at these tokens; neighbours joined."""
    tokens = document.tokens or []
    if not windows:
        end = max(token.end for token in tokens) if document.unread else len(document.text)
        return [Passage(0, end, tuple(marked))]
    joined: list[tuple[int, int]] = []
    for start in windows:
        end = min(start + PASSAGE_TOKENS, len(tokens))
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    spans = [(tokens[start].start, max(token.end for token in tokens[start:end])) for start, end in joined]
    return [
        Passage(start, end, tuple(tint for tint in marked if start <= tint.start and tint.end <= end)) for start, end in spans
    ]


def _after_spaces(text: str, token: Token) -> int:
    piece = text[token.start : token.end]
    return token.start + len(piece) - len(piece.lstrip())


# -- names and weights -----------------------------------------------------------------------------


def token_labels(text: str, tokens: Sequence[Token]) -> list[str]:
    """Each token's characters; what has none is written as its name: the end of the text, or a blank."""
    labels = [text[token.start : token.end].strip() or (BLANK if token.end > token.start else END_TOKEN) for token in tokens]
    if len(tokens) > 1 and tokens[0].start == tokens[1].start < tokens[1].end:
        labels[0] = BLANK  # SentencePiece puts one in front of the text, and it seems to cover the first character
    return labels


def names_of(side: Side) -> dict[int, str]:
    """{token id: name}, of the tokens of a text: their characters, of a piece of a word with the word around it."""
    names: dict[int, str] = {}
    tokens = side.tokens or []
    for token, label in zip(tokens, token_labels(side.text, tokens), strict=True):
        name = label if label in (BLANK, END_TOKEN) else _name(side.text, _after_spaces(side.text, token), token.end)
        if len(name) < len(names.get(token.id, name + " ")):  # a word of its own says more than a piece of another one
            names[token.id] = name
    return names


def _name(text: str, start: int, end: int) -> str:
    """Characters text[start:end]; of a piece of a word as "…ing (fetching)"."""
    first, last = start, end
    while first > 0 and _one_word(text, first) and end - first <= WORD_CHARACTERS:
        first -= 1
    while last < len(text) and _one_word(text, last) and last - start <= WORD_CHARACTERS:
        last += 1
    piece = f"{'…' * (first < start)}{text[start:end].rstrip()}{'…' * (last > end)}"
    whole = (first, last) != (start, end) and last - first <= WORD_CHARACTERS
    return f"{piece} ({text[first:last]})" if whole else piece


def _one_word(text: str, place: int) -> bool:
    """Whether the characters on both sides of a place belong to one word."""
    return all(one.isalnum() and not WITHOUT_BLANKS.match(one) for one in text[place - 1 : place + 1])


def shared_tokens(query: Mapping[int, float], document: Mapping[int, float], names: Mapping[int, str]) -> list[SharedToken]:
    """Every token of the query with both weights, largest product first; 0 where the document lacks it.

    The products sum to the sparse score. A token without a name is written as its number.
    """
    tokens = [SharedToken(names.get(token, str(token)), weight, document.get(token, 0.0)) for token, weight in query.items()]
    return sorted(tokens, key=lambda token: (-token.product, -token.query_weight, token.token))


def heaviest(weights: Mapping[int, float], names: Mapping[int, str]) -> list[tuple[str, float]]:
    """The tokens with the largest weights by name, at most INDEXED; a token without a name is written as its number."""
    ordered = sorted(weights.items(), key=lambda item: (-item[1], names.get(item[0], str(item[0]))))
    return [(names.get(token, str(token)), weight) for token, weight in islice(ordered, INDEXED)]
