"""What the encoders have in common that work on several batches at once: on devices.py's replicas, or Ray's workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from m3retriever.encoders import load_encoder, source_of
from m3retriever.encoders.engine import Backend, Precision
from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.types import Encoder, Token, Tokenizes
from m3retriever.vectors import M3Vectors

AHEAD = 2  # batches a worker: one that it encodes and one that lies ready for it

Begun = TypeVar("Begun")


class StreamingEncoder:
    """An Encoder that leaves all but streams to one encoder of this process, `local`."""

    def __init__(self, local: Encoder) -> None:
        self.local = local
        self.name, self.dim = local.name, local.dim
        self.precision: str | None = getattr(local, "precision", None)
        self.max_length: int | None = getattr(local, "max_length", None)
        self.source = source_of(local)

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """The vectors of n texts, by the encoder of this process; `encode_stream` is what the others share in."""
        return self.local.encode_documents(texts, progress=progress)

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """The vectors of n queries, by the encoder of this process."""
        return self.local.encode_queries(texts)

    def tokenize(self, text: str) -> list[Token]:
        """The tokens that have a ColBERT vector; InvalidArgumentError where the model has no `tokenize`."""
        if not isinstance(self.local, Tokenizes):
            raise InvalidArgumentError(f"{type(self.local).__name__} has no tokenize")
        return self.local.tokenize(text)


def local_encoder(
    model: str | Encoder, precision: Precision | None, backend: Backend | None, *, device: str | None = None
) -> Encoder:
    """The encoder of this process, of which others are to be loaded elsewhere; InvalidArgumentError where none can be."""
    encoder = load_encoder(model, precision, backend, device=device) if isinstance(model, str) else model
    if source_of(encoder) is None:
        raise InvalidArgumentError(
            f"the model must be one that others can load by its name; got {encoder.name!r}: take BAAI/bge-m3, a folder, "
            "'mini' or 'hashing'"
        )
    return encoder


def in_order(batches: Iterable[Sequence[str]], begin: Callable[[list[str]], Begun], *, most: int) -> Iterator[Begun]:
    """What `begin` gave for each batch, in order, as soon as `most` have been begun or there are no more.

    InvalidArgumentError for a batch that is not a list of str.
    """
    begun = deque[Begun]()
    for texts in batches:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InvalidArgumentError(f"a batch is a list of str; got {shown(texts)}")
        begun.append(begin(list(texts)))
        if len(begun) == most:
            yield begun.popleft()
    yield from begun
