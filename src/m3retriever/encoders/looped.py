"""What the encoders that run the encoding loop have in common. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3retriever.types import Token
from m3retriever.vectors import M3Vectors

if TYPE_CHECKING:
    from m3retriever.encoders.loop import EncodingLoop


class LoopedEncoder:
    """The methods of an Encoder, given by a loop. A subclass makes the loop and the name."""

    def __init__(self, loop: EncodingLoop, name: str) -> None:
        self._loop = loop
        self.name, self.dim = name, loop.dim

    @property
    def max_length(self) -> int:
        """Tokens read of a text, special ones included."""
        return self._loop.max_length

    @property
    def truncated(self) -> int:
        """How many texts have been cut so far."""
        return self._loop.truncated

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """The three views of n texts, in their order; `progress` shows a bar on long work."""
        return self._loop.encode(texts, progress=progress)

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """As `encode_documents`: BGE-M3 knows no difference."""
        return self._loop.encode(texts)

    def tokenize(self, text: str) -> list[Token]:
        """The tokens that have a ColBERT vector, in order, with the characters they cover."""
        return self._loop.tokenize(text)
