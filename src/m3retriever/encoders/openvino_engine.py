"""The forward pass in OpenVINO, on a CPU: float32, or int8 weights with dynamically quantised activations.

Loads an export of `exporting.py`: neither torch nor transformers is imported.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from m3retriever.encoders.engine import Independence, Views, token_rows
from m3retriever.errors import MissingExtraError, ModelLoadError
from m3retriever.types import MODES, Mode
from m3retriever.vectors import FloatArray, IntArray

GRAPH_FILE, SETTINGS_FILE = "model.xml", "settings.json"
GROUP = 64  # activations that share a scale; of 32, MaxSim tau is .989 instead of .988 on the mini model, in 1.3 times the time
SETTINGS_BYTES = 10_000  # read of the settings: ours have 100
MOST_POSITIONS = 1 << 20  # tokens: BGE-M3 has 8192
OUTPUTS: dict[Mode, str] = {"colbert": "tokens", "sparse": "weights"}  # beside the dense one
UNTOUCHED = np.float32(-1.5e30)  # marks what a call is to overwrite: no vector and no weight has it
OUT_OF_MEMORY = ("bad_alloc", "out of memory", "allocate memory", "failed to allocate", "can't alloc")  # in their words


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

    independence: Independence = "equal_lengths"

    def __init__(self, folder: Path) -> None:
        self.device, self._folder = "cpu", folder
        try:
            with (folder / SETTINGS_FILE).open("rb") as file:
                settings = json.loads(file.read(SETTINGS_BYTES))
            self.dim, self.positions = int(settings["dim"]), int(settings["positions"])
            self.modes = frozenset(mode for mode in MODES if mode in settings["modes"])
            self._int8 = bool(settings["int8"])
            compiled = self._compiled()
            _check_shapes(compiled, self.dim, self.positions, self.modes)
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError) as error:
            reason = str(error).strip().splitlines() or [""]
            raise ModelLoadError(
                f"cannot load the export in {folder}: {type(error).__name__}: {reason[0]}; delete that folder, "
                "and it is made again"
            ) from error
        self._request: Any = compiled.create_infer_request()
        self._inputs = {name for port in compiled.inputs for name in port.get_names()}
        self._given: list[FloatArray] = []  # what the last call gave

    def run(self, ids: IntArray, mask: IntArray) -> Views:
        """The views of a padded batch."""
        every, kept = token_rows(mask)
        given = {"ids": ids, "mask": mask, "every": every, "kept": kept}
        for array in self._given:
            array.flat[:1] = array.flat[-1:] = UNTOUCHED
        try:
            named = self._inferred({name: given[name] for name in self._inputs})
            _check_written(named, {"dense": len(ids), "tokens": len(kept), "weights": len(every)})
        except (MemoryError, RuntimeError):
            self._begin_anew()
            raise
        tokens: FloatArray = named.get("tokens", np.empty((0, self.dim), np.float32))
        return Views(named["dense"], tokens, named.get("weights", np.empty(0, np.float32)))

    def _compiled(self) -> Any:
        return imported().Core().compile_model(self._folder / GRAPH_FILE, "CPU", _properties(self._int8))

    def _inferred(self, given: dict[str, IntArray]) -> dict[str, FloatArray]:
        if self._request is None:
            self._request = self._compiled().create_infer_request()
        found = self._request.infer(given, share_inputs=True, share_outputs=True)
        named: dict[str, FloatArray] = {name: array for port, array in found.items() for name in port.get_names()}
        self._given = list(named.values())
        return named

    def _begin_anew(self) -> None:
        """Drop all that OpenVINO has made, for once memory ran out it is not to be trusted: of 240 batches after it, with as
        much memory as they needed, 50 came out wrong, and a new request of the same compiled graph was no better."""
        self._given, self._request = [], None

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Whether memory ran out, as OpenVINO and the system say it."""
        return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OUT_OF_MEMORY)

    def free_memory(self) -> None:
        """Nothing: OpenVINO keeps what its largest batch needed."""


def _check_written(given: dict[str, FloatArray], rows: dict[str, int]) -> None:
    """MemoryError where OpenVINO found no memory: it raises nothing then, and gives what the call before left."""
    for name, array in given.items():
        if len(array) != rows[name] or UNTOUCHED in (*array.flat[:1], *array.flat[-1:]):
            raise MemoryError(f"OpenVINO had no memory for a batch of {rows['dense']} texts")


def _check_shapes(compiled: Any, dim: int, positions: int, modes: frozenset[Mode]) -> None:
    """ValueError where the graph does not give what the settings say: what is made room for depends on them."""
    shapes = {name: port.partial_shape for port in compiled.outputs for name in port.get_names()}
    wanted = {"dense", *(output for mode, output in OUTPUTS.items() if mode in modes)}
    vectors = [shapes[name] for name in wanted - {"weights"} if name in shapes]
    if set(shapes) != wanted or any(len(shape) != 2 or shape[1] != dim for shape in vectors):
        found = {name: str(shape) for name, shape in shapes.items()}
        raise ValueError(f"want {sorted(wanted)} of {dim} numbers; got {found}")
    if not 0 < positions <= MOST_POSITIONS:
        raise ValueError(f"want from 1 to {MOST_POSITIONS} positions; got {positions}")


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
