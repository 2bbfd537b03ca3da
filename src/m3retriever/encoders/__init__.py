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
