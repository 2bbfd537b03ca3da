"""Learning, while a service runs, what other clients of a Chroma server have changed, without holding up who asks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future

from m3retriever.serving.batching import Batcher, Call, Encoded
from m3retriever.types import Adopts, M3Vectors

logger = logging.getLogger(__name__)

AT_ONCE = 8  # texts of a call: few enough that a request which comes meanwhile hardly waits
PATIENCE = 5.0  # seconds that `close` waits for the thread, which may be listening to a server that does not answer


class Follower:
    """Looks at a store every so many seconds, in a thread; asks for vectors as any request does, of a few texts at a time."""

    def __init__(self, store: Adopts, batcher: Batcher, *, every: float) -> None:
        self._store, self._batcher, self._every = store, batcher, every
        self._closing = threading.Event()
        self._asked: Future[list[Encoded]] | None = None
        self._thread = threading.Thread(target=self._work, name="m3retriever-refresh", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Drop what has not begun and end the thread; to be called before the batcher is closed."""
        self._closing.set()
        if self._asked is not None:
            self._batcher.drop(self._asked)
        self._thread.join(PATIENCE)

    def _work(self) -> None:
        while not self._closing.wait(self._every):
            try:
                self._store.adopt(self._encode)
            except Exception as error:  # noqa: BLE001  # the server is away, or this service ends: the next look will tell
                if not self._closing.is_set():
                    logger.warning("what other clients have changed could not be learnt: %s", type(error).__name__)

    def _encode(self, texts: Sequence[str]) -> M3Vectors:
        """The vectors of documents; CancelledError when the service ends meanwhile."""
        starts = range(0, len(texts), AT_ONCE)
        return M3Vectors.concat([self._few(tuple(texts[start : start + AT_ONCE])) for start in starts])

    def _few(self, texts: tuple[str, ...]) -> M3Vectors:
        self._asked = self._batcher.ask([Call("document", texts)])
        if self._closing.is_set():  # looked at after asking, as `close` drops after setting it: one of the two sees the other
            self._batcher.drop(self._asked)
            raise CancelledError
        [made] = self._asked.result()
        return made.vectors
