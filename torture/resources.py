"""What happens when memory, time or patience runs out: workers that are interrupted, starved, or given more than fits.

python -m torture.resources ACTION ARGUMENTS... prints what came of it as JSON.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, MemoryStore

if TYPE_CHECKING:
    from m3retriever.encoders.looped import LoopedEncoder
    from m3retriever.encoders.openvino_engine import OpenVINOEngine

ENCODER = HashingEncoder(64)
IDS = 12  # few, so that most changes replace or remove what is there
LONGEST = 0.08  # seconds until an interruption: most changes take less
ROUNDING = 4e-3  # of a ColBERT score whose token vectors are kept in int8, at 64 dimensions
LENGTH, DIM, TOKENS = 64, 64, 100  # of the network that is starved
BATCHES = (4, 100, 300, 600)  # texts
SAME = 1e-3  # two runs in float32


# -- interrupted ---------------------------------------------------------------------------------------


class Interrupted:
    """An index whose every call is interrupted at a random moment as Ctrl-C does it, and then made again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.index = M3Index(ENCODER, ChromaStore(folder))
        self.calm = M3Index(ENCODER, MemoryStore())
        self.random, self.counts = random.Random(seed), Counter[str]()

    def round(self, number: int) -> None:
        """One change or search, and whether the index is as one that nobody interrupted."""
        ids = self.random.sample([f"d{one}" for one in range(IDS)], self.random.randint(1, 4))
        action = self.random.choice(["add", "add", "add", "delete", "search"])
        texts = [Document(id, f"fox number {number} of {id}", {"round": number}) for id in ids]
        calls: dict[str, Callable[[M3Index], object]] = {
            "add": lambda index: index.add(texts),
            "delete": lambda index: index.delete(ids, skip_unknown=True),
            "search": lambda index: index.search(f"number {number}", 3),
        }
        self._interrupted(calls[action])
        calls[action](self.calm)
        self.counts[action] += 1
        self.counts["wrong"] += not self._agree(number)

    def _interrupted(self, call: Callable[[M3Index], object]) -> None:
        try:
            signal.setitimer(signal.ITIMER_REAL, self.random.uniform(1e-4, LONGEST))
            try:
                call(self.index)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            self.counts["interrupted"] += 1
            call(self.index)

    def _agree(self, number: int) -> bool:
        """Texts, hits and scores in every mode."""
        if self.index.ids() != self.calm.ids():
            return False
        ids = self.index.ids()
        if [one.text for one in self.index.get(ids)] != [one.text for one in self.calm.get(ids)]:
            return False
        for query in (f"fox number {number}", f"number {number - 1} of d3"):
            found, wanted = (dict(self._scores(one, query)) for one in (self.index, self.calm))
            if set(found) != set(wanted) or any(np.abs(found[id] - wanted[id]).max() > ROUNDING for id in found):
                return False
        return True

    @staticmethod
    def _scores(index: M3Index, query: str) -> Iterator[tuple[str, Any]]:
        scores = index.score(query, depth=IDS)
        return zip(scores.ids, scores.values, strict=True)


def interrupts(folder: str, wanted: str, seed: str = "0") -> dict[str, int]:
    """Go on until so many calls were interrupted; then open the index again."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    work, number = Interrupted(Path(folder), int(seed)), 0
    while work.counts["interrupted"] < int(wanted):
        number += 1
        work.round(number)
    work.index.close()
    work.index = M3Index(ENCODER, ChromaStore(Path(folder)))
    work.counts["wrong"] += not work._agree(number)
    work.index.close()
    return dict(work.counts)


# -- starved -------------------------------------------------------------------------------------------


def tiny_graph(folder: Path) -> None:
    """A network of one layer with random weights, as an export of OpenVINO."""
    import openvino

    from m3retriever.encoders.engine import Heads
    from m3retriever.encoders.openvino_graph import Checkpoint, graph

    numbers = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return numbers.normal(0, 0.3, shape).astype(np.float32)

    layer, inner = "encoder.layer.0.", 4 * DIM
    shapes = {
        **{f"embeddings.{name}_embeddings.weight": (rows, DIM) for name, rows in TABLES.items()},
        **{f"{layer}attention.self.{part}.weight": (DIM, DIM) for part in ("query", "key", "value")},
        f"{layer}attention.output.dense.weight": (DIM, DIM),
        f"{layer}intermediate.dense.weight": (inner, DIM),
        f"{layer}output.dense.weight": (DIM, inner),
        f"{layer}intermediate.dense.bias": (inner,),
        **{f"{name}.{part}": (DIM,) for name in NORMS for part in ("weight", "bias")},
        **{f"{layer}{name}.bias": (DIM,) for name in BIASES},
    }
    config = SimpleNamespace(
        model_type="bert", hidden_size=DIM, num_hidden_layers=1, num_attention_heads=2, layer_norm_eps=1e-5, pad_token_id=0
    )  # fmt: skip
    heads = (weights(1, DIM), weights(1)), (weights(DIM, DIM), weights(DIM))
    made = graph(Checkpoint(config, {name: weights(*shape) for name, shape in shapes.items()}, *heads), Heads(), int8=False)
    openvino.save_model(made, folder / "model.xml", compress_to_fp16=False)
    settings = {"dim": DIM, "positions": LENGTH, "modes": ["dense", "sparse", "colbert"], "int8": False}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")


TABLES = {"word": TOKENS, "position": LENGTH, "token_type": 1}
NORMS = ("embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm")
BIASES = (*(f"attention.self.{part}" for part in ("query", "key", "value")), "attention.output.dense", "output.dense")


def tiny_encoder(folder: Path, engine: type[OpenVINOEngine] | None = None, *, batch_tokens: int = 4096) -> LoopedEncoder:
    """An encoder that knows the words w0 to w89 and reads LENGTH tokens; its engine may be a subclass."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from m3retriever.encoders.loop import EncodingLoop
    from m3retriever.encoders.looped import LoopedEncoder
    from m3retriever.encoders.openvino_engine import OpenVINOEngine
    from m3retriever.encoders.tokenizing import Tokenizing

    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    words = {f"w{number}": 10 + number for number in range(90)}
    tokenizer = Tokenizer(models.WordLevel({**special, **words}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tiny_graph(folder)
    tokenizing = Tokenizing(tokenizer, 1, 3, frozenset(special.values()))
    loop = EncodingLoop((engine or OpenVINOEngine)(folder), tokenizing, max_length=LENGTH, batch_tokens=batch_tokens)
    return LoopedEncoder(loop, "tiny")


def starve(folder: str, steps: str) -> dict[str, int]:
    """Run batches with less and less memory to be had; each gives what it gave before, or says that memory ran out."""
    from m3retriever.encoders.openvino_engine import OpenVINOEngine

    tiny_graph(Path(folder))
    engine, numbers, counts = OpenVINOEngine(Path(folder)), np.random.default_rng(0), Counter[str]()
    batches = [numbers.integers(1, TOKENS, (count, LENGTH)) for count in BATCHES]
    plenty = [_copied(OpenVINOEngine(Path(folder)).run(ids, np.ones_like(ids))) for ids in batches]
    for extra in np.linspace(1, 200, int(steps)).astype(int).tolist():
        resource.setrlimit(resource.RLIMIT_DATA, (_data() + (extra << 20), resource.RLIM_INFINITY))
        for place in numbers.permutation(len(batches)).tolist():
            ids = batches[place]
            try:
                views = engine.run(ids, np.ones_like(ids))
                counts["right" if _same(_copied(views), plenty[place]) else "wrong"] += 1
            except (MemoryError, RuntimeError) as error:
                counts["refused" if engine.ran_out_of_memory(error) else "wrong"] += 1
    return dict(counts)


def _copied(views: Any) -> list[Any]:
    return [np.array(part) for part in (views.dense, views.tokens, views.weights)]


def _same(found: list[Any], wanted: list[Any]) -> bool:
    pairs = zip(found, wanted, strict=True)
    return all(one.shape == other.shape and np.abs(one - other).max() < SAME for one, other in pairs)


def _data() -> int:
    """Bytes of memory that this process has of its own, as RLIMIT_DATA counts them."""
    return _status("self", "VmData")


def _status(process: int | str, name: str) -> int:
    """A number of bytes from what the system says of a process; 0 where it has gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


# -- more than fits ------------------------------------------------------------------------------------


def write_corpus(path: Path, documents: int, characters: int) -> int:
    """JSONL of documents whose texts nobody could compress; its size in bytes."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(documents):
            text = random.Random(number).randbytes(characters // 2).hex()
            file.write(json.dumps({"_id": f"d{number}", "text": f"w{number} fox {text}"}) + "\n")
    return path.stat().st_size


def peak_while_indexing(corpus: Path, folder: Path) -> int:
    """The most memory of its own, in bytes, that `m3retriever index` had; what it maps from files is the system's to give."""
    command = [str(Path(sys.executable).with_name("m3retriever")), "index", str(corpus), "--path", str(folder)]
    process, peak = subprocess.Popen([*command, "--model", "hashing"], stdout=subprocess.DEVNULL), 0
    while process.poll() is None:
        peak = max(peak, _status(process.pid, "RssAnon"))
        time.sleep(0.02)
    assert process.returncode == 0, process.returncode
    return peak


def indexing(documents: str, characters: str) -> dict[str, int]:
    """Index a corpus, and say how large it was and how much memory that took."""
    folder = Path(tempfile.mkdtemp())
    try:
        size = write_corpus(folder / "corpus.jsonl", int(documents), int(characters))
        return {"bytes": size, "peak": peak_while_indexing(folder / "corpus.jsonl", folder / "index")}
    finally:
        shutil.rmtree(folder)


ACTIONS: dict[str, Callable[..., dict[str, int]]] = {"interrupts": interrupts, "starve": starve, "indexing": indexing}


def run(action: str, *arguments: object, timeout: float = 600) -> dict[str, int]:
    """What an action gives in a process of its own."""
    command = [sys.executable, "-m", "torture.resources", action, *map(str, arguments)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


if __name__ == "__main__":
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))
