"""Encoders: one file each; `testing.check_encoder` is the contract."""

from __future__ import annotations

from pathlib import Path

from m3retriever.types import Encoder

DEFAULT_MODEL = "BAAI/bge-m3"
BUILT_IN = ("mini", "hashing")


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


def lasting(model: str) -> str:
    """The name under which `load_encoder` finds the same model from any working folder."""
    return str(Path(model).resolve()) if model not in BUILT_IN and Path(model).is_dir() else model
