"""Full disks, folders that may not be written to, files that are cut short or gone: a clear error, or the right answer."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from torture.crashes import COLLECTION, ENCODER, Place, answer, prepare
from torture.disk import (
    TEXTS,
    as_nobody,
    copied,
    cut_somewhere,
    fill,
    looked_at,
    make,
    may_mount,
    read_only_disk,
    reopened,
    small_disk,
)

from m3retriever import ChromaStore, Document, M3Index, StoreError

needs_mount = pytest.mark.skipif(not may_mount(), reason="only root may mount a file system")
COPY = "Chroma writes there even where it only reads: copy the folder to where you may write, and open the copy"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("whole"), Path("no log"))
    answer(prepare, place)
    answer(make, place)
    return place.folder


# -- a full disk -----------------------------------------------------------------------------------------------


@needs_mount
@pytest.mark.parametrize("kilobytes", [450, 710])
def test_a_full_disk_is_said_in_words_and_costs_nothing(tmp_path, kilobytes):
    with small_disk(tmp_path / "disk", 2 * kilobytes + 1000) as folder:
        filled = answer(fill, folder, "disk", kilobytes)
        assert filled["wrong"] == []
        assert len(filled["said"]) == 5
        for said in filled["said"]:
            assert "the disk is full (0." in said or "No space left on device; it is as it was: free" in said
        assert answer(reopened, folder, filled["held"]) == []


def test_a_limit_on_the_size_of_files_is_said_in_words_and_costs_nothing(tmp_path):
    filled = answer(fill, tmp_path, "limit", 500)
    assert filled["wrong"] == []
    assert len(filled["said"]) == 5
    assert any("no limit on the size of files may be in its way" in said for said in filled["said"])
    assert answer(reopened, tmp_path, filled["held"]) == []


# -- folders that may not be written to ------------------------------------------------------------------------


def messages(folder):
    """What opening an index in every way says."""
    said = {}
    for name, call in {
        "store": lambda: ChromaStore(folder),
        "index": lambda: M3Index.open(folder),
        "read_only": lambda: M3Index.open(folder, read_only=True),
        "new": lambda: M3Index.open(folder / "new", model="hashing"),
    }.items():
        try:
            call().close()
            said[name] = "opened"
        except StoreError as error:
            said[name] = str(error)
    return said


@pytest.fixture
def owned(tmp_path):
    """An index in a folder that everyone reaches, of a user who is not root."""
    folder = Path(tempfile.mkdtemp())
    with M3Index.open(folder, model="hashing") as index:
        index.add([Document("d0", "red fox")])
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def permit(folder, files, folders):
    for path in [*folder.rglob("*"), folder]:
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(folders if path.is_dir() else files)


def test_a_folder_that_may_only_be_read_is_named_with_what_to_do(owned):
    permit(owned, 0o444, 0o555)
    said = answer(as_nobody, messages, owned)
    for name in ("store", "index", "read_only"):
        assert f"cannot open the Chroma folder {owned}" in said[name]
        assert f"{owned} may not be written to, and {COPY}" in said[name]
    assert f"{owned} may not be written to" in said["new"]


def test_a_database_that_may_only_be_read_is_named_with_what_to_do(owned):
    permit(owned, 0o644, 0o755)
    (owned / "chroma.sqlite3").chmod(0o444)
    assert f"{owned / 'chroma.sqlite3'} may not be written to, and {COPY}" in answer(as_nobody, messages, owned)["index"]


def test_vectors_that_may_not_be_written_to_are_named(owned):
    permit(owned, 0o644, 0o755)
    (owned / "m3" / "m3retriever" / "data.mdb").chmod(0o444)
    said = answer(as_nobody, messages, owned)["index"]
    assert f"cannot open the payload in {owned / 'm3' / 'm3retriever'}" in said
    assert "Permission denied" in said


def test_a_folder_that_nobody_may_look_into_is_named(owned):
    permit(owned, 0o644, 0o755)
    owned.chmod(0)
    for said in answer(as_nobody, messages, owned).values():
        assert f"cannot look into {owned}" in said
        assert "Permission denied" in said


def test_a_folder_that_can_be_written_to_again_is_used_again(owned):
    permit(owned, 0o444, 0o555)
    assert "may not be written to" in answer(as_nobody, messages, owned)["index"]
    permit(owned, 0o644, 0o755)
    assert set(answer(as_nobody, messages, owned).values()) == {"opened"}


def command_line(*arguments):
    program = Path(sys.executable).with_name("m3retriever")
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@needs_mount
def test_the_command_line_says_in_one_line_that_a_disk_is_read_only(tmp_path):
    with M3Index.open(tmp_path / "index", model="hashing") as index:
        index.add([Document("d0", "red fox")])
    (tmp_path / "more.txt").write_text("blue whale")
    with read_only_disk(tmp_path / "index"):
        for arguments in (["search", "red"], ["index", tmp_path / "more.txt"], ["info"]):
            done = command_line(*arguments, "--path", tmp_path / "index")
            assert done.returncode == 1
            assert done.stdout == ""
            assert done.stderr.strip().count("\n") == 0
            assert f"{tmp_path / 'index'} may not be written to, and {COPY}" in done.stderr
    shutil.copytree(tmp_path / "index", tmp_path / "copy")
    assert "red fox" in command_line("search", "red", "--path", tmp_path / "copy").stdout


# -- files that are cut short, gone, or something else ---------------------------------------------------------


def test_a_file_that_was_cut_anywhere_is_refused_or_made_good(whole, tmp_path):
    chosen = random.Random(3)
    for _ in range(12):
        folder = copied(whole, tmp_path / "index")
        where = cut_somewhere(folder, chosen)
        said = answer(looked_at, folder)
        assert said == "right" or (said.startswith("refused: ") and str(folder) in said), f"{where}: {said}"


@pytest.mark.parametrize("how", ["empty", "gone"])
def test_a_database_that_is_empty_or_gone_is_not_taken_for_a_new_one(whole, tmp_path, how):
    folder = copied(whole, tmp_path / "index")
    database = folder / "chroma.sqlite3"
    kept = database.read_bytes()
    database.unlink() if how == "gone" else database.write_bytes(b"")
    for _ in range(2):
        said = answer(looked_at, folder)
        assert f"{database} is {how}" in said
        assert "restore it from a copy" in said
    database.write_bytes(kept)
    assert answer(looked_at, folder) == "right", "and no vector was dropped meanwhile"


@pytest.mark.parametrize("gone", ["m3", f"m3/{COLLECTION}", f"m3/{COLLECTION}/data.mdb"])
def test_vectors_that_are_gone_are_made_again_with_the_same_scores(whole, tmp_path, gone):
    before = answer(scores, whole)
    folder = copied(whole, tmp_path / "index")
    lost = folder / gone
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert answer(scores, folder) == before
    assert answer(looked_at, folder) == "right"


def scores(folder):
    """Of some queries, to the last bit."""
    with M3Index(ENCODER, ChromaStore(folder, collection=COLLECTION)) as index:
        found = index.score_many([*TEXTS[:10], "w1 w2"], depth=60)
        return [sorted(zip(one.ids, (row.tobytes() for row in one.values), strict=True)) for one in found]


def other_tables(path):
    with sqlite3.connect(path) as database:
        database.execute("create table notes (text)")
    database.close()


def older_chroma(path):
    with sqlite3.connect(path) as database:
        database.execute("create table migrations (dir text, version integer, filename text, sql text, hash text)")
        database.execute("insert into migrations values ('sysdb', 1, '00001-collections.sqlite.sql', 'select 1', 'another')")
        database.execute("create table collections (id text, name text, topic text)")
    database.close()


@pytest.mark.parametrize(
    "write",
    [other_tables, older_chroma, lambda path: path.write_text("my notes\n" * 1000), lambda path: path.write_bytes(b"")],
    ids=["other tables", "older", "a text", "empty"],
)
def test_a_database_that_is_not_chromas_is_a_clear_error_or_left_alone(tmp_path, write):
    database = tmp_path / "chroma.sqlite3"
    write(database)
    before = database.read_bytes()
    done = command_line("search", "red", "--path", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert str(tmp_path) in done.stderr
    assert database.read_bytes() == before
