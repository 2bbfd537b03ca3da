"""Encoders: one file each; `testing.check_encoder` is the contract."""

from __future__ import annotations

from m3retriever.types import Encoder

DEFAULT_MODEL = "BAAI/bge-m3"


def load_encoder(model: str = DEFAULT_MODEL) -> Encoder:
    """An encoder by name: "mini", "hashing", a hub name such as BAAI/bge-m3, or a folder in its layout."""
    if model == "hashing":
        from m3retriever.encoders.hashing import HashingEncoder

        return HashingEncoder()
    if model == "mini":
        from m3retriever.encoders.mini import MiniEncoder

        return MiniEncoder()
    from m3retriever.encoders.bge_m3 import BGEM3Encoder

    return BGEM3Encoder(model)


def as_encoder(model: str | Encoder) -> Encoder:
    """An encoder by its name or folder, or as it is."""
    return load_encoder(model) if isinstance(model, str) else model


def source_of(encoder: Encoder) -> str | None:
    """What to give `load_encoder` for the same model again; None for an encoder that does not say it as `source`."""
    return getattr(encoder, "source", None)
