"""Settings and filters that programs and people give: taken where they mean something, and else refused in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from m3retriever import (
    InvalidArgumentError,
    M3Index,
    M3RetrieverError,
    Profile,
    Weights,
)
from m3retriever.langchain import M3Retriever, M3VectorStore
from m3retriever.ranking import SEARCH_MODES
from torture.inputs import DIM, GUARDS, MAX, QUERY, SURROGATES, check_said

digits = st.just(5_000).map(lambda count: 10**count)  # which Python does not even show
long_texts = st.just(5_000).map(lambda count: "x" * count)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400]) | digits,
    st.floats(),
    st.text(max_size=5) | long_texts | st.sampled_from([*SURROGATES, "profile", "hybrid", "p>=0.5", "p>=nan", "fpr<=1e400"]),
    st.sampled_from([b"abc", 1j, object(), np.float32(0.5), np.int8(3), np.array([1, 2, 3]), np.nan, range(3), {1, 2, 3}]),
    st.lists(st.floats() | st.integers() | st.text(max_size=2) | st.none(), max_size=4),
    st.dictionaries(
        st.sampled_from(["dense", "sparse", "colbert", "hybrid", "x", 1]), st.floats() | st.integers() | st.text(max_size=2)
    ),
    st.sampled_from([(1, 2, 3), (0, 0, 0), (-1, 1, 1), (10**400, 1, 1), (math.inf, 1, 1), (0.1, 0.2, 0.7), ("a", 1, 1)]),
)
filters = st.recursive(
    junk,
    lambda parts: st.dictionaries(
        st.sampled_from(
            ["$and", "$or", "$not", "#id", "#document", "$eq", "$in", "$contains", "$regex", "$gt", "n", "", "$x", 1]
        ),
        parts | st.lists(parts, max_size=3),
        max_size=2,
    ),
    max_leaves=6,
)


def is_count(value: Any) -> bool:
    """Whether it can be a k or a depth."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 1 <= value <= 10**9


def is_weights(value: Any) -> bool:
    """Whether three finite numbers can be read from it, none negative and not all 0."""
    if isinstance(value, Weights):
        return True
    if isinstance(value, Mapping):
        value = (
            [value.get(mode, 0.0) for mode in ("dense", "sparse", "colbert")]
            if set(value) <= {"dense", "sparse", "colbert"}
            else []
        )
    if not isinstance(value, list | tuple | range | np.ndarray) or len(value) != 3:
        return False
    numbers = [one for one in value if isinstance(one, int | float | np.number) and abs(one) <= MAX]
    return len(numbers) == 3 and min(numbers) >= 0 and max(numbers) > 0


def is_threshold(value: Any) -> bool:
    """Whether it is a finite number, or none, or what the guards' profile has."""
    if value is None or (isinstance(value, str) and value == "profile"):
        return True
    return (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and bool(abs(float(value) if isinstance(value, np.number) else value) <= MAX)
    )


@dataclass(frozen=True)
class Setting:
    """A place for a value in a call, and what may stand there; None where only the kind of error is known."""

    call: Callable[[M3Index, Any], Any]
    is_valid: Callable[[Any], bool] | None


SETTINGS: dict[str, Setting] = {
    "k": Setting(lambda index, value: index.search(QUERY, value), is_count),
    "k of documents": Setting(lambda index, value: index.search_documents(QUERY, value), is_count),
    "k by vector": Setting(lambda index, value: index.search_by_vector(np.ones(DIM), value), is_count),
    "k to explain": Setting(lambda index, value: index.explain(QUERY, "guard 1", k=value), is_count),
    "among": Setting(lambda index, value: index.search_diverse(QUERY, 2, among=value), is_count),
    "depth": Setting(lambda index, value: index.score(QUERY, depth=value), lambda value: value is None or is_count(value)),
    "depth of the store": Setting(
        lambda index, value: index.store.search(index.encoder.encode_queries([QUERY]), depth=value), is_count
    ),
    "depth of a profile": Setting(lambda index, value: Profile(depth=value), is_count),
    "weights": Setting(
        lambda index, value: index.search(QUERY, weights=value), lambda value: value is None or is_weights(value)
    ),
    "weights of a profile": Setting(lambda index, value: Profile(weights=value), is_weights),
    "threshold": Setting(lambda index, value: index.search(QUERY, threshold=value), is_threshold),
    "thresholds of a profile": Setting(lambda index, value: Profile(thresholds=value), None),
    "a threshold of a profile": Setting(lambda index, value: Profile(thresholds={"dense": value}), None),
    "mode": Setting(
        lambda index, value: index.search(QUERY, mode=value), lambda value: isinstance(value, str) and value in SEARCH_MODES
    ),
    "profile": Setting(
        lambda index, value: index.search(QUERY, profile=value[:99] if isinstance(value, str) else value),
        lambda value: value is None,
    ),
    "query": Setting(lambda index, value: index.search(value), lambda value: isinstance(value, str)),
    "queries": Setting(lambda index, value: index.search_many(value), None),
    "vector": Setting(lambda index, value: index.search_by_vector(value), lambda value: False),
    "balance": Setting(lambda index, value: index.search_diverse(QUERY, balance=value), None),
    "ids to get": Setting(lambda index, value: index.get(value), None),
    "ids to score": Setting(lambda index, value: index.score(QUERY, ids=value), None),
    "ids among": Setting(lambda index, value: index.ids(among=value), None),
    "id to explain": Setting(lambda index, value: index.explain(QUERY, value), lambda value: False),
    "documents": Setting(
        lambda index, value: index.add(value), lambda value: isinstance(value, list | dict | np.ndarray) and not len(value)
    ),
    "langchain k": Setting(lambda index, value: M3VectorStore(index).similarity_search(QUERY, value), is_count),
    "langchain retriever's k": Setting(lambda index, value: M3Retriever(index=index).invoke(QUERY, k=value), is_count),
    "langchain texts": Setting(lambda index, value: M3VectorStore(index).add_texts(value), None),
    "langchain metadatas": Setting(lambda index, value: M3VectorStore(index).add_texts(["x"], value, ["x"]), None),
    "langchain documents": Setting(lambda index, value: M3VectorStore(index).add_documents(value), None),
}
FILTERS: dict[str, Callable[[M3Index, Any], Any]] = {
    "where": lambda index, value: index.search(QUERY, where=value),
    "where_document": lambda index, value: index.search(QUERY, where_document=value),
    "ids": lambda index, value: index.ids(value),
    "score": lambda index, value: index.score(QUERY, where=value),
    "explain": lambda index, value: index.explain(QUERY, "guard 1", where=value),
    "langchain": lambda index, value: M3VectorStore(index).similarity_search(QUERY, filter=value),
}


def check_setting(index: M3Index, name: str, value: Any) -> bool:
    """A value is taken where it may be, and else refused in words; whether it was taken."""
    setting = SETTINGS[name]
    try:
        setting.call(index, value)
    except M3RetrieverError as error:
        check_said(error)
        refused = True
    else:
        refused = False
    finally:
        if added := set(index.ids()) - {one.id for one in GUARDS}:
            index.delete(list(added))
    assert setting.is_valid is None or setting.is_valid(value) != refused, (name, value)
    return not refused


def check_filter(index: M3Index, name: str, value: Any) -> bool:
    """A filter is understood, or refused in words; whether it was understood."""
    try:
        FILTERS[name](index, value)
    except InvalidArgumentError as error:
        check_said(error)
        return False
    return True
