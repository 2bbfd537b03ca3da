"""What verify must not take for damage, what it must find in Chroma's own files, and how far repair goes."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import lmdb
import numpy as np
import pytest

from m3retriever import ChromaStore, DamagedIndexError, Document, HashingEncoder, InvalidArgumentError, M3Index, StoreError
from m3retriever.health import repair, verify
from m3retriever.stores import agreement, database
from m3retriever.stores.connection import JUST_NOW

ENCODER = HashingEncoder(32)
WIDER = HashingEncoder(256)
PAYLOAD = Path("m3/m3retriever")
ZEBRA = Document("q", "the zebrafish swims in quiet waters", {"tenant": "a"})
EDITED = {"documents": ["edited elsewhere"], "embeddings": ENCODER.encode_documents(["edited elsewhere"]).dense}
FORMAT_2 = Path(__file__).parent / "indexes" / "format-2.tar.xz"


def documents(count):
    return [Document(f"d{n}", f"text number {n} about thing {n % 7} alpha beta", {"n": n}) for n in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("repair") / "index"
    with M3Index.open(path, model=ENCODER) as index:
        index.add([*documents(20), ZEBRA])
    return path


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "index"))


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """1,500 texts that are nearly the same, and a vector index that Chroma has written to disk."""
    path = tmp_path_factory.mktemp("crowded") / "index"
    with M3Index.open(path, model=WIDER) as index:
        index.add(documents(1_500))
    return path


def problems(verdict):
    return {one.problem: one.ids for one in verdict.findings}


def execute(path, statement, *values):
    with closing(sqlite3.connect(path / "chroma.sqlite3")) as connected, connected:
        assert connected.execute(statement, values).rowcount >= 1


def flip(path, before, *, at):
    """Change one bit in Chroma's database, in the first place that reads so."""
    file = path / "chroma.sqlite3"
    content = bytearray(file.read_bytes())
    content[content.index(before) + at] ^= 1
    file.write_bytes(content)


def collection(path):
    """The collection as any other client has it, in this process."""
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(path) + "/.", settings=Settings(anonymized_telemetry=False))
    return client.get_collection("m3retriever", embedding_function=None), client


# -- no false alarms -----------------------------------------------------------------------------------


def test_a_vector_index_that_misses_some_of_many_like_texts_is_whole(crowded):
    assert verify(crowded).whole


@pytest.mark.parametrize("change", [EDITED, {"metadatas": [{"n": 99}]}], ids=["text", "metadata"])
@pytest.mark.parametrize("when", ["while we write", "while it is verified"])
def test_what_another_client_changes_in_the_middle_of_our_work_is_no_damage(folder, change, when):
    theirs, client = collection(folder)
    with closing(client):

        def edit(*_):
            theirs.update(ids=["d0"], **change)

        if when == "while we write":
            with M3Index.open(folder, model=ENCODER) as index, index.store.writing():
                edit()
                index.add([Document("new", "a new text")])
        else:
            verify(folder, on_step=edit)
    with M3Index.open(folder, model=ENCODER) as index:
        [held] = index.get(["d0"])
        assert (held.text, held.metadata) != (documents(1)[0].text, documents(1)[0].metadata)
    assert verify(folder).whole


def test_a_document_that_goes_while_it_is_compared_is_no_damage(folder):
    with closing(ChromaStore(folder)) as store, store._payload.read() as snapshot:
        read = [Document("d1", "what another thread has just written", {})]
        store._connection.delete(["d1"])
        found = agreement.compare(read, snapshot, store._connection)
        assert (found.damaged, found.texts) == ([], ["d1"])


def test_writes_to_another_collection_of_the_folder_leave_all_changes_known(folder):
    for name in ("other", None, "other", None):
        with M3Index.open(folder, model=ENCODER, collection=name) as index:
            index.add([Document("new", f"for {name}", {"n": len(index)}), Document(f"more {len(index)}", "text")])
            with index.store._payload.read() as snapshot:
                assert snapshot.position() == index.store._connection.position()
    execute(folder, "update embedding_metadata set string_value = 'other' where string_value = 'for None'")
    with pytest.raises(DamagedIndexError, match="nobody changed them: 'new'"):
        M3Index.open(folder, model=ENCODER)


def test_rounded_vectors_of_a_collection_that_was_taken_over_are_whole(tmp_path):
    texts = [document.text for document in documents(10)]
    with closing(ChromaStore(tmp_path)) as store:
        rounded = np.round(ENCODER.encode_documents(texts).dense, 2)
        store._connection.upsert(ids=[f"t{n}" for n in range(10)], documents=texts, embeddings=2 * rounded)
    with M3Index.open(tmp_path, model=ENCODER) as index:
        assert len(index) == 10
    assert verify(tmp_path).whole


# -- Chroma's own files --------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_links_that_lead_nowhere_are_found_and_the_vector_index_made_anew(crowded, tmp_path, monkeypatch, large):
    folder = Path(shutil.copytree(crowded, tmp_path / "index"))
    [file] = folder.glob("*/data_level0.bin")
    with file.open("r+b") as opened:
        opened.seek(4)
        opened.write((1_000_000).to_bytes(4, "little"))
    if large:  # which an opening does not look through: hnswlib would end this process
        monkeypatch.setattr(database, "CHECKED_BYTES", file.stat().st_size - 1)
    else:
        with pytest.raises(DamagedIndexError, match="lead nowhere; to mend it: m3retriever repair"):
            M3Index.open(folder, model=WIDER)
    assert problems(verify(folder)) == {"vector index": ()}
    before, after = repair(folder, model=WIDER)
    assert ("lead nowhere" in before.findings[0].detail, after.whole) == (True, True)


def test_a_second_copy_of_a_text_that_was_changed_hides_and_deletes_nothing(folder):
    content = "embedding_fulltext_search_content"
    execute(folder, f"update {content} set c0 = 'the zecrafish swims' where c0 = ?", ZEBRA.text)
    assert problems(verify(folder)) == {"full text": ("q",)}
    with M3Index.open(folder, model=ENCODER) as index:
        others = {"$not_contains": "zebrafish"}
        assert "q" in index.ids(where_document=others), "Chroma's own answer"
        assert index.delete_where(where_document=others) == 20
        assert index.ids() == ["q"]
    before, after = repair(folder, model=ENCODER)
    assert (before.whole, after.whole) == (False, True)
    with M3Index.open(folder, model=ENCODER) as index:
        assert index.ids(where_document={"$contains": "zebrafish"}) == ["q"]
        assert index.get(["q"]) == [ZEBRA]


def test_a_bit_flipped_in_a_text_is_mended_from_its_second_copy(folder):
    flip(folder, b"chroma:document" + ZEBRA.text.encode(), at=20)
    with pytest.raises(DamagedIndexError, match=r"is damaged: row \d+ missing from index .* m3retriever repair"):
        M3Index.open(folder, model=ENCODER)
    before, after = repair(folder, model=ENCODER)
    assert (set(problems(before)), after.whole) == ({"chroma"}, True)
    assert len(list(folder.glob("chroma.sqlite3-damaged-*"))) == 1
    with M3Index.open(folder, model=ENCODER) as index:
        assert index.get(["q"]) == [ZEBRA]


def test_a_database_damaged_beyond_its_indexes_stays_as_it_is(folder):
    file = folder / "chroma.sqlite3"
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    file.write_bytes(content)
    with pytest.raises(DamagedIndexError, match="restore the folder from a copy"):
        repair(folder, model=ENCODER)
    assert file.read_bytes() == bytes(content)


def test_a_database_that_is_gone_is_called_so(folder):
    (folder / "chroma.sqlite3").unlink()
    [finding] = verify(folder).findings
    assert finding.problem == "chroma"
    assert "is gone" in finding.detail
    with pytest.raises(DamagedIndexError, match="restore"):
        repair(folder, model=ENCODER)


def test_a_document_that_chroma_has_lost_is_named(folder):
    execute(folder, "delete from embeddings where embedding_id = 'd3'")
    assert problems(verify(folder)) == {"entries": ("d3",)}


def test_a_panic_of_chromas_core_is_an_error_in_words(folder):
    execute(folder, "update migrations set filename = cast(x'ffff' as text) where version = 1")
    with pytest.raises(StoreError, match="cannot open"):
        M3Index.open(folder, model=ENCODER)


def test_a_change_in_the_log_of_a_database_is_seen(folder):
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as connected:
        assert connected.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    with M3Index.open(folder, model=ENCODER) as index:
        for one in folder.glob("chroma.sqlite3*"):
            os.utime(one, ns=(0, one.stat().st_mtime_ns - 20 * JUST_NOW))
        assert index.ids({"tenant": "a"}) == ["q"]
        theirs, client = collection(folder)
        with closing(client):
            theirs.update(ids=["q"], metadatas=[{"tenant": "b"}])
            assert index.ids({"tenant": "a"}) == []


# -- the payload ---------------------------------------------------------------------------------------


def test_pages_that_would_end_the_process_are_read_by_another_first(folder):
    file = folder / PAYLOAD / "data.mdb"
    large = rb"(?s)..(..)\x01\x00\x04\x00\x00\x00\x00\x00"  # size, a flag for a value on pages of its own, a key of 4 bytes: 0
    content = bytearray(file.read_bytes())
    for found in re.finditer(large, bytes(content)):
        content[found.start(1) : found.end(1)] = b"\xff\x7f"
    file.write_bytes(content)
    assert set(problems(verify(folder))) == {"unreadable"}
    with pytest.raises(InvalidArgumentError, match="which model"):
        repair(folder)
    assert verify(folder).findings, "nothing was changed before that"
    before, after = repair(folder, model=ENCODER)
    assert ("ended by the system" in before.findings[0].detail, after.whole) == (True, True)


def test_the_process_that_reads_first_runs_nothing_of_the_folder_it_is_in(folder, monkeypatch):
    for name in ("m3retriever", "numpy", "lmdb", "xxhash", "json"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nraise SystemExit(3)")
    monkeypatch.chdir(folder)
    assert verify(folder).whole
    assert not (folder / "ran").exists()


def test_an_older_format_that_cannot_be_brought_up_to_date_is_encoded_again(tmp_path):
    with tarfile.open(FORMAT_2) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = [path.parent for path in tmp_path.glob("**/chroma.sqlite3")]
    with lmdb.open(str(folder / PAYLOAD), max_dbs=8) as environment:
        blobs = environment.open_db(b"blobs", create=False)
        with environment.begin(write=True, db=blobs) as writing:
            assert writing.delete(next(writing.cursor().iternext(values=False)))
    before, after = repair(folder, model=HashingEncoder(16))
    assert (before.whole, after.whole) == (False, True)
    assert after.documents > 0


def test_a_payload_that_was_moved_aside_is_not_read_or_written_any_more(folder):
    with M3Index.open(folder, model=ENCODER) as index:
        (folder / PAYLOAD).rename(folder / "m3" / "aside")
        shutil.copytree(folder / "m3" / "aside", folder / PAYLOAD)
        for act in (lambda: index.search("text"), lambda: index.add([Document("new", "text")]), lambda: len(index)):
            with pytest.raises(StoreError, match="replaced or removed while it was open: open the index again"):
                act()


def test_who_has_the_index_open_is_told_to_close_it(folder):
    with M3Index.open(folder, model=ENCODER), pytest.raises(StoreError, match="open: close it, then repair it"):
        repair(folder, model=ENCODER)
    assert verify(folder).whole


@pytest.mark.parametrize("act", [verify, lambda path, name=None: repair(path, name, model=ENCODER)], ids=["verify", "repair"])
def test_where_there_is_no_index_none_is_made(folder, tmp_path, act):
    for path, name in ((tmp_path / "nowhere", None), (folder, "another"), (folder / "m3", None), (tmp_path, None)):
        held = sorted(path.rglob("*"))
        with pytest.raises(StoreError, match="no index in"):
            act(path, name)
        assert sorted(path.rglob("*")) == held
