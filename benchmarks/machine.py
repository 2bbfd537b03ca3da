"""The machine in words, and what it can do at most: bytes read a second, and operations a second."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Step, seconds
from m3retriever.kernels import native

PACKAGES = ("numpy", "torch", "chromadb", "lmdb", "transformers", "openvino")
PEERS = (
    *("FlagEmbedding", "llama-index-indices-managed-bge-m3", "langchain-chroma"),
    *("langchain-classic", "rank-bm25", "qdrant-client"),
)
INSTRUCTIONS = {"avx2": "AVX2", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX", "asimddp": "NEON dot"}
READ_BYTES = 1 << 29  # more than most caches hold
NO_CODE = 0x80  # the byte of -128
PRODUCT = 2048  # rows and columns of the product that shows the peak
PEAK_ROUNDS = 9


def described() -> str:
    """The processor and what runs on it: model, cores, threads, instructions, memory, Python and packages."""
    flags = set(_field("flags", "Features").split())
    names = [name for flag, name in INSTRUCTIONS.items() if flag in flags]
    versions = [f"{name} {version}" for name in (*PACKAGES, *PEERS) if (version := _version(name))]
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB" if hasattr(os, "sysconf") else "?"
    return (
        f"{_field('model name') or platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{native.threads()} threads, {', '.join(names) or 'no int8 instructions that we know of'}, {memory} of memory, "
        f"{platform.system()}, kernels in {native.engine()}; Python {platform.python_version()}, {', '.join(versions)}"
    )


def measured() -> str:
    """The peaks in words, measured now."""
    return (
        f"reads {read_bandwidth() / 1e9:.0f} GB/s, multiplies {peak(np.int8) / 1e9:.0f} billion int8 and "
        f"{peak(np.float32) / 1e9:.0f} billion float32 operations a second (torch's matrix products)"
    )


def read(*arrays: np.ndarray) -> Step:
    """A step that reads every byte of int8 arrays once, on as many threads as we use: C's memchr looks for one that codes
    never have, and is given back where it was found."""
    parts = [part for array in arrays for part in np.array_split(array.reshape(-1), native.threads()) if part.size]
    return lambda _: list(_pool(native.threads()).map(_find, parts))


def _find(part: np.ndarray) -> int | None:
    place: int | None = _memchr()(part.ctypes.data, NO_CODE, part.nbytes)
    return place


@functools.cache
def _memchr() -> Any:
    function = ctypes.CDLL("msvcrt" if os.name == "nt" else None).memchr
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], ctypes.c_void_p
    return function


@functools.cache
def read_bandwidth() -> float:
    """Bytes a second, in the best of some rounds."""
    return READ_BYTES / _quickest(read(np.ones(READ_BYTES, np.int8)))


@functools.cache
def peak(dtype: type) -> float:
    """Operations a second of a large matrix product, in the best of some rounds; a multiplication and an addition are two."""
    import torch

    if dtype is np.int8:
        codes = torch.ones((PRODUCT, PRODUCT), dtype=torch.int8)
        return 2 * PRODUCT**3 / _quickest(lambda _: torch._int_mm(codes, codes))
    values = torch.ones((PRODUCT, PRODUCT))
    return 2 * PRODUCT**3 / _quickest(lambda _: values @ values)


def _quickest(step: Step) -> float:
    return min(seconds(step, number) for number in range(PEAK_ROUNDS))


def busy() -> str:
    """What else keeps the processor from us, in words; empty where that is little."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"the load was {load:.1f} on {os.cpu_count()} cores when this began" if load > 1 else ""


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _field(*names: str) -> str:
    """A field of /proc/cpuinfo, "" where there is none."""
    path = Path("/proc/cpuinfo")
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()
    held = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return next((held[name] for name in names if name in held), "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
