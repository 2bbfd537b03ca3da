"""VLLMEncoder: BGE-M3's three views from vLLM's own endpoints.

As vLLM documents them for `BgeM3EmbeddingModel` ("Specific Model Examples", read in its repository in 2026): the dense
vector is task `embed` of /v1/embeddings, sparse weights are task `token_classify` and token vectors task `token_embed` of
/pooling. Of a text's tokens vLLM leaves out the first (CLS) in `token_embed`, and the first and the last (end of text) in
`token_classify`; which tokens they are, /tokenize says. Tested against a stand-in that answers so, with a real
checkpoint; not yet against vLLM itself.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from m3retriever.encoders.answers import (
    MOST_DIMENSIONS,
    SMALL_BYTES,
    check_answered,
    is_count,
    is_name,
    most_tokens,
)
from m3retriever.encoders.elsewhere import EncoderElsewhere, Kind
from m3retriever.encoders.http import HttpService, Patience, in_order
from m3retriever.errors import (
    EncoderMismatchError,
    InvalidArgumentError,
    ModelLoadError,
    ServiceError,
    shown,
)
from m3retriever.types import MODES, Mode
from m3retriever.vectors import FloatArray, M3Vectors

SCHEME = "vllm+"  # before the address, where an encoder is named by a text
START, PAD, END, UNKNOWN = 0, 1, 2, 3  # ids of XLM-RoBERTa's vocabulary, which is BGE-M3's
UNUSED = frozenset((START, PAD, END, UNKNOWN))  # no sparse weight: as FlagEmbedding
MAX_LENGTH = 8192  # tokens, as BGE-M3 was trained
BATCH_TOKENS = 16_384  # in one request: 64 MB of token vectors at 1024 dimensions
BATCH_TEXTS = 64
NUMBER_BYTES = 32  # of a float in JSON, where base64 was not understood
ID_BYTES = 16  # of a token id in JSON
PROBE = "What is BGE M3?"  # whose numbers of positions tell what vLLM leaves out
TASKS: dict[Mode, Literal["embed", "token_classify", "token_embed"]] = {
    "dense": "embed",
    "sparse": "token_classify",
    "colbert": "token_embed",
}
"""vLLM's name for what each mode needs."""


class VLLMEncoder(EncoderElsewhere):
    """BGE-M3 in vLLM: `vllm serve BAAI/bge-m3 --hf-overrides '{"architectures": ["BgeM3EmbeddingModel"]}'`.

    Newer vLLM serves one task a process (`--pooler-config.task`), so that three are needed, each with an address. Tokens
    are asked for first, texts are cut here, and every task gets the same token ids. Not `Tokenizes`: vLLM does not say
    which characters a token covers. Vectors equal the local model's up to vLLM's own rounding, not to the bit.

    Parameters
    ----------
    url
        Of the process with task `embed`, and of all tasks where the other two are not given.
    sparse_url, colbert_url
        Of the processes with the tasks `token_classify` and `token_embed`.
    model
        What vLLM calls the model: --served-model-name, else what it was started with.
    name
        What the vectors are filed under; default "vllm:" and the model. vLLM gives no fingerprint of its weights, so that
        nothing here can tell two checkpoints of one name apart. Whoever knows that the weights are those of a local
        `BGEM3Encoder` gives its name, and both can use one index; `encoders.fidelity.fidelity` compares the two.
    max_length
        Tokens read of a text, special ones included; at most what vLLM was started with.
    api_key, timeout, retries, deadline, concurrency, allow_insecure, tls
        As of `RemoteEncoder`. Up to three requests more are under way at a time, for one batch needs three.

    Raises
    ------
    ModelLoadError
        A process cannot be reached, has not its task, or another model or tokenizer.
    EncoderMismatchError
        A later answer is of another model.
    ServiceError
        No answer, or one that is no vectors.
    """

    precision = None  # vLLM does not say
    max_length: int

    def __init__(
        self,
        url: str,
        *,
        model: str = "BAAI/bge-m3",
        sparse_url: str | None = None,
        colbert_url: str | None = None,
        name: str | None = None,
        max_length: int = MAX_LENGTH,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        deadline: float = 300.0,
        concurrency: int = 2,
        allow_insecure: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(concurrency)
        if not is_count(max_length) or max_length < 3 or not is_name(model) or not (name is None or is_name(name)):
            raise InvalidArgumentError(
                f"max_length must be an integer >= 3, model and name are names; got {shown((max_length, model, name))}"
            )
        how: dict[str, Any] = {"api_key": api_key, "allow_insecure": allow_insecure, "tls": tls}
        patience = Patience(timeout, retries, deadline)
        urls = dict(zip(MODES, (url, sparse_url or url, colbert_url or url), strict=True))
        known = {one: HttpService(one, patience=patience, **how) for one in set(urls.values())}
        self._services = {mode: known[urls[mode]] for mode in MODES}
        self.model, self.name = model, f"vllm:{model}" if name is None else name
        self.dim = MOST_DIMENSIONS  # until the first answer says how many they are
        self.max_length = min(max_length, *(self._reads(service) for service in known.values()))
        self.dim = self._looked_at()

    @classmethod
    def at(cls, location: str) -> VLLMEncoder:
        """From a text, vllm+http://host:8000, or three addresses by comma: for dense, sparse and ColBERT."""
        urls = location.removeprefix(SCHEME).split(",")
        if len(urls) not in (1, 3):
            raise InvalidArgumentError(f"vLLM takes one address or three (dense, sparse, colbert); got {len(urls)}")
        dense, sparse, colbert = urls * 3 if len(urls) == 1 else urls
        return cls(dense, sparse_url=sparse, colbert_url=colbert)

    def close(self) -> None:
        """End the connections; later calls raise a ServiceError."""
        for service in self._services.values():
            service.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._services['dense'].url!r}, model={self.model!r})"

    # -- at the start ------------------------------------------------------------------------------

    def _reads(self, service: HttpService) -> int:
        """How many tokens vLLM takes; ModelLoadError where it has not the model."""
        try:
            answer = service.get("/v1/models", at_most=SMALL_BYTES, starting=True)
            models = {model["id"]: model.get("max_model_len") for model in answer["data"]}
        except ServiceError as error:
            raise ModelLoadError(f"{error}; {_start('<task>')}") from error
        except (LookupError, TypeError, AttributeError):
            raise ModelLoadError(f"the service at {service.url} does not list its models; {_start('<task>')}") from None
        if self.model not in models:
            names = ", ".join(filter(is_name, models)) or "none"
            raise ModelLoadError(f"want the model {self.model}; the service at {service.url} has {names}: give it as model=")
        reads = models[self.model]
        return reads if is_count(reads) and reads >= 3 else MAX_LENGTH

    def _looked_at(self) -> int:
        """The dimension, after a text was encoded in all three tasks."""
        try:
            if (ids := self._ids("")) != [START, END]:
                raise self._services["dense"].failed("has not BGE-M3's tokenizer: an empty text has other tokens than <s> </s>")
            [dense] = self._asked("dense", [ids])
            self.dim = dense.size
            self._batch([self._ids(PROBE)])
        except ServiceError as error:
            raise ModelLoadError(str(error)) from error
        return self.dim

    # -- encoding ----------------------------------------------------------------------------------

    def _parts(self, texts: list[str], kind: Kind) -> Iterator[tuple[M3Vectors, int]]:  # no difference to it
        ids = list(in_order(self._ids, texts, self._concurrency))
        cut = sum(len(row) > self.max_length for row in ids)
        ids = [row if len(row) <= self.max_length else [*row[: self.max_length - 1], END] for row in ids]
        for part in in_order(self._batch, list(_batches(ids)), self._concurrency):
            yield part, cut
            cut = 0

    def _ids(self, text: str) -> list[int]:
        """A text's token ids, <s> first and </s> last; /tokenize takes one text a request."""
        service = self._services["dense"]
        at_most = SMALL_BYTES + ID_BYTES * most_tokens(text, None)
        answer = service.post("/tokenize", {"model": self.model, "prompt": text, "add_special_tokens": True}, at_most=at_most)
        ids = answer.get("tokens") if isinstance(answer, Mapping) else None
        if not isinstance(ids, list) or len(ids) < 2 or not all(map(is_count, ids)) or (ids[0], ids[-1]) != (START, END):
            raise service.failed("gave tokens that are not BGE-M3's, which begin with <s> and end with </s>")
        return ids

    def _batch(self, ids: list[list[int]]) -> M3Vectors:
        """The three views of some texts, by their tokens."""
        dense, weights, tokens = in_order(partial(self._task, ids), MODES, len(MODES))
        vectors = M3Vectors.from_rows(
            _units(np.stack([row.reshape(-1) for row in dense])),
            [_largest(row[1:-1], of_row.reshape(-1)) for row, of_row in zip(ids, weights, strict=True)],
            [_units(rows) for rows in tokens],
        )
        check_answered(self._services["dense"], vectors, len(ids), self.dim)
        return vectors

    def _task(self, ids: list[list[int]], mode: Mode) -> list[FloatArray]:
        """One mode of some texts: (1, d), (t - 2, 1) or (t - 1, d) for a text of t tokens."""
        left_out, width = {"dense": (None, self.dim), "sparse": (2, 1), "colbert": (1, self.dim)}[mode]
        answers = self._asked(mode, ids)
        rows = []
        for row, numbers in zip(ids, answers, strict=True):
            want = 1 if left_out is None else len(row) - left_out
            if left_out is not None and numbers.size == len(row) * width:  # also of those that vLLM is said to leave out
                numbers = numbers[width : numbers.size - (width if left_out == 2 else 0)]
            if numbers.size != want * width:
                raise self._services[mode].failed(
                    f"gave {numbers.size} numbers in task {TASKS[mode]} for a text of {len(row)} tokens; "
                    f"want {want * width}: {_start(TASKS[mode])}"
                )
            rows.append(numbers.reshape(want, width))
        return rows

    def _asked(self, mode: Mode, ids: list[list[int]]) -> list[FloatArray]:
        """The numbers of each text in one task, flat."""
        service, task = self._services[mode], TASKS[mode]
        path, key = ("/v1/embeddings", "embedding") if mode == "dense" else ("/pooling", "data")
        asked: dict[str, Any] = {"model": self.model, "input": ids, "encoding_format": "base64"}
        if mode != "dense":
            asked["task"] = task
        rows = len(ids) if mode == "dense" else sum(map(len, ids))
        at_most = SMALL_BYTES + NUMBER_BYTES * rows * (1 if mode == "sparse" else self.dim)
        try:
            answer = service.post(path, asked, at_most=at_most)
        except ServiceError as error:
            if error.status in (400, 404, 422):
                raise service.failed(f"does not do task {task} (status {error.status}): {_start(task)}") from error
            raise
        return self._numbers(service, answer, key, len(ids))

    def _numbers(self, service: HttpService, answer: Any, key: str, texts: int) -> list[FloatArray]:
        try:
            model, items = answer["model"], sorted(answer["data"], key=lambda item: int(item["index"]))
            rows = [_floats(item[key]) for item in items]
        except (LookupError, TypeError, ValueError, AttributeError):  # not chained: it may repeat what came
            raise service.failed("gave an answer that is not vLLM's") from None
        if model != self.model:
            raise EncoderMismatchError(f"want the model {self.model}; the service at {service.url} has another one now")
        if [item["index"] for item in items] != list(range(texts)):
            raise service.failed(f"gave vectors of {len(items)} texts; want {texts}")
        return rows


def _start(task: str) -> str:
    return (
        "start it with: vllm serve BAAI/bge-m3 --runner pooling --hf-overrides "
        f"""'{{"architectures": ["BgeM3EmbeddingModel"]}}' --pooler-config.task {task}"""
    )


def _batches(ids: list[list[int]]) -> Iterator[list[list[int]]]:
    """Texts, in order, in runs of at most BATCH_TEXTS and BATCH_TOKENS, where a text alone is not more."""
    run: list[list[int]] = []
    tokens = 0
    for row in ids:
        if run and (len(run) == BATCH_TEXTS or tokens + len(row) > BATCH_TOKENS):
            yield run
            run, tokens = [], 0
        run.append(row)
        tokens += len(row)
    if run:
        yield run


def _floats(numbers: Any) -> FloatArray:
    """What vLLM gives for one text, as base64 of little-endian float32 or as lists; flat. ValueError for what is neither."""
    try:
        if isinstance(numbers, str):
            return np.frombuffer(base64.b64decode(numbers, validate=True), "<f4").astype(np.float32)
        if not isinstance(numbers, list):
            raise TypeError
        array = np.asarray(numbers)
        if array.size and array.dtype.kind not in "fiu":
            raise TypeError
        return array.astype(np.float32).reshape(-1)
    except (TypeError, OverflowError, binascii.Error) as error:
        raise ValueError("no numbers") from error


def _units(rows: FloatArray) -> FloatArray:
    """Rows of norm 1, for vLLM rounds to its own precision after it has normalised. (n, d) float32."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    units: FloatArray = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return units


def _largest(ids: Sequence[int], weights: FloatArray) -> dict[int, float]:
    """Each token's largest weight, without those that have none: `_largest([5, 6, 5, 2], [.1, 0, .3, .4])` is {5: .3}."""
    row: dict[int, float] = {}
    for token, weight in zip(ids, weights.tolist(), strict=True):
        if token not in UNUSED and not weight <= row.get(token, 0.0):
            row[token] = weight
    return row
