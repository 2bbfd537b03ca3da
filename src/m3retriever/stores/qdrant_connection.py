"""A QdrantStore's way to Qdrant: the client, what goes wrong with it in words, and the collection's own settings.

Qdrant's local mode (a folder, or memory) is not made for threads, so calls to one such client come one at a time,
whichever store makes them. A server's client may be called from any number of threads.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from m3retriever.checks import as_path
from m3retriever.errors import (
    MOST_SHOWN,
    InvalidArgumentError,
    MissingExtraError,
    StoreError,
    StoreLockedError,
    shown,
)
from m3retriever.hosts import is_this_machine
from m3retriever.stores.names import collection_name

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

API_KEY = "QDRANT_API_KEY"  # in the environment
OLDEST = (1, 16)  # of servers: the first that keeps metadata of a collection
LONGEST_NAME = 255  # characters of a collection's name
PORT, GRPC_PORT, TIMEOUT = 6333, 6334, 60
META_FILE, LOCK_FILE = "meta.json", ".lock"  # of a local folder: what collections it has, and whether it is open
REFUSED = (401, 403)  # HTTP: no key, or one that may not do this
CLOSED = "this store is closed; open it again"

_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()  # by client of local mode
_making_locks = threading.Lock()


@dataclass(frozen=True)
class Address:
    """Where Qdrant is: exactly one of a server's address, a folder of local mode, and a client of the caller's."""

    url: str | None = None
    path: Path | None = None
    client: QdrantClient | None = None

    @classmethod
    def of(cls, url: str | None, path: str | Path | None, client: QdrantClient | None) -> Address:
        """InvalidArgumentError for none or several of them, and for what is none."""
        if sum(given is not None for given in (url, path, client)) != 1:
            raise InvalidArgumentError("QdrantStore takes exactly one of url, path and client")
        check_installed()
        from qdrant_client import QdrantClient as Client

        if client is not None and not isinstance(client, Client):
            raise InvalidArgumentError(f"client must be a qdrant_client.QdrantClient; got {type(client).__name__}")
        if url is not None:
            _check_url(url)
        return cls(url, None if path is None else as_path(path, "path must name a folder"), client)

    def __str__(self) -> str:
        return f"Qdrant at {self.url}" if self.url else f"Qdrant's folder {self.path}" if self.path else "the Qdrant client"


class Connection:
    """A client, and one collection of it.

    Attributes
    ----------
    name : of the collection
    local : whether it is local mode, which knows no indexes and no threads
    """

    def __init__(
        self,
        address: Address,
        name: str | None,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        prefer_grpc: bool = False,
        grpc_port: int = GRPC_PORT,
    ) -> None:
        self.name = collection_name(name)
        if len(self.name) > LONGEST_NAME:
            raise InvalidArgumentError(
                f"Qdrant takes collection names of at most {LONGEST_NAME} characters; got {len(self.name)}"
            )
        self._address = address
        self._key = _checked_key(address, api_key)
        if address.client is not None:
            self._client = address.client
        elif address.path is not None:
            self._client = _local_client(address.path)
        else:
            headers = {} if self._key is None else {"api-key": self._key}
            self._client = _server_client(str(address.url), headers, timeout, prefer_grpc, grpc_port)
        self.local = _is_local(self._client)
        self._lock = _lock_of(self._client) if self.local else None
        close = self._client.close if address.client is None else _leave_open
        self._close = weakref.finalize(self, close)
        try:
            self._check_version()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **arguments: Any) -> Any:
        """A method of the client on the collection; StoreError where Qdrant or the way to it fails."""
        return self._call(method, collection_name=self.name, **arguments)

    def exists(self) -> bool:
        """Whether there is such a collection."""
        return bool(self.call("collection_exists"))

    def pages(self, *, filter: Any, payload: list[str], limit: int) -> Iterator[list[Any]]:
        """The records that pass a filter, all of them without one, a page at a time, in the order of their points' ids."""
        offset: Any = None
        while True:
            page, offset = self.call(
                "scroll", scroll_filter=filter, limit=limit, offset=offset, with_payload=payload, with_vectors=False
            )
            if page:
                yield page
            if offset is None:
                return

    def alone(self) -> AbstractContextManager[Any]:
        """Keep other threads from this client meanwhile, where it is local mode."""
        return self._lock if self._lock is not None else nullcontext()

    def check_open(self) -> None:
        """StoreError after `close`."""
        if not self._close.alive:
            raise StoreError(CLOSED)

    def close(self) -> None:
        """Let go of the client; one of the caller's stays open."""
        with self.alone():
            self._close()

    def _call(self, method: str, **arguments: Any) -> Any:
        with self.alone():
            self.check_open()
            try:
                return getattr(self._client, method)(**arguments)
            except Exception as error:  # the network's, the server's, and those of local mode, which are ValueError and others
                raise StoreError(f"{self._address} failed to {method.replace('_', ' ')}: {self._in_words(error)}") from error

    def _in_words(self, error: BaseException) -> str:
        """What went wrong, shortened, and never with the key in it."""
        status = getattr(error, "status_code", None)
        if status in REFUSED:
            return f"it refuses us ({status}): give the key as api_key, or as {API_KEY} in the environment"
        error = getattr(error, "source", error)  # of what went wrong on the way there or back
        details = getattr(error, "details", None)  # gRPC's words
        text = " ".join(str(details() if callable(details) else error).split())
        text = text.replace(self._key, "***") if self._key else text
        return f"{type(error).__name__}: {text if len(text) <= 2 * MOST_SHOWN else text[: 2 * MOST_SHOWN] + '...'}"

    def _check_version(self) -> None:
        if self.local:
            return
        version = str(self._call("info").version)
        numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2] if part.isdigit())
        if numbers < OLDEST:
            raise StoreError(
                f"{self._address} is version {version}; want {'.'.join(map(str, OLDEST))} or newer: update the server"
            )


def check_installed() -> None:
    """MissingExtraError without qdrant-client."""
    try:
        import qdrant_client  # noqa: F401  # only whether it is there
    except ImportError:
        raise MissingExtraError("qdrant-client", "qdrant") from None


def collections_in_folder(path: Path) -> list[str]:
    """Names of the collections in a folder of local mode; looks without creating anything."""
    try:
        held = json.loads((path / META_FILE).read_text(encoding="utf-8"))["collections"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read as a folder of Qdrant's local mode: {error}") from error
    return list(held) if isinstance(held, Mapping) else []


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        secret = parts.username is not None or parts.password is not None
        good = good and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        good, secret = False, False
    if secret:
        raise InvalidArgumentError(f"url holds no password: give the key as api_key, or as {API_KEY} in the environment")
    if not good:
        raise InvalidArgumentError(f"url must be such as http://localhost:{PORT} or https://host:{PORT}; got {shown(url)}")


def _checked_key(address: Address, given: str | None) -> str | None:
    """The key for a server; InvalidArgumentError where it would go over the network unencrypted."""
    if address.url is None:
        if given is not None:
            raise InvalidArgumentError("api_key goes with url: a client has its own, and a folder needs none")
        return None
    key = os.environ.get(API_KEY) or None if given is None else given
    if key is None:
        return None
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or key != key.strip() or not key:
        raise InvalidArgumentError("api_key must be a non-empty str of printable ASCII characters")
    if urlsplit(address.url).scheme == "http" and not is_this_machine(urlsplit(address.url).hostname or ""):
        raise InvalidArgumentError(
            f"an API key over plain http can be read on its way to {urlsplit(address.url).hostname}: use https://, or take "
            f"the key away (api_key, {API_KEY})"
        )
    return key


def _server_client(url: str, headers: dict[str, str], timeout: float, prefer_grpc: bool, grpc_port: int) -> QdrantClient:
    from qdrant_client import QdrantClient

    # the key as a header: given as api_key, it is a warning on every http address, this machine's too
    return QdrantClient(
        url=url,
        headers=headers,
        timeout=int(-(-timeout // 1)),
        prefer_grpc=prefer_grpc,
        grpc_port=grpc_port,
        check_compatibility=False,  # which asks in a thread of its own and warns: `_check_version` says it in words
    )


def _local_client(path: Path) -> QdrantClient:
    from qdrant_client import QdrantClient

    _refuse_if_taken(path)
    try:
        return QdrantClient(path=str(path), force_disable_check_same_thread=True)  # threads take turns: `Connection.alone`
    except Exception as error:
        raise StoreError(f"{path} cannot be opened as a folder of Qdrant's local mode: {shown(error)}") from error


def _refuse_if_taken(path: Path) -> None:
    """StoreLockedError where a folder is open; the client itself would say so only after reading it, and leave files open."""
    import portalocker  # which qdrant-client needs for its local mode

    if not (path / LOCK_FILE).is_file():
        return
    with (path / LOCK_FILE).open("r+") as held:
        try:
            portalocker.lock(held, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException as error:
            raise StoreLockedError(
                f"another store, or another process, has {path} open: Qdrant's local mode takes one at a time; close it, "
                "or use a server"
            ) from error
        portalocker.unlock(held)


def _is_local(client: QdrantClient) -> bool:
    from qdrant_client.local.qdrant_local import QdrantLocal

    return isinstance(client._client, QdrantLocal)


def _lock_of(client: QdrantClient) -> threading.RLock:
    with _making_locks:
        return _locks.setdefault(client, threading.RLock())


def _leave_open() -> None:
    """A client of the caller's is the caller's to close."""
