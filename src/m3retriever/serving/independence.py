"""Whether what an encoder gives for a text depends on the texts beside it, to the last bit.

In torch a matrix product of another shape may round differently: a text's vectors then differ in their last bits when other
texts are in its forward pass. Where an encoder says that this cannot be (`Independence` in encoders/engine.py), a few texts
are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeAlias

from m3retriever.serving.batching import Call, Grouping
from m3retriever.types import Encoder, M3Vectors, Tokenizes
from m3retriever.wire import COLUMNS

Encode: TypeAlias = Callable[[Sequence[str]], M3Vectors]

TRIED = (
    "",
    "rent",
    "the lease ends on 30 June",
    "How do I sort a list of tuples by the second element?",
    "E1234: connection refused",
    "狐狸跳过了懒狗",
    "où est la gare ?",
    *(" ".join(f"word{number}" for number in range(count)) for count in (2, 3, 7, 12, 20, 33, 60, 90, 140)),
)
"""Texts of many lengths, so that some are padded and some are not, whatever shares their pass."""
SENTENCE = "the lease ends on fox jumps over list file sort date open door when red blue whale city rent paid"
WORDS = SENTENCE.split()
ALIKE = tuple(tuple(" ".join((WORDS[turn:] + WORDS[:turn])[:count]) for turn in (0, 7, 13)) for count in (1, 4, 9, 16, 20))
"""Texts of as many words, of which as good as all have as many tokens as well."""
SHORT = 2_000  # characters up to which a text's tokens are counted, so that it may share a pass


def grouping(encoder: Encoder, *, joined: bool) -> Grouping | None:
    """Which calls of different requests may share a pass: those of one group. None where none may.

    Unless any may (`joined`), it takes the encoder's word and a trial: texts alone and in company have the same bits.
    """
    claimed = getattr(encoder, "independence", "never")
    if joined or (claimed == "always" and _keeps_bits(encoder, _in_any_company)):
        return _by_kind
    if claimed == "equal_lengths" and isinstance(encoder, Tokenizes) and _keeps_bits(encoder, _among_alike(encoder)):
        return _by_length(encoder)
    return None


def _by_kind(call: Call) -> Hashable:
    return call.kind


def _by_length(encoder: Tokenizes) -> Grouping:
    def group(call: Call) -> Hashable:
        if len(call.texts) != 1 or len(call.texts[0]) > SHORT:
            return None
        return call.kind, len(encoder.tokenize(call.texts[0]))

    return group


def _keeps_bits(encoder: Encoder, companies: Callable[[], Iterable[Sequence[str]]]) -> bool:
    return all(_holds(encode, companies()) for encode in (encoder.encode_documents, encoder.encode_queries))


def _holds(encode: Encode, companies: Iterable[Sequence[str]]) -> bool:
    alone: dict[str, M3Vectors] = {}
    for texts in companies:
        for text, vectors in zip(texts, encode(texts), strict=True):
            if text not in alone:
                alone[text] = encode([text])
            if not _same_bits(vectors, alone[text]):
                return False
    return True


def _in_any_company() -> Iterable[Sequence[str]]:
    return TRIED, TRIED[::-1], TRIED[::3]


def _among_alike(encoder: Tokenizes) -> Callable[[], Iterable[Sequence[str]]]:
    def companies() -> Iterable[Sequence[str]]:
        for texts in ALIKE:
            count = len(encoder.tokenize(texts[0]))
            yield [text for text in texts if len(encoder.tokenize(text)) == count]

    return companies


def _same_bits(one: M3Vectors, other: M3Vectors) -> bool:
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in COLUMNS)
