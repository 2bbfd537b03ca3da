"""RayEncoder: batches of documents encoded by the workers of Ray Data, on this machine or on a cluster.

This process, the driver, reads documents, asks the index which of them are new, and stores vectors. Workers need the model
and this package, and see no file of the driver's. One call is one Ray Data execution: a source that takes batches from a
desk as the driver lays them there, and a pool of actors that have loaded the model (`ray_work.py`). A block is one row, and
a row is one batch, so that a batch is encoded in one piece and its vectors have the bits that one process gives.
"""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, cast

from m3retriever.encoders.engine import Backend, Precision
from m3retriever.encoders.streams import AHEAD, StreamingEncoder, in_order, local_encoder
from m3retriever.errors import InvalidArgumentError, M3RetrieverError, MissingExtraError, ServiceError, shown
from m3retriever.observing.counters import count
from m3retriever.observing.spans import span
from m3retriever.types import Encoder
from m3retriever.vectors import M3Vectors

try:
    import ray
    from ray.actor import ActorHandle
    from ray.data import ActorPoolStrategy, DataContext, Dataset, read_datasource
except ImportError as error:
    raise MissingExtraError("ray", extra="ray") from error

from m3retriever.encoders.ray_cluster import connect
from m3retriever.encoders.ray_work import Answer, BatchSource, Desk, Worker, to_bytes

SOURCE_CPUS = 0  # of the task that takes batches from the desk: it mostly waits. Workers have more, so Ray keeps them apart
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # in Ray's messages
ONE_ROW = 1  # byte, the least a block must have to be passed on: each row at once, alone


class RayEncoder(StreamingEncoder):
    """An Encoder whose streams are encoded by Ray's workers; queries and single calls by an encoder of this process.

    `M3Index.add` gives it everything of one call in one stream. Connects to Ray with the first batch, and ends with
    `close` (or a `with` block) what it started itself.

    Parameters
    ----------
    model
        As of `load_encoder`, and the same for all workers: a folder must be there on every machine. Or an Encoder
        that was loaded so.
    workers
        Actors, each with the model loaded.
    precision, backend
        As of `load_encoder`. Where they are not said, workers on the same kind of device compute as this process does,
        others as suits theirs.
    gpus_per_worker
        GPUs that Ray reserves for each, also a part of one; 0 encodes on the CPU.
    threads
        Of torch in each worker; default: as many as here.
    address
        Of a Ray cluster, such as "auto" or "10.0.0.5:6379". Default: the environment's RAY_ADDRESS; without it a
        cluster of this machine for this process alone. Where the process is connected to Ray already, that is used.
    ahead
        Batches under way for each worker, the one that it encodes included.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    InvalidArgumentError
        A number without a meaning, or a model that workers cannot load by its name.
    ServiceError
        In a stream: there is no such cluster, or workers end again and again. What came before is given, whole.
    EncoderMismatchError
        In a stream: workers found another model under that name.
    """

    def __init__(
        self,
        model: str | Encoder,
        workers: int = 2,
        *,
        precision: Precision | None = None,
        backend: Backend | None = None,
        gpus_per_worker: float = 0,
        threads: int | None = None,
        address: str | None = None,
        ahead: int = AHEAD,
    ) -> None:
        for name, number in (("workers", workers), ("threads", 1 if threads is None else threads), ("ahead", ahead)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InvalidArgumentError(f"{name} must be an integer >= 1; got {shown(number)}")
        if isinstance(gpus_per_worker, bool) or not isinstance(gpus_per_worker, int | float) or not gpus_per_worker >= 0:
            raise InvalidArgumentError(f"gpus_per_worker must be a number >= 0; got {shown(gpus_per_worker)}")
        super().__init__(local_encoder(model, precision, backend))
        self.workers, self.gpus_per_worker, self.ahead, self.address = workers, gpus_per_worker, ahead, address
        self.threads = _threads() if threads is None else threads
        self._how = self._loading(precision, backend)
        self._cut = 0
        self._disconnect: Callable[[], None] | None = None

    @property
    def truncated(self) -> int:
        """How many texts have been cut so far, here and by workers."""
        return self._cut + int(getattr(self.local, "truncated", 0))

    def encode_stream(self, batches: Iterable[Sequence[str]]) -> Generator[M3Vectors, None, None]:
        """The vectors of each batch, in order; `workers * ahead` batches are drawn before the first is given."""
        drawn = iter(batches)
        if (first := next(drawn, None)) is None:
            return
        with _ray_errors_as_ours():
            self._connect()
            desk = cast("ActorHandle[Desk]", ray.remote(Desk).options(num_cpus=0).remote())
        laying, rows = Laying(desk), _rows(partial(self._dataset, desk))
        try:
            for texts in in_order(_then(laying.end, first, drawn), laying, most=self.workers * self.ahead):
                with span("encode_documents", documents=texts), _ray_errors_as_ours():
                    answer = next(rows, None)
                vectors = self._accepted(answer, laying.given, texts)
                laying.given += 1
                yield vectors
        finally:
            rows.close()
            if ray.is_initialized():
                ray.kill(desk)  # which ends the source, if it still waits

    def close(self) -> None:
        """End the connection to Ray that this encoder made, and with it the cluster that was started for it."""
        disconnect, self._disconnect = self._disconnect, None
        if disconnect is not None:
            disconnect()

    def __enter__(self) -> RayEncoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- steps -------------------------------------------------------------------------------------

    def _loading(self, precision: Precision | None, backend: Backend | None) -> dict[str, Any]:
        """What a worker gives `load_encoder`."""
        device = "cuda" if self.gpus_per_worker else "cpu"
        here = str(getattr(self.local, "device", "cpu")).split(":")[0]
        alike = here == device
        return {
            "model": self.source,
            "precision": precision or (self.precision if alike else None),
            "backend": backend or (getattr(self.local, "backend", None) if alike else None),
            "device": device,
        }

    def _connect(self) -> None:
        if self._disconnect is None:
            cpus, gpus = self.workers * self._cpus, self.workers * self.gpus_per_worker
            self._disconnect = connect(self.address, cpus=cpus, gpus=gpus)

    @property
    def _cpus(self) -> int:
        """CPUs that Ray reserves for a worker: a thread each, where they are what computes."""
        return 1 if self.gpus_per_worker else self.threads or 1

    def _dataset(self, desk: ActorHandle[Desk]) -> Dataset:
        """What is laid on the desk, encoded."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own about itself
            context = _context()
        with DataContext.current(context):
            source = read_datasource(BatchSource(desk), override_num_blocks=1, num_cpus=SOURCE_CPUS)
            encoded: Dataset = source.map_batches(
                Worker,
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=self.workers, max_tasks_in_flight_per_actor=self.ahead),
                fn_constructor_args=(self._how, self.threads, desk),
                num_cpus=self._cpus,
                num_gpus=self.gpus_per_worker or None,
            )
            return encoded

    def _accepted(self, answer: Answer | None, number: int, texts: int) -> M3Vectors:
        """The vectors of an answer, if it is that to this batch; what the worker raised or warned of comes here."""
        if answer is None or answer.number != number:
            got = "nothing" if answer is None else f"batch {answer.number}"
            raise ServiceError(f"Ray must give batch {number}; got {got}: what came before is whole, start again")
        answer.warn()
        vectors = answer.vectors(self.name, texts)
        self._cut += answer.cut
        count("truncations", answer.cut)
        return vectors


def _threads() -> int | None:
    """How many threads torch computes with here; None where it is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _context() -> DataContext:
    """How Ray Data works on our streams: in order, row by row, silently, and waiting for the driver as long as that takes."""
    context = copy.deepcopy(DataContext.get_current())
    context.execution_options.preserve_order = True
    context.target_max_block_size = ONE_ROW
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []
    return context


class Laying:
    """Lays batches on the desk, and says how many texts each has; `given` is how many came back and can be forgotten."""

    def __init__(self, desk: ActorHandle[Desk]) -> None:
        self._desk, self._laid, self.given = desk, 0, 0

    def __call__(self, texts: list[str]) -> int:
        with _ray_errors_as_ours():
            ray.get(self._desk.lay.remote(self._laid, to_bytes(texts), self.given))
        self._laid += 1
        return len(texts)

    def end(self) -> None:
        """Say that there are no more."""
        with _ray_errors_as_ours():
            ray.get(self._desk.lay.remote(self._laid, None, self.given))


def _then(do: Callable[[], None], first: Sequence[str], others: Iterator[Sequence[str]]) -> Iterator[Sequence[str]]:
    """The batches, and what is done when there are no more."""
    yield first
    yield from others
    do()


def _rows(dataset: Callable[[], Dataset]) -> Generator[Answer, None, None]:
    """The rows of a data set, each as soon as it is there. Makes it, and begins its execution, when it is asked for one."""
    for bundle in dataset().iter_internal_ref_bundles():
        for block in bundle.block_refs:
            yield from Answer.of(ray.get(block))


@contextmanager
def _ray_errors_as_ours() -> Iterator[None]:
    """Whatever Ray raises, of which there is much, is a ServiceError."""
    try:
        yield
    except M3RetrieverError:
        raise
    except Exception as error:
        raise ServiceError(
            f"Ray cannot go on: {type(error).__name__}: {shown(_reason(error))}; what came before is whole, start again"
        ) from error


def _reason(error: BaseException) -> str:
    """The last line of what was first: above it there are pages of Ray's own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (COLOUR.sub("", str(error)).strip().splitlines() or [""])[-1]
