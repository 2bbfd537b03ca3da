"""MetadataFilters: for every operator and every mode, the nodes that plain Python lets through, and no other."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from m3retriever import InvalidFilterError, M3Index
from m3retriever.filters import check_where
from m3retriever.llama_index import M3VectorStore, as_where

from .plain import LISTS, TEXTS, nested_filters, passes

MISSING = object()
STORED: list[Any] = [
    MISSING,
    None,
    [],
    "",
    "red",
    "RED apple",
    "red apple",
    "2024-05-01",
    "1",
    0,
    1,
    2,
    -1,
    2**53 + 1,
    0.0,
    1.0,
    2.5,
    -0.5,
    True,
    False,
    ["red"],
    ["red", "blue"],
    ["red apple"],
    [""],
    [1, 2],
    [1.0, 2.5],
    [0],
    [True],
    [True, False],
]
ONE: list[Any] = ["red", "RED", "apple", "", "2024", "1", 0, 1, 2, -1, 3, 2**53 + 1, 0.0, 1.0, 2.0, 2.5, -0.5]
SEVERAL: list[Any] = [[], ["red"], ["red", "blue"], ["RED apple", "1"], [""], [1], [0, 2], [3], [1.0], [2.5, 0.0], [2.0]]
NODES = [
    TextNode(id_=f"{number:02}", text=f"apple {number}", metadata={} if value is MISSING else {"v": value, "tag": "any"})
    for number, value in enumerate(STORED)
]
LEGS: dict[str, dict[str, Any]] = {
    "dense": {},
    "sparse": {"mode": VectorStoreQueryMode.SPARSE},
    "hybrid": {"mode": VectorStoreQueryMode.HYBRID},
    "colbert": {"mode": VectorStoreQueryMode.HYBRID},
}


def operands(operator: FilterOperator) -> list[Any]:
    if operator == FilterOperator.IS_EMPTY:
        return [None]
    if operator.value in LISTS:
        return SEVERAL
    return [value for value in ONE if isinstance(value, str)] if operator.value in TEXTS else ONE


TABLE = [(operator, operand) for operator in FilterOperator for operand in operands(operator)]


@pytest.fixture(scope="module", params=["memory", "chroma"])
def store(request: pytest.FixtureRequest, module_index: Callable[[str], M3Index]) -> M3VectorStore:
    filled = M3VectorStore(module_index(request.param))
    filled.add(NODES)
    return filled


def found(store: M3VectorStore, leg: str, filters: MetadataFilters) -> list[str]:
    query = VectorStoreQuery(query_str="apple", similarity_top_k=len(NODES), filters=filters, **LEGS[leg])
    options: dict[str, Any] = {"weights": (0, 0, 1)} if leg == "colbert" else {}
    return sorted(store.query(query, **options).ids or [])


def expected(filters: MetadataFilters) -> list[str]:
    return [node.node_id for node in NODES if passes(node.metadata, filters)]


def one(operator: FilterOperator | str, value: Any, key: str = "v") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=FilterOperator(operator))])


def test_the_table_covers_all_operators_and_tells_them_apart() -> None:
    assert {operator for operator, _ in TABLE} == set(FilterOperator)
    assert len(FilterOperator) == 14
    answers = {operator: [expected(one(operator, operand)) for operand in operands(operator)] for operator in FilterOperator}
    for operator, found_by in answers.items():
        assert any(0 < len(ids) < len(NODES) for ids in found_by), f"{operator} filters nothing"
        assert all(answers[other] != found_by for other in answers if other != operator)


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("operator", FilterOperator)
def test_every_operator_is_plain_python_in_every_mode(store: M3VectorStore, leg: str, operator: FilterOperator) -> None:
    for operand in operands(operator):
        filters = one(operator, operand)
        assert found(store, leg, filters) == expected(filters), operand
        assert [node.node_id for node in store.get_nodes(filters=filters)] == expected(filters), operand


@pytest.mark.parametrize(("operator", "operand"), TABLE, ids=str)
def test_the_yardstick_agrees_with_llama_indexs_own(operator: FilterOperator, operand: Any) -> None:
    by_id = {node.node_id: node.metadata for node in NODES if node.metadata.get("v") != []}
    theirs = build_metadata_filter_fn(by_id.__getitem__, one(operator, operand))
    for node_id, metadata in by_id.items():
        try:
            answer = bool(theirs(node_id))
        except TypeError:
            answer = False
        assert passes(metadata, one(operator, operand)) == answer


def some(**found_in: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="v", value="red"), MetadataFilter(key="v", value=1)], **found_in)


NESTED = [
    (some(), []),
    (some(condition=None), []),
    (some(condition="or"), ["04", "10", "15", "18"]),
    (
        MetadataFilters(filters=[some(condition="or"), MetadataFilter(key="v", value=0, operator=FilterOperator.GT)]),
        ["10", "15", "18"],
    ),
    (
        MetadataFilters(filters=[some(condition="or")], condition=FilterCondition.NOT),
        [f"{n:02}" for n in range(29) if n not in (4, 10, 15, 18)],
    ),
    (
        MetadataFilters(filters=[MetadataFilters(filters=[some(condition="or")], condition="not")], condition="not"),
        ["04", "10", "15", "18"],
    ),
]


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize(("filters", "want"), NESTED)
def test_groups_nest_and_not_means_none_of_them(
    store: M3VectorStore, leg: str, filters: MetadataFilters, want: list[str]
) -> None:
    assert found(store, leg, filters) == want == expected(filters)


@settings(max_examples=150, deadline=None)
@given(filters=nested_filters(["v", "tag", "missing"], [*ONE, "any"]))
def test_any_nested_filter_is_plain_python_in_every_mode(store: M3VectorStore, filters: MetadataFilters) -> None:
    want = expected(filters)
    for leg in LEGS:
        assert found(store, leg, filters) == want
    assert [node.node_id for node in store.get_nodes(filters=filters)] == want


@pytest.mark.parametrize("filters", [one("in", "x" * 10_000), one("==", ["x"] * 10_000), one("==", None, key="x" * 10_000)])
def test_an_error_is_short_however_long_what_was_wrong(filters: MetadataFilters) -> None:
    with pytest.raises(InvalidFilterError) as refused:
        as_where(filters)
    assert len(str(refused.value)) < 1_000


def test_no_filter_and_an_empty_list_of_filters_are_none() -> None:
    assert as_where(None) is None
    for condition in (*FilterCondition, None):
        assert as_where(MetadataFilters(filters=[], condition=condition)) is None


@pytest.mark.parametrize(
    ("filters", "why"),
    [
        (one("==", None), "IS_EMPTY"),
        (one("nin", None), "IS_EMPTY"),
        (one("==", ["a"]), "takes one value"),
        (one(">", [1]), "takes one value"),
        (one("contains", ["a"]), "ANY or ALL"),
        (one("in", "abc"), "takes a list"),
        (one("nin", 1), "takes a list"),
        (one("any", "abc"), "takes a list"),
        (one("all", 1), "takes a list"),
        (one("text_match", 1), "takes a str"),
        (one("text_match_insensitive", 1.0), "takes a str"),
        (one("==", float("nan")), "finite"),
        (one("<", float("inf")), "finite"),
        (one("==", 2**70), "64 bits"),
        (one("in", [2**70]), "64 bits"),
        (one("contains", 2**70), "64 bits"),
        (one("==", "\ud800"), "surrogate"),
        (one("==", 1, key="#id"), "metadata key"),
        (one("==", "a", key="$and"), "metadata key"),
        (one("==", 1, key=""), "metadata key"),
        (one("==", 1, key="chroma:x"), "Chroma's own"),
        (one("==", "a", key="lone \ud800"), "surrogate"),
        (MetadataFilters(filters=[MetadataFilters(filters=[])]), "at least one filter"),
        (MetadataFilters(filters=[MetadataFilters(filters=[], condition="or")], condition="or"), "at least one filter"),
        ({"v": 1}, "MetadataFilters"),
        ([MetadataFilter(key="v", value=1)], "MetadataFilters"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(memory_index: M3Index, filters: Any, why: str) -> None:
    store = M3VectorStore(memory_index)
    with pytest.raises(InvalidFilterError, match=why):
        store.get_nodes(filters=filters)
    with pytest.raises(InvalidFilterError, match=why):
        store.query(VectorStoreQuery(query_str="apple", filters=filters))


@settings(max_examples=300, deadline=None)
@given(filters=nested_filters(["v", "tag"], ONE))
def test_every_translation_is_in_the_filter_language(filters: MetadataFilters) -> None:
    where = as_where(filters)
    assert where is not None
    check_where(where)
