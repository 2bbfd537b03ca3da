"""Several processes and threads on one index, event loops, forks, and what closing leaves behind."""

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from torture.crashes import Place, answer, fresh_processes
from torture.server import Server
from torture.threads import ENCODER, run

from m3retriever import ChromaStore, Document, M3Index, StoreError, StoreLockedError

MODES = ("dense", "sparse", "colbert")
SEEN_WITHIN = 1.0  # seconds
DESCRIPTORS = Path("/proc/self/fd")


def opened(folder):
    return M3Index(ENCODER, ChromaStore(folder))


# -- who may write ---------------------------------------------------------------------------------------------


def hold(folder, pipe):
    with ChromaStore(folder).writing():
        pipe.send(os.getpid())
        time.sleep(600)


def holding(folder):
    """A process that has the right to write, and its id."""
    here, there = fresh_processes.Pipe(duplex=False)
    process = fresh_processes.Process(target=hold, args=(folder, there))
    process.start()
    return process, here.recv()


def test_the_lock_of_a_killed_process_is_free_at_once_and_what_it_wrote_misleads_nobody(tmp_path):
    opened(tmp_path).close()
    process, pid = holding(tmp_path)
    with opened(tmp_path) as index:
        with pytest.raises(
            StoreLockedError, match=rf"is being written to by process {pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        ):
            index.add([Document("a", "red fox")])
        process.kill()
        process.join()
        assert json.loads((tmp_path / "m3" / "writer.json").read_text())["pid"] == pid, "it had no time to take it back"
        assert index.store.writer() is None
        index.add([Document("a", "red fox")])
        assert json.loads((tmp_path / "m3" / "writer.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "since": 3}', '{"pid": 1}', "x" * 5000])
def test_whatever_stands_in_the_file_of_the_owner_a_second_writer_is_refused_in_words(tmp_path, content):
    opened(tmp_path).close()
    process, _ = holding(tmp_path)
    try:
        (tmp_path / "m3" / "writer.json").write_text(content)
        with (
            opened(tmp_path) as index,
            pytest.raises(StoreLockedError, match="is being written to by another process; wait until"),
        ):
            index.add([Document("a", "red fox")])
    finally:
        process.kill()
        process.join()


# -- readers in other processes --------------------------------------------------------------------------------


def read(folder, pipe):
    """For each text that comes, wait until every mode says that it is there, or is gone, and tell when that was."""
    with M3Index(ENCODER, ChromaStore(folder, read_only=True)) as index:
        pipe.send("ready")
        while (asked := pipe.recv()) is not None:
            text, id = asked
            while not all(_shown(index, text, mode) == id for mode in MODES):
                time.sleep(0.005)
            pipe.send(time.monotonic())


def _shown(index, text, mode):
    """The id of the document that is found and has this very text."""
    return next((hit.document.id for hit in index.search(text, 1, mode=mode) if hit.document.text == text), None)


def test_readers_in_other_processes_see_what_is_committed_within_a_second_in_every_mode(tmp_path):
    with opened(tmp_path) as index:
        index.add([Document(f"d{row}", f"w{row} v{row % 7}") for row in range(40)])
        readers = []
        for _ in range(2):
            here, there = fresh_processes.Pipe()
            process = fresh_processes.Process(target=read, args=(tmp_path, there))
            process.start()
            readers.append((process, here))
        try:
            assert [here.recv() for _, here in readers] == ["ready"] * 2
            for change, text, id in [
                (lambda: index.add([Document("new", "blue whale")]), "blue whale", "new"),
                (lambda: index.add([Document("new", "grey owl")]), "grey owl", "new"),
                (lambda: index.add([Document("d3", "tall giraffe")]), "blue whale", None),
                (lambda: None, "tall giraffe", "d3"),
                (lambda: index.delete(["new", "d3"]), "grey owl", None),
                (lambda: None, "tall giraffe", None),
            ]:
                change()
                committed = time.monotonic()
                for _, here in readers:
                    here.send((text, id))
                for _, here in readers:
                    assert here.poll(10), f"{text!r} is not seen as {id}"
                    assert here.recv() - committed < SEEN_WITHIN
        finally:
            for process, here in readers:
                here.send(None)
                process.join(10)
                process.kill()


# -- threads, forks, event loops -------------------------------------------------------------------------------


def test_many_threads_get_to_the_last_bit_what_one_gets(tmp_path):
    work = run(tmp_path, 8, 40)
    assert work.problems == []
    assert work.adds > 5
    assert work.queries > 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_forks_while_threads_search_and_write_harms_nobody(tmp_path):
    assert answer(fork_amid_work, tmp_path) == {"children": [0] * 8, "failures": [], "documents": True}


def fork_amid_work(folder):
    index, stop, failures, added = opened(folder), threading.Event(), [], [0]
    index.add([Document("d", "red fox")])

    def search():
        while not stop.is_set():
            if [hit.document.id for hit in index.search("red fox", 1)] != ["d"]:
                failures.append("lost")

    def write():
        while not stop.is_set():
            index.add([Document(f"n{added[0]}", f"x{added[0]}")])
            added[0] += 1

    threads = [threading.Thread(target=each) for each in (search, search, write)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(8):
        if (child := os.fork()) == 0:
            _in_child(index, folder, quietly=number % 2)
        children.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    left = len(index)
    index.close()
    return {"children": children, "failures": failures, "documents": left == added[0] + 1}


def _in_child(inherited, folder, *, quietly):
    """Ends with 0 where the inherited index, and opening one, say in words that this process must not."""
    for call in (lambda: inherited.search("fox"), lambda: opened(folder), lambda: opened(f"{folder}-2")):
        try:
            call()
            os._exit(1)
        except StoreError as error:
            if "by spawn or forkserver" not in str(error):
                os._exit(2)
    inherited.close()
    os._exit(0) if quietly else sys.exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_forked_before_any_index_was_opened_opens_its_own(tmp_path):
    assert answer(fork_first, tmp_path) == 0


def fork_first(folder):
    if (child := os.fork()) == 0:
        with opened(folder) as index:
            index.add([Document(f"d{row}", f"x{row}") for row in range(30)])
            os._exit(index.search("x7", 1)[0].document.id != "d7")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_frees_nothing_of_its_parents_when_it_ends_and_keeps_nothing_when_the_parent_does(tmp_path):
    opened(tmp_path).close()
    here, there = fresh_processes.Pipe(duplex=False)
    parent = fresh_processes.Process(target=hold_and_fork, args=(tmp_path, there))
    parent.start()
    ended, living = here.recv()
    assert ended == 0
    with opened(tmp_path) as index:
        try:
            with pytest.raises(StoreLockedError, match=f"process {parent.pid} since"):
                index.add([Document("a", "red fox")])
            parent.kill()
            parent.join()
            os.kill(living, 0)
            index.add([Document("a", "red fox")])
        finally:
            parent.kill()
            os.kill(living, signal.SIGKILL)


def hold_and_fork(folder, pipe):
    """Hold the right to write, with one child that has ended in the ordinary way and one that lives on."""
    index = opened(folder)
    index.add([Document("p", "parent")])
    if (first := os.fork()) == 0:
        sys.exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if (second := os.fork()) == 0:
        time.sleep(600)
    pipe.send((ended, second))
    time.sleep(600)


def test_searches_and_adds_of_one_event_loop_go_side_by_side(tmp_path):
    async def work(index):
        adds = [index.aadd([Document(f"n{number}", f"x{number} x{number + 1}")]) for number in range(10)]
        searches = [index.asearch("red fox", 1) for _ in range(30)]
        return await asyncio.gather(*searches, *adds)

    with opened(tmp_path) as index:
        index.add([Document("d", "red fox")])
        [alone] = index.search("red fox", 1)
        done = asyncio.run(work(index))
        assert done[:30] == [[alone]] * 30
        assert len(index) == 11
        for number in range(10):
            assert index.search(f"x{number} x{number + 1}", 1)[0].document.id == f"n{number}"


def test_an_add_that_is_cancelled_leaves_whole_documents_and_a_usable_index(tmp_path):
    async def work(index, documents, after):
        adding = asyncio.create_task(index.aadd(documents))
        await asyncio.sleep(after)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        [hit] = await index.asearch("red fox", 1)
        assert hit.document.id == "d"
        await index.aadd([Document("after", "blue whale")])
        return await index.asearch("blue whale", 1)

    with opened(tmp_path) as index:
        index.add([Document("d", "red fox")])
        for after in (0, 0.03):
            documents = [Document(f"n{number}", f"x{number} after {after}", {"n": number}) for number in range(80)]
            [hit] = asyncio.run(work(index, documents, after))
            assert hit.document.id == "after"
            for document in index.find({"n": {"$gte": 0}}):
                assert document.text in (f"x{document.id[1:]} after 0", f"x{document.id[1:]} after 0.03")
                assert index.search(document.text, 1)[0].document == document
            assert index.store.missing() == []
        index.add(documents)
        assert len(index) == 82


# -- what is left behind -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="counts open files by /proc")
@pytest.mark.parametrize("how", ["closed", "forgotten", "failed"])
def test_opening_again_and_again_leaves_no_files_threads_or_locks(tmp_path, how):
    opened(tmp_path).close()
    few, many = answer(leave, tmp_path, how, 3), answer(leave, tmp_path, how, 30 if how == "closed" else 12)
    assert many == few, "(files, threads, locks) grow with every opening"
    with opened(tmp_path) as index:
        index.add([Document("last", "x")])


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="counts open files by /proc")
def test_a_client_of_a_server_that_is_closed_again_and_again_leaves_no_connections(tmp_path):
    with Server(tmp_path / "server") as server:
        place = Place(tmp_path / "payload", tmp_path / "log", server.port)
        assert answer(leave_served, place, 12) == answer(leave_served, place, 3)


def leave_served(place, times):
    for number in range(times):
        with place.open() as index:
            index.add([Document(f"d{number % 3}", f"x{number}")])
    gc.collect()
    return len(list(DESCRIPTORS.iterdir()))


def leave(folder, how, times):
    """How many files, threads and rights to write a process has after so many openings."""
    from m3retriever.stores import lock, payload

    for number in range(times):
        if how == "failed":
            try:
                M3Index(ENCODER, ChromaStore(folder, collection="absent", read_only=True))
            except StoreError:
                continue
        index = opened(folder)
        index.add([Document(f"d{number % 3}", f"x{number}")])
        index.search("x", 1)
        if how == "closed":
            index.close()
        del index
        gc.collect()
    gc.collect()
    time.sleep(0.2)  # Chroma's threads end a moment after it
    return len(list(DESCRIPTORS.iterdir())), len(list(Path("/proc/self/task").iterdir())), len(lock._held), len(payload._shared)
