"""The forward pass in torch. Numbers are those of FlagEmbedding's `BGEM3FlagModel.encode`.

On a GPU, what goes there and what comes back is copied from pinned memory, and only what is kept comes back: token
vectors without padding and one float a token for the sparse view. Norms are taken in float32, whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from m3retriever.encoders.engine import Heads, Views, token_rows
from m3retriever.vectors import FloatArray, IntArray

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")  # as torch's devices say it


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


class TorchEngine:
    """A transformer of `transformers` and the two heads, on one device; an Engine."""

    def __init__(
        self, model: Any, sparse: torch.nn.Linear, colbert: torch.nn.Linear, device: torch.device, heads: Heads
    ) -> None:
        self.model, self.sparse, self.colbert = model, sparse, colbert
        self.dim, self.positions = int(model.config.hidden_size), positions(model.config)
        self.modes, self.device = heads.modes, str(device)
        self._device, self._heads = device, heads

    @torch.inference_mode()
    def run(self, ids: IntArray, mask: IntArray) -> Views:
        """The views of a padded batch."""
        every, kept = (self._put(rows) for rows in token_rows(mask))
        on_device = self._put(mask)
        hidden = self.model(input_ids=self._put(ids), attention_mask=on_device, return_dict=True).last_hidden_state
        rows = hidden.flatten(0, 1)
        dense = self._take(self._dense(hidden, on_device))
        tokens = weights = None
        if "colbert" in self.modes:
            tokens = self._take(self._unit(self.colbert(rows[kept])))
        if "sparse" in self.modes:
            weights = self._take(torch.relu(self.sparse(hidden)).flatten()[every].float())
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        nothing = torch.empty(0)
        return Views(
            _numpy(dense),
            _numpy(nothing.reshape(0, self.dim) if tokens is None else tokens),
            _numpy(nothing if weights is None else weights),
        )

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Whether memory ran out, as torch's devices and the system say it."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        return any(sign in str(error) for sign in OUT_OF_MEMORY)

    def free_memory(self) -> None:
        """Empty CUDA's cache."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _put(self, values: IntArray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def _take(self, values: torch.Tensor) -> torch.Tensor:
        """On its way to the host; on CUDA it has arrived when the stream was waited for."""
        if values.device.type != "cuda":
            return values.cpu()
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return host.copy_(values, non_blocking=True)

    def _dense(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._heads.pooling == "cls":
            return self._unit(hidden[:, 0])
        weights = mask.unsqueeze(-1).float()
        return self._unit((hidden.float() * weights).sum(dim=1) / weights.sum(dim=1))

    def _unit(self, vectors: torch.Tensor) -> torch.Tensor:
        vectors = vectors.float()
        return torch.nn.functional.normalize(vectors, dim=-1) if self._heads.normalize else vectors


def positions(config: Any) -> int:
    """How many tokens the position table holds; RoBERTa-like models begin counting after the padding id."""
    table = int(config.max_position_embeddings)
    return table - config.pad_token_id - 1 if "roberta" in config.model_type else table


def _numpy(values: torch.Tensor) -> FloatArray:
    array: FloatArray = values.numpy().astype(np.float32, copy=False)
    return array
