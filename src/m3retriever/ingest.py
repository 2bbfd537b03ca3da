"""Adding documents: in which runs and batches, which of them are new, how they are encoded ahead and stored behind."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from m3retriever.errors import InvalidDocumentError, InvalidVectorsError, shown
from m3retriever.types import Document, M3Vectors

logger = logging.getLogger(__name__)

BATCH = 256  # documents encoded and stored at a time: bounds what a crash can cost
BATCH_CHARACTERS = 200_000  # and their texts: about 50,000 tokens, whose vectors take 200 MB at d = 1024; two are held
RUN_BATCHES = 4  # of an iterator are held at a time: enough to encode one while another is stored

Item = TypeVar("Item")


@runtime_checkable
class EncodesStream(Protocol):
    """An encoder that works on several batches at once.

    `encode_stream` gives the vectors of each batch, in order; a batch is encoded in one piece, as by
    `encode_documents`, so that the bits are the same. It draws batches in the thread that asks for vectors, and never
    more than a bounded number ahead of what was asked for. Closing the generator ends the work that is under way.
    """

    def encode_stream(self, batches: Iterable[Sequence[str]]) -> Generator[M3Vectors, None, None]: ...


@dataclass(frozen=True)
class Added:
    """What `add` did: how many documents were new, replaced an older one, or were there already."""

    new: int = 0
    replaced: int = 0
    unchanged: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(self.new + other.new, self.replaced + other.replaced, self.unchanged + other.unchanged)


@dataclass(frozen=True, eq=False)
class Step:
    """Documents that are encoded together and stored together.

    Attributes
    ----------
    documents : new or changed ones; may be none
    gone : ids of what an earlier version left, to be removed when they are stored
    added : what was done, told when it is
    """

    documents: Sequence[Document]
    gone: Sequence[str] = ()
    added: Added = Added()


def same(document: Document, held: Document | None) -> bool:
    """Whether a document is held already, text and metadata alike; values of other types are not alike.

    A float is like its next neighbours but one, for as such Chroma 1.5 gives back some that have 16 digits or more.
    """
    if held is None or document.text != held.text:
        return False
    stored = {key: value for key, value in document.metadata.items() if value is not None}
    return stored.keys() == held.metadata.keys() and all(alike(value, held.metadata[key]) for key, value in stored.items())


def alike(value: Any, held: Any) -> bool:
    """Whether one metadata value is the other, as Chroma gives it back."""
    if isinstance(value, list):
        return isinstance(held, list) and len(value) == len(held) and all(map(alike, value, held))
    if type(value) is not type(held):
        return False
    return bool(value == held or (isinstance(value, float) and abs(value - held) <= 2 * math.ulp(value)))


def batches(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    """Runs of documents, at least one each, within BATCH documents and BATCH_CHARACTERS characters."""
    start, characters = 0, 0
    for place, document in enumerate(documents):
        characters += len(document.text)
        if place > start and (place - start >= BATCH or characters > BATCH_CHARACTERS):
            yield documents[start:place]
            start, characters = place, len(document.text)
    if documents:
        yield documents[start:]


def runs(documents: Iterable[Document], *, most: int = RUN_BATCHES * BATCH) -> Iterator[list[Document]]:
    """Documents in lists of at most `most`, and of RUN_BATCHES batches' characters: what is held of more than fits memory."""
    run: list[Document] = []
    characters = 0
    for document in documents:
        size = len(document.text) if isinstance(document, Document) and isinstance(document.text, str) else 0
        if run and characters + size > RUN_BATCHES * BATCH_CHARACTERS:
            yield run
            run, characters = [], 0
        run.append(document)
        characters += size
        if len(run) >= most:  # at once: what is wrong with the next one is no matter of this run's
            yield run
            run, characters = [], 0
    if run:
        yield run


def unique(documents: Iterable[Document]) -> Iterator[Document]:
    """Documents as they come; InvalidDocumentError for an id that comes a second time. Keeps the ids, and nothing else."""
    seen = set[str]()
    for document in documents:
        if isinstance(document, Document) and isinstance(document.id, str):  # what is none is told by whoever stores it
            if document.id in seen:
                raise InvalidDocumentError(f"ids must be unique within one call; {shown(document.id)} comes more than once")
            seen.add(document.id)
        yield document


class Delayed(Generic[Item]):
    """Items up to the one that cannot be drawn; `check` raises why, once those before it are done with."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items, self._error = iter(items), list[Exception]()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:  # noqa: BLE001  # kept, and raised by `check`
            self._error.append(error)
            raise StopIteration from None

    def check(self) -> None:
        """Raise what ended the items, if that was an error."""
        if self._error:
            raise self._error[0]


def encoded(
    steps: Iterable[Step], encode: Callable[[Iterable[Sequence[str]]], Generator[M3Vectors, None, None]]
) -> Iterator[tuple[Step, M3Vectors]]:
    """Each step with the vectors of its documents, empty ones where it has none; in order.

    `encode` gives the vectors of each list of texts, and may draw some ahead. InvalidVectorsError where it gives
    those of fewer or of more lists than it drew.
    """
    drawn, nothing = deque[Step](), M3Vectors.empty(0)

    def texts() -> Iterator[Sequence[str]]:
        for step in steps:
            drawn.append(step)
            if step.documents:
                yield [document.text for document in step.documents]

    with closing(encode(texts())) as stream:
        for vectors in stream:
            while drawn and not drawn[0].documents:
                yield drawn.popleft(), nothing
            if not drawn:
                raise InvalidVectorsError("encode_stream must give vectors once a batch; it gave more")
            yield drawn.popleft(), vectors
    if any(step.documents for step in drawn):
        raise InvalidVectorsError(f"encode_stream must give vectors once a batch; {len(drawn)} batches have none")
    yield from ((step, nothing) for step in drawn)


class Behind:
    """Does one call at a time in a thread of its own, while the caller prepares the next.

    What a call raises is raised by the next `do`, by `wait`, or at the end of the `with` block; a block that
    ends by an exception of its own waits for the call under way, and that exception goes on. Without `threaded`
    a call is done at once.
    """

    def __init__(self, *, threaded: bool) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="m3retriever") if threaded else None
        self._under_way: Future[object] | None = None

    def do(self, call: Callable[[], object]) -> None:
        """Begin a call, when the one before has ended."""
        self.wait()
        if self._threads is None:
            call()
        else:
            self._under_way = self._threads.submit(call)

    def wait(self) -> None:
        """Let the call under way end."""
        call, self._under_way = self._under_way, None
        if call is not None:
            call.result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            if self._threads is not None:
                self._threads.shutdown()
            if self._under_way is not None and (second := self._under_way.exception()) is not None:
                logger.warning("storing failed as well: %s", type(second).__name__)  # its words may quote an id
