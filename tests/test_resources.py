"""Memory, time and patience run out: what was asked is done in smaller steps, or said not to be, and the index stays whole."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from torture import resources

from m3retriever import (
    ChromaStore,
    DeviceMemoryError,
    Document,
    HashingEncoder,
    InvalidDocumentError,
    M3Index,
    MemoryStore,
    TruncationWarning,
)
from m3retriever.cli.indexing import _documents
from m3retriever.encoders.openvino_engine import OpenVINOEngine
from m3retriever.ingest import BATCH_CHARACTERS, RUN_BATCHES, runs

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of memory, and what the system says of it, as Linux has them"
)
COMMAND = str(Path(sys.executable).with_name("m3retriever"))


# -- more than fits memory -----------------------------------------------------------------------------


class Forgetful:
    """A store that keeps nothing, so that what is held is held by others."""

    def __init__(self):
        self.stored = 0

    def add(self, documents, vectors):
        self.stored += len(documents)

    def get(self, ids):
        raise KeyError(*ids)

    def delete(self, ids):
        pass

    def search(self, query, *, depth, where=None):
        raise NotImplementedError

    def score(self, query, ids):
        raise NotImplementedError

    def __len__(self):
        return self.stored

    def close(self):
        pass


class Short(HashingEncoder):
    """Reads a text's first word."""

    def encode_documents(self, texts, *, progress=False):
        return super().encode_documents([text[:6] for text in texts])


def large_documents(count, characters):
    for number in range(count):
        yield Document(f"d{number}", f"w{number:05} " + "x" * characters)


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_of_an_iterator_a_few_batches_are_held_however_long_it_is():
    index, characters = M3Index(Short(16), Forgetful()), 100_000
    took = peak(lambda: index.add(large_documents(600, characters)))
    assert len(index) == 600
    assert took < 4 * RUN_BATCHES * BATCH_CHARACTERS < 600 * characters / 10


def test_an_iterator_is_stored_as_a_list_is(tmp_path):
    documents = [Document(f"d{number}", f"red fox w{number}", {"n": number}) for number in range(1500)]
    listed, streamed = M3Index(Short(16), MemoryStore()), M3Index(Short(16), MemoryStore())
    assert listed.add(documents) == streamed.add(iter(documents))
    assert streamed.get(streamed.ids()) == listed.get(listed.ids())
    assert streamed.add(iter(documents)).unchanged == 1500


def test_an_id_that_an_iterator_gives_twice_is_refused_wherever_it_comes():
    index = M3Index(Short(16), MemoryStore())
    with pytest.raises(InvalidDocumentError, match="ids must be unique within one call; 'd7' comes more than once"):
        index.add(iter([*large_documents(3000, 1), Document("d7", "again")]))
    assert index.get(["d7"])[0].text != "again"


def test_runs_are_bounded_by_number_and_by_characters():
    lengths = [len(run) for run in runs(large_documents(2500, 1))]
    assert lengths == [1024, 1024, 452]
    assert {len(run) for run in runs(large_documents(40, 200_000))} <= {3, 1}
    assert [len(run) for run in runs(large_documents(2, 5_000_000))] == [1, 1], "one that is larger comes alone"
    assert list(runs([])) == []


def test_a_file_of_documents_is_read_as_it_is_needed(tmp_path):
    size = resources.write_corpus(tmp_path / "corpus.jsonl", 300, 100_000)
    read = runs(_documents([tmp_path / "corpus.jsonl"], None, clean=False), most=256)
    assert peak(lambda: sum(len(run) for run in read)) < size / 5


# -- no memory for a batch -----------------------------------------------------------------------------


def small_engine(limit, error):
    class Small(OpenVINOEngine):
        """Has room for so many tokens."""

        def run(self, ids, mask):
            if ids.size > limit:
                raise error
            return super().run(ids, mask)

    return Small


TEXTS = [f"w{number % 90} w{number % 7} w1" for number in range(64)]


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), RuntimeError("std::bad_alloc"), RuntimeError("failed to allocate 3 MB")]
)
def test_where_memory_runs_out_on_a_processor_batches_shrink_and_nothing_is_lost(tmp_path, error, caplog):
    pytest.importorskip("openvino")
    calm = resources.tiny_encoder(tmp_path)
    starved = resources.tiny_encoder(tmp_path, small_engine(50, error))
    found, wanted = starved.encode_documents(TEXTS), calm.encode_documents(TEXTS)
    np.testing.assert_allclose(found.colbert, wanted.colbert, atol=1e-5)
    assert starved._loop.batch_tokens <= 50
    assert "out of memory: going on with batch_tokens=" in caplog.text
    with pytest.raises(DeviceMemoryError, match="not enough memory on cpu for one text of 5 tokens"):
        resources.tiny_encoder(tmp_path, small_engine(4, error)).encode_queries(["w1 w2 w3"])


def test_another_error_of_the_engine_is_not_taken_for_lack_of_memory(tmp_path):
    pytest.importorskip("openvino")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        resources.tiny_encoder(tmp_path, small_engine(50, RuntimeError("shapes do not match"))).encode_documents(TEXTS)


@LINUX
def test_a_batch_for_which_openvino_has_no_memory_is_refused_instead_of_answered_with_the_one_before(tmp_path):
    pytest.importorskip("openvino")
    counts = resources.run("starve", tmp_path, 24)
    assert counts.get("wrong", 0) == 0
    assert min(counts["right"], counts["refused"]) > 0


def test_what_openvino_left_of_the_batch_before_is_not_taken_for_the_next_ones(tmp_path):
    pytest.importorskip("openvino")
    resources.tiny_graph(tmp_path)
    engine, ids = OpenVINOEngine(tmp_path), np.arange(8, dtype=np.int64).reshape(2, 4)
    request = engine._request

    class OutOfMemory:
        """Does as OpenVINO does where it finds no memory: gives what is there."""

        def infer(self, *given, **how):
            return found

    found = request.infer({"ids": ids, "mask": np.ones_like(ids), "every": np.arange(8), "kept": np.array([1, 2, 3, 5, 6, 7])})
    engine._given, engine._request = list(found.values()), OutOfMemory()
    with pytest.raises(MemoryError, match="OpenVINO had no memory for a batch of 2 texts"):
        engine.run(ids, np.ones_like(ids))
    assert engine._request is None, "once memory ran out, later batches of the same compiled graph come out wrong"
    wanted = OpenVINOEngine(tmp_path).run(ids, np.ones_like(ids))
    np.testing.assert_allclose(engine.run(ids, np.ones_like(ids)).dense, wanted.dense, atol=resources.SAME)


# -- texts longer than is read -------------------------------------------------------------------------


def test_a_query_of_100_000_tokens_is_cut_with_a_warning_that_says_so(tmp_path):
    pytest.importorskip("openvino")
    index = M3Index(resources.tiny_encoder(tmp_path), MemoryStore())
    index.add([Document("a", "w1 w2"), Document("b", "w50 w51")])
    long = " ".join(f"w{number % 40}" for number in range(100_000))
    cut = " ".join(f"w{number % 40}" for number in range(resources.LENGTH - 2))
    message = f"1 of 1 texts are longer than {resources.LENGTH} tokens; what comes after was not encoded"
    with pytest.warns(TruncationWarning, match=message):
        hits = index.search(long)
    assert [hit.scores for hit in hits] == [hit.scores for hit in index.search(cut)]
    with pytest.warns(TruncationWarning, match=message):
        index.add([Document("long", long)])
    assert index.search(cut, 1)[0].document.id == "long"


@pytest.mark.model
def test_the_command_line_says_that_a_query_was_cut(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"_id": "a", "text": "red fox"}\n')
    path = ["--path", str(tmp_path / "index")]
    subprocess.run([COMMAND, "index", str(tmp_path / "a.jsonl"), *path, "--model", "mini"], check=True, capture_output=True)
    done = subprocess.run([COMMAND, "search", "fox " * 30_000, *path], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("warning: 1 of 1 texts are longer than 256 tokens; what comes after was not encoded")
    assert "red fox" in done.stdout


# -- interrupted and given up --------------------------------------------------------------------------


@LINUX
def test_calls_that_are_interrupted_at_any_moment_leave_the_index_as_if_undisturbed(tmp_path):
    counts = resources.run("interrupts", tmp_path / "index", 40, 1)
    assert counts["wrong"] == 0
    assert counts["interrupted"] == 40


def test_a_write_that_was_interrupted_before_its_block_began_does_not_keep_the_next_ones_out(tmp_path):
    with M3Index(HashingEncoder(32), ChromaStore(tmp_path)) as index:
        index.add([Document("a", "red fox")])
        interrupted = index.store._payload._write()
        interrupted.__enter__()  # Ctrl-C comes here, and whoever shows the error keeps this alive
        index.add([Document("b", "blue whale")])
        assert index.ids() == ["a", "b"]
        assert index.store.verify().whole


class Waiting(HashingEncoder):
    """Encodes when it is let."""

    def __init__(self):
        super().__init__()
        self.begun, self.let = threading.Event(), threading.Event()

    def encode_documents(self, texts, *, progress=False):
        self.begun.set()
        assert self.let.wait(30)
        return super().encode_documents(texts)


async def given_up(call, encoder):
    """Wait for a call until it has begun and no longer, and say that it did not end."""
    encoder.begun.clear()
    task = asyncio.create_task(call)
    await asyncio.to_thread(encoder.begun.wait, 30)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.05)
    assert task.cancelled()


async def test_calls_that_are_no_longer_waited_for_end_well_in_their_own_time(tmp_path):
    encoder = Waiting()
    with M3Index(encoder, ChromaStore(tmp_path)) as index:
        encoder.let.set()
        await index.aadd([Document("a", "red fox")])
        encoder.let.clear()
        await given_up(index.asearch("fox"), encoder)
        await given_up(index.aadd([Document("b", "blue whale")]), encoder)
        assert index.ids() == ["a"]
        encoder.let.set()
        ends = time.monotonic() + 30
        while index.ids() != ["a", "b"] and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        await index.aadd([Document("c", "green crow")])
        assert [hit.document.id for hit in await index.asearch("whale", 1)] == ["b"]
    with M3Index(HashingEncoder(), ChromaStore(tmp_path)) as again:
        assert again.ids() == ["a", "b", "c"]


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_indexing_that_is_asked_to_end_keeps_what_was_stored_and_gives_back_the_lock(tmp_path, number, code):
    rows = [{"_id": f"d{row}", "text": f"fox w{row} " + "word " * 200} for row in range(20_000)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [COMMAND, "index", str(tmp_path / "corpus.jsonl"), "--path", str(tmp_path / "index"), "--model", "hashing"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: stored(tmp_path / "index") > 0)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    with M3Index.open(tmp_path / "index") as index:
        kept = index.ids()
        assert 0 < len(kept) < len(rows)
        assert index.add([Document(row["_id"], row["text"]) for row in rows[: len(kept)]]).unchanged == len(kept)
        assert index.search("w3", 1, mode="sparse")[0].document.id == "d3"


def stored(folder):
    """How many documents another process has committed."""
    if not (folder / "m3" / "m3retriever" / "data.mdb").is_file():
        return 0
    with closing(ChromaStore(folder, read_only=True)) as store:
        return len(store)


def wait_until(true, longest=60):
    ends = time.monotonic() + longest
    while time.monotonic() < ends:
        try:
            if true():
                return
        except OSError:  # of an index that is only being made
            pass
        time.sleep(0.1)
    raise AssertionError("waited too long")
