"""The compiled loops, where they were built and are wanted."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

ENGINES = ("portable C", "C with AVX2", "C with AVX512-VNNI", "C with AMX")  # by the extension's level
OFF = "M3RETRIEVER_NATIVE"  # set to 0, NumPy and torch do it
THREADS = "M3RETRIEVER_THREADS"  # how many one call may use; default: what OpenMP is given, else every core


def _load() -> ModuleType | None:
    if os.environ.get(OFF) == "0":
        return None
    try:
        return importlib.import_module("m3retriever.kernels._native")
    except ImportError:
        return None


MOST_THREADS = 64


LIBRARY = _load()
LEVEL: int = LIBRARY.level() if LIBRARY is not None else 0


def engine() -> str:
    """What runs the inner loops here, in words."""
    return "NumPy and torch" if LIBRARY is None else ENGINES[LEVEL]


def threads() -> int:
    """How many threads one call may use, at least 1."""
    for name in (THREADS, "OMP_NUM_THREADS"):
        given = os.environ.get(name, "").split(",")[0].strip()  # OpenMP's may be a list, a number for each level
        if given.isdecimal() and int(given) > 0:
            return min(int(given), MOST_THREADS)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
