"""Long documents as passages: cutting them by tokens, and making one entry of the passages that are found.

A document that an encoder would cut becomes several, `book#1`, `book#2`, ..., whose metadata say which
document they are of and which characters of it. They are ordinary documents to every store.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from m3retriever.checks import check_k
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, shown
from m3retriever.types import MAX_DEPTH, Document, Encoder, Hit, Profile, Token, Tokenizes, Where

PASSAGE_OF, PASSAGE, START, END = RESERVED = ("passage_of", "passage", "passage_start", "passage_end")
PASSAGE_ID = re.compile(r"(.+)#[1-9][0-9]*", re.DOTALL)
SPECIALS = 2  # tokens that BGE-M3, as every BERT, puts around a text: one at its beginning, one at its end
OVERLAP = 32  # tokens: a sentence or two, so that what is said across a cut is whole in one passage
WIDTH = 6  # characters a token, a little more than English has: how much text is tokenised for the first passage
SPARE = 1.5  # so much more than the passage before had, for the next ones
PEEK = 64  # characters: enough to see that a text goes on
SENTENCE_END = re.compile(r"(?:(?<=[.!?…؟۔।॥።])|(?<=[.!?…][\"'”’»)\]]))\s+|\n\s*|[。！？｡][”’」』）】]?(?![。！？｡])\s*")
WORD_END = re.compile(r"\s+|[，、；：]\s*")
BLANKS = re.compile(r"\s*")

Aggregation = Literal["best", "mean"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
TOP = 3  # passages whose scores "mean" is of
WIDER = 4  # times as many passages, where those looked at are of too few documents


@dataclass(frozen=True)
class Split:
    """How documents are cut that are longer than a passage.

    Attributes
    ----------
    size : tokens of a passage at most, without those an encoder puts around every text; None: as many as it reads
    overlap : tokens at least that a passage shares with the one before, half of size at most; None: 32, or
        a quarter of size where that is less
    """

    size: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            check_k(self.size, "size")
        if self.overlap is not None and self.overlap != 0:
            check_k(self.overlap, "overlap")

    def tokens(self, encoder: Encoder) -> tuple[int, int]:
        """Size and overlap for an encoder; InvalidArgumentError for more than it reads."""
        reads: int | None = getattr(encoder, "max_length", None)
        name = type(encoder).__name__
        if self.size is None and reads is None:
            raise InvalidArgumentError(
                f"{name} has no max_length, so passages need a size: give one, Split(size=...) or on the command line --size"
            )
        most = None if reads is None else reads - SPECIALS
        size = self.size or most or 0
        if size < 1 or (most is not None and size > most):
            raise InvalidArgumentError(f"size must be from 1 to {most}, what {name} reads of a text; got {size}")
        overlap = min(OVERLAP, size // 4) if self.overlap is None else self.overlap
        if overlap > size // 2:
            raise InvalidArgumentError(f"overlap must be at most half of the size, {size // 2}; got {overlap}")
        return size, overlap


def as_split(given: Split | bool) -> Split | None:
    """A Split as it is, True as the defaults, False as None."""
    if isinstance(given, bool):
        return Split() if given else None
    if not isinstance(given, Split):
        raise InvalidArgumentError(f"split must be True, False or a Split; got {given!r}")
    return given


def split(document: Document, encoder: Encoder, how: Split | None = None) -> list[Document]:
    """A document that fits, as it is; one that is too long as passages that overlap, in order.

    A passage ends with a sentence where one ends in its last quarter, else with a word, and begins with one.
    Every character of the text is in one at least. Passage n has the id `{id}#{n}`, from 1, and besides the
    document's metadata `passage_of` (its id), `passage` (n), `passage_start` and `passage_end`: its text is
    `document.text[passage_start:passage_end]`. A single character that is more tokens than `size` is a
    passage nevertheless.

    Raises
    ------
    InvalidArgumentError
        The encoder has no `tokenize`; or no `max_length`, and `how` gives no size.
    InvalidDocumentError
        The document's metadata have one of those four keys already.
    """
    if not isinstance(encoder, Tokenizes):
        raise InvalidArgumentError(f"{type(encoder).__name__} has no tokenize, so it cannot say where a text is too long")
    check_splittable([document])
    cut = _Cut(document.text, encoder.tokenize, *(how or Split()).tokens(encoder))
    spans = list(cut.spans())
    if len(spans) == 1:
        return [document]
    return [_passage(document, number, start, end) for number, (start, end) in enumerate(spans, start=1)]


def check_splittable(documents: Sequence[Document]) -> None:
    """Refuse documents whose metadata have a key that passages get."""
    for document in documents:
        if taken := [key for key in RESERVED if document.metadata.get(key) is not None]:
            raise InvalidDocumentError(
                f"document {shown(document.id)}: the metadata key {taken[0]!r} is the one that passages have; "
                "rename it, or add what is a passage already without split"
            )


def parent_of(document: Document) -> str | None:
    """The id of the document that this one is a passage of; None for one that is whole."""
    parent, number = document.metadata.get(PASSAGE_OF), document.metadata.get(PASSAGE)
    ours = type(number) is int and isinstance(parent, str) and document.id == f"{parent}#{number}"
    return parent if ours and START in document.metadata and END in document.metadata else None


def owner_of(document: Document) -> str:
    """The id of the document that this one is a passage of, or its own."""
    return parent_of(document) or document.id


def split_documents(documents: Sequence[Document], encoder: Encoder, how: Split) -> list[Document]:
    """`split` of each, in order; InvalidDocumentError where a passage would have another document's id."""
    parts = [part for document in documents for part in split(document, encoder, how)]
    whole = {part.id for part in parts if parent_of(part) is None}
    if taken := [part.id for part in parts if parent_of(part) is not None and part.id in whole]:
        raise InvalidDocumentError(
            f"the id {taken[0]!r} is that of a document, and of a passage of another; give one of them another id"
        )
    return parts


class FindsIds(Protocol):
    """What `parents_of` needs of an M3Index."""

    def ids(self, where: Where | None = None) -> list[str]: ...


def parents_of(index: FindsIds) -> dict[str, str]:
    """{passage id: document id} of all passages in an index: one look by filter, {} where there are none."""
    numbered: Where = {"$and": [{PASSAGE: {"$gte": 1}}, {START: {"$gte": 0}}, {END: {"$gte": 1}}]}
    named = ((id, PASSAGE_ID.fullmatch(id)) for id in index.ids(numbered))
    return {id: name.group(1) for id, name in named if name is not None}


@dataclass(frozen=True)
class DocumentHit:
    """A document in a ranking: one entry for all of its passages that were found.

    Attributes
    ----------
    id : the document's
    score : of its best passage, or the mean of its best ones
    best : the hit of its best passage; of the document itself where it is whole
    passages : the hits of all that were found, best first
    """

    id: str
    score: float
    best: Hit
    passages: tuple[Hit, ...]

    @property
    def start(self) -> int:
        """Where in the document's text its best passage begins."""
        return int(self.best.document.metadata[START]) if self._in_parts else 0

    @property
    def end(self) -> int:
        """Where it ends; `text[start:end]` is the passage."""
        return int(self.best.document.metadata[END]) if self._in_parts else len(self.best.document.text)

    @property
    def _in_parts(self) -> bool:
        return parent_of(self.best.document) is not None


def document_hits(hits: Sequence[Hit], *, aggregate: Aggregation = "best", top: int = TOP) -> list[DocumentHit]:
    """The documents of which these hits are passages, or which they are: best first, ties by id.

    "best" gives a document the score of its best passage; "mean" the mean of the scores of its `top` best
    ones, of as many as were found where those are fewer.
    """
    check_aggregation(aggregate, top)
    of: defaultdict[str, list[Hit]] = defaultdict(list)
    for hit in sorted(hits, key=lambda hit: (-hit.score, hit.document.id)):
        of[owner_of(hit.document)].append(hit)
    found = [
        DocumentHit(id, _together([hit.score for hit in parts], aggregate, top), parts[0], tuple(parts))
        for id, parts in of.items()
    ]
    return sorted(found, key=lambda document: (-document.score, document.id))


def check_aggregation(aggregate: str, top: int) -> None:
    """InvalidArgumentError for an aggregation that there is not."""
    if aggregate not in AGGREGATIONS:
        raise InvalidArgumentError(f"aggregate must be one of {', '.join(AGGREGATIONS)}; got {shown(aggregate)}")
    check_k(top, "top")


class SearchesPassages(Protocol):
    """What `search_documents` needs of an M3Index."""

    @property
    def search(self) -> Callable[..., list[Hit]]: ...
    def __len__(self) -> int: ...
    def _chosen(self, profile: Profile | str | Path | None) -> Profile: ...


class DocumentSearch:
    """The part of an M3Index that searches for documents which it holds as passages."""

    def search_documents(
        self: SearchesPassages,
        query: str,
        k: int = 10,
        *,
        aggregate: Aggregation = "best",
        top: int = TOP,
        **settings: Any,
    ) -> list[DocumentHit]:
        """The k best documents, each once, however many of its passages match; ties by id.

        Parameters
        ----------
        aggregate
            "best" ranks a document by its best passage; "mean" by the mean of the scores of its `top` best ones, of
            as many as were found where those are fewer.
        settings
            Those of `search`; a threshold is for passages. Looks at twice as many passages as the profile's
            depth, and at more where those are of fewer than k documents.
        """
        check_k(k)
        check_aggregation(aggregate, top)
        count, seen = min(2 * max(self._chosen(settings.get("profile")).depth, k), MAX_DEPTH), -1
        while True:
            hits = self.search(query, count, **settings)
            found = document_hits(hits, aggregate=aggregate, top=top)
            if len(found) >= k or len(hits) <= seen or count >= len(self):
                return found[:k]
            count, seen = min(count * WIDER, MAX_DEPTH), len(hits)


def _together(scores: Sequence[float], aggregate: Aggregation, top: int) -> float:
    """One score for a document, from its passages' scores, best first."""
    return scores[0] if aggregate == "best" else math.fsum(scores[:top]) / len(scores[:top])


def _passage(document: Document, number: int, start: int, end: int) -> Document:
    place = dict(zip(RESERVED, (document.id, number, start, end), strict=True))
    return Document(f"{document.id}#{number}", document.text[start:end], {**document.metadata, **place})


@dataclass(frozen=True)
class _Cut:
    """Where a text is cut. Tokenises window by window, for an encoder may stop at its max_length; linear in the text."""

    text: str
    tokenize: Callable[[str], list[Token]]
    size: int
    overlap: int

    def spans(self) -> Iterator[tuple[int, int]]:
        """Start and end of each passage, in characters; one of all where the text fits."""
        start, reached, width = 0, 0, WIDTH * self.size
        while True:
            end, tokens = self._passage(start, width)
            if end > reached or end == len(self.text):
                yield start, end
                start, reached, width = self._next(start, end, tokens), end, int(SPARE * (end - start)) + WIDTH
            else:  # what it shares with the one before takes all of its tokens
                start = reached
            if reached == len(self.text):
                return

    def _passage(self, start: int, width: int) -> tuple[int, list[Token]]:
        """The end of the passage that begins here, and its tokens."""
        stop = min(start + width, len(self.text))
        tokens, whole = self._read(start, stop)
        while self._fits(tokens, whole) and stop < len(self.text):
            stop = min(start + 2 * (stop - start), len(self.text))
            tokens, whole = self._read(start, stop)
        while not self._fits(tokens, whole) and stop > start + 1:
            stop = max(start + 1, min(stop - 1, self._end(start, tokens)))
            tokens, whole = self._read(start, stop)  # a part of a text may have other tokens than it had in the whole
        return stop, tokens

    def _fits(self, tokens: Sequence[Token], whole: bool) -> bool:
        return whole and len(tokens) <= self.size

    def _read(self, start: int, stop: int) -> tuple[list[Token], bool]:
        """The tokens of a part of the text, and whether they are of all of it: an encoder may have left off."""
        part = self.text[start:stop]
        tokens = self._content(part)
        rest = part[tokens[-1].end :].strip() if tokens else ""
        return tokens, not any(self._content(piece) for piece in (rest[:PEEK], rest[PEEK:]))

    def _content(self, text: str) -> list[Token]:
        """The tokens of a text without the one that stands for its end, or for there being none."""
        tokens = self.tokenize(text) if text else []
        return tokens[:-1] if tokens and tokens[-1].start == tokens[-1].end else tokens

    def _end(self, start: int, tokens: Sequence[Token]) -> int:
        """The best place to cut within the last quarter of as many tokens as fit."""
        fitting = tokens[: self.size]
        near, far = fitting[-1 - len(fitting) // 4].end, fitting[-1].end
        return border(self.text, start + near, _after_blanks(self.text, start + far))

    def _next(self, start: int, end: int, tokens: Sequence[Token]) -> int:
        """Where the passage after this one begins: `overlap` tokens before its end, or a little more."""
        if not self.overlap or len(tokens) <= self.overlap:
            return end
        first = len(tokens) - self.overlap
        earlier = max(1, first - self.size // 8)
        return border(self.text, start + tokens[earlier].start, start + tokens[first].start)


def border(text: str, low: int, high: int) -> int:
    """The last place in (low, high] after which a sentence begins, else a word, else `high`: never within a character.

    Blanks belong to what they follow. `border("One. Two thr", 0, 12)` is 5, before "Two".
    """
    for pattern in (SENTENCE_END, WORD_END):
        ends = [end.end() for end in pattern.finditer(text, low, high)]
        if ends:
            return ends[-1]
    place = high
    while low < place < len(text) and _within_character(text, place):
        place -= 1
    return place if place > low else high


def _within_character(text: str, place: int) -> bool:
    """Whether a sign that the one before it carries, or a joiner, is on either side."""
    return unicodedata.category(text[place])[0] == "M" or "\u200d" in text[place - 1 : place + 1]


def _after_blanks(text: str, place: int) -> int:
    blanks = BLANKS.match(text, place)
    return place if blanks is None else blanks.end()
