"""DevicesEncoder: one model on several devices of this machine, in one process."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue

from m3retriever.encoders import load_encoder
from m3retriever.encoders.engine import Backend, Precision
from m3retriever.encoders.streams import AHEAD, StreamingEncoder, in_order, local_encoder
from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.observing.spans import span
from m3retriever.types import Encoder
from m3retriever.vectors import M3Vectors

ANY_CUDA = {"cuda": "cuda:0"}  # what torch takes where no number is given


class DevicesEncoder(StreamingEncoder):
    """A replica of the model on each device, and a thread for each; every batch goes to the next that is free.

    A batch is encoded in one piece, so its vectors have the bits that one encoder on such a device gives. Safe from
    several threads.

    Parameters
    ----------
    model
        As of `load_encoder`; or an Encoder that was loaded so, which becomes the replica on its own device.
    devices
        torch devices such as ["cuda:0", "cuda:1"]; one that is named twice has two replicas.
    precision, backend
        Of all replicas, as of `load_encoder`.
    ahead
        Batches under way for each device.

    Raises
    ------
    InvalidArgumentError
        No devices, one that is not here, or a model that cannot be loaded by its name or on such a device.
    """

    def __init__(
        self,
        model: str | Encoder,
        devices: Sequence[str],
        *,
        precision: Precision | None = None,
        backend: Backend | None = None,
        ahead: int = AHEAD,
    ) -> None:
        if isinstance(devices, str) or not devices or not all(isinstance(device, str) and device for device in devices):
            raise InvalidArgumentError(f'devices must be names such as ["cuda:0", "cuda:1"]; got {shown(devices)}')
        if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 1:
            raise InvalidArgumentError(f"ahead must be an integer >= 1; got {shown(ahead)}")
        super().__init__(local_encoder(model, precision, backend, device=devices[0]))
        there = [ANY_CUDA.get(device, device) for device in devices]
        own = getattr(self.local, "device", "cpu")
        if (own := ANY_CUDA.get(own, own)) in there:
            there.remove(own)
        loaded = [load_encoder(self.source or "", precision, backend, device=device) for device in there]
        self._replicas = loaded if len(loaded) == len(devices) else [self.local, *loaded]
        self._free, self._most = SimpleQueue[Encoder](), ahead * len(devices)
        for replica in self._replicas:
            self._free.put(replica)

    @property
    def truncated(self) -> int:
        """How many texts have been cut so far."""
        every = {id(encoder): encoder for encoder in (self.local, *self._replicas)}
        return sum(getattr(encoder, "truncated", 0) for encoder in every.values())

    def encode_stream(self, batches: Iterable[Sequence[str]]) -> Generator[M3Vectors, None, None]:
        """The vectors of each batch, in order; `ahead` batches a device are drawn before the first is given."""
        with ThreadPoolExecutor(len(self._replicas), thread_name_prefix="m3retriever") as pool:

            def begin(texts: list[str]) -> Future[M3Vectors]:
                return pool.submit(copy_context().run, self._encode, texts)  # spans in there belong to this call's

            try:
                for call in in_order(batches, begin, most=self._most):
                    yield call.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _encode(self, texts: list[str]) -> M3Vectors:
        """The vectors of one batch, by the next replica that is free."""
        replica = self._free.get()
        try:
            with span("encode_documents", documents=len(texts)):
                return replica.encode_documents(texts)
        finally:
            self._free.put(replica)
