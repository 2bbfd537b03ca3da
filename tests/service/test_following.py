"""Learning what others changed: in small pieces between which clients have their turns, and ended at once."""

import logging
import threading
import time

import pytest

from m3retriever import HashingEncoder
from m3retriever.serving.batching import Batcher, Call
from m3retriever.serving.following import AT_ONCE, Follower
from m3retriever.wire import COLUMNS

TEXTS = [f"text {number}" for number in range(2 * AT_ONCE + 3)]
PATIENCE = 30


class Stepped(HashingEncoder):
    """Notes its calls, and makes each only when it is let."""

    def __init__(self):
        super().__init__(32)
        self.calls, self.entered, self.go = [], threading.Semaphore(0), threading.Semaphore(0)

    def encode_documents(self, texts, *, progress=False):
        self.calls.append(tuple(texts))
        self.entered.release()
        assert self.go.acquire(timeout=PATIENCE)
        return super().encode_documents(texts)


class Changed:
    """A store whose documents another client has changed; it adopts them once."""

    def __init__(self):
        self.vectors, self.done = None, threading.Event()

    def adopt(self, encode):
        if self.vectors is None:
            self.vectors = encode(TEXTS)
            self.done.set()
        return len(TEXTS)


@pytest.fixture
def encoder():
    return Stepped()


@pytest.fixture
def batcher(encoder):
    made = Batcher(encoder, group=None, max_batch=64, wait=0.0, on_pass=lambda texts: None, on_turn=lambda requests: None)
    yield made
    encoder.go.release(100)
    made.close()


def test_documents_are_encoded_a_few_at_a_time_and_clients_have_their_turns_between(encoder, batcher):
    store = Changed()
    follower = Follower(store, batcher, every=0.01)
    assert encoder.entered.acquire(timeout=PATIENCE)
    asked = batcher.ask([Call("document", ("a client's",))])  # while the first few are encoded
    encoder.go.release(2)
    asked.result(PATIENCE)
    assert not store.done.is_set()
    encoder.go.release(100)
    assert store.done.wait(PATIENCE)
    follower.close()
    first, second, third = (tuple(TEXTS[start : start + AT_ONCE]) for start in range(0, len(TEXTS), AT_ONCE))
    assert encoder.calls == [first, ("a client's",), second, third]
    expected = HashingEncoder(32).encode_documents(TEXTS)
    assert all(getattr(store.vectors, name).tobytes() == getattr(expected, name).tobytes() for name in COLUMNS)


def test_a_call_that_has_not_begun_is_dropped_at_the_end_and_nothing_is_logged(encoder, batcher, caplog):
    caplog.set_level(logging.INFO)
    busy = batcher.ask([Call("document", ("a client's",))])
    assert encoder.entered.acquire(timeout=PATIENCE)
    store = Changed()
    follower = Follower(store, batcher, every=0.01)
    ends = time.monotonic() + PATIENCE
    while not batcher.waiting and time.monotonic() < ends:
        time.sleep(0.01)
    began = time.monotonic()
    follower.close()
    assert time.monotonic() - began < 3
    assert batcher.waiting == 0
    assert "m3retriever-refresh" not in {thread.name for thread in threading.enumerate()}
    encoder.go.release()
    busy.result(PATIENCE)
    assert (encoder.calls, store.vectors, caplog.records) == ([("a client's",)], None, [])


def test_a_call_that_has_begun_is_the_last(encoder, batcher, caplog):
    store = Changed()
    follower = Follower(store, batcher, every=0.01)
    assert encoder.entered.acquire(timeout=PATIENCE)
    closing = threading.Thread(target=follower.close)
    closing.start()
    time.sleep(0.1)
    encoder.go.release(100)
    closing.join(PATIENCE)
    assert (encoder.calls, store.vectors, caplog.records) == ([tuple(TEXTS[:AT_ONCE])], None, [])


def test_a_look_that_failed_is_logged_by_its_class_and_the_next_one_comes(encoder, batcher, caplog):
    class Away(Changed):
        looks = 0

        def adopt(self, encode):
            self.looks += 1
            if self.looks == 1:
                raise ConnectionError("with words that may quote a text")
            return super().adopt(encode)

    encoder.go.release(100)
    store = Away()
    follower = Follower(store, batcher, every=0.01)
    assert store.done.wait(PATIENCE)
    follower.close()
    assert [record.getMessage() for record in caplog.records] == [
        "what other clients have changed could not be learnt: ConnectionError"
    ]
