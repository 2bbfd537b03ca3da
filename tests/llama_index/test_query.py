"""VectorStoreQuery: every mode and every field counts as LlamaIndex documents it, and nothing is left out silently."""

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from m3retriever import EncoderMismatchError, Hit, InvalidArgumentError, M3Index, Profile
from m3retriever.llama_index import M3VectorStore

QUERY = "red apple pie"


def node(id: str, text: str, source: str | None = None, **metadata: Any) -> TextNode:
    links: dict[Any, Any] = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)} if source else {}
    return TextNode(id_=id, text=text, metadata=metadata, relationships=links)


NODES = [
    node("pie", "apple pie", "cooking", lang="en", year=2020),
    node("long", "a red car stands before the old red house on the hill with an apple tree", "cars", lang="en"),
    node("tart", "red apple tart and apple pie for all", "cooking", lang="de", tags=["sweet", "warm"]),
    node("red", "red red red", lang="de"),
    node("twin", "apple pie", "cars", lang="en"),
    node("far", "trains leave at noon", "trains", lang="en"),
]


@pytest.fixture
def index(empty_index: M3Index) -> M3Index:
    M3VectorStore(empty_index).add(NODES)
    return empty_index


@pytest.fixture
def store(index: M3Index) -> M3VectorStore:
    return M3VectorStore(index)


def lang(value: str) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="lang", value=value)])


def asked(store: M3VectorStore, options: dict[str, Any] | None = None, **fields: Any) -> list[tuple[str, float]]:
    """Ids and scores of a query, checked against each other."""
    fields = {"query_str": QUERY, "similarity_top_k": 10, **fields}
    result = store.query(VectorStoreQuery(**fields), **(options or {}))
    assert result.ids is not None
    assert result.similarities is not None
    assert [node.node_id for node in result.nodes or []] == result.ids
    return list(zip(result.ids, result.similarities, strict=True))


def of(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.document.id, hit.score) for hit in hits]


# -- query modes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query_mode", "mode"), [("default", "dense"), ("sparse", "sparse"), ("text_search", "sparse"), ("hybrid", "hybrid")]
)
def test_each_query_mode_is_the_indexs_search(store: M3VectorStore, index: M3Index, query_mode: str, mode: Any) -> None:
    want = of(index.search(QUERY, mode=mode))
    assert asked(store, mode=VectorStoreQueryMode(query_mode)) == want
    assert asked(store, mode=query_mode) == want  # a str is as good
    assert [score for _, score in want] == sorted((score for _, score in want), reverse=True)


@pytest.mark.parametrize("mode", [*VectorStoreQueryMode, "fuzzy"])
def test_other_query_modes_are_refused(store: M3VectorStore, mode: Any) -> None:
    known = ("default", "sparse", "text_search", "hybrid", "mmr")
    if mode in known:
        assert asked(store, mode=mode)
    else:
        with pytest.raises(InvalidArgumentError, match=", ".join(known)):
            asked(store, mode=mode)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"similarity_top_k": 2}, 2),
        ({"similarity_top_k": 2, "sparse_top_k": 4, "hybrid_top_k": 4}, 2),
        ({"mode": "sparse", "similarity_top_k": 2}, 2),
        ({"mode": "sparse", "similarity_top_k": 2, "sparse_top_k": 3}, 3),
        ({"mode": "text_search", "similarity_top_k": 4, "sparse_top_k": 1}, 1),
        ({"mode": "hybrid", "similarity_top_k": 2}, 2),
        ({"mode": "hybrid", "similarity_top_k": 2, "hybrid_top_k": 4}, 4),
        ({"mode": "hybrid", "similarity_top_k": 4, "hybrid_top_k": 1}, 1),
        ({"mode": "hybrid", "similarity_top_k": 2, "hybrid_top_k": 4, "alpha": 0.0}, 4),
        ({"mode": "mmr", "similarity_top_k": 3}, 3),
    ],
)
def test_each_top_k_counts_where_llama_index_says(store: M3VectorStore, fields: dict[str, Any], count: int) -> None:
    assert len(asked(store, **fields)) == count


@pytest.mark.parametrize("field", ["similarity_top_k", "sparse_top_k", "hybrid_top_k"])
def test_a_top_k_of_zero_is_refused(store: M3VectorStore, field: str) -> None:
    with pytest.raises(InvalidArgumentError, match="k must be"):
        asked(store, mode="sparse" if field == "sparse_top_k" else "hybrid", **{field: 0})


def test_alpha_goes_from_sparse_to_dense(store: M3VectorStore, index: M3Index) -> None:
    assert asked(store, mode="hybrid", alpha=0) == of(index.search(QUERY, mode="sparse"))
    assert asked(store, mode="hybrid", alpha=1.0) == of(index.search(QUERY, mode="dense"))
    for alpha in (0.25, 0.75):
        want = of(index.search(QUERY, weights=(alpha, 1 - alpha, 0)))
        assert asked(store, mode="hybrid", alpha=alpha) == want
        assert want[0][1] != pytest.approx(index.search(QUERY)[0].score)


def test_without_alpha_the_profile_decides_and_colbert_takes_part(counting: Any, memory_index: M3Index) -> None:
    index = M3Index(counting, memory_index.store, Profile(weights=(0, 0, 1)))  # type: ignore[arg-type]
    store = M3VectorStore(index)
    store.add(NODES)
    assert asked(store, mode="hybrid") == of(index.search(QUERY, mode="colbert"))
    assert asked(store, mode="hybrid", alpha=1) == of(index.search(QUERY, mode="dense"))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "half", True])
def test_an_alpha_outside_of_0_to_1_is_refused(store: M3VectorStore, alpha: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="alpha"):
        asked(store, mode="hybrid", alpha=alpha)


@pytest.mark.parametrize("options", [{"weights": (1, 1, 1)}, {"mode": "colbert"}])
def test_alpha_beside_weights_or_a_mode_is_refused(store: M3VectorStore, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="alpha"):
        asked(store, options, mode="hybrid", alpha=0.5)


@pytest.mark.parametrize("alpha", [None, 0.3, 0, 1])
@pytest.mark.parametrize(("dense_k", "sparse_k"), [(1, 1), (2, 1), (1, 3), (6, 6)])
def test_sparse_top_k_limits_what_each_search_brings_in(
    store: M3VectorStore, index: M3Index, alpha: float | None, dense_k: int, sparse_k: int
) -> None:
    dense = [hit.document.id for hit in index.search(QUERY, dense_k, mode="dense")]
    sparse = [hit.document.id for hit in index.search(QUERY, sparse_k, mode="sparse")]
    brought_in = sparse if alpha == 0 else dense if alpha == 1 else {*dense, *sparse}
    everything = asked(store, mode="hybrid", alpha=alpha)
    want = [(id, pytest.approx(score)) for id, score in everything if id in brought_in]
    fields: dict[str, Any] = {"mode": "hybrid", "alpha": alpha, "similarity_top_k": dense_k, "sparse_top_k": sparse_k}
    assert asked(store, **fields, hybrid_top_k=10) == want
    assert asked(store, **fields, hybrid_top_k=1) == want[:1]


def test_nothing_found_in_both_searches_is_no_result(store: M3VectorStore) -> None:
    assert asked(store, mode="hybrid", sparse_top_k=2, filters=lang("fr")) == []


def test_mmr_picks_what_is_unlike(store: M3VectorStore, index: M3Index) -> None:
    dense = of(index.search(QUERY, mode="dense"))
    assert asked(store, {"mmr_threshold": 1}, mode="mmr") == dense
    half = asked(store, mode="mmr", similarity_top_k=3)
    assert half == asked(store, {"mmr_threshold": 0.5}, mode="mmr", similarity_top_k=3)
    assert half == of(index.search_diverse(QUERY, 3, mode="dense"))
    far = [id for id, _ in asked(store, {"mmr_threshold": 0.1}, mode="mmr", similarity_top_k=2)]
    assert far[0] == dense[0][0]
    assert far[1] != dense[1][0]


def test_the_mmr_threshold_may_come_with_the_query(store: M3VectorStore) -> None:
    assert asked(store, mode="mmr", mmr_threshold=0.1) == asked(store, {"mmr_threshold": 0.1}, mode="mmr")
    assert asked(store, {"mmr_threshold": 1}, mode="mmr", mmr_threshold=0.1) == asked(store)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), "half"])
def test_an_mmr_threshold_outside_of_0_to_1_is_refused(store: M3VectorStore, threshold: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="mmr_threshold"):
        asked(store, {"mmr_threshold": threshold}, mode="mmr")


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse", "colbert"])
def test_a_mode_of_the_index_may_be_asked_for(store: M3VectorStore, index: M3Index, mode: Any) -> None:
    want = of(index.search(QUERY, 3, mode=mode))
    for query_mode in ("default", "hybrid"):
        assert asked(store, {"mode": mode}, mode=query_mode, similarity_top_k=3) == want
    assert asked(store, {"mode": mode, "mmr_threshold": 1.0}, mode="mmr", similarity_top_k=3) == want


def test_weights_may_be_asked_for(store: M3VectorStore, index: M3Index) -> None:
    want = of(index.search(QUERY, weights=(0, 0, 1)))
    assert asked(store, {"weights": (0, 0, 1)}, mode="hybrid") == want
    assert asked(store, {"mode": "hybrid", "weights": {"colbert": 1}}) == want
    with pytest.raises(InvalidArgumentError, match="weights go with mode 'hybrid'"):
        asked(store, {"weights": (0, 0, 1)})


@pytest.mark.parametrize(
    ("options", "fields", "why"),
    [
        ({"top_p": 0.5}, {}, "top_p"),
        ({"where": {}}, {}, "exactly one key"),
        ({"where_document": {"like": "a"}}, {}, "where_document|one of"),
        ({"mmr_prefetch_factor": 0.5}, {"mode": "mmr"}, "mmr_prefetch_factor"),
        ({"mode": "fuzzy"}, {}, "fuzzy"),
        ({"mmr_threshold": 0.5}, {}, "query mode 'mmr'"),
        ({}, {"embedding_field": "image"}, "embedding_field"),
        ({}, {"output_fields": ["text"]}, "output_fields"),
        ({}, {"query_str": None}, "neither"),
        ({}, {"query_str": 7}, "a query is a str"),
    ],
)
def test_what_would_be_ignored_is_refused(
    store: M3VectorStore, options: dict[str, Any], fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        asked(store, options, **fields)


@pytest.mark.parametrize("mode", ["default", "sparse", "hybrid", "mmr"])
def test_chromas_own_filters_hold_beside_the_others(store: M3VectorStore, mode: str) -> None:
    german = asked(store, {"where": {"lang": "de"}}, mode=mode)
    assert german
    assert {id for id, _ in german} <= set(store.client.ids({"lang": "de"}))
    one = asked(store, {"where": {"lang": "de"}, "where_document": {"$contains": "tart"}}, mode=mode)
    assert {id for id, _ in one} <= set(store.client.ids({"lang": "de"}, where_document={"$contains": "tart"}))


# -- restrictions ----------------------------------------------------------------------------------

PATHS: dict[str, Callable[..., list[tuple[str, float]]]] = {
    "default": lambda store, **given: asked(store, **given),
    "sparse": lambda store, **given: asked(store, mode="sparse", **given),
    "hybrid": lambda store, **given: asked(store, mode="hybrid", **given),
    "alpha": lambda store, **given: asked(store, mode="hybrid", alpha=0.5, **given),
    "limited": lambda store, **given: asked(store, mode="hybrid", sparse_top_k=6, hybrid_top_k=10, **given),
    "mmr": lambda store, **given: asked(store, mode="mmr", **given),
    "colbert": lambda store, **given: asked(store, {"mode": "colbert"}, **given),
    "vector": lambda store, **given: asked(
        store, query_str=None, query_embedding=store.client.encoder.encode_queries([QUERY]).dense[0].tolist(), **given
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_ids_documents_and_filters_hold_together_in_every_mode(store: M3VectorStore, path: str) -> None:
    def found(**given: Any) -> set[str]:
        return {id for id, _ in PATHS[path](store, **given)}

    everything = found()
    assert everything >= {"pie", "long", "tart", "red", "twin"}
    assert found(node_ids=["pie", "red", "unknown"]) == {"pie", "red"}
    assert found(doc_ids=["cooking", "unknown"]) == {"pie", "tart"}
    assert found(filters=lang("en")) == everything - {"tart", "red"}
    assert found(node_ids=["pie", "tart", "twin"], doc_ids=["cooking"], filters=lang("en")) == {"pie"}
    assert found(node_ids=["red"], doc_ids=["cooking"]) == set()
    assert found(node_ids=[]) == everything  # VectorStoreIndex gives an empty list where the store keeps texts
    assert found(doc_ids=[]) == set()
    assert found(filters=MetadataFilters(filters=[])) == everything


# -- vectors and twins -----------------------------------------------------------------------------


def test_a_vector_alone_finds_by_dense_scores(store: M3VectorStore, index: M3Index, counting: Any) -> None:
    vector = index.encoder.encode_queries([QUERY]).dense[0].tolist()
    want, asked_before = of(index.search(QUERY, mode="dense")), counting.queries
    for text in (None, ""):
        found = asked(store, query_str=text, query_embedding=vector)
        assert [id for id, _ in found] == [id for id, _ in want]
        assert [score for _, score in found] == pytest.approx([score for _, score in want], abs=1e-6)
    assert counting.queries == asked_before


def test_a_text_wins_over_a_vector_which_may_be_another_models(store: M3VectorStore) -> None:
    assert asked(store, query_embedding=[1.0]) == asked(store)


@pytest.mark.parametrize("fields", [{"mode": "hybrid"}, {"mode": "sparse"}, {"mode": "mmr"}])
def test_a_vector_alone_is_refused_where_it_cannot_do(store: M3VectorStore, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="give query_str"):
        asked(store, query_str=None, query_embedding=[1.0] * 256, **fields)
    with pytest.raises(InvalidArgumentError, match="give query_str"):
        asked(store, {"mode": "colbert"}, query_str=None, query_embedding=[1.0] * 256)


def test_a_vector_of_another_model_is_refused(store: M3VectorStore) -> None:
    with pytest.raises(EncoderMismatchError):
        asked(store, query_str=None, query_embedding=[1.0, 2.0])
