"""Encoders: one file each; `testing.check_encoder` is the contract."""

from __future__ import annotations

from typing import Any

from m3retriever.encoders.engine import Backend, Precision
from m3retriever.errors import InvalidArgumentError
from m3retriever.types import Encoder

DEFAULT_MODEL = "BAAI/bge-m3"


def load_encoder(model: str = DEFAULT_MODEL, precision: Precision | None = None, backend: Backend | None = None) -> Encoder:
    """An encoder by name: "mini", "hashing", a hub name such as BAAI/bge-m3, or a folder in its layout.

    `precision` ("fp32", "bf16", "fp16", "int8") and `backend` ("torch", "openvino") are as of `BGEM3Encoder`; the
    hashing encoder has neither.
    """
    given: dict[str, Any] = {"precision": precision or "auto", "backend": backend or "auto"}
    if model == "hashing":
        from m3retriever.encoders.hashing import HashingEncoder

        if set(given.values()) != {"auto"}:
            raise InvalidArgumentError(f"the hashing encoder has no precision and no backend; got {precision!r}, {backend!r}")
        return HashingEncoder()
    if model == "mini":
        from m3retriever.encoders.mini import MiniEncoder

        return MiniEncoder(**given)
    from m3retriever.encoders.bge_m3 import BGEM3Encoder

    return BGEM3Encoder(model, **given)


def as_encoder(model: str | Encoder, precision: Precision | None = None, backend: Backend | None = None) -> Encoder:
    """An encoder by its name or folder, or as it is; for one that is there, how it computes cannot be chosen any more."""
    if isinstance(model, str):
        return load_encoder(model, precision, backend)
    if precision is not None or backend is not None:
        raise InvalidArgumentError("precision and backend go with a model's name; got an Encoder: choose them where it is made")
    return model


def source_of(encoder: Encoder) -> str | None:
    """What to give `load_encoder` for the same model again; None for an encoder that does not say it as `source`."""
    return getattr(encoder, "source", None)
