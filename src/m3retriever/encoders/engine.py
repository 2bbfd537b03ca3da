"""What a forward pass gives, whoever runs it: torch_engine.py and openvino_engine.py, under the loop in loop.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from m3retriever.errors import InvalidArgumentError
from m3retriever.types import MODES, Mode
from m3retriever.vectors import FloatArray, IntArray

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Backend = Literal["auto", "torch", "openvino"]
Independence = Literal["always", "equal_lengths", "never"]
"""Of which texts that are encoded with it a text's bits do not depend: of any, of those with as many tokens, of none."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BACKENDS: tuple[Backend, ...] = get_args(Backend)
POOLINGS = ("cls", "mean")


@dataclass(frozen=True, eq=False)
class Views:
    """The three views of a batch of b texts, of which text i has t_i tokens.

    Attributes
    ----------
    dense : (b, d) float32
    tokens : (sum(t_i - 1), d) float32, text after text, without CLS and padding; (0, d) where not computed
    weights : (sum(t_i),) float32, >= 0, of every token in the same order, CLS included; (0,) where not computed
    """

    dense: FloatArray
    tokens: FloatArray
    weights: FloatArray


class Engine(Protocol):
    """Runs padded batches through a checkpoint. Called by one thread at a time.

    Attributes
    ----------
    dim : d, the length of a vector
    positions : tokens that the position table holds
    modes : the views that are computed
    device : where, for messages
    independence : as `Independence` says; without the attribute "never"
    """

    dim: int
    positions: int
    modes: frozenset[Mode]
    device: str

    def run(self, ids: IntArray, mask: IntArray) -> Views:
        """The views of token ids (b, t), int64, with mask 1 for a token and 0 for the padding at the right."""
        ...

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error of `run` says that the batch was too large; an illegal access is another thing."""
        ...

    def free_memory(self) -> None:
        """Give back what is held for later, after memory ran out."""
        ...


@dataclass(frozen=True)
class Heads:
    """What is made of the last hidden states: how a text's dense vector is taken, its norm, and which views.

    Raises
    ------
    InvalidArgumentError
        An unknown pooling or mode, or no dense view.
    """

    pooling: str = "cls"
    normalize: bool = True
    modes: frozenset[Mode] = frozenset(MODES)

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InvalidArgumentError(f"pooling must be one of {', '.join(POOLINGS)}; got {self.pooling!r}")
        if unknown := set(self.modes) - set(MODES):
            raise InvalidArgumentError(f"modes must be among {', '.join(MODES)}; got {sorted(unknown)}")
        if "dense" not in self.modes:
            raise InvalidArgumentError("modes must contain 'dense': every store keeps a dense vector per document")

    @property
    def plain(self) -> bool:
        """Whether everything is as BGE-M3 has it."""
        return self == Heads()

    def __str__(self) -> str:
        """As part of a name: "cls", or "mean-raw-no-sparse"."""
        left_out = "".join(f"-no-{mode}" for mode in MODES if mode not in self.modes)
        return f"{self.pooling}{'' if self.normalize else '-raw'}{left_out}"


def token_rows(mask: IntArray) -> tuple[IntArray, IntArray]:
    """Places in the flattened batch of all tokens, and of all but each text's first (CLS): int64, ascending.

    `token_rows([[1, 1], [1, 0]])` is ([0, 1, 2], [1]).
    """
    held = mask.astype(bool)
    every = held.ravel().nonzero()[0]
    held[:, 0] = False
    return every, held.ravel().nonzero()[0]


def chosen_precision(precision: Precision, backend: Backend) -> tuple[Precision, Literal["torch", "openvino"]]:
    """The precision and who runs it, of what may be "auto" in both; int8 goes to OpenVINO, all else to torch.

    Raises
    ------
    InvalidArgumentError
        An unknown name, int8 in torch (its dynamic int8 has cosine .932 with fp32), or a half precision in OpenVINO.
    """
    if precision not in PRECISIONS:
        raise InvalidArgumentError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if backend not in BACKENDS:
        raise InvalidArgumentError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "auto":
        backend = "openvino" if precision == "int8" else "torch"
    if backend == "torch" and precision == "int8":
        raise InvalidArgumentError("precision 'int8' needs backend='openvino': torch's int8 loses too much; got 'torch'")
    if backend == "openvino" and precision in ("bf16", "fp16"):
        raise InvalidArgumentError(f"backend 'openvino' runs fp32 and int8; got {precision!r}: take backend='torch' for it")
    if backend == "openvino" and precision == "auto":
        precision = "fp32"
    return precision, backend
