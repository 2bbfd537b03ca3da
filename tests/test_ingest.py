"""What `add` skips, and the runs in which it goes through the rest."""

from hypothesis import given
from hypothesis import strategies as st

from m3retriever import Document
from m3retriever.ingest import BATCH, BATCH_CHARACTERS, Added, batches, same


def test_what_was_added_is_added_up():
    assert Added(1, 2, 3) + Added(10, 20, 30) == Added(11, 22, 33)
    assert Added() == Added(new=0, replaced=0, unchanged=0)


def test_a_document_is_the_same_only_with_text_and_metadata_alike():
    held = Document("a", "x", {"k": 1})
    assert same(Document("a", "x", {"k": 1, "none": None}), held)
    assert not same(Document("a", "x", {"k": 1}), None)
    for other in ({}, {"k": 2}, {"k": 1, "more": 1}, {"k": 1.0}, {"k": True}, {"k": "1"}, {"k": [1]}):
        assert not same(Document("a", "x", other), held), other
    assert not same(Document("a", "y", {"k": 1}), held)


@given(st.lists(st.sampled_from([0, 1, 1000, BATCH_CHARACTERS // 3, BATCH_CHARACTERS, BATCH_CHARACTERS + 1]), max_size=40))
def test_batches_are_full_and_none_is_too_large(lengths):
    documents = [Document(str(row), "x" * length) for row, length in enumerate(lengths)]
    runs = [list(run) for run in batches(documents)]
    assert [document for run in runs for document in run] == documents
    for run, following in zip(runs, [*runs, None][1:], strict=False):
        assert run, "no batch is empty"
        characters = sum(len(document.text) for document in run)
        assert len(run) == 1 or characters <= BATCH_CHARACTERS
        assert following is None or characters + len(following[0].text) > BATCH_CHARACTERS, "as many as go in"


def test_a_batch_has_at_most_so_many_documents():
    documents = [Document(str(row), "") for row in range(2 * BATCH + 1)]
    assert [len(run) for run in batches(documents)] == [BATCH, BATCH, 1]
