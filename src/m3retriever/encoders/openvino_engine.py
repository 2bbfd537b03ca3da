"""The forward pass in OpenVINO, on a CPU: float32, or int8 weights with dynamically quantised activations.

Loads an export of `exporting.py`: neither torch nor transformers is imported.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from m3retriever.encoders.engine import Views, token_rows
from m3retriever.errors import MissingExtraError, ModelLoadError
from m3retriever.vectors import FloatArray, IntArray

GRAPH_FILE, SETTINGS_FILE = "model.xml", "settings.json"
GROUP = 64  # activations that share a scale; of 32, MaxSim tau is .989 instead of .988 on the mini model, in 1.3 times the time
OUT_OF_MEMORY = ("bad_alloc", "out of memory", "allocate memory", "failed to allocate")  # as OpenVINO and the system say it


class OpenVINOEngine:
    """An exported graph, compiled for this machine's CPU; an Engine.

    Uses all cores, or as many threads as the environment's OMP_NUM_THREADS says, as torch does. What `run` gives is
    valid until its next call.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    ModelLoadError
        The export is damaged.
    """

    def __init__(self, folder: Path) -> None:
        openvino = imported()
        self.device = "cpu"
        try:
            settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            self.dim, self.positions = int(settings["dim"]), int(settings["positions"])
            self.modes = frozenset(settings["modes"])
            compiled = openvino.Core().compile_model(folder / GRAPH_FILE, "CPU", _properties(settings["int8"]))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines() or [""]
            raise ModelLoadError(
                f"cannot load the export in {folder}: {type(error).__name__}: {reason[0]}; delete that folder, "
                "and it is made again"
            ) from error
        self._request = compiled.create_infer_request()
        self._inputs = {name for port in compiled.inputs for name in port.get_names()}

    def run(self, ids: IntArray, mask: IntArray) -> Views:
        """The views of a padded batch."""
        every, kept = token_rows(mask)
        given = {"ids": ids, "mask": mask, "every": every, "kept": kept}
        found = self._request.infer({name: given[name] for name in self._inputs}, share_inputs=True, share_outputs=True)
        named = {name: array for port, array in found.items() for name in port.get_names()}
        tokens: FloatArray = named.get("tokens", np.empty((0, self.dim), np.float32))
        return Views(named["dense"], tokens, named.get("weights", np.empty(0, np.float32)))

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Whether memory ran out, as OpenVINO and the system say it."""
        return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OUT_OF_MEMORY)

    def free_memory(self) -> None:
        """Nothing: OpenVINO keeps what its largest batch needed."""


def imported() -> Any:
    """The package, or MissingExtraError."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", extra="fast") from error
    return openvino


def _properties(int8: bool) -> dict[str, Any]:
    """How to compile. Without the precision hint, processors with AMX would compute fp32 in bf16."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if int8 else 0,
        "INFERENCE_NUM_THREADS": _threads(),
        "ENABLE_CPU_PINNING": False,  # a pinned thread waits for whoever else has its core
    }


def _threads() -> int:
    """What OMP_NUM_THREADS says (its first number); 0, which is all cores, where it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0
