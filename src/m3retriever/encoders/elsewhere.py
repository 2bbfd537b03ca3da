"""What the encoders have in common whose model runs elsewhere and is asked over HTTP."""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

from tqdm import tqdm

from m3retriever.encoders.answers import SHOW_PROGRESS_FROM, check_count, listed_texts
from m3retriever.encoders.query_cache import CachesQueries
from m3retriever.errors import TruncationWarning
from m3retriever.observing.counters import count
from m3retriever.vectors import M3Vectors

Kind = Literal["document", "query"]


class EncoderElsewhere(CachesQueries, ABC):
    """The methods of an Encoder, given by the answers of a service. A subclass says what they are.

    Attributes
    ----------
    name, dim, max_length
        Set by the subclass; a `max_length` of None is not known.
    truncated
        How many texts have been cut so far.
    source
        None: an index does not keep the address, so that whoever gets the folder sends no texts there unasked.
    """

    name: str
    dim: int
    max_length: int | None
    source = None

    def __init__(self, concurrency: int) -> None:
        check_count(concurrency, "concurrency")
        super().__init__()
        self.truncated, self._concurrency = 0, concurrency
        self._counting = threading.Lock()

    @abstractmethod
    def _parts(self, texts: list[str], kind: Kind) -> Iterator[tuple[M3Vectors, int]]:
        """The vectors of the texts, some at a time, in their order, and how many texts were cut for them."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """The three views of n texts, in their order; `progress` shows a bar on long work."""
        return self._encode(listed_texts(texts), "document", progress=progress)[0]

    def encode_queries(self, texts: Sequence[str]) -> M3Vectors:
        """The three views of n queries; one that comes alone is looked up first. The arrays are the caller's own."""
        texts = listed_texts(texts)
        if len(texts) != 1:
            return self._encode(texts, "query")[0]
        if (known := self._queries.get(texts[0])) is not None:
            return known
        vectors, cut = self._encode(texts, "query")
        if not cut:  # what is cut is to warn each time
            self._queries.keep(texts[0], vectors)
        return vectors

    def _encode(self, texts: list[str], kind: Kind, *, progress: bool = False) -> tuple[M3Vectors, int]:
        """The vectors, and how many texts were cut."""
        parts, cut = [], 0
        show = progress and len(texts) >= SHOW_PROGRESS_FROM
        with tqdm(total=len(texts), desc="encoding", unit="text", disable=not show) as bar:
            for part, less in self._parts(texts, kind):
                parts.append(part)
                cut += less
                bar.update(len(part))
        if cut:
            self._report(cut, len(texts))
        vectors = M3Vectors.concat(parts, dim=self.dim)
        return (vectors.copy() if len(parts) == 1 else vectors), cut  # what comes from the wire cannot be written to

    def _report(self, cut: int, texts: int) -> None:
        with self._counting:
            self.truncated += cut
        count("truncations", cut)
        limit = "the model reads" if self.max_length is None else f"{self.max_length} tokens"
        warnings.warn(
            f"{cut} of {texts} texts are longer than {limit}; what comes after was not encoded: split them into passages",
            TruncationWarning,
            stacklevel=4,  # whoever called encode_documents or encode_queries
        )
