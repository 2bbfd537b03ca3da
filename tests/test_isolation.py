"""A filter is a wall: what torture/isolation.py holds in the long run, in few cases, and each hole that was found."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from torture.isolation import DIM, Case, cases, check
from torture.moves import check_moves, check_race, tenants

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, MemoryStore, UnknownDocumentError
from m3retriever.inspector.analysis import missing

NUL = ["before\x00after", "before", "\x00", "after", "", "be\x00fore after"]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate])
@given(cases())
def test_nothing_outside_a_filter_is_shown_or_told(case: Case):
    assert check(case) > 0


@pytest.mark.parametrize("by", ["index", "another store", "chroma"])
def test_a_document_that_moves_to_another_tenant_is_gone_at_once_whoever_moves_it(tmp_path, by):
    assert check_moves(tmp_path, [0, 1, 0], by=by) > 100


def test_no_search_begun_after_a_move_shows_the_document(tmp_path):
    assert check_race(tmp_path, 24) > 0


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    index = M3Index(HashingEncoder(DIM), ChromaStore(tmp_path_factory.mktemp("filled")))
    index.add([Document(f"text {row}", text, {"kind": "text"}) for row, text in enumerate(NUL)])
    numbers = [2**53, 2**53 + 1, 2.0**53, 2**62 + 1, 2.0**62, 2**63 - 1, 2.0**63, -(2**63), 1e300, 0, 0.5]
    index.add([Document(f"number {number!r}", "a number", {"n": number}) for number in numbers])
    yield index
    index.close()


@pytest.mark.parametrize("looked_for", ["after", "before", "\x00", "e\x00a", "e\x00f", "x" * 60_000], ids=lambda text: text[:9])
def test_what_stands_behind_a_nul_is_found_and_hides_from_no_filter(filled, looked_for):
    where = {"$contains": looked_for}
    held = [f"text {row}" for row, text in enumerate(NUL) if looked_for in text]
    assert filled.ids({"kind": "text"}, where_document=where) == held
    others = {f"text {row}" for row in range(len(NUL))} - set(held)
    assert set(filled.ids({"kind": "text"}, where_document={"$not_contains": looked_for})) == others
    assert set(filled.score("before", where={"kind": "text"}, where_document=where).ids) == set(held)


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize("number", [1e300, -1e300, 2.0**63, 2**63 - 1, 2**53 + 1, 2.0**53, 2**62 + 1, 2.0**62])
def test_numbers_that_no_float_or_no_int_can_hold_are_compared_by_value(filled, operator, number):
    compare = {"$eq": "__eq__", "$ne": "__ne__", "$gt": "__gt__", "$gte": "__ge__", "$lt": "__lt__", "$lte": "__le__"}
    passing = []
    for document in filled.find({"n": {"$empty": False}}):
        held = document.metadata["n"]
        order = (held > number) - (held < number)
        if getattr(order, compare[operator])(0):
            passing.append(document.id)
    assert filled.ids({"$and": [{"n": {"$empty": False}}, {"n": {operator: number}}]}) == passing


@pytest.mark.parametrize("kind", ["chroma", "memory"])
def test_explaining_a_document_outside_the_filter_tells_nothing_of_it(tmp_path, kind):
    with M3Index(HashingEncoder(DIM), ChromaStore(tmp_path) if kind == "chroma" else MemoryStore()) as index:
        index.add([*tenants(4), Document("secret", "red sea treasure", {"tenant": "c", "pin": 1234})])
        found = index.explain("red sea treasure", "secret", where={"tenant": "a"})
        assert (found.stage, found.document, found.score) == ("filtered out", Document("secret", ""), None)
        told = found.scores, found.ranks, found.contributions, found.shared_tokens, found.found_by, found.rank
        assert not any(told)
        assert "treasure" not in repr(found).replace(repr(found.query), "")
        assert missing.verdict(found, 10) == ("missing.filtered", {"rank": None, "k": 10})
        assert missing.remedies(found, 10) == [("missing.do_filter", {})]
        assert (missing.places(found), missing.gap(found)) == ([], None)
        with pytest.raises(UnknownDocumentError):
            index.explain("red sea treasure", "nobody", where={"tenant": "a"})


def test_among_equals_hnsw_leaves_the_choice_to_the_ids(tmp_path):
    """Forty equal texts: which of them a search brings in must not depend on what else there is, nor on their order."""
    for extra in (0, 9):
        with M3Index(HashingEncoder(DIM), ChromaStore(tmp_path / str(extra), dense="hnsw")) as index:
            index.add([Document(f"b{row}", "red sea", {"tenant": "b"}) for row in range(extra)])
            index.add([Document(f"a{row:02}", "red sea", {"tenant": "a"}) for row in reversed(range(40))])
            found = index.score("red sea", depth=1, where={"tenant": "a"}).ids
            assert found == ("a00",)
