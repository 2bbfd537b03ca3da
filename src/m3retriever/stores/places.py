"""Where an index is: a folder, or a collection of a server, as `M3Index.open` and `--path` name it.

    ./index                              a folder: Chroma embedded
    chroma://host:8000/collection        a Chroma server; chroma+https:// with TLS
    qdrant://host:6333/collection        a Qdrant server; qdrant+https:// with TLS
    qdrant:./folder                      Qdrant's local mode, for trying it: every vector is in memory

How a Qdrant collection is made may stand behind its address: qdrant://host:6333/notes?shards=6&replicas=2&write_consistency=2.
Keys come from the environment (CHROMA_API_KEY, QDRANT_API_KEY), never from an address, and go over TLS or to this
machine only. What belongs to an index of a server and is kept in files, such as its profile, lies in a folder of
the user's, one for each address and, of Chroma, for each database that the environment names: `Place.folder`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from m3retriever.checks import as_path
from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.hosts import is_this_machine
from m3retriever.stores.database import collections_in
from m3retriever.stores.names import collection_name

if TYPE_CHECKING:
    from m3retriever.types import KeptStore

PORTS = {"chroma": 8000, "qdrant": 6333}
SCHEMES = tuple(f"{engine}{tls}" for engine in PORTS for tls in ("", "+https"))
HOME = "M3RETRIEVER_HOME"  # in the environment: where the folders of servers' indexes lie
LOCAL = "qdrant:"
MADE = ("shards", "replicas", "write_consistency")  # how a new Qdrant collection is made; `QdrantStore` explains them


@dataclass(frozen=True)
class Place:
    """Where an index is, and what it takes to open it.

    Attributes
    ----------
    given : as it was given
    engine : "chroma" or "qdrant"
    collection : the collection's name, None for the default
    local : the folder that holds everything; None for a server's
    """

    given: str
    engine: str
    collection: str | None
    local: Path | None = None
    url: SplitResult | None = None

    @cached_property
    def folder(self) -> Path:
        """Where the profile and the judged questions lie: for a folder in it, for a server in the user's data folder."""
        if self.local is not None:
            return self.local
        home = os.environ.get(HOME) or Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "m3retriever"
        database = os.environ.get("CHROMA_DATABASE") if self.engine == "chroma" else None
        server = "_".join(part for part in (self._host, str(self._port), database) if part)
        return Path(home).expanduser() / self.engine / server.replace("/", "_") / collection_name(self.collection)

    @property
    def same_as(self) -> tuple[object, ...]:
        """Equal for two ways to name one index, as far as the names tell."""
        host = "127.0.0.1" if is_this_machine(self._host) else self._host
        where = (host, self._port) if self.local is None else self.local.resolve()
        return self.engine, where, collection_name(self.collection)

    @property
    def name(self) -> str:
        """How people call it: the folder's name, or the address."""
        return self.local.resolve().name if self.local is not None else self.given.partition("?")[0]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of embedded Chroma, which can be verified and repaired as files."""
        return self.engine == "chroma" and self.local is not None

    def exists(self) -> bool:
        """Whether there is such an index; looks without creating anything. StoreError where a server does not answer."""
        if self.is_folder:
            return collection_name(self.collection) in collections_in(self.local or "")
        if self.engine == "chroma":
            from m3retriever.stores.chroma_server import is_served

            return is_served(collection_name(self.collection), **self._server)
        from m3retriever.stores.qdrant import QdrantStore

        return bool(QdrantStore.exists(collection=self.collection, **self._qdrant))

    def open(self, *, read_only: bool = False) -> KeptStore:
        """Its store."""
        if self.engine == "chroma":
            from m3retriever.stores.chroma import ChromaStore

            where: dict[str, Any] = {"path": self.local} if self.local is not None else self._server
            return ChromaStore(collection=self.collection, read_only=read_only, **where)
        from m3retriever.stores.qdrant import QdrantStore

        return QdrantStore(collection=self.collection, read_only=read_only, **self._qdrant, **_made(self.url))

    @property
    def _host(self) -> str:
        return (self.url and self.url.hostname) or ""

    @property
    def _port(self) -> int:
        return (self.url and self.url.port) or (443 if self._tls and self.engine == "chroma" else PORTS[self.engine])

    @property
    def _tls(self) -> bool:
        return self.url is not None and self.url.scheme.endswith("+https")

    @property
    def _server(self) -> dict[str, Any]:
        """What ChromaStore takes for a server."""
        return {"host": self._host, "port": self._port, "ssl": self._tls}

    @property
    def _qdrant(self) -> dict[str, Any]:
        """What QdrantStore takes."""
        if self.local is not None:
            return {"path": self.local}
        host = f"[{self._host}]" if ":" in self._host else self._host
        return {"url": f"http{'s' if self._tls else ''}://{host}:{self._port}"}


def place_of(given: str | Path | Place, collection: str | None = None) -> Place:
    """What a path or an address means.

    Raises
    ------
    InvalidArgumentError
        An address of another scheme, with a password, with more than a collection and how it is made after the host, or
        with a collection where another is asked for; a collection's name that no engine takes.
    """
    if isinstance(given, Place):
        return given
    path = as_path(given, "path must name a folder")
    text = str(given)
    if not isinstance(given, str) or not _is_address(text):
        _check_no_address(path)
        return Place(text, "chroma", collection, path)
    if text.startswith(LOCAL) and not text.startswith(f"{LOCAL}//"):
        return Place(text, "qdrant", collection, Path(text.removeprefix(LOCAL)).expanduser())
    url = _checked(text)
    named = url.path.strip("/") or None
    if named is not None and collection is not None and named != collection:
        raise InvalidArgumentError(
            f"{shown(text)} names the collection {named!r}; got {collection!r} as well: give one of them"
        )
    collection_name(chosen := named or collection)
    return Place(text, url.scheme.split("+")[0], chosen, url=url)


def _is_address(text: str) -> bool:
    """Whether a text names a server or an engine; a folder that is there is a path whatever its name."""
    return ("://" in text or text.startswith(LOCAL)) and not Path(text).exists()


def _check_no_address(path: Path) -> None:
    """Refuse what was meant as an address and is none: a folder would be made for it."""
    first = path.parts[0] if path.parts else ""
    if first.split(":")[0] in SCHEMES and ":" in first and not path.exists():
        raise InvalidArgumentError(
            f"an address is a str such as chroma://host:8000/collection; got {shown(str(path))}, which names a folder"
        )


def _checked(text: str) -> SplitResult:
    """An address in its parts. It is not quoted in errors before it is known that it holds no password."""
    try:
        url = urlsplit(text)
        port, engine = url.port, url.scheme.split("+")[0]
    except ValueError as error:
        raise InvalidArgumentError(f"an address is such as chroma://host:8000/collection; got one where {error}") from None
    if url.username is not None or url.password is not None:
        raise InvalidArgumentError(
            f"an address holds no password; got one for {url.hostname!r}: put the key into the environment as "
            "CHROMA_API_KEY or QDRANT_API_KEY"
        )
    if url.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InvalidArgumentError(f"an address begins with one of {known}; got {shown(text)}")
    such = f"{url.scheme}://host:{PORTS[engine]}/collection"
    if not url.hostname or port == 0 or url.fragment or "/" in url.path.strip("/"):
        raise InvalidArgumentError(f"an address is such as {such}; got {shown(text.partition('?')[0])}")
    if url.query and engine != "qdrant":
        raise InvalidArgumentError(f"an address is such as {such}, and nothing behind it; got a question mark")
    _made(url)
    return url


def _made(url: SplitResult | None) -> dict[str, Any]:
    """How a collection is to be made, from behind the question mark; InvalidArgumentError, which does not repeat it: it could
    be a key."""
    given = [] if url is None else parse_qsl(url.query, keep_blank_values=True)
    made = {name: int(value) for name, value in given if name in MADE and re.fullmatch("[1-9][0-9]{0,5}", value)}
    if len(made) < len(given):
        wanted = "&".join(f"{name}=1" for name in MADE)
        raise InvalidArgumentError(
            f"behind the ? of a Qdrant address stands {wanted} or some of them, each once and at least 1; got something else "
            "(a key goes into QDRANT_API_KEY)"
        )
    return made
