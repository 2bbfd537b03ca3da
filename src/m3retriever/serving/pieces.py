"""Sending an answer so that a client which does not read it costs its room for a while only."""

from __future__ import annotations

import asyncio

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

PIECE = 1 << 20  # bytes


class Pieces(Response):
    """JSON sent piece by piece. A client that takes none for `patience` seconds is left: asyncio.TimeoutError.

    An answer of token vectors may have hundreds of megabytes. In one piece they would lie in the socket's buffer, uncounted,
    for as long as a client likes.
    """

    media_type = "application/json"

    def __init__(self, content: bytes, *, patience: float) -> None:
        super().__init__(content)
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then the body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for start in range(0, max(1, len(body)), PIECE):
            message = {
                "type": "http.response.body",
                "body": bytes(body[start : start + PIECE]),
                "more_body": start + PIECE < len(body),
            }
            await asyncio.wait_for(send(message), self._patience)
