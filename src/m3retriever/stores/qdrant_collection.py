"""The collection of a QdrantStore: how it is made, what is kept about it, and whether it is ours.

dense     one vector a point; inner product, HNSW; originals on disk, int8 codes in memory find, originals score
sparse    token id -> weight; inner product, an inverted index in memory
colbert   one vector a token; the sum of each query token's best inner product; no HNSW, for it only scores candidates
payload   id, text, metadata and what filters ask (`qdrant_points`, `qdrant_filter`), with indexes on the latter
metadata  of the collection: {"m3retriever": {"format", "model", "source", "dim"}}
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from m3retriever.errors import InvalidArgumentError, StoreError, shown
from m3retriever.stores.qdrant_connection import Connection
from m3retriever.stores.qdrant_filter import HIGH, KEY, LOW, NUMBERS, TERMS
from m3retriever.stores.qdrant_points import COLBERT, DENSE, SPARSE, STAMP
from m3retriever.types import MODES, Mode

FORMAT = 1
OURS = "m3retriever"  # the key in the collection's metadata
QUANTILE = 0.99  # of a vector's numbers that int8 codes span, as Qdrant's documentation advises
KEYWORD, FLOAT, INTEGER = "keyword", "float", "integer"
INDEXED = {
    TERMS: KEYWORD,
    f"{NUMBERS}[].{KEY}": KEYWORD,
    f"{NUMBERS}[].{HIGH}": FLOAT,
    f"{NUMBERS}[].{LOW}": FLOAT,
    STAMP: INTEGER,
}
"""Payload indexes by field."""


@dataclass(frozen=True)
class Layout:
    """How a collection is made.

    Attributes
    ----------
    shards : parts that a collection is cut into; None leaves it to the server
    replicas : copies of each part, in a cluster
    write_consistency : copies that must have taken a write before it counts
    quantized : modes of which Qdrant keeps int8 codes in memory beside the originals: "dense", "colbert"
    on_disk : whether the originals are read from disk (and the system's cache), or kept in memory
    """

    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None
    quantized: Sequence[Mode] = ("dense",)
    on_disk: bool = True

    def __post_init__(self) -> None:
        for name in ("shards", "replicas", "write_consistency"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidArgumentError(f"{name} must be an integer >= 1 or None; got {shown(value)}")
        if isinstance(self.quantized, str) or not set(self.quantized) <= {DENSE, COLBERT}:
            raise InvalidArgumentError(f"quantized takes some of dense and colbert; got {shown(self.quantized)}")


@dataclass(frozen=True)
class Settings:
    """What a collection keeps about itself: whose vectors it holds."""

    dim: int
    model: str | None = None
    source: str | None = None

    def as_metadata(self) -> dict[str, Any]:
        """The collection's metadata."""
        return {OURS: {"format": FORMAT, "model": self.model, "source": self.source, "dim": self.dim}}


def read_settings(connection: Connection) -> Settings | None:
    """A collection's settings; None where there is none. StoreError for one that is not ours, which stays as it is."""
    if not connection.exists():
        return None
    config = connection.call("get_collection").config
    held = (getattr(config, "metadata", None) or {}).get(OURS)
    if not isinstance(held, Mapping) or not _has_our_vectors(config.params, held.get("dim")):
        raise StoreError(
            f"the collection {connection.name!r} was not made by m3retriever: its vectors, or what it says of itself, are "
            "others; it stays as it is: give collection= another name"
        )
    if held.get("format") != FORMAT:
        raise StoreError(
            f"the collection {connection.name!r} has format {shown(held.get('format'))}; this version of m3retriever reads "
            f"{FORMAT}: use the version that made it"
        )
    model, source = held.get("model"), held.get("source")
    return Settings(int(held["dim"]), None if model is None else str(model), None if source is None else str(source))


def create(connection: Connection, settings: Settings, layout: Layout) -> Settings:
    """Make the collection; where another client has just made it, what it is. Returns its settings."""
    try:
        connection.call(
            "create_collection",
            vectors_config=_vectors(settings.dim, layout),
            sparse_vectors_config=_sparse_vectors(),
            shard_number=layout.shards,
            replication_factor=layout.replicas,
            write_consistency_factor=layout.write_consistency,
            on_disk_payload=True,
            metadata=settings.as_metadata(),
        )
    except StoreError:
        if (made := read_settings(connection)) is None:
            raise
        settings = made
    index_payload(connection)
    return settings


def warn_of_another_layout(connection: Connection, layout: Layout) -> None:
    """Say so where a collection that is there was made otherwise than is asked for now: it stays as it is."""
    if connection.local:  # which has neither shards nor copies
        return
    params = connection.call("get_collection").config.params
    held = (params.shard_number, params.replication_factor, params.write_consistency_factor)
    asked = (layout.shards, layout.replicas, layout.write_consistency)
    if any(want not in (None, has) for want, has in zip(asked, held, strict=True)):
        names = ("shards", "replicas", "write_consistency")
        said = ", ".join(f"{name} {has} (asked for: {want})" for name, has, want in zip(names, held, asked, strict=True))
        warnings.warn(
            f"the collection {connection.name!r} was made before, with {said}; it stays so: copy it into a new one",
            UserWarning,
            stacklevel=2,
        )


def index_payload(connection: Connection) -> None:
    """Make the indexes that are not there yet, such as after a client that was stopped in the middle of `create`."""
    from qdrant_client import models

    if connection.local:  # which has none, and warns
        return
    held = connection.call("get_collection").payload_schema or {}
    for field, kind in INDEXED.items():
        if field not in held:
            connection.call("create_payload_index", field_name=field, field_schema=models.PayloadSchemaType(kind), wait=True)


def rename(connection: Connection, settings: Settings, *, model: str | None, source: str | None) -> Settings:
    """Keep another model's name, or another way to load it."""
    changed = replace(settings, model=model, source=source)
    if changed != settings:
        connection.call("update_collection", metadata=changed.as_metadata())
    return changed


def _vectors(dim: int, layout: Layout) -> dict[str, Any]:
    from qdrant_client import models

    def codes(mode: Mode) -> Any:
        kept = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=QUANTILE, always_ram=True)
        return models.ScalarQuantization(scalar=kept) if mode in layout.quantized else None

    shared: dict[str, Any] = {"size": dim, "distance": models.Distance.DOT, "on_disk": layout.on_disk}
    best_of_tokens = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    return {
        DENSE: models.VectorParams(quantization_config=codes(MODES[0]), **shared),
        COLBERT: models.VectorParams(
            quantization_config=codes(MODES[2]),
            hnsw_config=models.HnswConfigDiff(m=0),
            multivector_config=best_of_tokens,
            **shared,
        ),
    }


def _sparse_vectors() -> dict[str, Any]:
    from qdrant_client import models

    return {SPARSE: models.SparseVectorParams(index=models.SparseIndexParams(on_disk=False))}


def _has_our_vectors(params: Any, dim: Any) -> bool:
    """Whether scores of these vectors are what ours must be: inner products of this dimension, without weights by rarity."""
    dense, sparse = params.vectors, params.sparse_vectors
    if not isinstance(dense, Mapping) or not {DENSE, COLBERT} <= set(dense) or not isinstance(sparse, Mapping):
        return False
    if SPARSE not in sparse or sparse[SPARSE].modifier not in (None, "none"):
        return False
    several = {name: dense[name].multivector_config is not None for name in (DENSE, COLBERT)}
    return several == {DENSE: False, COLBERT: True} and all(
        type(dim) is int and dense[name].size == dim and dense[name].distance == "Dot" for name in (DENSE, COLBERT)
    )
