"""An index, a profile or a file of questions that someone else made: it is data, whatever it says, and stays where it lies."""

import ast
import json
import os
import pickle
import re
import shutil
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import filelock
import pytest

from m3retriever import (
    ChromaStore,
    Document,
    HashingEncoder,
    InvalidArgumentError,
    InvalidDocumentError,
    M3Index,
    Profile,
    ProfileError,
    StoreError,
    StoreLockedError,
    health,
    load_profile,
)
from m3retriever.inspector import launch
from m3retriever.inspector.project import HISTORY_BYTES, Project
from m3retriever.io import read_golden, read_qrels, read_queries, read_run
from m3retriever.io.judgements import GOLDEN_BYTES, MOST_BYTES
from m3retriever.profile import check_profile
from m3retriever.stores.payload import open_payload, release_payload
from m3retriever.stores.snapshot import slot_key

SOURCES = Path(__file__).parents[1]
PRECIOUS = '{"pid": 1, "since": "a file of the reader of this index, which the index must not reach"}\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "index"
    with M3Index.open(folder, model="hashing") as index:
        index.add([Document(f"d{number}", f"red fox {number}") for number in range(3)])
    (folder / "profile.toml").write_text("depth = 9\n")
    (folder / "golden.jsonl").write_text('{"question": "fox?", "relevant": ["d1"]}\n')
    (folder / "history.jsonl").write_text('{"query": "fox"}\n')
    (folder / "runs").mkdir()
    (folder / "runs" / "a.run").write_text("1 Q0 d1 1 0.5 a\n")
    return folder


@pytest.fixture
def index(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "index"))


def segment(index):
    return next(path for path in index.iterdir() if len(path.name) == 36)


# -- links ---------------------------------------------------------------------------------------------

FILES = [
    *("chroma.sqlite3", "profile.toml", "golden.jsonl", "history.jsonl", "runs/a.run"),
    *("m3/writer.lock", "m3/writer.json", "m3/m3retriever/data.mdb", "m3/m3retriever/lock.mdb", "SEGMENT/header.bin"),
    *("golden-notes.jsonl", "other.toml", "chroma.sqlite3-journal", ".inspector.lock"),
]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_an_index_that_is_a_link_out_of_it_is_named_before_anything_is_read_or_written(index, tmp_path, name):
    link = index / name.replace("SEGMENT", segment(index).name)
    victim = tmp_path / "precious"
    victim.write_text(PRECIOUS)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    for opening in (ChromaStore, ChromaStore.exists, M3Index.open):
        with pytest.raises(StoreError, match=f"{link.name} is a link that leads out of the index's folder, to .*precious"):
            opening(index)
    assert victim.read_text() == PRECIOUS


@pytest.mark.parametrize("name", ["m3", "m3/m3retriever", "runs", "SEGMENT"])
def test_a_folder_of_an_index_that_is_a_link_out_of_it_is_named_and_nothing_appears_there(index, tmp_path, name):
    link = index / name.replace("SEGMENT", segment(index).name)
    shutil.rmtree(link)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(StoreError, match="is a link that leads out of the index's folder, to .*elsewhere"):
        ChromaStore(index)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_to_nothing_makes_no_file_there(index, tmp_path):
    (index / "m3" / "writer.lock").unlink()
    (index / "m3" / "writer.lock").symlink_to(tmp_path / "new")
    with pytest.raises(StoreError, match="leads out"):
        ChromaStore(index)
    assert not (tmp_path / "new").exists()


def test_an_index_may_be_a_link_itself_and_hold_links_that_stay_inside(index, tmp_path):
    (index / "profile.toml").rename(index / "..data.toml")
    (index / "profile.toml").symlink_to("..data.toml")
    (tmp_path / "link").symlink_to(index, target_is_directory=True)
    (index / "unrelated").symlink_to("/", target_is_directory=True)
    with M3Index.open(tmp_path / "link") as opened:
        opened.add([Document("new", "green crow")])
        assert opened.profile.depth == 9
        assert opened.search("crow", 1)[0].document.id == "new"


def test_links_in_a_circle_are_an_error_in_words(index):
    (index / "profile.toml").unlink()
    (index / "profile.toml").symlink_to("other.toml")
    (index / "other.toml").symlink_to("profile.toml")
    with pytest.raises((StoreError, ProfileError), match="profile.toml|other.toml"):
        M3Index.open(index).close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
@pytest.mark.parametrize("name", ["profile.toml", "golden.jsonl", "m3/writer.json", "m3/m3retriever/data.mdb"])
def test_what_is_neither_a_file_nor_a_folder_is_refused_instead_of_waited_for(index, name):
    (index / name).unlink()
    os.mkfifo(index / name)
    with pytest.raises(StoreError, match="is neither a file nor a folder"):
        M3Index.open(index)


def test_a_payload_folder_of_its_own_cannot_lead_a_writer_elsewhere(index, tmp_path):
    (tmp_path / "payload").mkdir()
    for name in ("writer.lock", "writer.json"):
        (tmp_path / "precious").write_text(PRECIOUS)
        (tmp_path / "payload" / name).unlink(missing_ok=True)
        (tmp_path / "payload" / name).symlink_to(tmp_path / "precious")
        with pytest.raises(StoreError, match=f"{name} is a link that leads out"):
            ChromaStore(index, payload=tmp_path / "payload").add([Document("a", "b")], HashingEncoder().encode_documents(["b"]))
        assert (tmp_path / "precious").read_text() == PRECIOUS
        (tmp_path / "payload" / name).unlink()


@pytest.mark.parametrize("write", ["judge", "remember", "save_run", "save_profile", "lock"])
def test_the_inspector_writes_through_no_link(tmp_path, write):
    (tmp_path / "index" / "runs").mkdir(parents=True)
    (tmp_path / "precious").write_text("")
    names = {"judge": "golden.jsonl", "remember": "history.jsonl", "save_run": "runs/a.run", "save_profile": "profile.toml"}
    (tmp_path / "index" / names.get(write, ".inspector.lock")).symlink_to(tmp_path / "precious")
    project = Project(tmp_path / "index")
    writes = {
        "judge": lambda: project.judge("who?", "a", 2),
        "save_run": lambda: project.save_run("a", {"1": {"a": 0.5}}),
        "save_profile": lambda: project.save_profile(Profile()),
    }
    with pytest.raises(StoreError, match="is a link that leads out"):
        writes.get(write, lambda: project.remember("who?"))()
    assert (tmp_path / "precious").read_text() == ""


def test_a_profile_that_the_user_names_may_be_a_link(tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "real.toml").write_text("depth = 5\n")
    (tmp_path / "link.toml").symlink_to(tmp_path / "real.toml")
    Project(tmp_path / "index", profile=tmp_path / "link.toml").save_profile(Profile(depth=7))
    assert load_profile(tmp_path / "real.toml").depth == 7


# -- what Chroma keeps ---------------------------------------------------------------------------------


def planted_model(folder, marker):
    """A model whose folder brings code, as transformers loads it where it is told to trust it."""
    folder.mkdir()
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}])
    )
    (folder / "evil.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom transformers import PretrainedConfig, PreTrainedModel\n"
        "class Config(PretrainedConfig):\n    model_type = 'evil'\nclass Model(PreTrainedModel):\n    config_class = Config\n"
    )
    settings = {"model_name": str(folder), "device": "cpu", "normalize_embeddings": False}
    return {
        "type": "known",
        "name": "sentence_transformer",
        "config": {**settings, "kwargs": {"trust_remote_code": True}},
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["schema_str", "config_json_str"])
def test_the_embedding_function_that_a_collection_names_is_never_made(index, tmp_path, place):
    marker = tmp_path / "ran"
    function = planted_model(index / "model", marker)
    with closing(sqlite3.connect(index / "chroma.sqlite3")) as database:
        [(schema,)] = database.execute("select schema_str from collections").fetchall()
        content = {"hnsw": {"space": "cosine"}, "embedding_function": function}
        if place == "schema_str":
            content = json.loads(schema)
            content["keys"]["#embedding"]["float_list"]["vector_index"]["config"]["embedding_function"] = function
        database.execute(f"update collections set {place} = ?", [json.dumps(content)])
        database.commit()
    with M3Index.open(index) as opened:
        assert opened.search("fox")
        opened.add([Document("new", "green crow")])
        opened.add([Document("d0", "green crow", {"n": 1})])
        opened.delete(["d1"])
        assert {hit.document.id for hit in opened.search("crow", 2)} == {"new", "d0"}
    assert not marker.exists()


def test_a_pickle_in_a_segment_of_chromas_is_refused_and_not_run(index, tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    (segment(index) / "index_metadata.pickle").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(StoreError, match="pickle"):  # the words show that Chroma has read it, by a reader of its own
        M3Index.open(index)
    assert not (tmp_path / "ran").exists()


# -- what is kept beside -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        *("[" * 100_000, '{"pid":' * 5_000, "[]", '"text"', "{}", '{"pid": {}, "since": 1}', "\x00\xff"),
        '{"pid": 12, "since": "' + "x" * 1_000_000 + '"}',
        '{"pid": 1e999, "since": "now"}',
        '{"pid": 7, "since": "\\u001b[2J"}',
    ],
    ids=lambda content: content[:12],
)
def test_whoever_writes_is_an_unknown_process_where_its_file_says_nonsense(index, content):
    with filelock.FileLock(index / "m3" / "writer.lock"):
        (index / "m3" / "writer.json").write_text(content, encoding="latin-1")
        with pytest.raises(StoreLockedError, match="is being written to by another process; wait") as raised:
            ChromaStore(index).add([Document("a", "b")], HashingEncoder().encode_documents(["b"]))
    assert len(str(raised.value)) < 1_000


HOSTILE_PROFILES = {
    "a key of 3,000 parts": "[parameters" + ".a" * 3_000 + "]\nx = 1",
    "quoted parts": "fitted" + '."a\\"b"' * 3_000 + " = 1",
    "spaced parts": "fitted" + " . 'a b'" * 3_000 + " = 1",
    "a deep list": "[fitted]\nx = " + "[" * 60 + "]" * 60,
    "a deeper list": "[fitted]\nx = " + "[" * 100_000 + "]" * 100_000,
    "deep tables": "fitted = " + "{a=" * 100_000,
    "deep by lines": "[fitted]\nx = [\n" + "{a.a.a.a.a.a.a.a = [\n" * 20 + "]}\n" * 20 + "]",
    "a long number": "depth = 0x" + "f" * 500_000,
    "a long threshold": "thresholds = {dense = 0x" + "f" * 500_000 + "}",
    "a long parameter": "fusion = 'rrf'\nparameters = {constant = 0x" + "f" * 500_000 + "}",
    "a long score": "[calibration.dense]\nscores = [0x" + "f" * 500_000 + "]\nprobabilities = [0.5]",
    "many points": f"[calibration.dense]\nscores = {list(range(20_000))}\nprobabilities = {[0.5] * 20_000}",
    "many rates": f"[calibration.dense.unrelated]\nscores = {list(range(12_000))}\nrates = "
    f"{[1 - place / 20_000 for place in range(12_000)]}",
    "many names": "\n".join(f"a{number} = 1" for number in range(20_000)),
    "a long name": "model = '" + "x" * 900_000 + "'",
    "a long mode": "[calibration." + "x" * 900_000 + "]\nscores = [1]\nprobabilities = [0.5]",
    "many levels": "[calibration.dense.levels]\n" + "\n".join(f"a{number} = 1" for number in range(20_000)),
    "a forest": f"fusion = 'boosted'\n[parameters]\nintercept = 0\nnames = {[['dense']] * 30_000}\nthresholds = [[0]]\n"
    "values = [[0, 1]]",
    "too many bytes": "#" * 1_000_001,
}


@pytest.mark.parametrize("name", HOSTILE_PROFILES)
def test_a_profile_made_to_exhaust_its_reader_is_refused_in_a_short_sentence(tmp_path, name):
    (tmp_path / "profile.toml").write_text(HOSTILE_PROFILES[name])
    with pytest.raises(ProfileError) as raised:
        check_profile(load_profile(tmp_path / "profile.toml"), "hashing-256")
    assert len(str(raised.value)) < 1_500


@pytest.mark.parametrize("key", ["fitted" + ".a" * 4_000, "fitted" + " . 'a b'" * 4_000, "fitted" + '."a\\"b"' * 4_000])
def test_a_key_of_many_parts_is_refused_before_its_square_is_in_memory(tmp_path, key):
    (tmp_path / "profile.toml").write_text(f"[{key}]\nx = 1\n")
    tracemalloc.start()
    try:
        with pytest.raises(ProfileError, match="the keys of a profile's line have at most 32 parts; .*, line 1 has more"):
            load_profile(tmp_path / "profile.toml")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_long_list_of_numbers_is_no_long_key(tmp_path):
    (tmp_path / "profile.toml").write_text(f"[fitted]\nmeans = {[0.25] * 5_000}\nwho = 'v1.2.3, see a.b.c'\n")
    assert len(load_profile(tmp_path / "profile.toml").fitted["means"]) == 5_000


@pytest.mark.parametrize(
    ("read", "bytes"),
    [(read_golden, GOLDEN_BYTES), (read_queries, MOST_BYTES), (read_qrels, MOST_BYTES), (read_run, MOST_BYTES)],
)
def test_a_file_of_judgements_beyond_all_measure_is_not_read(tmp_path, read, bytes):
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", bytes + 1)  # without any disk being taken
    with pytest.raises(InvalidDocumentError, match=f"huge: want at most {bytes} bytes; got {bytes + 1}"):
        read(tmp_path / "huge")


def test_of_earlier_queries_no_more_is_read_than_their_end(tmp_path):
    path = tmp_path / "history.jsonl"
    path.touch()
    os.truncate(path, 50 * HISTORY_BYTES)
    with path.open("a") as file:
        file.write('\n{"query": "the last"}\n')
    tracemalloc.start()
    try:
        assert Project(tmp_path).history() == ["the last"]
        assert tracemalloc.get_traced_memory()[1] < 8 * HISTORY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "source", ["//elsewhere/share/model", "http://127.0.0.1:9", "https://elsewhere", "vllm+http://elsewhere"]
)
def test_an_index_cannot_name_a_model_on_another_machine(index, source):
    payload = open_payload(index / "m3" / "m3retriever")
    payload.set_meta(source=source)
    with payload._write() as writer:
        writer.drop("blobs", slot_key(int(writer.slots(["d1"])[0])))  # there is something to repair
    release_payload(payload)
    refused = f"names a model on another machine, '{source}': give it as"
    with pytest.raises(InvalidArgumentError, match=re.escape(refused)):
        M3Index.open(index)
    with pytest.raises(InvalidArgumentError, match=re.escape(refused)):
        health.repair(index)
    assert health.repair(index, model="hashing")[1].whole
    with M3Index.open(index, model="hashing") as opened:
        assert len(opened) == 3


@pytest.mark.parametrize("collection", ["../outside", "..", "a/b", "a\\b", "/etc/x", ".m3", "a\x00b"])
def test_no_name_of_a_collection_or_a_run_leads_out_of_the_folder(index, collection):
    with pytest.raises(InvalidArgumentError):
        M3Index.open(index, collection=collection)
    with pytest.raises(InvalidArgumentError):
        Project(index).run_path(collection)


def test_uploads_are_bounded():
    assert {launch.FLAGS["server.maxUploadSize"], str(launch.UPLOAD_MB)} == {"10"}


FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "zipfile", "tarfile", "xml", "yaml"}


def test_no_line_of_the_library_could_run_what_a_file_says():
    files = [*(SOURCES / "src").rglob("*.py"), *(SOURCES / "inspector").rglob("*.py")]
    assert len(files) > 100
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & FORBIDDEN, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "os.system", "torch.load", "unpack_archive"), path
                assert all(word.arg not in ("trust_remote_code", "shell", "allow_pickle") for word in node.keywords), path


def test_every_promise_on_security_names_tests_that_there_are():
    tests = "".join(path.read_text(encoding="utf-8") for path in (SOURCES / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", tests))
    promised = (SOURCES / "SECURITY.md").read_text(encoding="utf-8").split("## What is promised")[1].split("## What is not")[0]
    rows = [row for row in promised.splitlines() if row.startswith("| ") and not row.startswith("| promise")]
    assert len(rows) > 20
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names, row
        assert set(names) <= defined, set(names) - defined
