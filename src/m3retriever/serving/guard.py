"""What every request passes before it is answered: the host's name, the key, the numbers, and the last line of defence."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Sequence

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3retriever.serving.refusals import CLIENT_GONE, error_response, unexpected
from m3retriever.serving.service import Service

logger = logging.getLogger(__name__)

OPEN = frozenset(["/healthz", "/readyz", "/metrics"])  # need no key
HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:\[\]]*)(?::\d*)?")
OTHER = "other"  # in the metrics, for every path that is none: their names are the clients' own


class Guard:
    """An ASGI app around the endpoints.

    Parameters
    ----------
    routes
        Paths that have a name in the metrics.
    key
        What clients must send as `Authorization: Bearer KEY`; None lets everyone in.
    hosts
        Names by which the service may be called, None for any. A service that listens on this machine alone is else reached
        from any web page, by a name of the page's own that was made to point here (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, service: Service, *, routes: Sequence[str], key: str | None, hosts: Sequence[str] | None
    ) -> None:
        self._app, self._service, self._routes = app, service, frozenset(routes)
        self._key = None if key is None else _digest(key.encode())
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), CLIENT_GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(MutableHeaders(scope=message))
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, counted)
        except asyncio.TimeoutError:  # of `Pieces`: the connection is closed for it
            logger.warning("a client did not take its answer and was left")
        except Exception as error:  # noqa: BLE001  # a client sees a sentence, not a traceback, and the log no texts
            response = unexpected(error)
            if status == CLIENT_GONE:
                await response(scope, receive, counted)
        finally:
            self._service.leave(scope)
            route = scope["path"] if scope["path"] in self._routes else OTHER
            self._service.numbers.answered(route, status, time.perf_counter() - began)

    def _complete(self, headers: MutableHeaders) -> None:
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Cache-Control"] = "no-store"
        if self._service.state == "ending":
            headers["Connection"] = "close"  # so that nobody asks again over a connection that is about to end

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that does not get in."""
        headers = Headers(scope=scope)
        if self._hosts is not None and (name := _name(headers.get("host", ""))) not in self._hosts:
            words = f"this service listens on this machine alone and is not called {name[:100]!r}: ask for 127.0.0.1"
            return error_response(421, "wrong_host", words)
        if self._key is None or scope["path"] in OPEN:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(given.strip().encode("latin-1")), self._key):
            return None
        words = "send Authorization: Bearer KEY, with the key of this service"
        return error_response(401, "unauthorized", words, {"WWW-Authenticate": "Bearer"})


def _digest(key: bytes) -> bytes:
    """Of one length, so that comparing takes one time."""
    return hashlib.sha256(key).digest()


def _name(host: str) -> str:
    """A Host header without its port; empty for one that is none."""
    found = HOST.fullmatch(host)
    return found[1].lower() if found else ""
