"""What people and programs feed an index: odd texts, ids, metadata, vectors, lines and settings, drawn at random.

Each is either taken and given back exactly, or refused with one M3RetrieverError that names what is wrong, and then the
index is as it was. What may be stored is said here once more, in `fault`, so that the library's own checks are held to it.
"""

from __future__ import annotations

import asyncio
import enum
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import TextNode
from pydantic import ValidationError

from m3retriever import (
    ChromaStore,
    Document,
    HashingEncoder,
    InvalidDocumentError,
    M3Index,
    M3RetrieverError,
    MemoryStore,
)
from m3retriever.langchain import M3VectorStore
from m3retriever.llama_index import M3VectorStore as LlamaStore
from m3retriever.ranking import SEARCH_MODES
from torture.isolation import bits

DIM = 16
GUARDS = [
    Document("guard 1", "red fox", {"n": 1}),
    Document("guard 2", "blue whale sings", {"n": 2.5}),
    Document("guard 3", ""),
]
QUERY = "red whale"
MAX = sys.float_info.max
QUERY_TOKENS = 500  # of a text, to find it by
MOST_CHARACTERS = 1_000  # of an error: it is one line, however long what was wrong


class Colour(str, enum.Enum):
    RED = "red"


class Dict(dict):  # type: ignore[type-arg]
    """A subclass, as many libraries have."""


# -- what is drawn ---------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "\t\n",
    "\x00",
    "a\x00b",
    "\r\n",
    "\u202eright to left",
    "שלום",
    "مرحبا",
    "e\u0301",
    "\u0301",
    "🦊",
    "👩\u200d🚀",
    "\ufeffx",
]
ODD += [
    "\uffff",
    "\U0010ffff",
    "\u2028",
    "../../etc/passwd",
    "C:\\x",
    "%_*",
    "'; --",
    '"',
    "null",
    "<b>",
    "\x1b[31m",
    "\x7f",
    "é" * 600,
]
SURROGATES = ["\ud800", "x\udfff", "\udc80\ud800"]
odd_texts = st.sampled_from(ODD) | st.text(max_size=12) | st.sampled_from(["red fox", "文 中", "w " * 300, "§ ¶"])
ids = odd_texts.filter(bool)
bad_texts = st.sampled_from(SURROGATES) | st.sampled_from([None, 5, b"bytes", 1.5, ["x"]])
floats = st.floats(allow_nan=False, allow_infinity=False)
ints = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -(2**63), 2**63 - 1])
good_scalars = odd_texts | floats | ints | st.booleans()
good_values = st.one_of(
    good_scalars,
    st.none(),
    *(st.lists(one, min_size=1, max_size=4) for one in (odd_texts, floats, ints, st.booleans())),
)
NUMPY_VALUES = [np.float32(1), np.int64(1), np.bool_(True), np.str_("x"), np.array([1.0]), [np.float64(1)]]
OUT_OF_RANGE = [
    math.nan,
    math.inf,
    [math.nan],
    [1.0, -math.inf],
    2**63,
    -(2**63) - 1,
    10**400,
    [2**64],
    "\ud800",
    ["ok", "\udfff"],
]
bad_values = st.sampled_from(
    [
        [],
        [None],
        [1, None],
        [1, "x"],
        [1, 1.0],
        [True, 1],
        [[1]],
        {},
        {"a": 1},
        Dict(a=1),
        b"x",
        1j,
        (1, 2),
        {1},
        object,
        Colour.RED,
        *NUMPY_VALUES,
        *OUT_OF_RANGE,
    ]
)
good_keys = st.sampled_from(
    ["k", "ключ", "a.b", " ", "\n", "\x00", "id", "document", "k'\"", "x#", "chroma", "e\u0301"]
) | st.text("abc$# é", min_size=1, max_size=4).filter(lambda key: key[0] not in "#$")
bad_keys = st.sampled_from(["", "#x", "$x", "#document", "chroma:document", "chroma:x", "\ud800", 1, None, ("a",), b"k"])
good_metadata = st.dictionaries(good_keys, good_values, max_size=4) | st.dictionaries(good_keys, good_values, max_size=2).map(
    Dict
)
bad_metadata = st.one_of(
    st.builds(lambda held, key, value: {**held, key: value}, good_metadata, good_keys, bad_values),
    st.builds(lambda held, key: {**held, key: 1}, good_metadata, bad_keys),
    st.sampled_from(["metadata", 5, [("a", 1)], None]),
    st.integers(5_001, 7_000).map(lambda count: {"many": [1] * count}),
    st.just(None).map(lambda _: {f"k{number}": number for number in range(6_000)}),
)
good_documents = st.builds(Document, ids, odd_texts, good_metadata)
bad_documents = st.one_of(
    st.builds(Document, bad_texts | st.just(""), odd_texts, good_metadata),
    st.builds(Document, ids, bad_texts, good_metadata),
    st.builds(Document, ids, odd_texts, bad_metadata),
)


@st.composite
def batches(draw: st.DrawFn) -> list[Document]:
    """One to five documents; in half of them one cannot be stored, or comes twice."""
    drawn = draw(st.lists(good_documents, min_size=1, max_size=4, unique_by=lambda one: one.id))
    match draw(st.sampled_from(["good", "good", "bad", "twice"])):
        case "bad":
            drawn.insert(draw(st.integers(0, len(drawn))), draw(bad_documents))
        case "twice":
            drawn.insert(draw(st.integers(0, len(drawn))), Document(draw(st.sampled_from(drawn)).id, draw(odd_texts)))
    return drawn


# -- what may be stored ----------------------------------------------------------------------------


def is_text(value: Any) -> bool:
    """Whether UTF-8 can hold it."""
    return isinstance(value, str) and not any(0xD800 <= ord(character) <= 0xDFFF for character in value)


def is_value(value: Any) -> bool:
    """Whether it is a metadata value of one of the four types, as it is."""
    if type(value) in (int, bool):
        return -(2**63) <= value < 2**63
    return math.isfinite(value) if type(value) is float else type(value) is str and is_text(value)


def key_fault(key: Any, value: Any) -> bool:
    """Whether an entry of the metadata cannot be stored."""
    if not is_text(key) or not key or key[0] in "#$" or key.startswith("chroma:"):
        return True
    if isinstance(value, list):
        return not value or len({type(one) for one in value}) > 1 or not all(map(is_value, value))
    return value is not None and not is_value(value)


def fault(document: Document) -> tuple[str, Any] | None:
    """What of it cannot be stored, as ("id", ...), ("text", ...), ("metadata", ...) or ("key", the key); else None."""
    if not is_text(document.id) or not document.id:
        return "id", document.id
    if not is_text(document.text):
        return "text", document.text
    if not isinstance(document.metadata, Mapping):
        return "metadata", document.metadata
    for key, value in document.metadata.items():
        if key_fault(key, value):
            return "key", key
    count = sum(len(value) if isinstance(value, list) else 1 for value in document.metadata.values())
    return ("metadata", count) if count > 5_000 else None


def alike(given: Any, back: Any) -> bool:
    """Whether a value came back as it was: type and all. Chroma gives a float of 16 digits back up to two floats away."""
    if isinstance(given, Mapping):
        held = {key: value for key, value in given.items() if value is not None}
        back = {key: value for key, value in back.items() if value is not None}  # LlamaIndex's nodes keep them
        return held.keys() == back.keys() and all(alike(value, back[key]) for key, value in held.items())
    if isinstance(given, list):
        return type(back) is list and len(given) == len(back) and all(map(alike, given, back))
    if type(given) is float and type(back) is float:
        return abs(given - back) <= 2 * math.ulp(given)
    return type(given) is type(back) and given == back


# -- ways in ---------------------------------------------------------------------------------------


def _by_store(index: M3Index, documents: list[Document]) -> None:
    texts = [one.text if is_text(one.text) else "x" for one in documents]
    index.store.add(documents, index.encoder.encode_documents(texts))


def _by_langchain_texts(index: M3Index, documents: list[Document]) -> None:
    columns = ([one.text for one in documents], [one.metadata for one in documents], [one.id for one in documents])
    M3VectorStore(index).add_texts(*columns)


def _by_langchain_documents(index: M3Index, documents: list[Document]) -> None:
    made = [LangChainDocument(id=one.id, page_content=one.text, metadata=one.metadata) for one in documents]
    M3VectorStore(index).add_documents(made)


def _by_llama_index(index: M3Index, documents: list[Document]) -> None:
    LlamaStore(index).add([TextNode(id_=one.id, text=one.text, metadata=one.metadata) for one in documents])


WAYS: dict[str, Callable[[M3Index, list[Document]], Any]] = {
    "add": lambda index, documents: index.add(documents),
    "add of an iterator": lambda index, documents: index.add(iter(documents)),  # type: ignore[arg-type]
    "aadd": lambda index, documents: asyncio.run(index.aadd(documents)),
    "store": _by_store,
    "langchain texts": _by_langchain_texts,
    "langchain documents": _by_langchain_documents,
    "llama": _by_llama_index,
}
MADE_BY_OTHERS = ("langchain texts", "langchain documents", "llama")


def keys(document: Document) -> list[Any]:
    return list(document.metadata) if isinstance(document.metadata, Mapping) else []


# -- what must hold --------------------------------------------------------------------------------


def guarded(folder: Path | None) -> M3Index:
    """An index with documents by whose places and scores one sees whether anything has changed."""
    index = M3Index(HashingEncoder(DIM), MemoryStore() if folder is None else ChromaStore(folder))
    index.add(GUARDS)
    return index


def state(index: M3Index) -> Any:
    """Ids, and what a search finds in every mode, to the bit."""
    return index.ids(), [bits(index.search(QUERY, mode=mode)) for mode in SEARCH_MODES], len(index)


def revision(index: M3Index) -> int:
    return index.store.revision() if isinstance(index.store, ChromaStore) else 0


def check_said(error: BaseException, *parts: str) -> None:
    """One line of bounded length that names these parts."""
    said = str(error)
    assert isinstance(error, M3RetrieverError), repr(error)[:MOST_CHARACTERS]
    assert len(said) <= MOST_CHARACTERS, len(said)
    assert said.isprintable() or "\n" not in said, said
    for part in parts:
        assert part in said, (part, said)


def check_batch(index: M3Index, way: str, documents: list[Document]) -> str:
    """A batch goes in whole and comes back exactly, or not at all; "stored", "refused" or "skipped"."""
    if way in MADE_BY_OTHERS and not all(isinstance(text, str) for one in documents for text in (one.id, one.text, *keys(one))):
        return "skipped"  # a framework's own objects make texts of other things, and ids of none
    before, revision_before = state(index), revision(index)
    try:
        WAYS[way](index, documents)
    except ValidationError:  # the framework's own objects refuse it, before we see any
        return "skipped"
    except M3RetrieverError as error:
        assert (state(index), revision(index)) == (before, revision_before), "a part of a refused batch is there"
        check_refusal(error, way, documents)
        return "refused"
    assert not faults(way, documents), faults(way, documents)
    check_stored(index, way, documents)
    index.delete([one.id for one in documents])
    assert state(index) == before
    return "stored"


def faults(way: str, documents: list[Document]) -> list[tuple[Document, tuple[str, Any]]]:
    """Each document that cannot be stored, with what is wrong; LlamaIndex's nodes keep empty lists beside."""
    found = []
    for one in documents:
        seen = one
        if way == "llama" and isinstance(one.metadata, Mapping):
            seen = Document(one.id, one.text, {key: value for key, value in one.metadata.items() if value != []})
        elif "langchain texts" in way and one.metadata is None:
            seen = Document(one.id, one.text)
        if (wrong := fault(seen)) is not None:
            found.append((one, wrong))
    return found


def check_refusal(error: M3RetrieverError, way: str, documents: list[Document]) -> None:
    """The error names the first document that is at fault and its key, or the id that comes twice."""
    wrong = faults(way, documents)
    names = [one.id for one in documents]
    twice = [name for name in names if names.count(name) > 1]
    if not wrong or (twice and "comes more than once" in str(error)):
        check_said(error, repr(twice[0])[:50])
        return
    document, (kind, what) = wrong[0]
    assert isinstance(error, InvalidDocumentError), error
    named = [] if kind == "id" else [repr(document.id)[:50]]
    check_said(error, *named, *([repr(what)[:50]] if kind == "key" else [kind]))


def check_stored(index: M3Index, way: str, documents: list[Document]) -> None:
    """Text, id and metadata are as they were given, and every mode finds what has a token."""
    names = [one.id for one in documents]
    if way == "llama":
        nodes = LlamaStore(index).get_nodes(node_ids=names)
        held = [Document(node.node_id, node.get_content(), node.metadata) for node in nodes]
    else:
        held = index.get(names)
    for given, back in zip(documents, held, strict=True):
        assert (back.id, back.text) == (given.id, given.text)
        assert alike(given.metadata or {}, back.metadata), (given.metadata, back.metadata)
        tokens = [token for token in index.encoder.tokenize(given.text) if token.id]  # type: ignore[attr-defined]
        query = given.text if len(tokens) <= QUERY_TOKENS else given.text[: tokens[QUERY_TOKENS].start]
        for mode in SEARCH_MODES:
            found = [hit.document.id for hit in index.search(query, mode=mode, where={"#id": given.id})]
            assert found == ([given.id] if tokens or mode != "sparse" else [])
