"""What Ray runs for a RayEncoder elsewhere: the desk with batches, the source that takes them, the workers with the model.

A batch travels as the UTF-8 of its texts; its vectors as the bytes of their arrays (`wire.COLUMNS`) beside a small JSON
object that says what else there is to know. Nothing of it is pickled.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow  # type: ignore[import-untyped]
import ray
from ray.actor import ActorHandle
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from m3retriever import errors
from m3retriever.encoders import load_encoder
from m3retriever.errors import EncoderMismatchError, InvalidVectorsError, ServiceError, TruncationWarning, UnknownTextWarning
from m3retriever.types import Encoder
from m3retriever.vectors import M3Vectors
from m3retriever.wire import COLUMNS

BATCH = pyarrow.schema([("number", pyarrow.int64()), ("texts", pyarrow.list_(pyarrow.large_binary()))])
ENCODED = pyarrow.schema([("told", pyarrow.string()), *((name, pyarrow.large_binary()) for name in COLUMNS)])
ATTEMPTS = 3  # at a batch whose worker dies: one that kills its worker must not do so for ever
ANY_TEXT = "surrogatepass"  # a lone surrogate, too, is for the encoder to judge
RAISED_AGAIN = ("DeviceMemoryError", "InvalidArgumentError", "InvalidVectorsError", "ModelLoadError", "ServiceError")
WARNED_AGAIN = {kind.__name__: kind for kind in (TruncationWarning, UnknownTextWarning)}


class Desk:
    """An actor on which the driver lays batches, and from which the source takes them by number: whoever has to begin again,
    because a process or a machine was lost, is given the same ones."""

    def __init__(self) -> None:
        self._batches = dict[int, list[bytes] | None]()
        self._attempts = Counter[int]()
        self._changed = asyncio.Condition()

    async def lay(self, number: int, batch: list[bytes] | None, given: int) -> None:
        """Lay a batch, or None after the last; forget those before `given`, whose vectors the driver has."""
        async with self._changed:
            for done in [known for known in self._batches if known < given]:
                del self._batches[done]
            self._batches[number] = batch
            self._changed.notify_all()

    async def take(self, number: int) -> list[bytes] | None:
        """A batch, as soon as it is there; nothing of one that is done with, None after the last."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._batches and max(self._batches) >= number)
            return self._batches.get(number, [])

    async def attempts(self, number: int) -> int:
        """How often workers have begun a batch, with this time."""
        self._attempts[number] += 1
        return self._attempts[number]


class BatchSource(Datasource):
    """The batches on a desk: a block each, numbered from 0, as they come."""

    def __init__(self, desk: ActorHandle[Desk]) -> None:
        self._desk = desk

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task, for the batches come one by one."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_read, self._desk), unknown, schema=BATCH)]

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known."""
        return None


def _read(desk: ActorHandle[Desk]) -> Iterator[pyarrow.Table]:
    number = 0
    while (batch := ray.get(desk.take.remote(number))) is not None:
        yield pyarrow.table({"number": [number], "texts": [batch]}, schema=BATCH)
        number += 1


def to_bytes(texts: Sequence[str]) -> list[bytes]:
    """Texts as they travel."""
    return [text.encode("utf-8", ANY_TEXT) for text in texts]


class Worker:
    """An actor that has loaded a model. What goes wrong is part of its answer: Ray would hide it in a page of its own."""

    def __init__(self, how: Mapping[str, Any], threads: int | None, desk: ActorHandle[Desk]) -> None:
        self._desk, self._encoder = desk, cast("Encoder | None", None)
        try:
            if threads is not None:
                import torch

                torch.set_num_threads(threads)
            self._encoder = load_encoder(**how)
        except Exception as error:  # noqa: BLE001  # told with each answer
            self._failed = _told_of(error)

    def __call__(self, batches: pyarrow.Table) -> pyarrow.Table:
        """The vectors of each batch, a row each."""
        rows = [self._row(row["number"], row["texts"]) for row in batches.to_pylist()]
        return pyarrow.Table.from_pylist(rows, schema=ENCODED)

    def _row(self, number: int, raw: Sequence[bytes]) -> dict[str, Any]:
        if self._encoder is None:
            return _failure(number, self._failed)
        if ray.get(self._desk.attempts.remote(number)) > ATTEMPTS:
            return _failure(number, ("ServiceError", f"{ATTEMPTS} workers ended at the same batch without a word"))
        cut = getattr(self._encoder, "truncated", 0)
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                vectors = self._encoder.encode_documents([text.decode("utf-8", ANY_TEXT) for text in raw])
        except Exception as error:  # noqa: BLE001  # told with the answer
            return _failure(number, _told_of(error))
        told = {
            "number": number,
            "model": self._encoder.name,
            "shape": vectors.dense.shape,
            "cut": getattr(self._encoder, "truncated", 0) - cut,
            "warned": [_told_of(one.message) for one in warned if one.category.__name__ in WARNED_AGAIN],
        }
        arrays = {name: np.ascontiguousarray(getattr(vectors, name), dtype).tobytes() for name, dtype in COLUMNS.items()}
        return {"told": json.dumps(told), **arrays}


def _failure(number: int, problem: tuple[str, str]) -> dict[str, Any]:
    return {"told": json.dumps({"number": number, "failed": problem})}


def _told_of(problem: Exception | str) -> tuple[str, str]:
    return type(problem).__name__, str(problem)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a worker gave for a batch.

    Attributes
    ----------
    number : of the batch, from 0
    cut : how many of its texts were longer than the model reads
    """

    number: int
    cut: int
    _told: Mapping[str, Any]
    _arrays: Mapping[str, pyarrow.Buffer]

    @classmethod
    def of(cls, table: pyarrow.Table) -> Iterator[Answer]:
        """The answers in a block."""
        for row in range(table.num_rows):
            told = json.loads(table["told"][row].as_py())
            yield cls(told["number"], told.get("cut", 0), told, {name: table[name][row].as_buffer() for name in COLUMNS})

    def warn(self) -> None:
        """Warn here of what the worker warned of."""
        for kind, message in self._told.get("warned", ()):
            warnings.warn(message, WARNED_AGAIN[kind], stacklevel=4)

    def vectors(self, model: str, texts: int) -> M3Vectors:
        """The vectors, in arrays of their own.

        Raises
        ------
        EncoderMismatchError
            They are not those of this model.
        InvalidVectorsError
            They are not those of so many texts.
        ServiceError
            The worker failed; for an error of the model's, that error.
        """
        if failed := self._told.get("failed"):
            kind, message = failed
            if kind in RAISED_AGAIN:
                raise getattr(errors, kind)(f"in a worker: {message}")
            raise ServiceError(f"in a worker: {kind}: {message}")
        if self._told["model"] != model:
            raise EncoderMismatchError(
                f"a worker found the model {self._told['model']!r}, this process has {model!r}: they must be the same "
                "checkpoint, of the same version of m3retriever"
            )
        rows, dim = self._told["shape"]
        if rows != texts:
            raise InvalidVectorsError(f"want the vectors of {texts} texts; a worker gave those of {rows}")
        flat = {name: np.frombuffer(self._arrays[name], dtype).copy() for name, dtype in COLUMNS.items()}
        return M3Vectors(**{**flat, "dense": flat["dense"].reshape(rows, dim), "colbert": flat["colbert"].reshape(-1, dim)})
