"""The encoding loop: tokenise once, sort by length, run batches bounded by a token budget.

One forward pass, by whichever engine, gives all three views. Against FlagEmbedding's `BGEM3FlagModel.encode` the
numbers are the same; the time is not: no probing pass, hardly any padding, post-processing in arrays. Everything is
copied out of the padded batch. Does not import torch.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from m3retriever.encoders.engine import Engine
from m3retriever.encoders.tokenizing import Tokenizing
from m3retriever.errors import DeviceMemoryError, InvalidArgumentError, TruncationWarning
from m3retriever.observing.counters import count
from m3retriever.types import Mode, Token
from m3retriever.vectors import FloatArray, IntArray, M3Vectors, offsets

logger = logging.getLogger(__name__)

SLICE = 1024  # texts tokenised at a time: bounds memory, the lengths within are sorted
WORTH_WHILE = 16  # batches of this share of the budget run at nearly full speed: 256 tokens on a CPU
LIKE = 0.75  # of the longest text's length: padding of shorter ones costs more than another pass
SHOW_PROGRESS_FROM = 64  # texts; less is done before a bar could be read


class EncodingLoop:
    """Runs an engine over texts. Safe to call from several threads: one pass runs at a time.

    Parameters
    ----------
    max_length
        Tokens read of a text, special ones included; what the model's position table allows at most.
    batch_tokens
        Tokens, padding included, in one forward pass. Halved for good when memory runs out.
    on_unknown
        Called with the share of unknown tokens of each text, (n,), in [0, 1]; gives how many it warned of.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizing: Tokenizing,
        *,
        max_length: int,
        batch_tokens: int,
        on_unknown: Callable[[FloatArray], int] | None = None,
    ) -> None:
        if max_length < 3 or batch_tokens < 1:
            raise InvalidArgumentError(f"max_length must be >= 3 and batch_tokens >= 1; got {max_length} and {batch_tokens}")
        self.engine, self.tokenizing = engine, tokenizing
        self.max_length = min(max_length, engine.positions)
        self.batch_tokens, self.dim = batch_tokens, engine.dim
        self.truncated = self.unknown = 0
        self._on_unknown = on_unknown
        self._lock = threading.Lock()
        tokenizing.limit(self.max_length)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> M3Vectors:
        """The three views of n texts, in their order."""
        if isinstance(texts, str):
            raise InvalidArgumentError(f"texts is a list of str; got the str {texts[:40]!r}: write [text]")
        texts = list(texts)
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidArgumentError(f"a text is a str; got {type(text).__name__} at place {place}")
        show = progress and len(texts) >= SHOW_PROGRESS_FROM
        with tqdm(total=len(texts), desc="encoding", unit="text", disable=not show) as bar:
            slices = [self._encode(texts[start : start + SLICE], bar) for start in range(0, len(texts), SLICE)]
        return M3Vectors.concat(slices, dim=self.dim)

    def tokenize(self, text: str) -> list[Token]:
        """The tokens that have a ColBERT vector, with the characters they cover; the last is the end-of-text."""
        with self._lock:
            return self.tokenizing.tokens(text)

    def _encode(self, texts: list[str], bar: Any) -> M3Vectors:
        with self._lock:
            ids, cut = self.tokenizing.encode(texts)
        result = _Result([len(row) for row in ids], self.dim, self.engine.modes)
        for batch in self._batches([len(row) for row in ids]):
            self._run(batch, ids, result)
            bar.update(len(batch))
        self._report(cut, ids)
        return result.vectors()

    def _report(self, cut: int, ids: list[list[int]]) -> None:
        if cut:
            with self._lock:
                self.truncated += cut
            count("truncations", cut)
            warnings.warn(
                f"{cut} of {len(ids)} texts are longer than {self.max_length} tokens; what comes after was not "
                "encoded: split them into passages",
                TruncationWarning,
                stacklevel=5,
            )
        if self._on_unknown is not None:
            unknown = self.tokenizing.unknown
            shares = [0 if unknown is None else row.count(unknown) / max(1, len(row) - 2) for row in ids]
            self.unknown += self._on_unknown(np.array(shares))

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Texts of like length together, longest first, so that memory runs out early if it does."""
        rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        while rows:
            count = batch_size([lengths[row] for row in rows[: self.batch_tokens]], self.batch_tokens)
            yield rows[:count]
            rows = rows[count:]

    def _run(self, batch: list[int], ids: list[list[int]], result: _Result) -> None:
        """One forward pass; where memory runs out, two of half the size, and smaller ones from then on."""
        if self._fits(batch, ids, result):
            return
        if len(batch) == 1:
            raise DeviceMemoryError(
                f"not enough memory on {self.engine.device} for one text of {len(ids[batch[0]])} tokens; "
                "lower max_length or free memory"
            )
        self.engine.free_memory()
        self.batch_tokens = max(1, min(self.batch_tokens, len(batch) * len(ids[batch[0]]) // 2))
        logger.warning("out of memory: going on with batch_tokens=%d", self.batch_tokens)
        half = len(batch) // 2
        self._run(batch[:half], ids, result)
        self._run(batch[half:], ids, result)

    def _fits(self, batch: list[int], ids: list[list[int]], result: _Result) -> bool:
        """Run the pass and say whether memory sufficed; nothing of a failed one is kept alive by its traceback."""
        try:
            with self._lock:
                self._forward(batch, ids, result)
        except (MemoryError, RuntimeError) as error:
            if not self.engine.ran_out_of_memory(error):
                raise
            return False
        return True

    def _forward(self, batch: list[int], ids: list[list[int]], result: _Result) -> None:
        input_ids, mask = _pad([ids[row] for row in batch], self.tokenizing.pad)
        views = self.engine.run(input_ids, mask)
        result.put_dense(batch, views.dense)
        if "colbert" in self.engine.modes:
            result.put_colbert(batch, views.tokens)
        if "sparse" in self.engine.modes:
            tokens = input_ids[mask.astype(bool)]
            used = (views.weights > 0) & ~np.isin(tokens, list(self.tokenizing.unused))
            rows = np.repeat(np.arange(len(batch)), mask.sum(axis=1))
            result.put_sparse(batch, rows[used], tokens[used], views.weights[used])


def batch_size(lengths: Sequence[int], budget: int) -> int:
    """How many of these texts, longest first, make a batch: as many as the budget of tokens holds, padding included.

    A text much shorter than the longest begins a batch of its own once there is enough for a pass to be worth while.
    `batch_size([8, 7, 2], 100)` is 2: a sixteenth of the budget is in hand, and padding 2 to 8 would be the greater waste.
    """
    longest, count = lengths[0], 1
    for length in lengths[1:]:
        enough = count * longest * WORTH_WHILE >= budget
        if (count + 1) * longest > budget or (enough and length < LIKE * longest):
            break
        count += 1
    return count


class _Result:
    """Collects batches in any order and gives the vectors in the texts' order."""

    def __init__(self, lengths: Sequence[int], dim: int, modes: frozenset[Mode]) -> None:
        tokens = [length - 1 if "colbert" in modes else 0 for length in lengths]  # all but CLS
        self._dense = np.empty((len(lengths), dim), np.float32)
        self._starts = offsets(tokens)
        self._colbert = np.empty((int(self._starts[-1]), dim), np.float32)
        nothing = np.empty(0, np.int32), np.empty(0, np.float32)
        self._sparse: list[tuple[IntArray, FloatArray]] = [nothing] * len(lengths)

    def put_dense(self, batch: list[int], dense: FloatArray) -> None:
        self._dense[batch] = dense

    def put_colbert(self, batch: list[int], tokens: FloatArray) -> None:
        begin = 0
        for row in batch:
            count = int(self._starts[row + 1] - self._starts[row])
            self._colbert[self._starts[row] : self._starts[row + 1]] = tokens[begin : begin + count]
            begin += count

    def put_sparse(self, batch: list[int], rows: IntArray, ids: IntArray, weights: FloatArray) -> None:
        """A token that occurs several times keeps its largest weight."""
        by_token = np.lexsort([ids, rows])
        rows, ids, weights = rows[by_token], ids[by_token], weights[by_token]
        first = np.flatnonzero(np.r_[True, (np.diff(rows) != 0) | (np.diff(ids) != 0)][: len(rows)])
        if not len(first):
            return
        weights = np.maximum.reduceat(weights, first)
        bounds = np.searchsorted(rows[first], np.arange(len(batch) + 1))
        for place, row in enumerate(batch):
            part = slice(bounds[place], bounds[place + 1])
            self._sparse[row] = ids[first][part].astype(np.int32), weights[part]

    def vectors(self) -> M3Vectors:
        return M3Vectors(
            self._dense,
            np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in self._sparse)]),
            np.concatenate([np.empty(0, np.float32), *(weights for _, weights in self._sparse)]),
            offsets([len(ids) for ids, _ in self._sparse]),
            self._colbert,
            self._starts,
        )


def _pad(rows: list[list[int]], pad: int) -> tuple[IntArray, IntArray]:
    """Token ids (b, t) and their mask, padded at the right."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask
