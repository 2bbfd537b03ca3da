"""Sending answers so that clients which read slowly, or not at all, cost bounded room for a bounded time."""

from __future__ import annotations

import asyncio
import time

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

PIECE = 1 << 16  # bytes: what the slowest client takes in four seconds
SLOWEST = 16 << 10  # bytes a second that a client must take
SMALL = 1 << 20  # bytes of an answer that takes no room: the service's queue bounds how many there are
HELD = "m3retriever.answer_bytes"  # in the scope of a request whose answer takes room


class Room:
    """Bytes of large answers that are being made or sent. For the event loop's thread only."""

    def __init__(self, most: int) -> None:
        self.taken, self._most = 0, most

    def take(self, scope: Scope, size: int) -> bool:
        """Let a request's answer take so many bytes, instead of those it had; False, and nothing taken, where others leave too
        little. One that is small, takes no more than before, or is the only large one always fits."""
        before = scope.get(HELD, 0)
        self.leave(scope)
        if size <= SMALL:
            return True
        if size > before and self.taken and self.taken + size > self._most:
            return False
        self.taken += size
        scope[HELD] = size
        return True

    def leave(self, scope: Scope) -> None:
        """Give back what a request's answer took."""
        self.taken -= scope.pop(HELD, 0)


class Pieces(Response):
    """JSON sent piece by piece. A client that falls `patience` seconds behind the slowest pace is left: asyncio.TimeoutError.

    What it takes faster earns it no more than those seconds, so that one which stops is left soon. In one piece a large answer
    would lie in the socket's buffer, uncounted, for as long as a client likes.
    """

    media_type = "application/json"

    def __init__(self, content: bytes, *, patience: float, slowest: float = SLOWEST) -> None:
        super().__init__(content)
        self._patience, self._slowest = patience, slowest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then the body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        due = time.monotonic() + self._patience
        for start in range(0, max(1, len(body)), PIECE):
            piece = bytes(body[start : start + PIECE])
            now = time.monotonic()
            due = min(due, now + self._patience) + len(piece) / self._slowest
            message = {"type": "http.response.body", "body": piece, "more_body": start + PIECE < len(body)}
            await asyncio.wait_for(send(message), max(0.0, due - now))
