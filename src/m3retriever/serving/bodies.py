"""Reading a request's body: bounded in bytes, time and depth, and JSON in the strict sense.

NaN and Infinity, a name that comes twice, and lone surrogates (which are no text) are refused before anything is made of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from m3retriever.serving.refusals import Refused, client_gone, too_large

DEPTH = 32  # lists and objects in each other; a filter of many $and and $or has ten
LONG = 1 << 16  # bytes from which on parsing takes long enough to be done in a thread


class StrictRequest(Request):
    """A request whose body is read within the service's limits."""

    async def body(self) -> bytes:
        """All of it; Refused where it is too long, or takes too long to arrive."""
        if not hasattr(self, "_body"):
            settings = self.app.state.service.settings
            try:
                self._body = await asyncio.wait_for(self._read(settings.max_bytes), settings.timeout)
            except asyncio.TimeoutError:
                words = f"the body did not arrive within {settings.timeout:g} s"
                raise Refused(408, "timeout", words, Connection="close") from None
            except ClientDisconnect:
                raise client_gone() from None
        return self._body

    async def _read(self, most: int) -> bytes:
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise too_large("bytes", most, int(length[:20]))
        parts, size = list[bytes](), 0
        async for part in self.stream():
            parts.append(part)
            size += len(part)
            if size > most:
                raise too_large("bytes", most, size)
        return b"".join(parts)

    async def json(self) -> Any:
        """What it says; Refused where it is no strict JSON."""
        body = await self.body()
        return await asyncio.to_thread(parsed, body) if len(body) > LONG else parsed(body)


class StrictRoute(APIRoute):
    """A route whose requests are StrictRequests, and which takes nothing but JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, of a stricter request."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            if self.body_field is not None:
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "application/json":  # which a page of another site cannot send unasked
                    raise Refused(415, "unsupported_media_type", "the body is JSON: send Content-Type: application/json")
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def parsed(body: bytes) -> Any:
    """Strict JSON as Python values; Refused, with the place, for anything else."""
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_object)
    except RecursionError:
        raise _deep() from None
    except UnicodeDecodeError as error:
        raise _no_json(f"byte {error.start} is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise _no_json(f"{error.msg} at character {error.pos}") from None
    except ValueError as error:  # a constant, a name that comes twice, a number of thousands of digits
        raise _no_json(str(error)[:200]) from None
    _check(content)
    return content


def _check(content: Any) -> None:
    """Refuse what is nested deeper than anything that is asked here, and strings that are no text."""
    waiting: list[tuple[Any, int]] = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, dict | list):
            if depth > DEPTH:
                raise _deep()
            waiting += ((one, depth + 1) for one in (value.values() if isinstance(value, dict) else value))
            if isinstance(value, dict):
                waiting += ((name, depth) for name in value)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        words = f"a string holds a lone surrogate at its character {error.start}, which is no text: leave it out"
        raise Refused(400, "invalid_request", words) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # which one is not looked for: that could take the square of their number
        raise ValueError("an object has a name twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _no_json(reason: str) -> Refused:
    return Refused(400, "invalid_request", f"the body is not JSON: {reason}")


def _deep() -> Refused:
    return Refused(400, "invalid_request", f"lists and objects are at most {DEPTH} deep")
