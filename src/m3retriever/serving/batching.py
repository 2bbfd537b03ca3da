"""The queue in front of the encoder: one pass at a time in a thread of its own, and requests that wait are taken together.

A request asks for calls of the encoder, just those that the library would make for it. Calls that are equal are made once.
Calls of different requests share a pass only where they are of one group (`independence.py`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from m3retriever.checks import check_encoded
from m3retriever.types import Encoder, M3Vectors

logger = logging.getLogger(__name__)

Kind = Literal["document", "query"]


class Call(NamedTuple):
    """One call of the encoder: `encode_documents(texts)` or `encode_queries(texts)`."""

    kind: Kind
    texts: tuple[str, ...]


Grouping: TypeAlias = Callable[[Call], Hashable]
"""The group of a call: calls of one group may share a pass; None for one that shares with none."""


class Encoded(NamedTuple):
    """What a call gave: a row for each text, and how many of the texts were cut."""

    vectors: M3Vectors
    truncated: int


@dataclass(eq=False)
class _Asked:
    """The calls of one request, and where the answers go."""

    calls: tuple[Call, ...]
    future: Future[list[Encoded]] = field(default_factory=Future)

    @property
    def texts(self) -> int:
        return sum(len(call.texts) for call in self.calls)

    @property
    def waits(self) -> bool:
        return not (self.future.running() or self.future.done())

    def begin(self) -> bool:
        """Whether it is still wanted; from now on it cannot be dropped."""
        return self.future.set_running_or_notify_cancel()


class Batcher:
    """Makes the calls that requests ask for, in the order in which they came.

    Parameters
    ----------
    group
        Which calls of different requests may be encoded in one pass; None where none may.
    max_batch
        Texts taken in one turn, but for a request that has more by itself.
    wait
        Seconds that a turn waits for more requests, where they can share its pass.
    on_pass, on_turn
        Told the number of texts of each pass, and the number of requests of each turn.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        group: Grouping | None,
        max_batch: int,
        wait: float,
        on_pass: Callable[[int], None],
        on_turn: Callable[[int], None],
    ) -> None:
        self._encoder, self._group, self._max_batch = encoder, group, max_batch
        self._wait = 0.0 if group is None else wait
        self._on_pass, self._on_turn = on_pass, on_turn
        self._changed = threading.Condition()
        self._queue: deque[_Asked] = deque()
        self._turn: list[_Asked] = []
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="m3retriever-encoder", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests whose calls have not begun."""
        with self._changed:
            return sum(asked.waits for asked in (*self._queue, *self._turn))

    def ask(self, calls: Iterable[Call]) -> Future[list[Encoded]]:
        """Put the calls of a request in line; the future gives an answer for each, or the first one's error."""
        asked = _Asked(tuple(calls))
        with self._changed:
            if self._closed:
                asked.future.set_exception(RuntimeError("the batcher is closed"))
                return asked.future
            self._queue.append(asked)
            self._changed.notify()
        return asked.future

    def drop(self, future: Future[list[Encoded]]) -> bool:
        """Take a request out of the line; False where its calls have begun. What is dropped holds no memory here."""
        if not future.cancel():
            return False
        with self._changed:
            self._queue = deque(asked for asked in self._queue if asked.future is not future)
        return True

    def close(self) -> None:
        """Answer what is in line, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    # -- the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._take() or not self._closed:
            if self._turn:  # none where all that waited were dropped
                self._on_turn(len(self._turn))
                self._answer(self._turn)
                self._turn = []

    def _take(self) -> bool:
        """Wait for requests, and take those of a turn; whether there are any."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._wait and not self._closed:
                self._changed.wait_for(self._is_full, timeout=self._wait)
            turn: list[_Asked] = []
            while self._queue and (not turn or sum(one.texts for one in turn) + self._queue[0].texts <= self._max_batch):
                turn.append(self._queue.popleft())
            self._turn = turn
        return bool(turn)

    def _is_full(self) -> bool:
        return self._closed or sum(asked.texts for asked in self._queue) >= self._max_batch

    def _answer(self, turn: list[_Asked]) -> None:
        """Each request as soon as its calls are made; where passes are shared, all of them are made first."""
        known: dict[Call, Encoded] = {}
        if self._group is not None:
            turn = [asked for asked in turn if asked.begin()]
            known = self._together(turn, self._group)
        for asked in turn:
            if self._group is None and not asked.begin():
                continue
            try:
                asked.future.set_result([self._made(call, known) for call in asked.calls])
            except Exception as error:  # noqa: BLE001  # it is the request's, and must not end the thread
                asked.future.set_exception(error)

    def _made(self, call: Call, known: dict[Call, Encoded]) -> Encoded:
        if call not in known:
            known[call] = self._encode(call.kind, call.texts)
        return known[call]

    def _together(self, turn: Sequence[_Asked], group: Grouping) -> dict[Call, Encoded]:
        """Answers to calls that could share a pass; what failed or was cut is left to be made call by call, so that an error
        or a cut text is told to the request that it belongs to."""
        groups: dict[tuple[Kind, Hashable], list[Call]] = {}
        for call in dict.fromkeys(call for asked in turn for call in asked.calls):
            if (key := group(call)) is not None:
                groups.setdefault((call.kind, key), []).append(call)
        known: dict[Call, Encoded] = {}
        for (kind, _), calls in groups.items():
            if len(calls) > 1:
                known |= self._in_one_pass(kind, calls)
        return known

    def _in_one_pass(self, kind: Kind, calls: Sequence[Call]) -> dict[Call, Encoded]:
        row_of = {text: row for row, text in enumerate(dict.fromkeys(text for call in calls for text in call.texts))}
        try:
            vectors, cut = self._encode(kind, tuple(row_of))
        except Exception as error:  # noqa: BLE001  # raised again, to whom it concerns
            logger.info("a shared pass failed (%s): its calls are made one by one", type(error).__name__)
            return {}
        if cut:
            return {}
        return {call: Encoded(vectors.take([row_of[text] for text in call.texts]), 0) for call in calls}

    def _encode(self, kind: Kind, texts: tuple[str, ...]) -> Encoded:
        encode = self._encoder.encode_documents if kind == "document" else self._encoder.encode_queries
        before = getattr(self._encoder, "truncated", 0)  # which nobody else changes: all passes are made here
        vectors = check_encoded(encode(list(texts)), len(texts))
        self._on_pass(len(texts))
        return Encoded(vectors, getattr(self._encoder, "truncated", 0) - before)
