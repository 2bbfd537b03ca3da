"""Checks that every Encoder and every Store must pass. Whoever writes another calls them in a test.

`check_encoder(MyEncoder())`, `check_store(lambda: MyStore())`: an AssertionError says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from m3retriever.encoders.hashing import HashingEncoder
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, M3RetrieverError, UnknownDocumentError
from m3retriever.stores.memory import MemoryStore
from m3retriever.types import MODES, Document, Encoder, ListsIds, ModeScores, Store, Tokenizes, Where

TEXTS = ["the red fox", "a blue whale", "red red wine", "", "狐 и лиса", "one two three four five six seven eight"]
TOKEN_TOLERANCE = 2e-3  # a store may keep token vectors as int8 codes: at 256 dimensions off by less than this
FILTERS: tuple[Where | None, ...] = (
    None,
    {"page": 3},
    {"page": {"$gte": 2}},
    {"color": {"$ne": "red"}},
    {"color": {"$in": ["red", "blue"]}},
    {"$and": [{"page": {"$lt": 40}}, {"color": "red"}]},
    {"$or": [{"page": 1}, {"tags": {"$contains": "b"}}]},
    {"color": "none has it"},
    {"color": {"$text_match_insensitive": "RE"}},
    {"tags": {"$empty": True}},
    {"$not": {"page": {"$gt": 9}}},
    {"#document": {"$contains": "w1 w"}},
    {"$and": [{"#document": {"$not_regex": "w[23]$"}}, {"$not": {"color": "red"}}]},
    {"$or": [{"#id": {"$in": ["none has it"]}}, {"color": {"$gt": "blue"}}]},
)


def check_encoder(encoder: Encoder) -> None:
    """One row a text, in order, the same alone as in a batch, finite, of norm 1, queries as documents."""
    batch = encoder.encode_documents(TEXTS)
    _require(len(batch) == len(TEXTS), f"{len(TEXTS)} texts must give as many rows; got {len(batch)}")
    _require(batch.dim == encoder.dim, f"dim says {encoder.dim}, the vectors have {batch.dim}")
    _require(isinstance(encoder.name, str) and bool(encoder.name), "name must be a non-empty str")
    empty = encoder.encode_documents([])
    _require(len(empty) == 0 and empty.dim == encoder.dim, "no texts must give no rows, of the same dimension")
    for row, text in enumerate(TEXTS):
        alone, many = encoder.encode_queries([text]), batch[row]
        np.testing.assert_allclose(many.dense, alone.dense, atol=1e-3, err_msg=f"dense of {text!r} depends on its batch")
        np.testing.assert_allclose(many.colbert, alone.colbert, atol=1e-2, err_msg=f"tokens of {text!r} depend on its batch")
        _require(many.sparse_ids.tolist() == alone.sparse_ids.tolist(), f"sparse tokens of {text!r} depend on its batch")
        np.testing.assert_allclose(np.linalg.norm(many.dense, axis=1), 1, atol=1e-3, err_msg=f"norm of {text!r}")
        _require(bool((many.sparse_weights > 0).all()), f"sparse weights of {text!r} must be > 0")
        _require(bool((np.diff(many.sparse_ids) > 0).all()), f"sparse ids of {text!r} must ascend")
        if isinstance(encoder, Tokenizes):
            tokens = encoder.tokenize(text)
            _require(len(tokens) == len(many.colbert), f"{text!r}: {len(tokens)} tokens but {len(many.colbert)} token vectors")


def check_store(make_store: Callable[[], Store]) -> None:
    """Keeps what it is given, forgets what it is told to, and finds what MemoryStore finds, mode by mode.

    `make_store` makes an empty store; it is called several times.
    """
    _check_contents(make_store)
    _check_errors(make_store)
    _check_searches(make_store)


def _check_contents(make_store: Callable[[], Store]) -> None:
    encoder, store = HashingEncoder(), make_store()
    query = encoder.encode_queries(["fox"])
    _require(len(store) == 0, "a new store is empty")
    _require(len(store.search(query, depth=5)) == 0, "an empty store finds nothing")
    documents = [Document(f"id/{row}", text, {"page": row, "gone": True, "none": None}) for row, text in enumerate(TEXTS)]
    store.add(documents, encoder.encode_documents(TEXTS))
    store.add([Document("id/1", "a green frog", {"page": 7})], encoder.encode_documents(["a green frog"]))
    store.delete(["id/2"])
    _require(len(store) == len(TEXTS) - 1, f"want {len(TEXTS) - 1} documents after an upsert and a delete; got {len(store)}")
    last, first = store.get(["id/5", "id/0"])
    _require((last.id, first.id) == ("id/5", "id/0"), "get keeps the order asked for")
    _require((first.text, dict(first.metadata)) == (TEXTS[0], {"page": 0, "gone": True}), "a document comes back as it went")
    [replaced] = store.get(["id/1"])
    _require((replaced.text, dict(replaced.metadata)) == ("a green frog", {"page": 7}), "add replaces text and metadata whole")
    found = store.search(encoder.encode_queries(["whale wine"]), depth=10)
    _require(not any("sparse" in modes for modes in found.found_by), "what was replaced or deleted is found no more")
    store.close()


def _check_errors(make_store: Callable[[], Store]) -> None:
    encoder, store = HashingEncoder(), make_store()
    vectors = encoder.encode_documents(["a", "b"])
    query = encoder.encode_queries(["a"])
    store.add([Document("a", "a"), Document("b", "b")], vectors)
    _raises(UnknownDocumentError, "get of an unknown id", lambda: store.get(["a", "?"]))
    _raises(UnknownDocumentError, "delete of an unknown id", lambda: store.delete(["a", "?"]))
    _raises(UnknownDocumentError, "score of an unknown id", lambda: store.score(query, ["?"]))
    _raises(InvalidDocumentError, "the same id twice", lambda: store.add([Document("c", "c"), Document("c", "d")], vectors))
    _raises(InvalidDocumentError, "an empty id", lambda: store.add([Document("", "c"), Document("d", "d")], vectors))
    bad = [Document("c", "c"), Document("d", "d", {"when": object()})]
    _raises(InvalidDocumentError, "metadata of another type", lambda: store.add(bad, vectors))
    _raises(M3RetrieverError, "fewer vectors than documents", lambda: store.add([Document("c", "c")], vectors))
    other = HashingEncoder(encoder.dim // 2).encode_documents(["c"])
    _raises(M3RetrieverError, "vectors of another dimension", lambda: store.add([Document("c", "c")], other))
    _raises(InvalidArgumentError, "depth 0", lambda: store.search(query, depth=0))
    _raises(InvalidArgumentError, "an unknown operator", lambda: store.search(query, depth=1, where={"a": {"$like": "b"}}))
    _require(len(store) == 2, "a refused call changes nothing")
    store.close()


def _check_searches(make_store: Callable[[], Store]) -> None:
    encoder, store, exact = HashingEncoder(), make_store(), MemoryStore()
    documents = _collection(120)
    for each in (store, exact):
        each.add(documents, encoder.encode_documents([document.text for document in documents]))
        each.delete([document.id for document in documents[::7]])
        again = documents[::11]
        each.add(again, encoder.encode_documents([document.text for document in again]))
    for text in ("w1 w2 w3", "w5", "nothing of it", "w1 " * 40):
        query = encoder.encode_queries([text])
        for where in FILTERS:
            for depth in (3, 1000):
                _same_scores(store.search(query, depth=depth, where=where), exact.search(query, depth=depth, where=where))
        ids = _held(exact, documents)
        _require(not isinstance(store, ListsIds) or store.ids() == sorted(ids), "ids lists what the store holds, ascending")
        _same_scores(store.score(query, ids), exact.score(query, ids))
    store.close()


def _held(store: Store, documents: list[Document]) -> list[str]:
    """Ids of the documents that the store has, in descending order."""
    held = []
    for document in reversed(documents):
        try:
            held += [found.id for found in store.get([document.id])]
        except UnknownDocumentError:
            continue
    return held


def _collection(count: int) -> list[Document]:
    """Short texts with many ties (equal texts under different ids), and metadata of every kind."""
    random = np.random.default_rng(0)
    documents = []
    for row in range(count):
        words = " ".join(f"w{word}" for word in random.integers(0, 12, random.integers(0, 6)))
        color = ("red", "blue", "green")[row % 3]
        metadata = {"page": row, "color": color, "tags": ["a", "b"][: 1 + row % 2]} if row % 5 else {"page": float(row)}
        documents.append(Document(f"{random.integers(1 << 30)}-{row}", words, metadata))
    return documents


def _same_scores(ours: ModeScores, theirs: ModeScores) -> None:
    """The same candidates, found by the same modes, with the same scores: dense and sparse to rounding."""
    _require(
        set(ours.ids) == set(theirs.ids), f"other candidates than MemoryStore's: {sorted(set(ours.ids) ^ set(theirs.ids))}"
    )
    place = {id: row for row, id in enumerate(ours.ids)}
    rows = [place[id] for id in theirs.ids]
    _require([ours.found_by[row] for row in rows] == list(theirs.found_by), "found_by differs from MemoryStore's")
    for column, mode in enumerate(MODES):
        tolerance = TOKEN_TOLERANCE if mode == "colbert" else 1e-6
        np.testing.assert_allclose(ours.values[rows, column], theirs.values[:, column], atol=tolerance, err_msg=mode)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _raises(kind: type[Exception], what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{what} must raise {kind.__name__}")
