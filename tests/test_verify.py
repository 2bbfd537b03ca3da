"""Damage is found and mended: flipped bits, lost entries, what other clients changed, what no longer fits together."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from m3retriever import (
    ChromaStore,
    DamagedIndexError,
    Document,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    StoreLockedError,
)
from m3retriever.cli import app
from m3retriever.health import repair, verify
from m3retriever.stores.seals import DATABASES, SEAL_BYTES, Seals, is_whole, sealed, sum_of_keys
from m3retriever.stores.snapshot import key_of, slot_key

ENCODER = HashingEncoder(32)
QUERIES = ("w1 w2 w3", "w50 w9", "w77 fox")
PAYLOAD = Path("m3/m3retriever")


def documents(count=60):
    draw = random.Random(7)
    return [
        Document(f"d{row}", "fox " + " ".join(f"w{draw.randrange(90)}" for _ in range(12)), {"n": row, "even": row % 2 == 0})
        for row in range(count)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index with replaced and deleted documents."""
    path = tmp_path_factory.mktemp("verify") / "index"
    with M3Index.open(path, model=ENCODER) as index:
        index.add(documents()[:40])
        index.delete([f"d{row}" for row in range(10)])
        index.add([*documents(), Document("gone", "green frog")])
        index.delete(["gone"])
    return path


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "index"))


def answers(path):
    """Everything that a search says, to the bit."""
    with M3Index.open(path, model=ENCODER) as index:
        found = [index.score(query, depth=30) for query in QUERIES]
        hits = [
            [(hit.document, hit.score) for hit in index.search(query, 5, mode=mode)]
            for query in QUERIES
            for mode in ("hybrid", "dense", "sparse", "colbert")
        ]
        return [dict(zip(one.ids, one.values.tolist(), strict=True)) for one in found], hits


def said(path, before):
    """What an index says of its damage, which must name the remedy; nothing where its answers are as before."""
    try:
        assert answers(path) == before
    except DamagedIndexError as error:
        return re.search("m3retriever repair", str(error))[0]
    return ""


def problems(verdict):
    return [one.problem for one in verdict.findings]


def change(path, database, key, value):
    """Put a raw value into the payload, or with None take one out, as damage would: no seal, no sums."""
    with lmdb.open(str(path / PAYLOAD), max_dbs=8) as environment:
        handle = environment.open_db(database.encode(), create=False)
        with environment.begin(write=True, db=handle) as writing:
            if value is None:
                assert writing.delete(key)
            else:
                writing.put(key, value(writing.get(key)) if callable(value) else value)


def first_key(path, database):
    with lmdb.open(str(path / PAYLOAD), max_dbs=8) as environment:
        handle = environment.open_db(database.encode(), create=False)
        with environment.begin(db=handle) as reading:
            return next(reading.cursor().iternext(values=False))


def flipped(place):
    """A value with its byte at a place changed."""
    return lambda value: value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]


def execute(path, change, narrowed):
    with closing(sqlite3.connect(path / "chroma.sqlite3")) as database, database:
        assert database.execute(f"update embedding_metadata set {change} where {narrowed}").rowcount == 1


# -- seals -----------------------------------------------------------------------------------------


@given(st.sampled_from(DATABASES), st.binary(min_size=1, max_size=20), st.binary(max_size=300), st.data())
def test_a_seal_fits_its_own_value_key_and_database_only(database, key, value, data):
    kept = sealed(database, key, value)
    assert is_whole(database, key, kept)
    assert bytes(Seals().opened(database, key, memoryview(kept))) == value
    place, bit = data.draw(st.integers(0, len(kept) - 1)), data.draw(st.integers(0, 7))
    other = bytearray(kept)
    other[place] ^= 1 << bit
    assert not is_whole(database, key, bytes(other))
    assert not is_whole(database, key + b"x", kept)
    assert not is_whole(DATABASES[DATABASES.index(database) - 1], key, kept)
    seals = Seals()
    for _ in range(2):  # what is whole once is remembered, what is not never
        with pytest.raises(DamagedIndexError, match=database):
            seals.opened(database, key, memoryview(bytes(other)))


@pytest.mark.parametrize("size", range(SEAL_BYTES + 1))
def test_a_value_shorter_than_its_seal_is_damaged(size):
    with pytest.raises(DamagedIndexError):
        Seals().opened("rows", b"k", memoryview(bytes(size)))


def test_a_whole_value_under_another_key_is_damaged_even_when_it_was_read_before():
    seals, kept = Seals(), sealed("blobs", b"a", b"content")
    seals.opened("blobs", b"a", memoryview(kept))
    with pytest.raises(DamagedIndexError):
        seals.opened("blobs", b"b", memoryview(kept))


@given(st.sets(st.binary(min_size=1, max_size=20)), st.binary(min_size=1, max_size=20))
def test_the_sum_of_keys_tells_one_more_or_less_and_no_order(keys, other):
    total = sum_of_keys(keys)
    assert total == sum_of_keys(sorted(keys, reverse=True))
    assert (sum_of_keys(keys ^ {other}) == total) is False


# -- what is whole ---------------------------------------------------------------------------------


def test_a_whole_index_has_no_findings(folder):
    before = answers(folder)
    verdict = verify(folder)
    assert verdict.whole
    assert verdict.documents == 60
    assert verdict.values > 200
    assert repair(folder) == (verdict, verdict)
    assert answers(folder) == before


def test_an_index_without_documents_is_whole(tmp_path):
    ChromaStore(tmp_path).close()
    assert verify(tmp_path).whole


def test_every_step_of_many_changes_leaves_it_whole(tmp_path):
    draw = random.Random(3)
    with M3Index.open(tmp_path, model=ENCODER) as index:
        for _ in range(12):
            batch = draw.sample(documents(), draw.randrange(1, 20))
            index.add([Document(one.id, f"{one.text} v{draw.random()}", {"v": draw.randrange(9)}) for one in batch])
            index.delete(draw.sample([one.id for one in batch], len(batch) // 3))
            assert index.store.verify().findings == ()


def test_a_store_that_did_not_write_gives_the_right_to_write_back(folder):
    with closing(ChromaStore(folder)) as store:
        store.verify()
        assert not store._lock.held
        with store.writing():
            store.verify()
        assert store._lock.held


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["ids", "rows", "blobs", "dense", "codes", "postings"])
@pytest.mark.parametrize("how", ["flipped", "lost", "of another key"])
def test_a_damaged_entry_is_never_a_wrong_answer_and_is_mended(folder, database, how):
    before, key = answers(folder), first_key(folder, database)
    change(
        folder,
        database,
        key,
        {"flipped": flipped(3), "lost": None, "of another key": sealed(database, b"other", b"x" * 80)}[how],
    )
    assert said(folder, before) or database in ("postings", "codes")  # which no query may need
    assert not verify(folder).whole
    found, left = repair(folder, model=ENCODER)
    assert not found.whole
    assert left.whole
    assert answers(folder) == before


@pytest.mark.parametrize("name", [b"live", b"free", b"next", b"keys", b"revision", b"model", b"dim"])
def test_damaged_settings_are_an_error_and_are_mended(folder, name):
    before = answers(folder)
    change(folder, "meta", name, flipped(0))
    assert said(folder, before) or name in (b"free", b"next")  # which do not matter to a search
    repair(folder, model=ENCODER)
    assert verify(folder).whole
    assert answers(folder) == before


@pytest.mark.parametrize("value", [b"2", b"1", b"\xff", b""])
def test_a_damaged_format_brings_nothing_up_to_date(folder, value):
    before = answers(folder)
    change(folder, "meta", b"format", value)
    with pytest.raises(DamagedIndexError, match="its format says"):
        answers(folder)
    assert repair(folder, model=ENCODER)[1].whole
    assert answers(folder) == before


def test_who_does_not_know_the_model_any_more_is_asked_for_it(folder):
    change(folder, "meta", b"model", flipped(0))
    with pytest.raises(InvalidArgumentError, match="--model"):
        repair(folder)
    assert repair(folder, model=ENCODER)[1].whole
    assert list((folder / "m3").glob("m3retriever.damaged-*"))


@pytest.mark.parametrize("seed", range(25))
def test_a_flipped_bit_anywhere_in_the_payload_is_the_same_answer_or_an_error(folder, seed):
    """The long form tries thousands, in processes of their own."""
    before, file = answers(folder), folder / PAYLOAD / "data.mdb"
    raw, draw = bytearray(file.read_bytes()), random.Random(seed)
    raw[draw.randrange(8192, len(raw))] ^= 1 << draw.randrange(8)
    file.write_bytes(raw)
    if said(folder, before):
        assert repair(folder, model=ENCODER)[1].whole
    assert answers(folder) == before


def test_a_payload_that_cannot_be_read_is_moved_aside_and_encoded_again(folder):
    before = answers(folder)
    (folder / PAYLOAD / "data.mdb").write_bytes(b"\0" * 20_000)
    assert problems(verify(folder)) == ["unreadable"]
    assert repair(folder, model=ENCODER)[1].whole
    assert answers(folder) == before
    assert [path.name for path in (folder / "m3").glob("*.damaged-*")]


def test_what_another_client_changed_is_named_and_taken(folder):
    with closing(ChromaStore(folder)) as store:
        held = store._connection.collection
        held.update(ids=["d3"], metadatas=[{"n": 99}])
        held.update(ids=["d4"], documents=["blue whale"], embeddings=ENCODER.encode_documents(["other"]).dense)
        held.update(ids=["d5"], embeddings=ENCODER.encode_documents(["other"]).dense)
        held.add(ids=["new"], documents=["grey owl"], embeddings=ENCODER.encode_documents(["grey owl"]).dense)
        held.delete(ids=["d6"])
        verdict = store.verify()
        assert {one.problem: one.ids for one in verdict.findings} == {
            "text": ("d4",),
            "metadata": ("d3",),
            "dense vectors": ("d4", "d5"),
            "without vectors": ("new",),
            "entries": ("d6",),
        }
        store.repair(ENCODER.encode_documents)
        assert store.verify().whole
    with M3Index.open(folder, model=ENCODER) as index:
        assert index.get(["d3"])[0].metadata == {"n": 99, "even": False}
        assert index.search("whale", 1, mode="sparse")[0].document.id == "d4"
        assert index.search("owl", 1, mode="sparse")[0].document.id == "new"


def test_values_that_fit_their_seals_and_not_each_other_are_found(folder):
    """As a fault of ours would leave them."""
    with closing(ChromaStore(folder)) as store:
        with store._payload._write() as writer:
            key = next(iter(writer.postings()))[0]
            writer.drop("postings", key)
        assert problems(store.verify()) == ["derived"]
        store.repair(ENCODER.encode_documents)
        with store._payload._write() as writer:
            writer.put("codes", slot_key(0), bytes(len(writer._get("codes", slot_key(0)))))
        assert problems(store.verify()) == ["derived"]
        store.repair(ENCODER.encode_documents)
        with store._payload._write() as writer:
            writer.drop("blobs", slot_key(int(writer.slots(["d7"])[0])))
        assert {one.problem: one.ids for one in store.verify().findings}["entries"] == ("d7",)
        store.repair(ENCODER.encode_documents)
        with store._payload._write() as writer:
            writer.put("ids", key_of("d8"), slot_key(int(writer.slots(["d9"])[0])))
        assert "derived" in problems(store.verify())
        store.repair(ENCODER.encode_documents)
        assert store.verify().whole


def test_chromas_own_database_is_looked_at(folder):
    file = folder / "chroma.sqlite3"
    raw = bytearray(file.read_bytes())
    raw[4096 * 3 : 4096 * 6] = np.random.default_rng(0).bytes(4096 * 3)
    file.write_bytes(raw)
    assert problems(verify(folder)) == ["chroma"]
    with pytest.raises(DamagedIndexError, match="restore the folder from a copy"):
        repair(folder, model=ENCODER)
    assert file.read_bytes() == bytes(raw)


def test_a_text_damaged_in_chromas_tables_is_refused_and_taken_from_its_second_copy(folder):
    before = answers(folder)
    execute(folder, "string_value = 'fox w1'", "key = 'chroma:document' and id = (select max(id) from embeddings)")
    assert said(folder, before)
    assert problems(verify(folder)) == ["text"]
    assert repair(folder, model=ENCODER)[1].whole
    assert answers(folder) == before


def test_damaged_metadata_is_refused_and_taken_as_it_is_when_repair_is_asked_for(folder):
    before = answers(folder)
    execute(folder, "int_value = 7777", "key = 'n' and id = (select min(id) from embeddings)")
    assert said(folder, before)
    found, left = repair(folder, model=ENCODER)
    assert problems(found) == ["metadata"]
    assert left.whole
    with M3Index.open(folder, model=ENCODER) as index:
        assert [document.id for document in index.find({"n": 7777})] == list(found.findings[0].ids)


def test_damage_that_comes_while_an_index_is_open_is_refused_where_it_would_be_shown(folder):
    with M3Index.open(folder, model=ENCODER) as index:
        execute(folder, "string_value = 'fox w1'", "key = 'chroma:document' and id = (select max(id) from embeddings)")
        [id] = index.store.verify().ids("text")
        index.get(["d1" if id == "d2" else "d2"])
        with pytest.raises(DamagedIndexError, match=f"'{id}'; to mend it: m3retriever repair --path {re.escape(str(folder))}"):
            index.get([id])
        index.store.add([Document(id, "a new text", {"n": 1})], ENCODER.encode_documents(["a new text"]))
        assert index.get([id])[0].text == "a new text"
        assert index.store.verify().whole


def test_what_another_client_changes_is_never_taken_for_damage(folder):
    """Its changes have numbers after ours; also where we write in between, and once all is known again."""
    with M3Index.open(folder, model=ENCODER) as index:
        held = index.store._connection.collection
        for round in range(3):
            held.update(ids=["d3"], metadatas=[{"n": 100 + round}])
            held.update(ids=["d4"], documents=[f"whale {round}"], embeddings=ENCODER.encode_documents(["whale"]).dense)
            assert index.get(["d3"])[0].metadata["n"] == 100 + round
            assert index.get(["d4"])[0].text == f"whale {round}"
            index.add([Document("d5", f"ours {round}")])
            assert index.get(["d3", "d4", "d5"])[1].text == f"whale {round}"
    with M3Index.open(folder, model=ENCODER) as index:  # which encodes d4 anew
        index.add([Document("d5", "ours at last")])
        assert index.search("whale", 1, mode="sparse")[0].document.id == "d4"
        assert index.store.verify().whole
    execute(folder, "int_value = 7777", "key = 'n' and int_value = 102")
    with pytest.raises(DamagedIndexError, match="'d3'"):
        M3Index.open(folder, model=ENCODER)


def test_nothing_is_verified_while_another_process_writes(folder):
    import subprocess
    import sys

    code = (
        "import sys, time\nfrom m3retriever.stores.lock import WriterLock\nfrom pathlib import Path\n"
        "lock = WriterLock(Path(sys.argv[1]))\nlock.acquire()\nprint('held', flush=True)\ntime.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder / "m3")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=f"process {other.pid}"):
            verify(folder)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


# -- the commands ----------------------------------------------------------------------------------


def test_the_commands_say_what_is_wrong_and_mend_it(tmp_path):
    run = CliRunner()
    with M3Index.open(tmp_path, model="hashing") as index:
        index.add(documents(8))
    whole = run.invoke(app, ["verify", "--path", str(tmp_path)])
    assert whole.exit_code == 0
    assert whole.stdout.startswith("whole: 8 documents")
    change(tmp_path, "blobs", slot_key(2), flipped(9))
    found = run.invoke(app, ["verify", "--path", str(tmp_path), "--json"])
    assert found.exit_code == 1
    assert json.loads(found.stdout)["findings"][0]["problem"] == "values"
    mended = run.invoke(app, ["repair", "--path", str(tmp_path)])
    assert mended.exit_code == 0
    assert "values: stored vectors are not what was written" in mended.stdout
    assert mended.stdout.rstrip().endswith("each as it was written")
