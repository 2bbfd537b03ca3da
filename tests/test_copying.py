"""An index moves between stores with its vectors: complete, resumable, and checked by scores."""

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from torture.server import Server

from m3retriever import (
    ChromaStore,
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    Profile,
    StoreError,
    load_profile,
    save_profile,
)
from m3retriever.copying import copy
from m3retriever.stores.places import Place, place_of

DOCUMENTS = [
    Document(f"d{row}", f"w{row % 7} w{row % 11} text {row}", {"n": row, "x": row / 3, "tags": ["a"]}) for row in range(60)
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("M3RETRIEVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def folder(tmp_path):
    with M3Index.open(tmp_path / "index", model="hashing") as index:
        index.add([*DOCUMENTS, Document("empty", ""), Document("字", "狐 и лиса")])
    save_profile(Profile(depth=33), tmp_path / "index" / "profile.toml")
    return tmp_path / "index"


def answers(place):
    with M3Index.open(place) as index:
        return {text: index.search(text, 100) for text in ("w3 w5 text", "狐", "text 7")}


def same_answers(ours, theirs):
    for text, hits in ours.items():
        assert {hit.document.id: hit.document for hit in hits} == {hit.document.id: hit.document for hit in theirs[text]}
        others = {hit.document.id: hit for hit in theirs[text]}
        for hit in hits:
            assert hit.found_by == others[hit.document.id].found_by
            assert hit.scores == pytest.approx(others[hit.document.id].scores, abs=2e-3)


@pytest.mark.parametrize("target", ["qdrant:{}", "{}"], ids=["qdrant", "folder"])
def test_everything_arrives_and_nothing_is_encoded(folder, tmp_path, target, monkeypatch):
    before, target = answers(folder), target.format(tmp_path / "target")
    with monkeypatch.context() as patch:
        patch.setattr(HashingEncoder, "encode_documents", lambda *_, **__: pytest.fail("nothing is encoded again"))
        done = copy(folder, target)
    assert (done.copied, done.unchanged, done.others, done.profile) == (62, 0, 0, True)
    assert done.compared == 62**2
    assert max(done.difference.values()) < 1e-5
    assert load_profile(place_of(target).folder / "profile.toml").depth == 33
    same_answers(before, answers(target))
    again = copy(folder, target)
    assert (again.copied, again.unchanged, again.profile) == (0, 62, False)


def test_a_copy_to_a_chroma_server_and_back_holds_the_same(folder, tmp_path):
    with Server(tmp_path / "server") as server:
        there = f"chroma://127.0.0.1:{server.port}/notes"
        assert copy(folder, there).copied == 62
        assert copy(there, f"qdrant:{tmp_path / 'third'}").copied == 62
        same_answers(answers(folder), answers(there))
    same_answers(answers(folder), answers(f"qdrant:{tmp_path / 'third'}"))


def test_a_copy_that_broke_off_is_started_again_and_sends_only_the_rest(folder, tmp_path):
    target, steps = f"qdrant:{tmp_path / 'target'}", []

    def stop(count):
        steps.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(folder, target, on_step=stop)
    with M3Index.open(folder) as index:
        index.add([Document("d3", "changed meanwhile"), Document("new", "w3")])
        index.delete(["d5"])
    done = copy(folder, target)
    assert (done.copied, done.others) == (2, 1), "d3 and new are sent; d5 stays at the target, and is told of"
    assert steps == [62]


def test_scores_that_differ_are_told(folder, tmp_path):
    with closing(ChromaStore(tmp_path / "target")) as other:
        other.source = "hashing"
        other.bind("hashing-256", 256)
        vectors = HashingEncoder().encode_documents([document.text[::-1] for document in DOCUMENTS])
        other.add(DOCUMENTS, vectors)
    with pytest.raises(StoreError, match="differ between the two by up to dense"):
        copy(folder, tmp_path / "target")


def test_scores_that_are_higher_at_the_target_differ_too(tmp_path):
    for place, times in (("index", 1.0), ("target", 1.5)):
        with closing(ChromaStore(tmp_path / place)) as store:
            store.source = "hashing"
            store.bind("hashing-256", 256)
            vectors = HashingEncoder().encode_documents(["red fox"])
            store.add([Document("a", "red fox")], replace(vectors, dense=vectors.dense * np.float32(times)))
    with pytest.raises(StoreError, match="differ between the two by up to dense 0.5"):
        copy(tmp_path / "index", tmp_path / "target")


def test_metadata_that_changed_alone_is_sent_again(folder, tmp_path):
    target = f"qdrant:{tmp_path / 'target'}"
    copy(folder, target)
    with M3Index.open(folder) as index:
        index.add([Document("d3", DOCUMENTS[3].text, {"n": "three"})])
    assert copy(folder, target).copied == 1
    with M3Index.open(target) as index:
        assert index.get(["d3"])[0].metadata == {"n": "three"}


def test_no_more_token_vectors_than_fit_are_moved_at_a_time(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("m3retriever.copying.BATCH_TOKENS", 20)
    steps = []
    copy(folder, tmp_path / "target", on_step=steps.append)
    assert sum(steps) == 62
    assert max(steps) <= 6, "five of four tokens each, and the one that has none"


def test_what_cannot_be_copied_is_refused_in_words(folder, tmp_path):
    with pytest.raises(StoreError, match="there is no index in .* to be copied"):
        copy(tmp_path / "nothing", tmp_path / "target")
    for other in (folder, f"{folder}/", folder / ".." / folder.name):
        with pytest.raises(InvalidArgumentError, match="two places"):
            copy(folder, other)
    assert not (tmp_path / "target").exists()
    with closing(ChromaStore(tmp_path / "other")) as other:
        other.bind("another", 8)
        other.add([Document("a", "a")], HashingEncoder(8).encode_documents(["a"]))
    with pytest.raises(EncoderMismatchError):
        copy(folder, tmp_path / "other")


def test_documents_without_vectors_are_not_left_out_in_silence(folder, tmp_path):
    import chromadb

    client = chromadb.PersistentClient(str(folder))
    client.get_collection("m3retriever").add(ids=["foreign"], documents=["of another client"], embeddings=np.eye(256)[:1])
    client.close()
    with pytest.raises(StoreError, match="1 documents in .* have no vectors yet"):
        copy(folder, tmp_path / "target")


def test_the_source_is_only_read(folder, tmp_path):
    import chromadb

    def held():
        files = (path for path in (folder / "m3").rglob("*") if path.is_file() and path.name != "lock.mdb")  # LMDB's readers
        return {path: path.read_bytes() for path in files}

    client = chromadb.PersistentClient(str(folder))  # what it changes, an index that is opened to be changed follows
    client.get_collection("m3retriever").add(ids=["foreign"], documents=["of another client"], embeddings=np.eye(256)[:1])
    client.get_collection("m3retriever").delete(ids=["d3"])
    client.close()
    before = held()
    with pytest.raises(StoreError, match="1 documents in .* have no vectors yet"):
        copy(folder, tmp_path / "target")
    assert held() == before


def test_what_another_client_deleted_from_the_source_is_not_copied(folder, tmp_path):
    import chromadb

    client = chromadb.PersistentClient(str(folder))
    client.get_collection("m3retriever").delete(ids=["d3", "字"])
    client.close()
    steps = []
    done = copy(folder, tmp_path / "target", on_step=steps.append)
    assert (done.copied, done.unchanged, done.others, sum(steps)) == (60, 0, 0, 62)
    with M3Index.open(tmp_path / "target") as index:
        assert len(index) == 60
        assert {"d3", "字"}.isdisjoint(index.ids())


def test_two_names_of_one_server_are_one_place():
    for engine, port in (("chroma", 8000), ("qdrant", 6333)):
        for name in ("127.0.0.1", "LOCALHOST", "[::1]", f"localhost:{port}"):
            with pytest.raises(InvalidArgumentError, match="two places"):
                copy(f"{engine}://localhost/notes", f"{engine}://{name}/notes")


def test_the_collection_of_the_target_is_that_of_the_source_unless_another_is_named(folder, tmp_path):
    with M3Index.open(tmp_path / "notes", model="hashing", collection="notes") as index:
        index.add(DOCUMENTS[:3])
    command = [
        sys.executable,
        "-c",
        "import m3retriever.cli; m3retriever.cli.main()",
        "copy",
        "--from",
        str(tmp_path / "notes"),
    ]
    command += ["--collection", "notes", "--json"]
    for named, expected in ([], "notes"), (["--to-collection", "others"], "others"):
        target = tmp_path / expected / "target"
        subprocess.run([*command, "--to", str(target), *named], capture_output=True, timeout=120, check=True)
        assert place_of(str(target), expected).exists()


def test_the_command_says_what_it_did(folder, tmp_path):
    command = [sys.executable, "-c", "import m3retriever.cli; m3retriever.cli.main()", "copy", "--from", str(folder)]
    command += ["--to", f"qdrant:{tmp_path / 'target'}", "--to-collection", "notes"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["copied"] == 62
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=120)
    assert "0 copied, 62 there already; 3844 scores compared in every mode" in done.stdout
    assert Place(f"qdrant:{tmp_path / 'target'}", "qdrant", "notes", tmp_path / "target").exists()
