"""Batches are stored behind the encoder's back: nothing is lost, and what fails is said."""

import threading
import time

import pytest

from m3retriever import ChromaStore, Document, HashingEncoder, InvalidVectorsError, M3Index, MemoryStore
from m3retriever.ingest import BATCH, Behind


def documents(count: int) -> list[Document]:
    return [Document(f"d{row}", f"w{row} fox") for row in range(count)]


class Slow(HashingEncoder):
    """Notes when each batch began, and what the store held then."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__(16)
        self.began, self.fail_at, self.threads = [], fail_at, set()

    def encode_documents(self, texts, *, progress=False):
        self.threads.add(threading.current_thread())
        if len(self.began) == self.fail_at:
            raise RuntimeError("the model broke")
        self.began.append(time.perf_counter())
        return super().encode_documents(texts, progress=progress)


def test_calls_are_done_in_order_and_one_at_a_time():
    done, running = [], threading.Semaphore(1)

    def call(number):
        assert running.acquire(blocking=False)
        time.sleep(0.002)
        done.append(number)
        running.release()

    with Behind(threaded=True) as behind:
        for number in range(10):
            behind.do(lambda number=number: call(number))
    assert done == list(range(10))


@pytest.mark.parametrize("threaded", [True, False])
def test_what_a_call_raises_reaches_the_caller(threaded):
    with pytest.raises(ZeroDivisionError), Behind(threaded=threaded) as behind:
        behind.do(lambda: 1 / 0)
    done = []
    with pytest.raises(KeyboardInterrupt), Behind(threaded=threaded) as behind:
        behind.do(lambda: (time.sleep(0.05), done.append(1)))
        raise KeyboardInterrupt
    assert done == [1], "a call under way ends before the exception goes on"


def test_the_encoder_works_while_the_store_does(tmp_path, monkeypatch):
    encoder, ended, adders = Slow(), [], set()
    with M3Index(encoder, ChromaStore(tmp_path)) as index:
        real = index.store.add

        def slow_add(*given):
            adders.add(threading.current_thread())
            time.sleep(0.2)
            real(*given)
            ended.append(time.perf_counter())

        monkeypatch.setattr(index.store, "add", slow_add)
        index.add(documents(2 * BATCH + 5))
        assert len(index) == 2 * BATCH + 5
        assert encoder.began[1] < ended[0], "the second batch was encoded while the first was stored"
        assert adders.isdisjoint(encoder.threads)


def test_what_was_encoded_before_a_failure_is_stored(tmp_path):
    with M3Index(Slow(fail_at=2), ChromaStore(tmp_path)) as index:
        with pytest.raises(RuntimeError, match="the model broke"):
            index.add(documents(3 * BATCH))
        assert len(index) == 2 * BATCH
        index.encoder.fail_at = None
        added = index.add(documents(3 * BATCH))
        assert (added.new, added.unchanged) == (BATCH, 2 * BATCH)


def test_a_store_that_fails_stops_the_work(tmp_path, monkeypatch):
    encoder = Slow()
    with M3Index(encoder, ChromaStore(tmp_path)) as index:
        monkeypatch.setattr(index.store, "add", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            index.add(documents(10 * BATCH))
        assert len(encoder.began) <= 3


def test_who_holds_the_right_to_write_can_add_many_documents(tmp_path):
    with M3Index(HashingEncoder(16), ChromaStore(tmp_path)) as index:
        with index.store.writing():
            assert index.store.writing_here()
            index.add(documents(2 * BATCH))
        assert not index.store.writing_here()
        assert len(index) == 2 * BATCH


def test_many_batches_give_the_index_that_single_ones_give(tmp_path):
    many, single = M3Index(HashingEncoder(16), ChromaStore(tmp_path)), M3Index(HashingEncoder(16), MemoryStore())
    many.add(documents(2 * BATCH + 7))
    for document in documents(2 * BATCH + 7):
        single.add([document])
    for query in ("w3 fox", "w300", "nothing"):
        for mode in ("dense", "sparse"):
            ours, theirs = (index.search(query, 20, mode=mode) for index in (many, single))
            assert [(hit.document.id, hit.score) for hit in ours] == [(hit.document.id, hit.score) for hit in theirs]
    many.close()


def test_that_storing_failed_as_well_is_said(caplog):
    with pytest.raises(RuntimeError, match="encoder"), Behind(threaded=True) as behind:
        behind.do(lambda: (_ for _ in ()).throw(InvalidVectorsError("the vectors of document 'secret'")))
        raise RuntimeError("encoder")
    assert "storing failed as well: InvalidVectorsError" in caplog.text
    assert "secret" not in caplog.text, "an id is for who made the call, not for the log"
