"""How a request is refused: a status, a word for programs, a sentence for people, always as the same JSON."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from m3retriever.errors import (
    DamagedIndexError,
    DeviceMemoryError,
    InvalidArgumentError,
    InvalidVectorsError,
    M3RetrieverError,
    ServiceError,
    StoreError,
    UnknownDocumentError,
    shown,
)

logger = logging.getLogger(__name__)

WORDS = {  # the type of an error that has no better word, by its status
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    500: "internal_error",
}
CLIENT_GONE = 499  # of nobody: in the metrics it stands for clients that went away
BACK_IN = 5  # seconds after which a server that was away may be asked again
MOST_SAID = 5  # things that are wrong with a body


class Refused(HTTPException):
    """A request that is not answered: its status, a word for programs and a sentence."""

    def __init__(self, status: int, kind: str, message: str, *, retry_after: int | None = None, **headers: str) -> None:
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        super().__init__(status, message, headers or None)
        self.kind = kind


def too_large(what: str, most: int, got: int) -> Refused:
    """More than this service takes at once."""
    return Refused(413, "too_large", f"a request has at most {most:,} {what}; got {got:,}: send several")


def client_gone() -> Refused:
    """Nobody is there to read the answer."""
    return Refused(CLIENT_GONE, "client_gone", "the client went away; nothing more was done for it")


def error_response(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The JSON of every error."""
    said = message.encode("utf-8", "replace").decode()  # a message may quote what came
    return JSONResponse({"error": {"message": said, "type": kind}}, status, headers=headers)


def unexpected(error: Exception) -> JSONResponse:
    """Something that should not have happened: where goes to the log, without the error's words, which may quote a text."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected %s\n%s", type(error).__name__, frames)
    return error_response(500, WORDS[500], f"unexpected {type(error).__name__}; the service's log says where")


def install(app: FastAPI) -> None:
    """Let the app answer every error in this way."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(M3RetrieverError, _failed)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Refused):
        return error_response(error.status_code, error.kind, error.detail, error.headers)
    status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
    allowed = f": use {headers['Allow']}" if headers and "Allow" in headers else ""
    words = {404: "there is nothing at this path; GET /openapi.json lists what there is", 405: f"not with this method{allowed}"}
    return error_response(status, WORDS.get(status, "error"), words.get(status, str(getattr(error, "detail", ""))), headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    found: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
    said = [_sentence(one) for one in found[:MOST_SAID]] + (["and more"] if len(found) > MOST_SAID else [])
    return error_response(400, WORDS[400], "; ".join(dict.fromkeys(said)))


def _sentence(one: Mapping[str, Any]) -> str:
    """What is wrong with which part; never the value itself, which may be long."""
    place = ".".join(str(part) if isinstance(part, int) else shown(part)[1:-1] for part in one["loc"][1:])
    words = str(one["msg"]).removeprefix("Value error, ")
    return f"{place or 'the body'}: {words[:1].lower()}{words[1:]}"


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """An error of the library: the caller's, or the service's own, whose words stay here, for they may quote a document."""
    if isinstance(error, UnknownDocumentError):
        return error_response(404, "unknown_document", str(error))
    if isinstance(error, DeviceMemoryError):
        return error_response(413, WORDS[413], str(error))
    if isinstance(error, InvalidArgumentError) and not isinstance(error, InvalidVectorsError):
        return error_response(400, WORDS[400], str(error))
    if isinstance(error, StoreError | ServiceError):
        return _away(error)
    return unexpected(error)


def _away(error: StoreError | ServiceError) -> JSONResponse:
    """What the service itself asks does not answer. Its error's words stay here: they may hold an address, or a text."""
    logger.error("%s while a request was answered", type(error).__name__)
    if isinstance(error, DamagedIndexError):
        words = "the index is damaged: run m3retriever verify and m3retriever repair where it lies"
        return error_response(500, "damaged_index", words)
    what, kind = ("index's store", "store") if isinstance(error, StoreError) else ("model's server", "model")
    words = f"the {what} does not answer as it should: ask again later"
    return error_response(503, f"{kind}_unavailable", words, {"Retry-After": str(BACK_IN)})
