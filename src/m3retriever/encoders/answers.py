"""What an encoder over HTTP asks for and may be answered: texts, sizes, names and vectors, checked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, TypeGuard

from m3retriever.checks import check_vectors
from m3retriever.encoders.http import HttpService
from m3retriever.errors import InvalidArgumentError, InvalidVectorsError, shown
from m3retriever.types import Document
from m3retriever.vectors import M3Vectors

NAME = re.compile(r"[\w.:/+@-]{1,200}", re.ASCII)  # of a model: what every encoder of ours is called
MOST_DIMENSIONS = 1 << 16
SMALL_BYTES = 1 << 20  # of the list of models; and what an answer may have beside its vectors
SHOW_PROGRESS_FROM = 64  # texts; less is done before a bar could be read


def most_tokens(text: str, max_length: int | None) -> int:
    """More tokens than a text can be: a byte of it, normalised, is one at most, and two stand for its ends.

    BGE-M3's tokenizer normalises to NFKC, where one character may become 18.
    """
    most = len(unicodedata.normalize("NFKC", text).encode()) + 8
    return most if max_length is None else min(most, max_length)


def listed_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list, lone surrogates replaced as tokenizers' input must be; InvalidArgumentError for what is no text."""
    if isinstance(texts, str):
        raise InvalidArgumentError(f"texts is a list of str; got the str {texts[:40]!r}: write [text]")
    listed = list(texts)
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise InvalidArgumentError(f"a text is a str; got {type(text).__name__} at place {place}")
    return [text.encode("utf-8", "replace").decode() for text in listed]


def check_answered(service: HttpService, vectors: M3Vectors, count: int, dim: int) -> None:
    """Refuse vectors that are not of so many texts, not of the dimension, or not finite: ServiceError."""
    if len(vectors) != count or vectors.dim != dim:
        raise service.failed(f"gave vectors of {len(vectors)} texts in {vectors.dim} dimensions; want {count} and {dim}")
    try:
        check_vectors([Document(f"text {place}", "") for place in range(count)], vectors, dim)
    except InvalidVectorsError as error:
        raise service.failed(f"gave vectors that cannot be: {error}") from error


def check_count(value: int, name: str) -> None:
    """Refuse what is no whole number >= 1."""
    if not is_count(value) or value < 1:
        raise InvalidArgumentError(f"{name} must be an integer >= 1; got {shown(value)}")


def is_name(value: Any) -> bool:
    """Whether a service may call a model, or a precision, so."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 40
