"""Scores that mean nothing, and scores that mean the same text: what a user's own corpus says without labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

import numpy as np

from m3retriever.errors import InvalidArgumentError
from m3retriever.evaluation import Qrels
from m3retriever.passages import parents_of
from m3retriever.scoring import score
from m3retriever.types import Document, Encoder, ModeScores, Store, Where

QUESTIONS = 200  # with DOCUMENTS each 10,000 pairs: rates down to 0.0001 can be told
DOCUMENTS = 50
OPENING = 200  # characters: the beginning of a document stands in for a question
SEED = 0
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


class Samples(Protocol):
    """What sampling needs of an M3Index."""

    @property
    def encoder(self) -> Encoder: ...
    @property
    def store(self) -> Store: ...
    def ids(self, where: Where | None = None) -> list[str]: ...
    def get(self, ids: Sequence[str], *, skip_unknown: bool = False) -> list[Document]: ...


def unrelated_pairs(
    index: Samples,
    queries: Mapping[str, str] | None = None,
    qrels: Qrels | None = None,
    *,
    questions: int = QUESTIONS,
    documents: int = DOCUMENTS,
    on_step: Callable[[int], None] = lambda done: None,
) -> list[ModeScores]:
    """Scores of questions with documents drawn at random: for each question one ModeScores of up to `documents`.

    What is judged relevant to a question is not drawn for it, nor passages of that. Without questions the first
    sentences of random documents stand in, each for a question about its own document. The same index gives the
    same pairs. `on_step` is called with 0 for each question: it may end the work by raising.
    """
    ids = index.ids()
    if len(ids) <= 1:
        raise InvalidArgumentError(f"unrelated pairs are drawn from at least 2 documents; the index has {len(ids)}")
    random = np.random.default_rng(SEED)
    parents, asked = parents_of(index), questions_of(index, ids, queries, count=questions)
    vectors = index.encoder.encode_queries(list(asked.values()))
    pairs = []
    for (key, text), vector in zip(asked.items(), vectors, strict=True):
        on_step(0)
        own = {id for id, grade in (qrels or {}).get(key, {}).items() if grade > 0} if queries else {parents.get(key, key)}
        drawn = (ids[row] for row in random.permutation(len(ids)))
        others = list(islice((id for id in drawn if parents.get(id, id) not in own and id not in own), documents))
        if others:
            pairs.append(replace(index.store.score(vector, others), query=text))
    return pairs


def questions_of(
    index: Samples, ids: Sequence[str], queries: Mapping[str, str] | None, *, count: int = QUESTIONS
) -> dict[str, str]:
    """Up to `count` questions, drawn at random: those given by their ids, or first sentences by their documents' ids."""
    random = np.random.default_rng(SEED)
    keys = list(ids if queries is None else queries)
    drawn = [keys[row] for row in random.permutation(len(keys))[:count]]
    if queries is not None:
        return {key: queries[key] for key in drawn}
    found = {document.id: opening(document.text) for document in index.get(drawn, skip_unknown=True)}
    return {id: text for id, text in found.items() if text}


def identical_pairs(encoder: Encoder, texts: Sequence[str]) -> ModeScores:
    """Scores of texts with themselves less one word (or sign, where there are no blanks): what "nearly identical" looks like.

    A text of one word is compared with itself.
    """
    random = np.random.default_rng(SEED)
    changed = [without_one_word(text, random) for text in texts]
    asked, held = encoder.encode_queries(list(texts)), encoder.encode_documents(changed)
    values = np.concatenate([np.empty((0, 3), np.float32), *(score(asked[row], held[row]) for row in range(len(texts)))])
    return ModeScores(tuple(str(row) for row in range(len(texts))), values)


def opening(text: str) -> str:
    """The first sentence of a text, or as much of it as a question would have."""
    return next((part.strip() for part in SENTENCE.split(text) if part.strip()), "")[:OPENING]


def without_one_word(text: str, random: np.random.Generator) -> str:
    """The text less one of its words, or of its signs where it has only one word."""
    words = text.split()
    if len(words) > 1:
        del words[int(random.integers(len(words)))]
        return " ".join(words)
    place = int(random.integers(len(text))) if len(text) > 1 and not text.isascii() else len(text)
    return text[:place] + text[place + 1 :]
