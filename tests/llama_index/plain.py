"""What a MetadataFilters means: plain Python over a node's metadata. The yardstick of the filter tests."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

OPERATORS = list(FilterOperator)
LISTS = ("in", "nin", "any", "all")
TEXTS = ("text_match", "text_match_insensitive")
PYTHON: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda value, operand: value == operand,
    "!=": lambda value, operand: value != operand,
    ">": lambda value, operand: value > operand,
    ">=": lambda value, operand: value >= operand,
    "<": lambda value, operand: value < operand,
    "<=": lambda value, operand: value <= operand,
    "in": lambda value, operand: value in operand,
    "nin": lambda value, operand: value not in operand,
    "contains": lambda value, operand: operand in value,
    "any": lambda value, operand: any(one in value for one in operand),
    "all": lambda value, operand: all(one in value for one in operand),
    "text_match": lambda value, operand: isinstance(value, str) and operand in value,
    "text_match_insensitive": lambda value, operand: isinstance(value, str) and operand.lower() in value.lower(),
}


def passes(metadata: Mapping[str, Any], filters: MetadataFilters | MetadataFilter) -> bool:
    """Whether a node with this metadata passes."""
    if isinstance(filters, MetadataFilter):
        return _holds(metadata.get(filters.key), filters.operator.value, filters.value)
    results = [passes(metadata, part) for part in filters.filters]
    if not results:
        return True
    if filters.condition == FilterCondition.OR:
        return any(results)
    return not any(results) if filters.condition == FilterCondition.NOT else all(results)


def _holds(value: Any, operator: str, operand: Any) -> bool:
    if operator == "is_empty":
        return value is None or value in ("", [])
    if value is None or value == []:  # an empty list is not stored: it counts as absent
        return operator in ("!=", "nin")
    try:
        return bool(PYTHON[operator](value, operand))
    except TypeError:
        return False


def nested_filters(keys: list[str], values: list[Any]) -> st.SearchStrategy[MetadataFilters]:
    """MetadataFilters in groups of groups, any operator, condition and operand among them."""
    return _groups(st.recursive(_one_filter(keys, values), _groups, max_leaves=9))


def _groups(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[MetadataFilters]:
    conditions = st.sampled_from([*FilterCondition, None])
    return st.builds(MetadataFilters, filters=st.lists(parts, min_size=1, max_size=3), condition=conditions)


def _one_filter(keys: list[str], values: list[Any]) -> st.SearchStrategy[MetadataFilter]:
    def with_operator(operator: FilterOperator) -> st.SearchStrategy[MetadataFilter]:
        operands = _operands(operator, values)
        return st.builds(MetadataFilter, key=st.sampled_from(keys), operator=st.just(operator), value=operands)

    return st.sampled_from(OPERATORS).flatmap(with_operator)


def _operands(operator: FilterOperator, values: list[Any]) -> st.SearchStrategy[Any]:
    if operator == FilterOperator.IS_EMPTY:
        return st.none()
    if operator.value in TEXTS:
        return st.sampled_from([value for value in values if isinstance(value, str)])
    if operator.value in LISTS:
        alike = [[value for value in values if type(value) is kind] for kind in dict.fromkeys(map(type, values))]
        return st.sampled_from(alike).flatmap(lambda several: st.lists(st.sampled_from(several), max_size=3))
    return st.sampled_from(values)
