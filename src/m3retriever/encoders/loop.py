"""The encoding loop: tokenise once, sort by length, run batches bounded by a token budget.

One forward pass gives all three views. The numbers are those of FlagEmbedding's
`BGEM3FlagModel.encode`; the time is not: no probing pass, hardly any padding, post-processing in
arrays. Everything is copied out of the padded batch.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from m3retriever.errors import DeviceMemoryError, InvalidArgumentError, TruncationWarning
from m3retriever.types import MODES, Mode, Token
from m3retriever.vectors import FloatArray, IntArray, M3Vectors, offsets

logger = logging.getLogger(__name__)

POOLINGS = ("cls", "mean")
SLICE = 1024  # texts tokenised at a time: bounds memory, the lengths within are sorted
SHOW_PROGRESS_FROM = 64  # texts; less is done before a bar could be read


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' bar over the weight tensors: it is gone before it can be read."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@dataclass
class Parts:
    """What a checkpoint brings: the transformer, its tokenizer and the two heads."""

    model: Any
    tokenizer: Any
    sparse: torch.nn.Linear
    colbert: torch.nn.Linear
    device: torch.device
    pooling: str = "cls"
    normalize: bool = True
    modes: frozenset[Mode] = field(default_factory=lambda: frozenset(MODES))


class EncodingLoop:
    """Runs the parts of a checkpoint over texts. Safe to call from several threads: one pass runs at a time.

    Parameters
    ----------
    max_length
        Tokens read of a text, special ones included; what the model's position table allows at most.
    batch_tokens
        Tokens, padding included, in one forward pass. Halved for good when memory runs out.
    on_unknown
        Called with the share of unknown tokens of each text, (n,), in [0, 1].
    """

    def __init__(
        self,
        parts: Parts,
        *,
        max_length: int,
        batch_tokens: int,
        on_unknown: Callable[[FloatArray], None] | None = None,
    ) -> None:
        if parts.pooling not in POOLINGS:
            raise InvalidArgumentError(f"pooling must be one of {', '.join(POOLINGS)}; got {parts.pooling!r}")
        if unknown := set(parts.modes) - set(MODES):
            raise InvalidArgumentError(f"modes must be among {', '.join(MODES)}; got {sorted(unknown)}")
        if "dense" not in parts.modes:
            raise InvalidArgumentError("modes must contain 'dense': every store keeps a dense vector per document")
        if max_length < 3 or batch_tokens < 1:
            raise InvalidArgumentError(f"max_length must be >= 3 and batch_tokens >= 1; got {max_length} and {batch_tokens}")
        self._parts = parts
        self.max_length = min(max_length, _positions(parts.model.config))
        self.batch_tokens = batch_tokens
        self.truncated = 0
        self._on_unknown = on_unknown
        self._lock = threading.Lock()
        tokenizer = parts.tokenizer
        self._unused = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
        self._unused_ids = torch.tensor(sorted(self._unused - {None}), device=parts.device)
        self.dim = int(parts.model.config.hidden_size)

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
            got = self._parts.tokenizer(_clean(text), truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        return [Token(id, *span) for id, span in zip(got["input_ids"][1:], got["offset_mapping"][1:], strict=True)]

    def _encode(self, texts: list[str], bar: Any) -> M3Vectors:
        ids, cut, unknown = self._tokenize(texts)
        result = _Result([len(row) for row in ids], self.dim, self._parts.modes)
        for batch in self._batches([len(row) for row in ids]):
            self._run(batch, ids, result)
            bar.update(len(batch))
        self._report(cut, unknown)
        return result.vectors()

    def _tokenize(self, texts: list[str]) -> tuple[list[list[int]], int, FloatArray]:
        """Token ids, how many texts were cut, and the share of unknown tokens of each."""
        with self._lock:
            got = self._parts.tokenizer([_clean(text) for text in texts], truncation=True, max_length=self.max_length)
        cut = sum(bool(encoding.overflowing) for encoding in got.encodings)
        unknown_id = self._parts.tokenizer.unk_token_id
        unknown = [row.count(unknown_id) / max(1, len(row) - 2) for row in got["input_ids"]]
        return got["input_ids"], cut, np.array(unknown)

    def _report(self, cut: int, unknown: FloatArray) -> None:
        if cut:
            with self._lock:
                self.truncated += cut
            warnings.warn(
                f"{cut} of {len(unknown)} texts are longer than {self.max_length} tokens; what comes after was not "
                "encoded: split them into passages",
                TruncationWarning,
                stacklevel=5,
            )
        if self._on_unknown is not None:
            self._on_unknown(unknown)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Texts of like length together, longest first, so that memory runs out early if it does."""
        rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        while rows:
            count = max(1, self.batch_tokens // lengths[rows[0]])
            yield rows[:count]
            rows = rows[count:]

    def _run(self, batch: list[int], ids: list[list[int]], result: _Result) -> None:
        """One forward pass; where memory runs out, two of half the size, and smaller ones from then on."""
        if self._fits(batch, ids, result):
            return
        if len(batch) == 1:
            raise DeviceMemoryError(
                f"not enough memory on {self._parts.device} for one text of {len(ids[batch[0]])} tokens; "
                "lower max_length or free memory"
            )
        if self._parts.device.type == "cuda":
            torch.cuda.empty_cache()
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
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            return False
        return True

    @torch.inference_mode()
    def _forward(self, batch: list[int], ids: list[list[int]], result: _Result) -> None:
        parts = self._parts
        input_ids, mask = _pad([ids[row] for row in batch], parts.tokenizer.pad_token_id, parts.device)
        hidden = parts.model(input_ids=input_ids, attention_mask=mask, return_dict=True).last_hidden_state
        result.put_dense(batch, _numpy(self._dense(hidden, mask)))
        if "colbert" in parts.modes:
            tokens = parts.colbert(hidden[:, 1:][mask[:, 1:].bool()])
            result.put_colbert(batch, _numpy(self._unit(tokens)))
        if "sparse" in parts.modes:
            weights = torch.relu(parts.sparse(hidden).squeeze(-1))
            used = (weights > 0) & mask.bool() & ~torch.isin(input_ids, self._unused_ids)
            rows = used.nonzero()[:, 0]
            result.put_sparse(batch, rows.cpu().numpy(), input_ids[used].cpu().numpy(), _numpy(weights[used]))

    def _dense(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._parts.pooling == "cls":
            return self._unit(hidden[:, 0])
        weights = mask.unsqueeze(-1).float()
        return self._unit((hidden.float() * weights).sum(dim=1) / weights.sum(dim=1))

    def _unit(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(vectors, dim=-1) if self._parts.normalize else vectors


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


def _pad(rows: list[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (b, t) and their mask, padded at the right."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _numpy(values: torch.Tensor) -> FloatArray:
    array: FloatArray = values.float().cpu().numpy()
    return array


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # a lone surrogate is no text: tokenizers refuse it


def _positions(config: Any) -> int:
    """How many tokens the position table holds; RoBERTa-like models begin counting after the padding id."""
    table = int(config.max_position_embeddings)
    return table - config.pad_token_id - 1 if "roberta" in config.model_type else table


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, as torch's devices and the system say it; an illegal access is another thing."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(sign in str(error) for sign in ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED"))
