"""A filter never lets another tenant's node through: thousands of random filters, in every mode, on every way in."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery, VectorStoreQueryMode

from m3retriever import M3Index
from m3retriever.llama_index import M3Retriever, M3VectorStore

from .plain import nested_filters, passes

TENANTS = ["a", "b", "ab"]
VALUES: list[Any] = ["a", "b", "ab", "", 0, 1, 2, 1.0, 0.5, -1]
KEYS = ["tenant", "v", "w", "missing"]
WORDS = ["red", "apple", "pie", "car", "train"]
QUERY = "red apple pie"
EXAMPLES = {"memory": 200, "chroma": 100}  # filters that each way in is asked for


def made_nodes() -> list[TextNode]:
    """Six nodes a tenant, alike in text across tenants, with metadata of every type."""
    random = Random(7)
    kinds: list[Any] = [*VALUES, True, False, None, [], ["a"], ["a", "b"], [1, 2], [0.5], [True]]
    nodes = []
    for tenant in TENANTS:
        for number in range(6):
            metadata = {"tenant": tenant, "v": random.choice(kinds), "w": random.choice(kinds)}
            source = RelatedNodeInfo(node_id=f"document of {tenant}")
            nodes.append(
                TextNode(
                    id_=f"{tenant}{number}",
                    text=" ".join(["red", *Random(number).choices(WORDS, k=4)]),
                    metadata=metadata,
                    relationships={NodeRelationship.SOURCE: source},
                )
            )
    return nodes


NODES = made_nodes()


class Paths:
    """Every way to search: a name and a function from filters to ids, all of which must pass."""

    def __init__(self, index: M3Index) -> None:
        self.index, self.store = index, M3VectorStore(index)
        self.vector = index.encoder.encode_queries([QUERY]).dense[0].tolist()
        self.all: dict[str, Callable[[MetadataFilters], set[str]]] = {
            "get_nodes": lambda filters: {node.node_id for node in self.store.get_nodes(filters=filters)},
            "default": lambda filters: self.asked(filters),
            "sparse": lambda filters: self.asked(filters, mode="sparse"),
            "text_search": lambda filters: self.asked(filters, mode="text_search", sparse_top_k=99),
            "hybrid": lambda filters: self.asked(filters, mode="hybrid"),
            "alpha": lambda filters: self.asked(filters, mode="hybrid", alpha=0.5),
            "limited": lambda filters: self.asked(filters, mode="hybrid", sparse_top_k=99),
            "mmr": lambda filters: self.asked(filters, mode="mmr"),
            "colbert": lambda filters: self.asked(filters, {"mode": "colbert"}),
            "vector": lambda filters: self.asked(filters, query_str=None, query_embedding=self.vector),
            "node_ids": lambda filters: self.asked(filters, node_ids=[node.node_id for node in NODES]),
            "doc_ids": lambda filters: self.asked(filters, doc_ids=[f"document of {tenant}" for tenant in TENANTS]),
            "retriever": lambda filters: self.retrieved(QUERY, filters=filters),
            "retriever, dense": lambda filters: self.retrieved(QUERY, filters=filters, mode="dense"),
            "retriever, of two texts": lambda filters: self.retrieved(
                QueryBundle(QUERY, custom_embedding_strs=["red car", "red train"]), filters=filters
            ),
            "retriever, with where": lambda filters: self.retrieved(
                QUERY, filters=MetadataFilters(filters=filters.filters[1:]), where={"tenant": filters.filters[0].value}
            ),
        }

    def asked(self, filters: MetadataFilters, options: dict[str, Any] | None = None, **fields: Any) -> set[str]:
        fields = {"query_str": QUERY, "similarity_top_k": 99, "mode": VectorStoreQueryMode.DEFAULT, **fields}
        return set(self.store.query(VectorStoreQuery(filters=filters, **fields), **(options or {})).ids or [])

    def retrieved(self, query: Any, **settings: Any) -> set[str]:
        return {node.node_id for node in M3Retriever(index=self.index, k=99, **settings).retrieve(query)}


@pytest.fixture(scope="module", params=["memory", "chroma"])
def filled(request: pytest.FixtureRequest, module_index: Callable[[str], M3Index]) -> tuple[str, Paths]:
    index = module_index(request.param)
    M3VectorStore(index).add(NODES)
    return request.param, Paths(index)


def only(tenant: str, further: MetadataFilters) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="tenant", value=tenant), further])


FILTERS = st.builds(only, st.sampled_from(TENANTS), nested_filters(KEYS, VALUES))


def passing(filters: MetadataFilters) -> set[str]:
    return {node.node_id for node in NODES if passes(node.metadata, filters)}


def test_no_way_in_shows_another_tenants_node(filled: tuple[str, Paths]) -> None:
    kind, paths = filled
    seen = 0

    @settings(max_examples=EXAMPLES[kind], deadline=None)
    @given(filters=FILTERS)
    def every_way_in_finds_what_passes(filters: MetadataFilters) -> None:
        nonlocal seen
        want = passing(filters)
        for name, way in paths.all.items():
            assert way(filters) == want, name
        assert len({node.metadata["tenant"] for node in NODES if node.node_id in want}) <= 1
        seen += len(want)

    every_way_in_finds_what_passes()
    assert seen  # ways that never find anything would prove nothing


def test_without_the_tenants_filter_every_way_in_finds_all(filled: tuple[str, Paths]) -> None:
    """The sharp edge of the test above: each of these ways reaches every node."""
    always = MetadataFilters(filters=[MetadataFilter(key="tenant", value=TENANTS, operator="in")])  # type: ignore[arg-type]
    for name, way in filled[1].all.items():
        if name != "retriever, with where":
            assert way(always) == {node.node_id for node in NODES}, name


def test_deleting_by_filter_leaves_other_tenants_nodes(filled: tuple[str, Paths]) -> None:
    kind, paths = filled

    @settings(max_examples=EXAMPLES[kind] // 2, deadline=None)
    @given(filters=FILTERS)
    def what_passes_is_gone(filters: MetadataFilters) -> None:
        paths.store.add(NODES)
        paths.store.delete_nodes(filters=filters)
        assert set(paths.index.ids()) == {node.node_id for node in NODES} - passing(filters)

    try:
        what_passes_is_gone()
    finally:
        paths.store.add(NODES)
