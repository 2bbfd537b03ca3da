"""uvicorn under the service: how it ends, and what it logs."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from types import FrameType

import uvicorn

from m3retriever.serving.app import make_app
from m3retriever.serving.opening import Source
from m3retriever.serving.service import Service
from m3retriever.serving.settings import Settings

SIGNALLED = 128  # a shell's exit code for a process that a signal ended, plus the signal's number
DRAINING = 1.0  # seconds between the signal and the closed door, in which answers close their connections
BEYOND_TIMEOUT = 30  # seconds more than a request may wait, for its answer to be made and sent
BACKLOG = 2048  # connections that the system holds for us; uvicorn's own default


class Server(uvicorn.Server):
    """uvicorn's, that ends in steps: not ready any more, then no new connections, then all answers sent. Exit code 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._asked_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal lets the service end, a second one ends it at once."""
        if self._asked_at is not None:
            os._exit(SIGNALLED + sig)  # nothing is written by a service that could be left half done
        self._asked_at = time.monotonic()
        self._service.end()

    async def on_tick(self, counter: int) -> bool:
        """Whether to close the door: uvicorn asks ten times a second."""
        if self._asked_at is not None and time.monotonic() - self._asked_at >= DRAINING:
            self.should_exit = True
        return await super().on_tick(counter)

    def stop(self) -> None:
        """End without a signal; may be called from any thread."""
        self.should_exit = True


class _WithoutQuery(logging.Filter):
    """Leaves out of a line of the access log what follows the path."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) > 2:  # client, method, path, version, status
            client, method, path, *rest = record.args
            record.args = client, method, str(path).partition("?")[0], *rest
        return True


def run(source: Source, settings: Settings, listener: socket.socket, *, key: str | None, hosts: Sequence[str] | None) -> None:
    """Serve until a signal comes, or loading fails, which is raised."""
    service = Service(settings, source.open, on_failure=lambda: server.stop())
    _configure_access_log()
    config = uvicorn.Config(
        make_app(service, key=key, hosts=hosts),
        http="h11",  # one parser, whatever else is installed
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.timeout) + BEYOND_TIMEOUT,
    )
    server = Server(config, service)
    server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure


def _configure_access_log() -> None:
    """A line a request on stderr: when, who, what path, which status."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.addFilter(_WithoutQuery())
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [handler], False
    access.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
