"""Encoders: one file each; `testing.check_encoder` is the contract."""

from __future__ import annotations

from pathlib import Path

from m3retriever.types import Encoder

DEFAULT_MODEL = "BAAI/bge-m3"
BUILT_IN = ("mini", "hashing")


def load_encoder(model: str = DEFAULT_MODEL) -> Encoder:
    """An encoder by name: "mini", "hashing", a hub name such as BAAI/bge-m3, or a folder in its layout.

    It remembers the name as `source`, so that an index made with it can load it again.
    """
    encoder = _loaded(model)
    encoder.source = _lasting(model)  # type: ignore[attr-defined]  # beside the Protocol: `source_of` reads it
    return encoder


def as_encoder(model: str | Encoder) -> Encoder:
    """An encoder by its name or folder, or as it is."""
    return load_encoder(model) if isinstance(model, str) else model


def source_of(encoder: Encoder) -> str | None:
    """What to give `load_encoder` for the same model again; None for an encoder that it did not load."""
    return getattr(encoder, "source", None)


def _loaded(model: str) -> Encoder:
    if model == "hashing":
        from m3retriever.encoders.hashing import HashingEncoder

        return HashingEncoder()
    if model == "mini":
        from m3retriever.encoders.mini import MiniEncoder

        return MiniEncoder()
    from m3retriever.encoders.bge_m3 import BGEM3Encoder

    return BGEM3Encoder(model)


def _lasting(model: str) -> str:
    """The name under which `load_encoder` finds the same model from any working folder."""
    return str(Path(model).resolve()) if model not in BUILT_IN and Path(model).is_dir() else model
