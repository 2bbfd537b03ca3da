"""A running service: its model and index, the queue in front of the encoder, threads for the rest, and whether it is ready."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Scope

from m3retriever.serving.batching import Batcher, Call, Encoded
from m3retriever.serving.following import Follower
from m3retriever.serving.independence import grouping
from m3retriever.serving.numbers import Numbers
from m3retriever.serving.opening import Served
from m3retriever.serving.pieces import Pieces, Room
from m3retriever.serving.refusals import Refused, client_gone, too_large
from m3retriever.serving.settings import Settings
from m3retriever.types import Adopts

logger = logging.getLogger(__name__)

UNDER_WAY = "m3retriever.under_way"  # in the scope of a request that is counted

State = Literal["loading", "ready", "ending"]
Given = ParamSpec("Given")
Result = TypeVar("Result")

THREADS = max(2, min(8, os.cpu_count() or 2))  # searches and answers made at once; most of a search is outside Python's lock
WARM_UP = ("warm", "a sentence of a dozen words or so, to make the first request quick")
LOADING_AGAIN_IN = 2  # seconds after which a client may ask again
LONGEST_RETRY = 60  # seconds that a client is told to wait at most


class Service:
    """What the endpoints share. `begin` loads in a thread; until then, and while it ends, it is not ready.

    Attributes
    ----------
    failure : why loading failed; `on_failure` is called then
    """

    def __init__(self, settings: Settings, load: Callable[[], Served], on_failure: Callable[[], None] = lambda: None) -> None:
        self.settings, self.numbers = settings, Numbers()
        self.failure: Exception | None = None
        self._load, self._on_failure = load, on_failure
        self._served: Served | None = None
        self._ending = False
        self._batcher: Batcher | None = None
        self._follower: Follower | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="m3retriever-answer")
        self._under_way = 0  # changed in the event loop only
        self._room = Room(settings.max_answer_bytes)
        self._seconds = 0.0  # that a request waits for the encoder once it is in line, lately

    # -- life --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Load the model and the index, and encode something, behind the event loop's back."""
        threading.Thread(target=self._prepare, name="m3retriever-loading", daemon=True).start()

    def _prepare(self) -> None:
        try:
            served = self._load()
            group = grouping(served.encoder, joined=self.settings.batching == "joined")
            served.encoder.encode_documents(list(WARM_UP))
            served.encoder.encode_queries([WARM_UP[0]])
        except Exception as error:  # noqa: BLE001  # raised again by whoever runs the service
            self.failure = error
            self._on_failure()
            return
        self._batcher = Batcher(
            served.encoder,
            group=group,
            max_batch=self.settings.max_batch,
            wait=self.settings.batch_wait,
            on_pass=self.numbers.passed,
            on_turn=self.numbers.turned,
        )
        self._served = served
        if self.settings.refresh and served.index is not None and isinstance(served.index.store, Adopts):
            self._follower = Follower(served.index.store, self._batcher, every=self.settings.refresh)
        logger.info("ready: %s; requests %s passes", served.encoder.name, "do not share" if group is None else "share")

    def end(self) -> None:
        """From now on /readyz says no; what comes is answered still."""
        self._ending = True

    def close(self) -> None:
        """When nobody asks any more: end the threads, close the index."""
        self._ending = True
        if self._follower is not None:
            self._follower.close()
        if self._batcher is not None:
            self._batcher.close()
        self._threads.shutdown()
        if self._served is not None:
            self._served.close()

    # -- what it has -------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """How far its life has come."""
        return "ending" if self._ending else "loading" if self._served is None else "ready"

    @property
    def served(self) -> Served:
        """The model and the index; Refused while they are loaded."""
        if self._served is None:
            raise Refused(503, "not_ready", "the model is being loaded", retry_after=LOADING_AGAIN_IN)
        return self._served

    def gauges(self) -> dict[str, int]:
        """What changes up and down, for /metrics."""
        waiting = 0 if self._batcher is None else self._batcher.waiting
        held = {"http_under_way": self._under_way, "http_answer_bytes": self._room.taken}
        return {"ready": int(self.state == "ready"), **held, "encoder_waiting": waiting}

    # -- steps of an answer ------------------------------------------------------------------------

    def admit(self, request: Request) -> Served:
        """Count a request as under way, until its answer is sent; Refused where there are as many as may be, or nothing to
        answer it with."""
        served = self.served
        if self._under_way >= self.settings.queue:
            words = f"{self.settings.queue} requests are waiting already: ask again later"
            raise Refused(429, "queue_full", words, retry_after=self._again_in())
        self._under_way += 1
        request.scope[UNDER_WAY] = True
        return served

    def leave(self, scope: Scope) -> None:
        """A request has ended, in whatever way."""
        self._room.leave(scope)
        if scope.pop(UNDER_WAY, False):
            self._under_way -= 1

    def check_size(self, texts: Sequence[str]) -> None:
        """Refused where a request has more texts or characters than it may have."""
        if len(texts) > self.settings.max_texts:
            raise too_large("texts", self.settings.max_texts, len(texts))
        if (characters := sum(map(len, texts))) > self.settings.max_characters:
            raise too_large("characters", self.settings.max_characters, characters)

    def check_rows(self, texts: Sequence[str]) -> None:
        """Refused where the token vectors of so many characters are not sent as numbers."""
        if (characters := sum(map(len, texts))) > (most := self.settings.max_row_characters):
            words = f"token vectors of at most {most:,} characters are sent as rows; got {characters:,}"
            raise Refused(413, "too_large", f"{words}: ask for columns, or fewer texts, or leave colbert out of modes")

    async def encode(self, request: Request, *calls: Call) -> list[Encoded]:
        """The calls' answers, in order, when it is their turn.

        Refused where that takes longer than the service lets wait, or the client goes away meanwhile: calls that have not
        begun are then never made.
        """
        batcher = self._batcher
        if batcher is None:
            raise Refused(503, "not_ready", "the model is being loaded", retry_after=LOADING_AGAIN_IN)
        began, future = time.monotonic(), batcher.ask(calls)
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # one that nobody waits for is no news
        gone = asyncio.ensure_future(_gone(request))
        try:
            both: set[asyncio.Future[Any]] = {answer, gone}
            await asyncio.wait(both, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not answer.done():
                raise client_gone()
            if not answer.done() and batcher.drop(future):
                words = f"it was not this request's turn within {self.settings.timeout:g} s; nothing was done"
                raise Refused(503, "waited_too_long", words, retry_after=self._again_in())
            return await answer
        finally:
            gone.cancel()
            batcher.drop(future)
            self._seconds += (time.monotonic() - began - self._seconds) / 8  # of the last eight or so

    async def in_thread(self, function: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
        """A function in one of the service's few threads, in a copy of this context."""
        call = partial(copy_context().run, partial(function, *given, **named))
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def make_room(self, request: Request, size: int) -> None:
        """Count so many bytes of an answer until it is sent or its client is gone; Refused where there are too many already."""
        if not self._room.take(request.scope, size):
            words = f"answers of {self.settings.max_answer_bytes:,} bytes are being sent already: ask again later"
            raise Refused(503, "answers_under_way", words, retry_after=self._again_in())

    async def answer(
        self, request: Request, make: Callable[Given, dict[str, Any]], *given: Given.args, **named: Given.kwargs
    ) -> Response:
        """What a function makes, as JSON; making and writing it are done in a thread."""

        def written() -> bytes:
            content = make(*given, **named)
            return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")

        body = await self.in_thread(written)
        self.make_room(request, len(body))
        return Pieces(body, patience=self.settings.timeout)

    def _again_in(self) -> int:
        return max(1, min(LONGEST_RETRY, math.ceil(self._seconds)))


async def _gone(request: Request) -> None:
    """Returns when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
