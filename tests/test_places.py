"""What a path or an address means, and that an index of a server is used as one in a folder is."""

import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from torture.server import Server

from m3retriever import Document, InvalidArgumentError, M3Index, Profile, StoreError, load_profile, save_profile
from m3retriever.stores.places import place_of


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("M3RETRIEVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("given", "collection", "engine", "chosen", "folder"),
    [
        ("./index", None, "chroma", None, "index"),
        (Path("index"), "notes", "chroma", "notes", "index"),
        ("chroma://db", None, "chroma", None, "home/chroma/db_8000/m3retriever"),
        ("chroma://db:9000/notes", None, "chroma", "notes", "home/chroma/db_9000/notes"),
        ("chroma+https://db/notes", "notes", "chroma", "notes", "home/chroma/db_443/notes"),
        ("qdrant://db", "notes", "qdrant", "notes", "home/qdrant/db_6333/notes"),
        ("qdrant+https://db:6334/notes/", None, "qdrant", "notes", "home/qdrant/db_6334/notes"),
        ("qdrant:./folder", None, "qdrant", None, "folder"),
        ("C:\\index", None, "chroma", None, "C:\\index"),
    ],
)
def test_a_path_or_an_address_says_engine_collection_and_folder(given, collection, engine, chosen, folder, home):
    place = place_of(given, collection)
    assert (place.engine, place.collection) == (engine, chosen)
    assert place.folder == (home.parent / folder if folder.startswith("home") else Path(folder))
    assert place.is_folder == (engine == "chroma" and "://" not in str(given))


@pytest.mark.parametrize(
    ("given", "collection", "message"),
    [
        ("http://db:8000", None, r"begins with one of chroma://"),
        ("qdrant://", None, "is such as qdrant://host:6333/collection"),
        ("chroma://db:nine", None, "is such as chroma://host:8000/collection"),
        ("chroma://db:99999", None, "is such as chroma://host:8000/collection"),
        ("chroma://db/a/b", None, "is such as chroma://host:8000/collection"),
        ("chroma://db/notes?shards=1", None, "chroma://host:8000/collection, and nothing behind it; got a question mark"),
        (
            "qdrant://db/notes?shards=0",
            None,
            "stands shards=1&replicas=1&write_consistency=1 or some of them",
        ),
        ("qdrant://db/notes?shards=6&shards=5", None, "each once and at least 1; got something else"),
        ("qdrant://db/notes?shards", None, "got something else"),
        ("qdrant://db/notes?shards=six", None, "got something else"),
        ("qdrant://db/notes?parts=6", None, "got something else"),
        ("qdrant://db/notes#shards=6", None, "is such as qdrant://host:6333/collection"),
        ("chroma://db/notes", "others", "got 'others' as well: give one of them"),
        ("chroma://db/x", None, "a collection name has 3 to 512 characters"),
        ("chroma:127.0.0.1:8000/notes", None, "an address is a str such as"),
        (Path("qdrant://db/notes"), None, "an address is a str such as"),
        ("", None, "path must name a folder"),
    ],
)
def test_an_address_that_is_none_is_refused_in_words(given, collection, message):
    with pytest.raises(InvalidArgumentError, match=message):
        place_of(given, collection)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(InvalidArgumentError, match="holds no password") as refused:
        place_of("qdrant://user:hunter2@db/notes")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["qdrant://db/notes?api_key=hunter2", "chroma://db/notes?hunter2", "qdrant://?hunter2"])
def test_nor_is_what_stands_behind_a_question_mark(address):
    with pytest.raises(InvalidArgumentError) as refused:
        place_of(address)
    assert "hunter2" not in str(refused.value)


def test_how_a_collection_is_made_stands_behind_its_address_and_changes_nothing_else(monkeypatch):
    opened = []
    monkeypatch.setattr("m3retriever.stores.qdrant.QdrantStore", lambda **settings: opened.append(settings))
    plain, made = place_of("qdrant://db/notes"), place_of("qdrant://db/notes?shards=6&replicas=2&write_consistency=2")
    assert (made.collection, made.folder, made.same_as) == (plain.collection, plain.folder, plain.same_as)
    assert made.name == "qdrant://db/notes"
    plain.open()
    made.open(read_only=True)
    assert opened[0] == {"collection": "notes", "read_only": False, "url": "http://db:6333"}
    assert opened[1] == {**opened[0], "read_only": True, "shards": 6, "replicas": 2, "write_consistency": 2}


def test_databases_have_folders_of_their_own(monkeypatch):
    one = place_of("chroma+https://api.trychroma.com/notes").folder
    monkeypatch.setenv("CHROMA_DATABASE", "other")
    assert place_of("chroma+https://api.trychroma.com/notes").folder != one


@pytest.mark.parametrize("database", ["../../../elsewhere", "..", "/etc", "a/b"])
def test_no_database_leads_out_of_the_folder_of_its_server(monkeypatch, home, database):
    monkeypatch.setenv("CHROMA_DATABASE", database)
    assert place_of("chroma://db/notes").folder.resolve().parents[1] == home / "chroma"


def test_an_address_of_six_parts_keeps_its_brackets(monkeypatch):
    opened = []
    monkeypatch.setattr("m3retriever.stores.qdrant.QdrantStore", lambda **settings: opened.append(settings["url"]))
    place_of("qdrant://[2001:db8::1]:7000/notes").open()
    place_of("qdrant+https://[2001:db8::1]/notes").open()
    assert opened == ["http://[2001:db8::1]:7000", "https://[2001:db8::1]:6333"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("engine", ["chroma", "qdrant"])
def test_what_is_said_to_be_asked_over_tls_is_asked_over_tls(engine):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            with contextlib.suppress(OSError):  # closed in the end
                while True:
                    with server.accept()[0] as client:
                        heard.append(client.recv(1))

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(StoreError):
            place_of(f"{engine}+https://127.0.0.1:{server.getsockname()[1]}/notes").exists()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert set(heard) == {b"\x16"}, "the first byte of a TLS handshake, where HTTP has the letter of a method"
    gc.collect()  # Chroma leaves the connection of a client that it could not make to be collected


def test_a_folder_whose_name_looks_like_an_address_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qdrant:").mkdir()
    (tmp_path / "qdrant:" / "db").mkdir()
    assert place_of("qdrant://db").is_folder
    assert place_of(Path("qdrant:/db")).is_folder


def run(*arguments):
    command = [sys.executable, "-c", "import m3retriever.cli; m3retriever.cli.main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def said(*arguments):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("engine", ["chroma", "qdrant"])
def test_the_commands_use_an_index_elsewhere_as_they_use_a_folder(tmp_path, home, engine):
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{row}", "text": f"w{row} w{row % 3}"}) + "\n" for row in range(9))
    )
    (tmp_path / "golden.jsonl").write_text(json.dumps({"question": "w4", "relevant": ["d4"]}) + "\n")
    with Server(tmp_path / "server") as server:
        where = {"chroma": f"chroma://127.0.0.1:{server.port}/notes", "qdrant": f"qdrant:{tmp_path / 'local'}"}[engine]
        at = ["--path", where, "--json"]
        assert said("index", str(tmp_path / "texts.jsonl"), "--model", "hashing", *at)["new"] == 9
        assert said("index", str(tmp_path / "texts.jsonl"), *at)["unchanged"] == 9
        folder = ["--path", str(tmp_path / "folder"), "--json"]
        said("index", str(tmp_path / "texts.jsonl"), "--model", "hashing", *folder)
        ours, theirs = (said("search", "w4 w1", "-k", "9", *place)["hits"] for place in (at, folder))
        for hit, other in zip(ours, theirs, strict=True):
            assert (hit["id"], hit["ranks"]) == (other["id"], other["ranks"])
            assert hit["score"] == pytest.approx(other["score"], abs=2e-3)
        assert said("info", *at)["documents"] == 9
        assert said("explain", "w4", "d8", *at)["document"]["id"] == "d8"
        assert said("evaluate", "--golden", str(tmp_path / "golden.jsonl"), *at)
        missing = run("search", "w4", "--path", where.replace("notes", "others").replace("local", "elsewhere"))
        assert missing.returncode == 1
        assert "no index in" in missing.stderr


def test_the_profile_of_a_servers_index_lies_in_the_users_folder(tmp_path, home):
    with Server(tmp_path / "server") as server:
        where = f"chroma://127.0.0.1:{server.port}/notes"
        with M3Index.open(where, model="hashing") as index:
            index.add([Document("a", "w1")])
            assert index.profile.depth == Profile().depth
        folder = home / "chroma" / f"127.0.0.1_{server.port}" / "notes"
        assert not folder.exists()
        done = run("index", str(folder.parents[3] / "none.jsonl"), "--path", where, "--profile", "chinese")
        assert "no such file" in done.stderr
        (tmp_path / "more.jsonl").write_text('{"_id": "b", "text": "w2"}\n')
        save_profile(Profile(depth=7), tmp_path / "mine.toml")
        done = run("index", str(tmp_path / "more.jsonl"), "--path", where, "--profile", str(tmp_path / "mine.toml"))
        assert done.returncode == 0, done.stderr
        assert load_profile(folder / "profile.toml").depth == 7
        with M3Index.open(where) as index:
            assert index.profile.depth == 7
