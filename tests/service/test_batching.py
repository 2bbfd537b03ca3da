"""The queue in front of the encoder: the library's bits, equal calls once, and nothing done for those who left."""

import threading
import time
import warnings
import weakref
from concurrent.futures import CancelledError
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest

from m3retriever import HashingEncoder, M3Vectors
from m3retriever.errors import InvalidVectorsError
from m3retriever.serving.asked import AskedBefore, Prepared
from m3retriever.serving.batching import Batcher, Call
from m3retriever.serving.independence import grouping
from m3retriever.wire import COLUMNS

BY_KIND = attrgetter("kind")


class Watched(HashingEncoder):
    """Notes its calls, and lets none through before `go`."""

    def __init__(self):
        super().__init__(32)
        self.calls, self.go, self.entered, self.truncated = [], threading.Event(), threading.Event(), 0

    def encode_documents(self, texts, *, progress=False):
        self._note("document", texts)
        return super().encode_documents(texts)

    def encode_queries(self, texts):
        self._note("query", texts)
        return super().encode_documents(texts)

    def _note(self, kind, texts):
        self.entered.set()
        assert self.go.wait(30)
        self.calls.append((kind, tuple(texts)))
        if "broken" in texts:
            raise ValueError("broken")
        self.truncated += sum("long" in text for text in texts)


def document(*texts):
    return Call("document", texts)


def query(text):
    return Call("query", (text,))


@pytest.fixture
def make():
    """Make batchers whose encoder is busy with "first" until `encoder.go` is set, so that what is asked next waits together."""
    made = []

    def make_one(*, shares, max_batch=64, wait=0.0):
        encoder, passes, turns = Watched(), [], []
        how = {"group": BY_KIND if shares else None, "max_batch": max_batch, "wait": wait}
        batcher = Batcher(encoder, **how, on_pass=passes.append, on_turn=turns.append)
        made.append((batcher, encoder))
        batcher.ask([document("first")])
        assert encoder.entered.wait(30)
        return batcher, encoder, passes, turns

    yield make_one
    for batcher, encoder in made:
        encoder.go.set()
        batcher.close()


def same_bits(ours, theirs):
    return all(getattr(ours, name).tobytes() == getattr(theirs, name).tobytes() for name in COLUMNS)


def test_each_request_s_calls_are_made_as_the_library_makes_them(make):
    batcher, encoder, passes, turns = make(shares=False)
    one, two = batcher.ask([query("a"), document("b", "c")]), batcher.ask([document("c")])
    encoder.go.set()
    (asking, held), [alone] = one.result(30), two.result(30)
    assert encoder.calls == [("document", ("first",)), ("query", ("a",)), ("document", ("b", "c")), ("document", ("c",))]
    assert same_bits(asking.vectors, HashingEncoder(32).encode_queries(["a"]))
    assert same_bits(held.vectors, HashingEncoder(32).encode_documents(["b", "c"]))
    assert same_bits(alone.vectors, HashingEncoder(32).encode_documents(["c"]))
    assert (passes, turns) == ([1, 1, 2, 1], [1, 2])


@pytest.mark.parametrize("shares", [False, True])
def test_equal_calls_that_wait_together_are_made_once(make, shares):
    batcher, encoder, _, _ = make(shares=shares)
    asked = [batcher.ask([query("a")]) for _ in range(5)]
    encoder.go.set()
    answers = [future.result(30)[0].vectors for future in asked]
    assert encoder.calls[1:] == [("query", ("a",))]
    assert all(same_bits(answer, answers[0]) for answer in answers)


def test_a_query_and_a_document_of_the_same_text_are_two_calls(make):
    batcher, encoder, _, _ = make(shares=True)
    asked = batcher.ask([query("a"), document("a")])
    encoder.go.set()
    asked.result(30)
    assert encoder.calls[1:] == [("query", ("a",)), ("document", ("a",))]


def test_where_passes_are_shared_each_gets_its_own_rows(make):
    batcher, encoder, passes, _ = make(shares=True)
    texts = [("a b", "c"), ("c", "d e f", "c"), (), ("",)]
    asked = [batcher.ask([document(*each), query("q")]) for each in texts]
    encoder.go.set()
    for future, each in zip(asked, texts, strict=True):
        documents, question = future.result(30)
        assert same_bits(documents.vectors, HashingEncoder(32).encode_documents(list(each)))
        assert same_bits(question.vectors, HashingEncoder(32).encode_queries(["q"]))
    assert encoder.calls[1:] == [("document", ("a b", "c", "d e f", "")), ("query", ("q",))]
    assert passes == [1, 4, 1]


def test_a_turn_takes_no_more_texts_than_it_may_but_a_large_request_whole(make):
    batcher, encoder, _, turns = make(shares=True, max_batch=3)
    sizes = {"a": 2, "b": 2, "c": 5, "d": 1}
    asked = [batcher.ask([document(*(f"{name}{row}" for row in range(size)))]) for name, size in sizes.items()]
    encoder.go.set()
    assert [len(future.result(30)[0].vectors) for future in asked] == [2, 2, 5, 1]
    assert [len(texts) for _, texts in encoder.calls] == [1, 2, 2, 5, 1]
    assert turns == [1, 1, 1, 1, 1]


def test_a_shared_pass_waits_a_moment_for_others_and_not_when_it_is_full():
    encoder, turns = Watched(), []
    encoder.go.set()
    batcher = Batcher(encoder, group=BY_KIND, max_batch=2, wait=25.0, on_pass=lambda _: None, on_turn=turns.append)
    one, two = batcher.ask([document("a")]), batcher.ask([document("b")])
    assert [len(future.result(20)[0].vectors) for future in (one, two)] == [1, 1]  # the second filled the pass
    assert (encoder.calls, turns) == ([("document", ("a", "b"))], [2])
    batcher.close()


@pytest.mark.parametrize("shares", [False, True])
def test_an_error_is_told_to_its_request_alone_and_the_next_are_answered(make, shares):
    batcher, encoder, _, _ = make(shares=shares)
    good, bad = batcher.ask([document("a")]), batcher.ask([document("broken", "b")])
    encoder.go.set()
    assert len(good.result(30)[0].vectors) == 1
    with pytest.raises(ValueError, match="broken"):
        bad.result(30)
    assert len(batcher.ask([document("c")]).result(30)[0].vectors) == 1


@pytest.mark.parametrize("shares", [False, True])
def test_cut_texts_are_told_to_the_request_they_belong_to(make, shares):
    batcher, encoder, _, _ = make(shares=shares)
    one, two = batcher.ask([document("a")]), batcher.ask([document("long", "long too", "b")])
    encoder.go.set()
    assert (one.result(30)[0].truncated, two.result(30)[0].truncated) == (0, 2)


@pytest.mark.parametrize("shares", [False, True])
def test_what_is_dropped_is_never_encoded_and_held_no_longer(make, shares):
    batcher, encoder, _, _ = make(shares=shares)
    left, stays = batcher.ask([document("left")]), batcher.ask([document("stays")])
    assert batcher.waiting == 2
    assert batcher.drop(left)
    assert batcher.waiting == 1
    encoder.go.set()
    stays.result(30)
    assert [texts for _, texts in encoder.calls] == [("first",), ("stays",)]
    with pytest.raises(CancelledError):
        left.result(0)
    assert not batcher.drop(stays)


@pytest.mark.parametrize("shares", [False, True])
def test_what_is_answered_is_held_no_longer(make, shares):
    batcher, encoder, _, _ = make(shares=shares)
    encoder.go.set()
    asked = batcher.ask([document("red fox"), query("red fox")])
    asked.result(30)
    held, ends = weakref.ref(asked), time.monotonic() + 5
    del asked
    while held() is not None and time.monotonic() < ends:
        time.sleep(0.01)
    assert held() is None, "the vectors of a large request would lie here until the next one comes"


def test_where_no_pass_is_shared_nobody_is_made_to_wait_for_others():
    how = {"on_pass": lambda texts: None, "on_turn": lambda requests: None}
    batcher = Batcher(HashingEncoder(32), group=None, max_batch=64, wait=5.0, **how)
    began = time.monotonic()
    batcher.ask([query("red fox")]).result(30)
    assert time.monotonic() - began < 2.5
    batcher.close()


def test_closing_answers_what_is_in_line_and_takes_no_more(make):
    batcher, encoder, _, _ = make(shares=False)
    asked = [batcher.ask([document(str(number))]) for number in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    encoder.go.set()
    closing.join(30)
    assert [len(future.result(0)[0].vectors) for future in asked] == [1] * 5
    with pytest.raises(RuntimeError, match="closed"):
        batcher.ask([document("late")]).result(0)


def test_an_encoder_that_gives_too_few_rows_is_an_error():
    class Short(HashingEncoder):
        def encode_documents(self, texts, *, progress=False):
            return super().encode_documents(texts[1:])

    batcher = Batcher(Short(), group=None, max_batch=8, wait=0, on_pass=lambda _: None, on_turn=lambda _: None)
    with pytest.raises(InvalidVectorsError, match="a row for each of 2 texts"):
        batcher.ask([document("a", "b")]).result(30)
    batcher.close()


def test_many_threads_get_their_own_answers():
    encoder = HashingEncoder(16)
    batcher = Batcher(encoder, group=BY_KIND, max_batch=16, wait=0.001, on_pass=lambda _: None, on_turn=lambda _: None)
    wrong = []

    def ask(name):
        for number in range(20):
            texts = [f"{name} {number % 3}", f"shared {number}"]
            [answer] = batcher.ask([document(*texts)]).result(30)
            if not same_bits(answer.vectors, encoder.encode_documents(texts)):
                wrong.append((name, number))

    threads = [threading.Thread(target=ask, args=(f"thread{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batcher.close()
    assert wrong == []


# -- independence ----------------------------------------------------------------------------------


class Rounds(HashingEncoder):
    """Gives the last bit of one number by how many texts there are, as a matrix product may."""

    def encode_documents(self, texts, *, progress=False):
        vectors = super().encode_documents(texts)
        colbert = vectors.colbert.copy()
        if len(texts) > 9 and len(colbert):
            colbert[-1, -1] = np.nextafter(colbert[-1, -1], np.float32(2))
        return replace(vectors, colbert=colbert)


class Pads(HashingEncoder):
    """Gives a text the same bits only among texts of as many tokens."""

    independence = "equal_lengths"

    def encode_documents(self, texts, *, progress=False):
        vectors, counts = super().encode_documents(texts), {len(self.tokenize(text)) for text in texts}
        if len(counts) == 1:
            return vectors
        return replace(vectors, dense=np.nextafter(vectors.dense, np.float32(2)))


def test_an_encoder_is_taken_for_independent_when_it_says_so_and_is():
    group = grouping(HashingEncoder(), joined=False)
    assert group(Call("query", ("a",))) == group(Call("query", ("b c", "d")))
    assert grouping(Rounds(), joined=False) is None


def test_where_only_texts_of_as_many_tokens_may_share_a_pass_only_they_do():
    encoder = Pads()
    group = grouping(encoder, joined=False)
    one, two, other = (group(Call("query", (text,))) for text in ("red fox", "blue whale", "fox"))
    assert one == two != other
    assert group(Call("query", ("red fox", "fox"))) is None
    assert group(Call("query", ("word " * 1_000,))) is None
    passes = []
    batcher = Batcher(encoder, group=group, max_batch=64, wait=0.2, on_pass=passes.append, on_turn=lambda _: None)
    texts = ["red fox", "blue whale", "fox", "a b c", "green frog", "x y z"]
    asked = {text: batcher.ask([document(text)]) for text in texts}
    for text, future in asked.items():
        [answer] = future.result(30)
        assert same_bits(answer.vectors, encoder.encode_documents([text]))
    batcher.close()
    assert sorted(passes) == [1, 2, 3]


def test_one_whose_claim_does_not_hold_shares_nothing():
    class Claims(Rounds):
        independence = "equal_lengths"

        def encode_documents(self, texts, *, progress=False):
            vectors = super().encode_documents(texts)
            parts = (
                vectors.sparse_ids,
                vectors.sparse_weights,
                vectors.sparse_offsets,
                vectors.colbert,
                vectors.colbert_offsets,
            )
            return M3Vectors(vectors.dense * np.float32(1 + 1e-6 * (len(texts) > 1)), *parts)

    assert grouping(Claims(), joined=False) is None
    assert grouping(Claims(), joined=True) is not None


def test_one_whose_claim_holds_of_documents_alone_shares_nothing():
    class Claims(HashingEncoder):
        independence = "always"

        def encode_queries(self, texts):
            vectors = self.encode_documents(texts)
            return replace(vectors, dense=vectors.dense * np.float32(1 + 1e-6 * (len(texts) > 1)))

    assert grouping(Claims(), joined=False) is None


def test_one_that_says_nothing_is_not_even_tried():
    encoder = Watched()  # whose calls would wait for `go`
    encoder.independence = "never"
    assert grouping(encoder, joined=False) is None


@pytest.mark.model
def test_the_mini_model_shares_no_pass_in_torch_and_those_of_equal_lengths_in_openvino():
    from m3retriever import MiniEncoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert grouping(MiniEncoder(), joined=False) is None
        assert grouping(MiniEncoder(precision="int8"), joined=False) is not None


def test_what_stands_for_an_encoder_is_tied_to_the_same_profiles():
    class Coarse(HashingEncoder):
        precision = "int8"

    encoder, nothing = Coarse(), HashingEncoder().encode_documents([])
    for stands_for in (AskedBefore(encoder), Prepared(encoder, nothing, nothing)):
        assert (stands_for.name, stands_for.dim, stands_for.precision) == (encoder.name, encoder.dim, "int8")
