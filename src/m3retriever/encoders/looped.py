"""What the encoders that run the encoding loop have in common. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3retriever.encoders.engine import Independence
from m3retriever.encoders.query_cache import CachesQueries
from m3retriever.types import Token
from m3retriever.vectors import M3Vectors

if TYPE_CHECKING:
    from m3retriever.encoders.loop import EncodingLoop


class LoopedEncoder(CachesQueries):
    """The methods of an Encoder, given by a loop. A subclass makes the loop and the name.

    The vectors of the last 256 queries that came alone are kept, except of very long ones and those that
    were cut or mostly unknown.

    Attributes
    ----------
    independence
        Of which texts, encoded with it, a text's bits do not depend: with OpenVINO of those that have as many tokens.
    """

    def __init__(self, loop: EncodingLoop, name: str) -> None:
        super().__init__()
        self._loop = loop
        self.name, self.dim = name, loop.dim
        self.independence: Independence = getattr(loop.engine, "independence", "never")

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
        """As `encode_documents`: BGE-M3 knows no difference. The arrays are the caller's own.

        A query that comes alone is looked up first. Several at once are encoded together each time: their last bits
        depend on each other.
        """
        if isinstance(texts, str) or len(texts) != 1 or not isinstance(texts[0], str):
            return self._loop.encode(texts)
        if (known := self._queries.get(texts[0])) is not None:
            return known
        warned = self._loop.truncated, self._loop.unknown
        vectors = self._loop.encode(texts)
        if (self._loop.truncated, self._loop.unknown) == warned:  # what is cut or unknown is to warn each time
            self._queries.keep(texts[0], vectors)
        return vectors

    def tokenize(self, text: str) -> list[Token]:
        """The tokens that have a ColBERT vector, in order, with the characters they cover."""
        return self._loop.tokenize(text)
