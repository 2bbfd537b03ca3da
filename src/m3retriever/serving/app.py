"""The FastAPI app: endpoints, errors, and what OpenAPI says about them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from m3retriever import __version__
from m3retriever.serving import refusals, routes
from m3retriever.serving.guard import OPEN, Guard
from m3retriever.serving.service import Service

DESCRIPTION = (
    "BGE-M3's three views of a text (dense, sparse, ColBERT), and an index searched by them. Every error is "
    '`{"error": {"message": ..., "type": ...}}`.'
)
OPENAPI = "/openapi.json"


class ServiceApp(FastAPI):
    """FastAPI, whose OpenAPI says what this service does: errors are 400 and never 422, and a key where there is one."""

    key_wanted = False

    def openapi(self) -> dict[str, Any]:
        """The specification, made once."""
        if self.openapi_schema is None:
            schema = super().openapi()
            _without_422(schema)
            if self.key_wanted:
                _with_key(schema)
            self.openapi_schema = schema
        return self.openapi_schema


def make_app(service: Service, *, key: str | None = None, hosts: Sequence[str] | None = None) -> FastAPI:
    """The app around a service, which begins and ends with it; `key` and `hosts` as of `Guard`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.begin()
        yield
        service.close()

    named = (OPENAPI, *(f"/v1/{name}" for name in NAMES), *sorted(OPEN))
    guard = Middleware(Guard, service=service, routes=named, key=key, hosts=hosts)
    about: dict[str, Any] = {"title": "m3retriever", "version": __version__, "description": DESCRIPTION}
    app = ServiceApp(
        lifespan=lifespan,
        middleware=[guard],
        docs_url=None,  # those pages would fetch code from elsewhere
        redoc_url=None,
        openapi_url=OPENAPI,
        redirect_slashes=False,
        **about,
    )
    app.key_wanted = key is not None
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(routes.health)
    refusals.install(app)
    return app


NAMES = ("encode", "tokenize", "similarity", "search", "explain", "rerank", "embeddings", "models")


def _without_422(schema: dict[str, Any]) -> None:
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _with_key(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in OPEN else [{"key": []}]
