"""Encoders: one file each; `testing.check_encoder` is the contract."""

from __future__ import annotations

from typing import Any

from m3retriever.encoders.engine import Backend, Precision
from m3retriever.errors import InvalidArgumentError, shown
from m3retriever.types import Encoder

DEFAULT_MODEL = "BAAI/bge-m3"
ELSEWHERE = ("//", "\\\\", "http://", "https://", "vllm+")  # how the name of a model begins that is on another machine
REMOTE = ("http://", "https://", "vllm+http://", "vllm+https://")  # how a model's address begins; indexes keep none


def load_encoder(
    model: str = DEFAULT_MODEL,
    precision: Precision | None = None,
    backend: Backend | None = None,
    *,
    device: str | None = None,
) -> Encoder:
    """An encoder by name: "mini", "hashing", a hub name such as BAAI/bge-m3, a folder in its layout, or an address.

    An address is that of `m3retriever serve` (http://127.0.0.1:7860, https://...) or of vLLM (vllm+http://host:8000).
    `precision` ("fp32", "bf16", "fp16", "int8") and `backend` ("torch", "openvino") are as of `BGEM3Encoder`; the
    hashing encoder has neither, and a service has chosen its own. `device` is BGE-M3's; the small encoders run on the CPU.
    """
    given: dict[str, Any] = {"precision": precision or "auto", "backend": backend or "auto"}
    if device not in (None, "auto", "cpu") and (model in ("hashing", "mini") or model.startswith(REMOTE)):
        raise InvalidArgumentError(f"a device can be chosen for BGE-M3 only, {model!r} runs where it runs; got {device!r}")
    if model.startswith(REMOTE):
        if set(given.values()) != {"auto"}:
            raise InvalidArgumentError(
                f"a service has chosen how its model computes; got {precision!r}, {backend!r}: give them where it is started"
            )
        return _remote(model)
    if model == "hashing":
        from m3retriever.encoders.hashing import HashingEncoder

        if set(given.values()) != {"auto"}:
            raise InvalidArgumentError(f"the hashing encoder has no precision and no backend; got {precision!r}, {backend!r}")
        return HashingEncoder()
    if model == "mini":
        from m3retriever.encoders.mini import MiniEncoder

        return MiniEncoder(**given)
    from m3retriever.encoders.bge_m3 import BGEM3Encoder

    return BGEM3Encoder(model, device=device or "auto", **given)


def _remote(url: str) -> Encoder:
    if url.startswith("vllm+"):
        from m3retriever.encoders.vllm import VLLMEncoder

        return VLLMEncoder.at(url)
    from m3retriever.encoders.remote import RemoteEncoder

    return RemoteEncoder(url)


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


def recorded_source(source: str) -> str:
    """The model that an index names, as it is; InvalidArgumentError for one on another machine, which a user has to name."""
    if source.startswith(ELSEWHERE):
        raise InvalidArgumentError(
            f"this index names a model on another machine, {shown(source)}: give it as model= to trust it"
        )
    return source
