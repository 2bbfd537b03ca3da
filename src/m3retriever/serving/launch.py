"""Start the service: what can be refused is refused before anything is loaded. Imports neither FastAPI nor uvicorn."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable

from m3retriever.errors import InvalidArgumentError, MissingExtraError
from m3retriever.hosts import LOOPBACK, listening
from m3retriever.serving.opening import Source
from m3retriever.serving.settings import Settings

logger = logging.getLogger(__name__)

KEY = "M3RETRIEVER_API_KEY"  # in the environment, for a command line can be seen by others
NAMES_OF_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # as a Host header has them
DEFAULT_PORT = 7860


def serve(
    source: Source,
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    allow_remote: bool = False,
    on_listening: Callable[[str], object] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; to be called from the main thread.

    Parameters
    ----------
    port
        0 takes one that is free.
    allow_remote
        Take a host that other machines can reach.
    on_listening
        Told the address as soon as requests can come; the model is loaded after that.

    Raises
    ------
    MissingExtraError
        FastAPI or uvicorn is not installed.
    InvalidArgumentError
        The host is not this machine's own and `allow_remote` is not given; there is no such port, or it is taken; the key in
        the environment is no key.
    """
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra="serve")
    key = key_from(os.environ.get(KEY))
    local = host in LOOPBACK
    if not local and not allow_remote:
        raise InvalidArgumentError(
            f"host must be one of {', '.join(LOOPBACK)}; got {host!r}: forward the port (ssh -L), or give --allow-remote"
        )
    listener = listening(host, port)  # requests that come before the server runs wait in it
    if not local and key is None:
        logger.warning("other machines can reach this service, and no key is asked for: set %s", KEY)
    from m3retriever.serving.server import run

    shown = f"[{host}]" if ":" in host else host
    on_listening(f"http://{shown}:{listener.getsockname()[1]}")
    run(source, settings, listener, key=key, hosts=NAMES_OF_LOOPBACK if local else None)


def key_from(given: str | None) -> str | None:
    """The key that clients must send; None where there is none. InvalidArgumentError for one that no header can hold."""
    if given is not None and not (given and given.isascii() and given.isprintable() and " " not in given):
        raise InvalidArgumentError(f"{KEY} must be printable ASCII without blanks, or not set; it is set to something else")
    return given
