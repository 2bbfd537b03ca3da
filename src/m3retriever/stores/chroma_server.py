"""A Chroma server: the client to it, which collections it has, and what Chroma Cloud allows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, StoreError, shown
from m3retriever.hosts import is_this_machine

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from m3retriever.types import Document

CLOUD_HOST = "trychroma.com"  # Chroma Cloud is at api.trychroma.com
API_KEY, TENANT, DATABASE = "CHROMA_API_KEY", "CHROMA_TENANT", "CHROMA_DATABASE"  # in the environment, as Chroma names them
TOKEN_HEADER = "x-chroma-token"


@dataclass(frozen=True)
class Limits:
    """What a server takes; None where it says nothing of it. Sizes are in bytes of UTF-8.

    Attributes
    ----------
    records : a write, and the results of a read
    predicates : conditions of one filter
    search : of a text or pattern that is searched for in texts
    calls : reads, or writes, of a collection at a time
    """

    records: int | None = None
    dimension: int | None = None
    document: int | None = None
    id: int | None = None
    keys: int | None = None
    key: int | None = None
    value: int | None = None
    predicates: int | None = None
    search: int | None = None
    calls: int | None = None


CLOUD = Limits(
    records=300, dimension=4096, document=16_384, id=128, keys=32, key=36, value=4096, predicates=8, search=256, calls=10
)
"""Chroma Cloud's, as its page of quotas and limits says (docs.trychroma.com/cloud/quotas-limits, read in November 2026)."""


def limits_of(client: ClientAPI) -> Limits:
    """Chroma Cloud's for a client of it; of another server how many records it takes, which it says itself."""
    if is_cloud(str(client.get_settings().chroma_server_host or "")):
        return CLOUD
    try:
        return Limits(records=client.get_max_batch_size())
    except Exception as error:  # the network's, or the server's
        raise StoreError(f"the Chroma server does not answer: {type(error).__name__}: {error}") from error


def is_cloud(host: str) -> bool:
    """Whether a host, or an address, is Chroma Cloud's."""
    name = host.split("//")[-1].split("/")[0].split(":")[0].lower()
    return name == CLOUD_HOST or name.endswith(f".{CLOUD_HOST}")


def check_within(documents: Sequence[Document], dim: int, limits: Limits) -> None:
    """Refuse documents that the server would refuse, before any of them is stored: InvalidDocumentError."""
    if limits.dimension is not None and dim > limits.dimension:
        raise InvalidDocumentError(f"this server takes vectors of at most {limits.dimension} numbers; got {dim}")
    for document in documents:
        for what, size, most in _sizes(document, limits):
            if most is not None and size > most:
                raise InvalidDocumentError(
                    f"document {shown(document.id)}: this server takes at most {most} {what}; got {size}: "
                    "cut the text into passages (split=True), shorten the value, or use a server of your own"
                )


def _sizes(document: Document, limits: Limits) -> Iterator[tuple[str, int, int | None]]:
    """What is counted of a document, its size, and the limit."""
    held = {key: value for key, value in document.metadata.items() if value is not None}
    yield "bytes of id", len(document.id.encode()), limits.id
    yield "bytes of text", len(document.text.encode()), limits.document
    yield "metadata keys", len(held), limits.keys
    for key, value in held.items():
        yield "bytes in a metadata key", len(key.encode()), limits.key
        size = sum(len(str(one).encode()) for one in (value if isinstance(value, list) else [value]))
        yield f"bytes in the metadata value {shown(key)}", size, limits.value


def client_of(
    host: str,
    port: int,
    *,
    ssl: bool = False,
    headers: Mapping[str, str] | None = None,
    tenant: str | None = None,
    database: str | None = None,
) -> ClientAPI:
    """A client of a server; of Chroma Cloud with the key, the tenant and the database of the environment.

    Another server is sent the key as well (`x-chroma-token`), over TLS or to this machine. StoreError where the server does
    not answer, InvalidArgumentError for headers that would go over the network in the clear. Neither is in a message.
    """
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    tenant, database = tenant or os.environ.get(TENANT), database or os.environ.get(DATABASE)
    try:
        if is_cloud(host):
            return chromadb.CloudClient(tenant, database, settings=settings, cloud_host=host, cloud_port=port)
        named = {key: value for key, value in {"tenant": tenant, "database": database}.items() if value is not None}
        sent = _headers(host, headers or {}, secret=ssl)
        address = f"[{host}]" if ":" in host and not host.startswith(("[", "http")) else host
        return chromadb.HttpClient(host=address, port=port, ssl=ssl, headers=sent, settings=settings, **named)
    except InvalidArgumentError:
        raise
    except Exception as error:
        why = str(error).strip() or "it answers with no reason, which a proxy does that asks for a key"
        raise StoreError(f"cannot open the Chroma server at {host}:{port}: {type(error).__name__}: {why}") from error


def _headers(host: str, given: Mapping[str, str], *, secret: bool) -> dict[str, str]:
    """The headers to send, the environment's key among them where nobody can read it on the way."""
    private = secret or is_this_machine(host)
    if given and not private:
        raise InvalidArgumentError(
            f"headers would go to {host} in the clear: use ssl=True, forward the port (ssh -L), or give a client of your own"
        )
    key = os.environ.get(API_KEY)
    return {**({TOKEN_HEADER: key} if key and private else {}), **given}


def is_served(name: str, host: str, port: int, **settings: Any) -> bool:
    """Whether a server has a collection of this name. StoreError where it does not answer."""
    client = client_of(host, port, **settings)
    try:
        client.get_collection(name, embedding_function=None)
    except Exception as error:
        if type(error).__name__ == "NotFoundError":
            return False
        raise StoreError(
            f"cannot ask the Chroma server at {host}:{port} for {name!r}: {type(error).__name__}: {error}"
        ) from error
    finally:
        close_client(client)
    return True


def close_client(client: ClientAPI) -> None:
    """Close a server's client, and the connections that Chroma leaves open: its own, and those of its other half."""
    client.close()  # type: ignore[attr-defined]  # Client has it, its interface does not say so
    for half in (client, getattr(client, "_admin_client", None)):
        session = getattr(getattr(half, "_server", None), "_session", None)
        if session is not None:
            session.close()
