"""A ChromaStore's way to Chroma: client, collection, and the folder of the payload.

An embedded engine never learns what another one wrote: its vector index stays as it was, and even `get`
does not show what a killed process had only just logged. A connection to a folder therefore has an engine
of its own, and `renew` opens another. A server takes so many records a call: what is more goes in several.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3retriever.errors import InvalidArgumentError, InvalidFilterError, StoreError
from m3retriever.stores import database
from m3retriever.stores.chroma_server import CLOUD, Limits, client_of, close_client, limits_of
from m3retriever.stores.database import DATABASE, payload_folder
from m3retriever.stores.folder_engine import NO_FORK, PANIC, FolderEngine, pass_on_what_is_not_chromas
from m3retriever.stores.inside import check_inside
from m3retriever.stores.names import collection_name
from m3retriever.stores.space import when_full
from m3retriever.stores.tables import Tables
from m3retriever.vectors import FloatArray

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

CACHE = Path(".cache", "m3retriever")  # in the user's home: payloads of servers, which can be rebuilt from the texts
NOTED = "m3retriever_"  # how keys of a collection's metadata begin that are ours
NOTED_BYTES = 256  # of a value, which Chroma Cloud takes
CORE_ERROR = "InternalError"  # Chroma's name for what goes wrong in its core
RETIRED_KEPT = 3  # engines that are kept for calls under way when others take their place
FILES = (DATABASE, f"{DATABASE}-wal")  # the second where someone has set the database to keep a log
NOBODY = "m3retriever: no document"  # an id that nothing has
JUST_NOW = 50_000_000  # nanoseconds: file times go by ticks of up to 10 ms
EF_SEARCH = 800  # HNSW's candidate list: at least twice the depth keeps recall up on clustered data
INDEX = {"hnsw": {"space": "cosine", "ef_search": EF_SEARCH}}
CLOUD_INDEX = {"spann": {"space": "cosine"}}  # Chroma Cloud has no HNSW


class Connection:
    """One collection of a folder, of a client of the caller's, or of a server.

    Attributes
    ----------
    collection : the Chroma collection; `renew` replaces it
    remote : whether a server answers, whose vector index is never behind
    limits : what the server takes; no limits for a folder
    """

    collection: Collection

    def __init__(
        self,
        name: str | None,
        *,
        path: str | Path | None = None,
        client: ClientAPI | None = None,
        host: str | None = None,
        port: int = 0,
        create: bool = True,
        limits: Limits | None = None,
        **server: Any,
    ) -> None:
        if sum(given is not None for given in (path, client, host)) != 1:
            raise InvalidArgumentError("ChromaStore takes exactly one of path, client and host")
        self._name, self._create = collection_name(name), create
        self._retired: list[FolderEngine] = []
        self._failed: FolderEngine | None = None
        self._replacing = threading.Lock()
        self._to_close: ClientAPI | None = None  # a server's client of our own
        if path is not None:
            FolderEngine.refuse_in_child(path)  # before SQLite is used: the parent's threads may have held its locks
            check_inside(path)
            database.check_not_lost(Path(path))
            database.check_whole(Path(path))
            database.check_links(Path(path), self._name)
        self._engine = FolderEngine(path) if path is not None else None
        if self._engine is not None:
            self._client = self._engine.client
        else:
            self._client = client if client is not None else client_of(str(host), port, **server)
            self._to_close = None if client is not None else self._client
        settings = self._client.get_settings()
        self.remote = "fastapi" in settings.chroma_api_impl.lower()
        self._folder = Path(settings.persist_directory).resolve() if settings.is_persistent and not self.remote else None
        try:
            self.limits = limits or (limits_of(self._client) if self.remote else Limits())
            self._calls = nullcontext() if self.limits.calls is None else threading.BoundedSemaphore(self.limits.calls)
            self.collection = self._collection_of(self._client)
        except BaseException:
            self.close()
            raise

    @property
    def renewable(self) -> bool:
        """Whether `renew` makes the vector index fresh; a caller's embedded client stays as it is."""
        return self._engine is not None or self.remote

    @property
    def in_a_child(self) -> str:
        """What to do in a child of the process that opened it."""
        return "open it again in the child" if self.remote else NO_FORK

    def get(self, **arguments: Any) -> Any:
        """The collection's `get`; StoreError where Chroma fails. Of a `limit` that the server does not take, fewer come."""
        most = self.limits.records
        if most is None:
            return self._call("get", arguments)
        if "ids" in arguments:
            return _joined([self._call("get", {**arguments, **part}) for part in _parts({"ids": arguments["ids"]}, most)])
        if "limit" in arguments:
            return self._call("get", {**arguments, "limit": min(arguments["limit"], most)})
        pages = [self._call("get", {**arguments, "limit": most, "offset": 0})]
        while len(pages[-1]["ids"]) == most:
            pages.append(self._call("get", {**arguments, "limit": most, "offset": most * len(pages)}))
        return _joined(pages)

    def nearest(self, vector: FloatArray, count: int) -> list[str]:
        """Ids of the documents whose dense vectors are nearest, by HNSW: nearly the best ones."""
        found: list[str] = self._call("query", {"query_embeddings": [vector], "n_results": count, "include": []})["ids"][0]
        return found

    @property
    def ef_search(self) -> int:
        """Length of HNSW's candidate list: more than half of it should not be asked for."""
        return int((self.collection.configuration_json.get("hnsw") or {}).get("ef_search") or 0)

    def upsert(self, **arguments: Any) -> None:
        """The collection's `upsert`."""
        for part in _parts(arguments, self.limits.records):
            self._call("upsert", part)

    def update(self, **arguments: Any) -> None:
        """The collection's `update`."""
        for part in _parts(arguments, self.limits.records):
            self._call("update", part)

    def stamp(self) -> str | None:
        """What the last of our writers left at the server, whoever it was; None for a folder, and before any write.

        A collection that was deleted and made anew takes the old one's place here.
        """
        if not self.remote:
            return None
        try:
            found = self._client.get_collection(self._name, embedding_function=None)
        except Exception as error:
            raise StoreError(f"Chroma failed to find {self._name!r}: {type(error).__name__}: {error}") from error
        found.__class__ = _inert(type(found))
        self.collection = found
        held = (found.metadata or {}).get(NOTED + "stamp")
        return None if held is None else str(held)

    def leave_stamp(self, stamp: str) -> None:
        """Leave another at the server: whoever compares it with the one before learns that something was written."""
        self._call("modify", {"metadata": {**(self.collection.metadata or {}), NOTED + "stamp": stamp}})

    def noted(self) -> dict[str, str | None]:
        """What `note` kept; None for what it did not."""
        held = self.collection.metadata or {}
        return {name: None if (value := held.get(NOTED + name)) is None else str(value) for name in ("model", "source", "dim")}

    def note(self, **settings: str) -> None:
        """Keep the model of a server's index with its collection, for clients that have no payload of it yet."""
        fitting = {name: value for name, value in settings.items() if len(value.encode()) <= NOTED_BYTES}
        if self.remote and self._create and any(self.noted()[name] != value for name, value in fitting.items()):
            kept = {**(self.collection.metadata or {}), **{NOTED + name: value for name, value in fitting.items()}}
            self._call("modify", {"metadata": kept})

    def work_through_log(self) -> None:
        """Make a server show what it has logged. What a client had sent that has died since stays unseen until the next write,
        whoever makes it: this is one, which changes nothing."""
        if self.remote:
            self._call("update", {"ids": [NOBODY], "metadatas": [{"nothing": 0}]})

    def dim(self) -> int | None:
        """Dimension of the dense vectors that Chroma holds; None where it holds none."""
        found = self.get(limit=1, include=["embeddings"])["embeddings"]
        return len(found[0]) if found is not None and len(found) else None

    def delete(self, ids: list[str]) -> None:
        """The collection's `delete`."""
        for part in _parts({"ids": ids}, self.limits.records):
            self._call("delete", part)

    def count(self) -> int:
        """How many documents Chroma holds."""
        quick = None if self.tables is None else self.tables.count()
        return int(self._call("count", {})) if quick is None else quick

    def position(self) -> int | None:
        """The number of Chroma's last change, whoever made it; None where it cannot be told."""
        return None if self.tables is None else self.tables.position()

    @property
    def tables(self) -> Tables | None:
        """Chroma's tables, where they lie on this machine."""
        return None if self._folder is None else Tables(self._folder / DATABASE, str(self.collection.id))

    def changed(self) -> tuple[int, ...] | None:
        """When Chroma's documents were last changed by anyone, other clients included; None where that is too new to tell.

        Of a folder the times and sizes of Chroma's database and its log, of which a second change within JUST_NOW may leave no
        trace. A server, and a client in memory, do not say: of them the second it is.
        """
        if self._folder is None:
            return (int(time.monotonic()),)
        held = [os.stat(path) for name in FILES if (path := self._folder / name).exists()]
        if any(abs(time.time_ns() - one.st_mtime_ns) < JUST_NOW for one in held):
            return None
        return tuple(number for one in held for number in (one.st_mtime_ns, one.st_size))

    def _call(self, method: str, arguments: dict[str, Any]) -> Any:
        if self._failed is not None:
            self._replace_failed()
        engine = self._engine
        try:
            with self._calls:
                return getattr(self.collection, method)(**arguments)
        except BaseException as error:  # Chroma's own errors, the network's, and its core's alike
            pass_on_what_is_not_chromas(error)
            if "Regex syntax" in str(error):
                raise InvalidFilterError(f"Chroma does not take this regular expression: {error}") from error
            if type(error).__name__ in (CORE_ERROR, PANIC):
                self._failed = engine
            if self.remote and type(error).__name__ == "NotFoundError":
                raise StoreError(
                    f"the collection {self._name!r} was deleted at the server: refresh() or open it again"
                ) from error
            full = when_full(self._folder) if self._folder is not None else ""
            raise StoreError(f"Chroma failed to {method}: {type(error).__name__}: {error}{full}") from error

    def _replace_failed(self) -> None:
        """After an error of its core, such as a full disk, Chroma may wait for ever for a lock that itself has kept: a fresh
        engine does not."""
        with self._replacing:
            failed = self._failed
            if failed is not None and failed is self._engine:
                failed.close()
                self._take(FolderEngine(failed.folder))
            self._failed = None

    def renew(self) -> None:
        """Learn what another process has written; the caller holds the right to write."""
        if self._engine is not None:
            retired = self._engine
            self._take(FolderEngine(retired.folder))
            self._retired.append(retired)  # other threads may be in the middle of a call to it
            while len(self._retired) > RETIRED_KEPT:
                self._retired.pop(0).close()
        elif self._folder is not None:  # the caller's engine stays; a fresh one makes Chroma work through its log
            other = FolderEngine(self._folder)
            other.client.get_collection(self._name, embedding_function=None).get(limit=1, include=[])
            other.close()

    def vector_folder(self) -> tuple[Path, bool] | None:
        """Where Chroma keeps the collection's vector index, and whether it says that it has written it; None for a
        server's, and where its tables are not as they were in 1.5."""
        found = None if self.tables is None else self.tables.vector_segment()
        return None if found is None or self._folder is None else (self._folder / found[0], found[1])

    def full_text_fits(self) -> bool | None:
        """Whether the index of Chroma's full-text search fits its texts; None where its database is not in reach."""
        return None if self._folder is None else database.full_text_fits(self._folder)

    def make_full_text_anew(self) -> None:
        """Make that index anew of its texts; the caller holds the right to write."""
        if self._folder is not None:
            database.make_full_text_anew(self._folder)

    @property
    def owns_engine(self) -> bool:
        """Whether the engine is ours, so that its files may be dropped and made anew."""
        return self._engine is not None

    def drop_vector_index(self) -> None:
        """Remove the files of the vector index, so that Chroma begins an empty one; the caller holds the right to write."""
        found = self.vector_folder()
        if found is None or self._engine is None:
            raise StoreError(
                f"Chroma's vector index of {self.collection.name!r} is damaged, and only its owner can mend it: "
                "close your client and open the folder once with ChromaStore(path)"
            )
        shutil.rmtree(found[0], ignore_errors=True)
        self.renew()

    def close(self) -> None:
        """Let go of the engine; a client of the caller's stays open."""
        for engine in self._retired:
            engine.close()
        if self._engine is not None:
            self._engine.close()
        client, self._to_close = self._to_close, None
        if client is not None:
            close_client(client)

    def payload_folder(self, given: str | Path | None) -> tuple[Path, bool]:
        """Where the payload lies, and whether it is to be deleted in the end."""
        if given is not None:
            return Path(given) / self._name, False
        if self.remote:
            return Path.home() / CACHE / str(self.collection.id) / self._name, False
        if self._folder is not None:
            return payload_folder(self._folder, self._name), False
        return Path(tempfile.mkdtemp(prefix="m3retriever-")) / self._name, True

    def _take(self, engine: FolderEngine) -> None:
        """Put an engine in the place of ours, or leave all as it is where it is of no use."""
        try:
            collection = self._collection_of(engine.client)
        except BaseException:
            engine.close()
            raise
        self._engine, self._client, self.collection = engine, engine.client, collection

    def _collection_of(self, client: ClientAPI) -> Collection:
        configuration = CLOUD_INDEX if self.limits == CLOUD else INDEX
        try:
            if self._create:
                collection = client.get_or_create_collection(
                    self._name, embedding_function=None, configuration=configuration  # type: ignore[arg-type]  # a TypedDict
                )  # fmt: skip
            else:
                collection = client.get_collection(self._name, embedding_function=None)
        except BaseException as error:
            pass_on_what_is_not_chromas(error)
            raise StoreError(f"cannot open the collection {self._name!r}: {error}") from error
        collection.__class__ = _inert(type(collection))
        return collection


def _inert(kind: type[Collection]) -> type[Collection]:
    """Collections that make nothing of the embedding functions named in what is stored of them.

    On every write Chroma would load those, and some of them run code that a model's folder brings: whoever
    made the collection would choose it. Vectors come from our encoder, so none of them is needed.
    """
    return type(kind.__name__, (kind,), {"schema": None})


def _parts(columns: Mapping[str, Any], most: int | None) -> Iterator[dict[str, Any]]:
    """Columns of one length, in runs of at most so many rows."""
    count = len(columns["ids"])
    if most is None or count <= most:
        yield dict(columns)
        return
    for start in range(0, count, most):
        yield {name: column[start : start + most] for name, column in columns.items()}


def _joined(parts: Sequence[Any]) -> Any:
    """What several calls of `get` gave as what one gives."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: [part[name] for part in parts] for name in ("ids", "documents", "metadatas", "embeddings")}
    return {name: None if held[0] is None else [one for part in held for one in part] for name, held in columns.items()}
