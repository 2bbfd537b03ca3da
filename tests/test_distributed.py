"""Several devices, and Ray's workers: the vectors of one process to the last bit, in order, a bounded number under way."""

import asyncio
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from m3retriever import (
    ChromaStore,
    DeviceMemoryError,
    Document,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    InvalidVectorsError,
    M3Index,
    MemoryStore,
    ServiceError,
    TruncationWarning,
)
from m3retriever.encoders import load_encoder
from m3retriever.encoders.devices import DevicesEncoder
from m3retriever.encoders.streams import in_order
from m3retriever.ingest import BATCH, Delayed, EncodesStream, Step, encoded
from m3retriever.passages import Split
from m3retriever.testing import check_encoder
from m3retriever.wire import COLUMNS

COMMAND = str(Path(sys.executable).with_name("m3retriever"))
TRAPS = ("json", "numpy", "pandas", "pyarrow", "ray", "torch", "m3retriever", "sitecustomize", "usercustomize")


def batches(count, texts=5):
    """Batches of texts of many lengths, no two alike."""
    return [
        [" ".join(f"word{(row * 7 + word * batch) % 97}" for word in range(1 + (row * batch) % 40)) for row in range(texts)]
        for batch in range(1, count + 1)
    ]


def bits(vectors):
    digest = hashlib.sha256()
    for name in COLUMNS:
        array = getattr(vectors, name)
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def documents(count, words=30):
    texts = [" ".join(f"w{row * word % 101}" for word in range(words)) for row in range(count)]
    return [Document(f"d{row:04}", text, {"row": row}) for row, text in enumerate(texts)]


def held(index):
    """What an index holds, with the bits of its vectors."""
    ids = index.ids()
    return ids, index.get(ids), bits(index.vectors(ids))


class Streams(HashingEncoder):
    """Draws `ahead` batches before it gives any vectors; notes what it drew, and fails at a batch if it is told to."""

    def __init__(self, ahead=3, fail_at=None):
        super().__init__(16)
        self.ahead, self.fail_at, self.drawn, self.closed = ahead, fail_at, [], False

    def encode_stream(self, batches):
        def begin(texts):
            self.drawn.append(texts)
            return len(self.drawn) - 1

        try:
            for number in in_order(batches, begin, most=self.ahead):
                if number == self.fail_at:
                    raise RuntimeError("the model broke")
                yield self.encode_documents(self.drawn[number])
        finally:
            self.closed = True


# -- the pipeline ----------------------------------------------------------------------------------


def test_batches_are_begun_ahead_and_given_in_order():
    begun = []

    def begin(texts):
        begun.append(texts)
        return texts[0]

    given = in_order(iter([["a"], ["b"], ["c"], ["d"]]), begin, most=2)
    assert begun == []
    assert (next(given), begun) == ("a", [["a"], ["b"]])
    assert (next(given), begun) == ("b", [["a"], ["b"], ["c"]])
    assert list(given) == ["c", "d"]
    assert list(in_order([], begin, most=2)) == []
    for wrong in (["abc"], [[1]], [["a", None]]):
        with pytest.raises(InvalidArgumentError, match="a batch is a list of str"):
            list(in_order(wrong, begin, most=2))


def test_what_ends_a_stream_is_raised_when_what_was_drawn_is_done_with():
    def items():
        yield 1
        yield 2
        raise ZeroDivisionError

    delayed = Delayed(items())
    delayed.check()
    assert list(delayed) == [1, 2]
    assert list(delayed) == []
    with pytest.raises(ZeroDivisionError):
        delayed.check()


@pytest.mark.parametrize(("given", "said"), [(1, "2 batches have none"), (4, "it gave more")])
def test_an_encoder_that_gives_vectors_for_fewer_or_more_batches_is_refused(given, said):
    vectors = HashingEncoder(16).encode_documents(["x"])

    def encode(texts):
        list(texts)
        yield from [vectors] * given

    steps = [Step([Document(str(row), "x")]) for row in range(3)]
    with pytest.raises(InvalidVectorsError, match=said):
        list(encoded(steps, encode))


def test_steps_without_documents_keep_their_place():
    one, none = Step([Document("a", "x")]), Step([], gone=["b"])

    def encode(texts):
        for text in texts:
            yield HashingEncoder(16).encode_documents(text)

    given = list(encoded([none, one, none, none, one, none], encode))
    assert [step for step, _ in given] == [none, one, none, none, one, none]
    assert [len(vectors) for _, vectors in given] == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("kept", ["memory", "chroma"])
@pytest.mark.parametrize("split", [False, Split(8, 2)])
def test_an_index_is_the_same_whether_its_encoder_streams_or_not(kept, split, tmp_path):
    streams, plain = Streams(), HashingEncoder(16)
    assert isinstance(streams, EncodesStream)
    assert not isinstance(plain, EncodesStream)
    stores = [MemoryStore() if kept == "memory" else ChromaStore(tmp_path / name) for name in "ab"]
    with M3Index(streams, stores[0]) as many, M3Index(plain, stores[1]) as single:
        for given in (documents(600, words=12), documents(600, words=9), documents(800, words=9)[100:]):
            assert many.add(iter(given), split=split) == single.add(given, split=split)
            assert held(many) == held(single)
        assert len(streams.drawn) >= 8


def test_one_stream_has_all_of_an_iterator_and_draws_no_more_than_it_works_on():
    streams, read = Streams(ahead=3), []

    def given():
        for document in documents(20 * BATCH):
            read.append(document)
            yield document

    at = []
    with M3Index(streams, MemoryStore()) as index:
        index.add(given(), progress=lambda added: at.append((added.new, len(streams.drawn), len(read))))
        assert len(index) == 20 * BATCH
    assert [new for new, _, _ in at] == [BATCH] * 20
    for done, (_, drawn, seen) in enumerate(at, start=1):
        assert drawn <= done + 3
        assert seen <= (drawn + 2) * BATCH, "a run is read to its end, and one more"


def test_what_is_wrong_in_the_source_is_said_when_all_before_it_is_stored():
    for bad in (Document("d0001", "twice"), Document("", "no id")):
        index, told = M3Index(Streams(ahead=8), MemoryStore()), []
        with pytest.raises(InvalidDocumentError):
            index.add(iter([*documents(2 * BATCH), bad]), progress=told.append)
        assert len(index) == sum(added.new for added in told) == 2 * BATCH
        assert index.encoder.closed


def test_a_stream_that_fails_leaves_what_it_gave_before_stored(tmp_path):
    with M3Index(Streams(ahead=4, fail_at=2), ChromaStore(tmp_path)) as index:
        with pytest.raises(RuntimeError, match="the model broke"):
            index.add(documents(6 * BATCH))
        assert len(index) == 2 * BATCH
        index.encoder.fail_at = None
        assert index.add(documents(6 * BATCH)).unchanged == 2 * BATCH


def test_a_store_that_fails_ends_the_stream(monkeypatch):
    index = M3Index(Streams(), MemoryStore())
    monkeypatch.setattr(index.store, "add", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        index.add(documents(50 * BATCH))
    assert index.encoder.closed
    assert len(index.encoder.drawn) <= 5


def test_a_passage_that_is_still_under_way_keeps_its_id():
    """The document comes a batch later than the one whose passage has its id, which is not stored yet."""
    long = [Document(f"{name}", " ".join(f"w{word}" for word in range(20))) for name in "ab"]
    filled = documents(BATCH, words=3)
    for encoder in (Streams(ahead=9), HashingEncoder(16)):
        index = M3Index(encoder, MemoryStore())
        with pytest.raises(InvalidDocumentError, match="'a#2' is that of a document, and of a passage of 'a' in this index"):
            index.add([*long, *filled, Document("a#2", "mine")], split=Split(8, 2))
        assert index.get(["a#2"])[0].metadata["passage_of"] == "a"
        assert len(index) == 6 + BATCH - 2, "what came before is stored"


def test_a_passage_that_is_about_to_go_leaves_its_id():
    for encoder in (Streams(ahead=9), HashingEncoder(16)):
        index = M3Index(encoder, MemoryStore())
        index.add([Document("a", " ".join(f"w{word}" for word in range(20)))], split=Split(8, 2))
        assert "a#3" in index.ids()
        index.add([Document("a", "short"), *documents(BATCH, words=3), Document("a#3", "mine")], split=Split(8, 2))
        assert [document.text for document in index.get(["a", "a#3"])] == ["short", "mine"]
        assert "a#1" not in index.ids()


def test_progress_is_told_of_what_is_here_already():
    index, told = M3Index(HashingEncoder(16), MemoryStore()), []
    index.add(documents(BATCH))
    index.add(documents(2 * BATCH + 1), progress=told.append)
    assert sorted((added.new, added.unchanged) for added in told) == [(0, BATCH), (1, 0), (BATCH, 0)]


# -- several devices -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["hashing", pytest.param("mini", marks=pytest.mark.model)])
def test_replicas_give_the_bits_of_one(model):
    many, one = DevicesEncoder(model, ["cpu", "cpu"]), load_encoder(model)
    check_encoder(many)
    assert (many.name, many.dim, many.source) == (one.name, one.dim, model)
    given = batches(12, texts=20)
    assert [bits(vectors) for vectors in many.encode_stream(given)] == [bits(one.encode_documents(texts)) for texts in given]
    assert list(many.encode_stream([])) == []


@pytest.mark.model
def test_an_encoder_that_is_there_is_one_of_the_replicas_and_cut_texts_are_counted_of_all():
    one = load_encoder("mini")
    many = DevicesEncoder(one, ["cpu", "cpu"])
    assert sum(replica is one for replica in many._replicas) == 1
    assert len(many._replicas) == 2
    with pytest.warns(TruncationWarning):
        for _ in many.encode_stream([["word " * 1000, "short"]] * 6):
            pass
    assert many.truncated == 6


class Slow(HashingEncoder):
    """Takes longer for the first batches, and fails for one that says so."""

    def encode_documents(self, texts, *, progress=False):
        if texts[0] == "fail":
            raise DeviceMemoryError("no room")
        time.sleep(0.2 if texts[0] == "slow" else 0)
        return super().encode_documents(texts)


def test_order_holds_where_a_later_batch_is_done_first_and_an_error_comes_in_its_place():
    many = DevicesEncoder("hashing", ["cpu", "cpu"])
    many._free.get(), many._free.get()
    for _ in range(2):
        many._free.put(Slow())
    given = [["slow"], ["a"], ["b"], ["slow"], ["c"]]
    assert [bits(one) for one in many.encode_stream(given)] == [bits(HashingEncoder().encode_documents(one)) for one in given]
    stream = many.encode_stream([["slow"], ["a"], ["fail"], *([["b"]] * 9)])
    assert len(next(stream)) == len(next(stream)) == 1
    with pytest.raises(DeviceMemoryError, match="no room"):
        next(stream)
    assert len(list(many.encode_stream(given))) == 5, "no replica is lost by an error"


def test_a_stream_over_devices_draws_ahead_and_no_further():
    drawn = []

    def given():
        for texts in batches(30):
            drawn.append(texts)
            yield texts

    stream = DevicesEncoder("hashing", ["cpu", "cpu"], ahead=3).encode_stream(given())
    for done in range(1, 5):
        next(stream)
        time.sleep(0.02)
        assert len(drawn) == 6 + done - 1
    stream.close()


def test_a_stream_over_devices_that_is_closed_encodes_no_more_than_it_has_begun():
    many = DevicesEncoder("hashing", ["cpu"], ahead=30)
    many._free.get()
    many._free.put(Slow())
    stream = many.encode_stream([["slow"]] * 30)
    next(stream)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 3, "the 29 others would take 6 seconds"


@pytest.mark.parametrize(
    ("model", "devices", "said"),
    [
        ("hashing", [], "devices must be names"),
        ("hashing", "cpu", "devices must be names"),
        ("hashing", ["cpu", ""], "devices must be names"),
        ("hashing", ["cpu", "cuda:0"], "a device can be chosen for BGE-M3 only, 'hashing' runs where it runs"),
        (HashingEncoder(7), ["cpu"], "the model must be one that others can load by its name; got 'hashing-7'"),
    ],
)
def test_devices_and_models_without_a_meaning_are_refused(model, devices, said):
    with pytest.raises(InvalidArgumentError, match=said):
        DevicesEncoder(model, devices)


def test_the_command_line_encodes_on_devices_and_refuses_combinations_without_a_meaning(tmp_path):
    corpus = write_corpus(tmp_path, 300)
    done = index_command(corpus, tmp_path / "x", "--devices", "cpu,cpu", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["new"] == 300, done.stderr
    with M3Index.open(tmp_path / "x") as several, M3Index(HashingEncoder(), MemoryStore()) as single:
        single.add([Document(one.id, one.text) for one in several.get(several.ids())])
        assert held(several)[0] == single.ids()
        assert np.array_equal(several.vectors(several.ids()).dense, single.vectors(single.ids()).dense)
    for options, said in (
        (["--engine", "spark"], "--engine is one of local, ray; got 'spark'"),
        (["--workers", "3"], "--workers and --gpus-per-worker go with --engine ray"),
        (["--gpus-per-worker", "1"], "--workers and --gpus-per-worker go with --engine ray"),
        (["--engine", "ray", "--devices", "cpu"], "--devices is for this process"),
        (["--devices", "cuda:7"], "a device can be chosen for BGE-M3 only"),
    ):
        failed = index_command(corpus, tmp_path / "y", *options, cwd=tmp_path)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert said in failed.stderr
        assert len(failed.stderr.splitlines()) == 1


def test_the_page_is_true(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")
    python, bash = (re.search(rf"```{kind}\n(.*?)```", page, re.S).group(1) for kind in ("python", "bash"))
    done = subprocess.run(
        [sys.executable, "-c", python], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.stdout == "Added(new=1000, replaced=0, unchanged=0)\n", done.stderr
    write_corpus(tmp_path, 300)
    for line, said in zip(bash.replace("mini", "hashing").splitlines(), ("300 new", "300 unchanged"), strict=True):
        program, *options = shlex.split(line, comments=True)
        assert program == "m3retriever"
        done = subprocess.run([COMMAND, *options], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
        assert said in done.stdout, done.stderr
    shown = subprocess.run([COMMAND, "index", "--help"], capture_output=True, text=True, timeout=60, check=False).stdout
    for option in re.findall(r"--[\w-]+", page):
        assert option in shown


# -- Ray -------------------------------------------------------------------------------------------

FAULTS = """
import os, sys, time
if "FAULTS" in os.environ and any("default_worker" in given for given in sys.orig_argv):
    from pathlib import Path
    from m3retriever.encoders.hashing import HashingEncoder
    from m3retriever.errors import DeviceMemoryError

    encode, once = HashingEncoder.encode_documents, Path(os.environ["FAULTS"])

    def faulty(self, texts, *, progress=False):
        time.sleep(float(os.environ.get("SLOWLY", 0)))
        if "die once" in texts and not once.exists():
            once.write_text("died")
            os._exit(9)
        if "fail" in texts:
            raise DeviceMemoryError("no room for it")
        return encode(self, texts)

    HashingEncoder.encode_documents = faulty
"""

SCRIPT = """
import json, time, warnings
from m3retriever import DeviceMemoryError, Document, M3Index, MemoryStore, TruncationWarning
from m3retriever.encoders import load_encoder
from m3retriever.encoders.ray_data import RayEncoder
from m3retriever.ingest import BATCH
from m3retriever.passages import Split
from test_distributed import batches, bits, documents, held

told, drawn = {}, []

def counted(given):
    for texts in given:
        drawn.append(texts)
        yield texts

with RayEncoder("hashing", 2) as many:
    given = [*documents(5 * BATCH - 1, words=20), Document("once", "die once")]
    index, single, done = M3Index(many, MemoryStore()), M3Index(load_encoder("hashing"), MemoryStore()), []
    try:
        index.add(iter([*given, Document("last", "fail")]), split=Split(8, 2), progress=done.append)
    except DeviceMemoryError as error:
        told["failed"] = str(error)
    single.add(given, split=Split(8, 2))
    told["index"] = [held(index) == held(single), sum(added.new for added in done) >= 4 * BATCH, len(index) > 10 * BATCH]

    mini, one = RayEncoder("mini", 2), load_encoder("mini")
    given = [*batches(6, texts=30), ["word " * 1000, "short", "a lone \\ud800", ""]]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        stream = mini.encode_stream(counted(given))
        got = [bits(next(stream))]
        time.sleep(1)
        told["drawn at rest"] = len(drawn)
        got += [bits(vectors) for vectors in stream]
    told["warned"] = [str(one.message)[:30] for one in warned if one.category is TruncationWarning]
    warnings.simplefilter("ignore", TruncationWarning)
    told["mini"] = [got == [bits(one.encode_documents(texts)) for texts in given], len(got), mini.truncated]
print(json.dumps(told))
"""


def write_corpus(folder, count):
    corpus = folder / "corpus.jsonl"
    rows = (json.dumps({"_id": one.id, "text": one.text}) for one in documents(count))
    corpus.write_text("\n".join(rows), encoding="utf-8")
    return corpus


def index_command(corpus, path, *options, cwd, env=None):
    command = [COMMAND, "index", str(corpus), "--path", str(path), "--model", "hashing", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd, env=env)


@pytest.fixture(scope="module")
def trapped(tmp_path_factory):
    """A folder whose Python files say so when they are run, and an environment whose encoders have faults."""
    folder, faults = tmp_path_factory.mktemp("trapped"), tmp_path_factory.mktemp("faults")
    (faults / "sitecustomize.py").write_text(FAULTS, encoding="utf-8")
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'RUN')!r}, 'a').write(__file__)\n", encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join([str(faults), str(Path(__file__).parent)])
    return folder, {**env, "PYTHONPATH": path, "FAULTS": str(faults / "once"), "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="module")
def told(trapped, tmp_path_factory):
    """What the script found out with Ray of this machine; in a process of its own, for Ray has threads that stay."""
    pytest.importorskip("ray")
    folder, env = trapped
    script = tmp_path_factory.mktemp("script") / "with_ray.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    assert (len(done.stdout.splitlines()), done.stderr) == (1, ""), done.stdout
    return json.loads(done.stdout)


def test_an_index_that_rays_workers_made_is_that_of_one_process_although_one_of_them_died(told):
    assert told["index"] == [True, True, True]


def test_what_a_worker_raises_is_raised_here_after_what_came_before(told):
    assert told["failed"] == "in a worker: no room for it"


@pytest.mark.model
def test_rays_workers_give_the_bits_of_one_process_with_a_model(told):
    assert told["mini"] == [True, 7, 1]
    assert told["warned"] == ["1 of 4 texts are longer than 2"]


@pytest.mark.model
def test_ray_draws_no_more_than_it_works_on_while_nobody_takes_what_is_done(told):
    assert told["drawn at rest"] == 4


def children(pid):
    """Processes that a process started itself, by their names."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if int(fields["PPid"]) == pid:
            found[int(status.parent.name)] = fields["Name"]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_command_with_ray_that_is_killed_leaves_whole_batches_and_goes_on_where_it_was(trapped, tmp_path):
    pytest.importorskip("ray")
    folder, env = trapped
    corpus, path = write_corpus(tmp_path, 20 * BATCH), tmp_path / "x"
    command = [COMMAND, "index", str(corpus), "--path", str(path), "--model", "hashing", "--engine", "ray", "--workers", "2"]
    with (tmp_path / "stderr").open("w") as said:
        run = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder, env={**env, "SLOWLY": "0.3"})
    try:
        began = time.monotonic()
        while stored(path) < BATCH:
            assert run.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() - began < 120
            time.sleep(0.05)
        started = children(run.pid)
        assert "raylet" in started.values()
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    before = stored(path)
    assert BATCH <= before < 20 * BATCH
    done = index_command(corpus, path, "--json", cwd=folder, env=env)
    counts = json.loads(done.stdout)
    assert counts["unchanged"] >= before - BATCH, "at most what was being stored is encoded again"
    assert (counts["new"] + counts["unchanged"], counts["documents"]) == (20 * BATCH, 20 * BATCH)
    assert (tmp_path / "stderr").read_text() == ""
    while any(Path(f"/proc/{pid}/exe").exists() for pid in started):
        assert time.monotonic() - began < 180, "Ray ends with the command"
        time.sleep(0.1)


def stored(path):
    """How many documents Chroma holds, as another process sees it."""
    import sqlite3

    try:
        with sqlite3.connect(f"file:{path / 'chroma.sqlite3'}?mode=ro", uri=True, timeout=5) as database:
            return database.execute("SELECT count(*) FROM embeddings").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_nothing_of_the_folder_that_ray_is_started_in_is_run(trapped, told):
    folder, _ = trapped
    assert not (folder / "RUN").exists()


def test_a_desk_gives_whoever_begins_again_the_same_batches():
    pytest.importorskip("ray")
    from m3retriever.encoders.ray_work import Desk

    async def scene():
        desk = Desk()
        waiting = asyncio.ensure_future(desk.take(1))
        await desk.lay(0, [b"a"], 0)
        await asyncio.sleep(0)
        assert not waiting.done(), "it is not there yet"
        await desk.lay(1, [b"b"], 0)
        assert await waiting == await desk.take(1) == [b"b"]
        assert await desk.take(0) == [b"a"]
        await desk.lay(2, None, 1)
        assert await desk.take(0) == [], "done with, and forgotten"
        assert (await desk.take(1), await desk.take(2)) == ([b"b"], None)
        assert [await desk.attempts(1) for _ in range(3)] == [1, 2, 3]
        assert await desk.attempts(2) == 1

    asyncio.run(scene())


def test_numbers_and_models_without_a_meaning_are_refused_before_ray_is_started():
    pytest.importorskip("ray")
    from m3retriever.encoders.ray_data import RayEncoder

    for wrong in ({"workers": 0}, {"workers": 1.5}, {"workers": True}, {"threads": 0}, {"ahead": 0}, {"gpus_per_worker": -1}):
        with pytest.raises(InvalidArgumentError, match=f"{next(iter(wrong))} must be"):
            RayEncoder("hashing", **wrong)
    with pytest.raises(InvalidArgumentError, match="others can load by its name"):
        RayEncoder(HashingEncoder(7))
    encoder = RayEncoder("hashing")
    check_encoder(encoder)
    assert list(encoder.encode_stream([])) == []
    encoder.close()


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("127.0.0.1:1", ServiceError, "no Ray cluster at '127.0.0.1:1'"),
        ("ray://127.0.0.1:1", InvalidArgumentError, "address must be host:port or auto"),
    ],
)
def test_an_address_where_no_cluster_can_be_is_refused_at_once(address, error, said):
    pytest.importorskip("ray")
    from m3retriever.encoders.ray_data import RayEncoder

    index = M3Index(RayEncoder("hashing", address=address), MemoryStore())
    with pytest.raises(error, match=said):
        index.add(documents(5))
    assert len(index) == 0


def test_without_ray_the_error_says_what_to_install(tmp_path):
    code = textwrap.dedent("""
        import sys
        sys.modules["ray"] = None
        from m3retriever import MissingExtraError
        try:
            import m3retriever.encoders.ray_data
        except MissingExtraError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "ray is not installed; run: pip install 'm3retriever[ray]'\n", done.stderr
