"""BGE-M3's network and its three heads as one OpenVINO graph, written out from the weights.

Written by hand, not traced: no tracing means no dependence on how transformers writes its attention masks, linear layers
whose weights can be int8, and the token vectors of real tokens only. Encoders of BERT's and RoBERTa's kind, with
normalisation after each block (Vaswani et al., 2017; Devlin et al., 2019); BGE-M3 is an XLM-RoBERTa (Conneau et al., 2020).
Tested against transformers' own forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3retriever.encoders.engine import Heads
from m3retriever.errors import ModelLoadError
from m3retriever.vectors import FloatArray, IntArray

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")
GRAPH = 1  # version of what this file writes: part of an export's name
LARGEST_CODE = 127
GROUP = 64  # weights that share a scale: MaxSim tau .988 on the mini model, .984 with a scale a row; no slower
MASKED = -1e9  # added to the attention of padding: its share is exactly 0 in float32
EPSILON = 1e-12  # as torch's `normalize`


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint's numbers.

    Attributes
    ----------
    config : of transformers
    weights : by the names of the checkpoint, without a prefix
    sparse, colbert : weight (1, d) or (d', d) and bias of the heads
    """

    config: Any
    weights: Mapping[str, FloatArray]
    sparse: tuple[FloatArray, FloatArray]
    colbert: tuple[FloatArray, FloatArray]


def graph(checkpoint: Checkpoint, heads: Heads, *, int8: bool) -> Any:
    """The openvino.Model: `ids`, `mask` (b, t), `every`, `kept` (rows of tokens, as `engine.token_rows`) to the views.

    Outputs are named dense (b, d), tokens (len(kept), d) and weights (len(every),); a mode that is left out has none.

    Parameters
    ----------
    int8
        Linear layers of the network and embeddings as int8 codes with float32 scales; the heads stay float32, for what is
        lost there is not evened out by anything that follows: with an int8 ColBERT head MaxSim tau was .977, not .984.

    Raises
    ------
    ModelLoadError
        A network of another kind.
    """
    _check(checkpoint.config)
    return _Writer(checkpoint, int8=int8).model(heads)


def codes(weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Symmetric int8 codes of the last axis (..., i), and its scale (..., 1): codes * scale is off by at most half a scale.

    Zeros alone have scale 1. `codes([[-2, 1, 0]])` is ([[-127, 64, 0]], [[2 / 127]]).
    """
    scales = np.abs(weights).max(axis=-1, keepdims=True) / LARGEST_CODE
    scales[scales == 0] = 1
    return np.rint(weights / scales).astype(np.int8), scales.astype(np.float32)


class _Writer:
    """Writes the graph down, block after block; values are nodes of openvino's operation set 13."""

    def __init__(self, checkpoint: Checkpoint, *, int8: bool) -> None:
        import openvino
        from openvino import opset13

        self._openvino, self._op = openvino, opset13
        self._checkpoint, self._int8 = checkpoint, int8
        self._dim = int(checkpoint.config.hidden_size)

    def model(self, heads: Heads) -> Any:
        ids, mask = self._input("ids", 2), self._input("mask", 2)
        every, kept = self._input("every", 1), self._input("kept", 1)
        hidden, ignored = self._embeddings(ids, mask), self._ignored(mask)
        for layer in range(self._checkpoint.config.num_hidden_layers):
            hidden = self._block(f"encoder.layer.{layer}", hidden, ignored)
        outputs = {"dense": self._dense(hidden, mask, heads)}
        rows = self._op.reshape(hidden, self._whole([-1, self._dim]), False)
        if "colbert" in heads.modes:
            outputs["tokens"] = self._unit(self._head(self._checkpoint.colbert, self._rows(rows, kept)), heads)
        if "sparse" in heads.modes:
            weights = self._op.relu(self._head(self._checkpoint.sparse, self._rows(rows, every)))
            outputs["weights"] = self._op.reshape(weights, self._whole([-1]), False)
        results = []
        for name, node in outputs.items():
            result = self._op.result(node)
            result.get_output_tensor(0).set_names({name})
            results.append(result)
        used = {"tokens": kept, "weights": every}
        inputs = [ids, mask, *(node for name, node in used.items() if name in outputs)]
        return self._openvino.Model(results, inputs, "m3retriever")

    def _embeddings(self, ids: Any, mask: Any) -> Any:
        op, config = self._op, self._checkpoint.config
        places = op.cumsum(mask, self._whole(1))  # padding at the right: from 1 on for every token
        if "roberta" in config.model_type:
            places = op.add(op.multiply(places, mask), self._whole(config.pad_token_id))
        else:
            places = op.subtract(places, self._whole(1))
        words = self._looked_up("embeddings.word_embeddings.weight", ids)
        where = self._looked_up("embeddings.position_embeddings.weight", places)
        kind = op.constant(self._array("embeddings.token_type_embeddings.weight")[0])
        return self._norm("embeddings.LayerNorm", op.add(op.add(words, where), kind))

    def _block(self, name: str, hidden: Any, ignored: Any) -> Any:
        """Attention and the feed-forward network, each with its residual and its normalisation."""
        attended = self._linear(f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", hidden, ignored))
        hidden = self._norm(f"{name}.attention.output.LayerNorm", self._op.add(hidden, attended))
        inner = self._op.gelu(self._linear(f"{name}.intermediate.dense", hidden), "erf")
        return self._norm(f"{name}.output.LayerNorm", self._op.add(hidden, self._linear(f"{name}.output.dense", inner)))

    def _attention(self, name: str, hidden: Any, ignored: Any) -> Any:
        op, count = self._op, self._checkpoint.config.num_attention_heads
        apart, turned = self._whole([0, 0, count, self._dim // count]), self._whole([0, 2, 1, 3])
        query, key, value = (
            op.transpose(op.reshape(self._linear(f"{name}.{part}", hidden), apart, True), turned)
            for part in ("query", "key", "value")
        )
        attended = op.scaled_dot_product_attention(query, key, value, ignored)
        return op.reshape(op.transpose(attended, turned), self._whole([0, 0, self._dim]), True)

    def _ignored(self, mask: Any) -> Any:
        """What is added to attention: 0 for tokens, MASKED for padding, (b, 1, 1, t)."""
        op = self._op
        added = op.multiply(op.subtract(self._number(1), op.convert(mask, "f32")), self._number(MASKED))
        return op.unsqueeze(added, self._whole([1, 2]))

    def _dense(self, hidden: Any, mask: Any, heads: Heads) -> Any:
        op = self._op
        if heads.pooling == "cls":
            return self._unit(op.gather(hidden, self._whole(0), self._whole(1)), heads)
        shares = op.unsqueeze(op.convert(mask, "f32"), self._whole([2]))
        total = op.reduce_sum(op.multiply(hidden, shares), self._whole([1]), False)
        return self._unit(op.divide(total, op.reduce_sum(shares, self._whole([1]), False)), heads)

    def _unit(self, vectors: Any, heads: Heads) -> Any:
        if not heads.normalize:
            return vectors
        op = self._op
        norm = op.sqrt(op.reduce_sum(op.multiply(vectors, vectors), self._whole([-1]), True))
        return op.divide(vectors, op.maximum(norm, self._number(EPSILON)))

    def _head(self, head: tuple[FloatArray, FloatArray], rows: Any) -> Any:
        weight, bias = (self._op.constant(np.ascontiguousarray(part, np.float32)) for part in head)
        return self._op.add(self._op.matmul(rows, weight, False, True), bias)

    def _linear(self, name: str, inputs: Any) -> Any:
        op, weight = self._op, self._array(f"{name}.weight")
        node = self._grouped(weight) if self._int8 else op.constant(weight)
        return op.add(op.matmul(inputs, node, False, True), op.constant(self._array(f"{name}.bias")))

    def _grouped(self, weight: FloatArray) -> Any:
        """Codes of (o, i) with a scale for each run of GROUP weights of a row, or for the row where i is no multiple."""
        op, (rows, columns) = self._op, weight.shape
        group = GROUP if columns % GROUP == 0 else columns
        held, scales = codes(weight.reshape(rows, columns // group, group))
        decoded = op.multiply(op.convert(op.constant(held), "f32"), op.constant(scales))
        return op.reshape(decoded, self._whole([rows, columns]), False)

    def _looked_up(self, name: str, places: Any) -> Any:
        """Rows of a table; of int8 codes, decoded after they were taken, so that the table stays small in memory."""
        table = self._array(name)
        if not self._int8:
            return self._rows(self._op.constant(table), places)
        held, scales = codes(table)
        taken = self._op.convert(self._rows(self._op.constant(held), places), "f32")
        return self._op.multiply(taken, self._rows(self._op.constant(scales), places))

    def _norm(self, name: str, inputs: Any) -> Any:
        op = self._op
        even = op.mvn(inputs, self._whole([-1]), True, float(self._checkpoint.config.layer_norm_eps), "inside_sqrt")
        scaled = op.multiply(even, op.constant(self._array(f"{name}.weight")))
        return op.add(scaled, op.constant(self._array(f"{name}.bias")))

    def _rows(self, table: Any, places: Any) -> Any:
        return self._op.gather(table, places, self._whole(0))

    def _input(self, name: str, dimensions: int) -> Any:
        node = self._op.parameter(self._openvino.PartialShape([-1] * dimensions), np.int64, name)
        node.get_output_tensor(0).set_names({name})
        return node

    def _whole(self, values: int | list[int]) -> Any:
        return self._op.constant(np.array(values, np.int64))

    def _number(self, value: float) -> Any:
        return self._op.constant(np.float32(value))

    def _array(self, name: str) -> FloatArray:
        return np.ascontiguousarray(self._checkpoint.weights[name], np.float32)


def _check(config: Any) -> None:
    plain = getattr(config, "hidden_act", "gelu") == "gelu"
    absolute = getattr(config, "position_embedding_type", "absolute") in ("absolute", None)
    if config.model_type not in MODEL_TYPES or not plain or not absolute:
        raise ModelLoadError(
            f"backend 'openvino' runs networks of the types {', '.join(MODEL_TYPES)} with gelu and absolute positions; "
            f"got {config.model_type!r}: take backend='torch'"
        )
