"""Indexes of earlier formats open and answer as before: indexes/format-N.tar.xz is one of format N."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, StoreError, StoreLockedError
from m3retriever.stores import payload, upgrade
from m3retriever.stores.writer import Writer

INDEXES = Path(__file__).with_name("indexes")
FORMATS = sorted(int(path.name.split("-")[1].split(".")[0]) for path in INDEXES.glob("format-*.tar.xz"))
EARLIER = [number for number in FORMATS if number < payload.FORMAT]
QUERY = "w5 w1 fox whale"


@pytest.fixture(params=EARLIER)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(INDEXES / f"format-{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    return tmp_path / "index"


def opened(folder: Path, **settings) -> M3Index:
    return M3Index.open(folder, model=HashingEncoder(16), **settings)


def test_there_is_an_index_of_each_format():
    assert FORMATS[0] == 1
    assert set(upgrade.UPGRADED) <= {str(number) for number in FORMATS}


def test_it_scores_as_the_version_that_wrote_it(folder):
    expected = json.loads((folder / "scores.json").read_text())
    with opened(folder) as index:
        for _ in range(2):
            scores = index.score(QUERY, depth=8)
            found = dict(zip(scores.ids, scores.values.tolist(), strict=True))
            assert sorted(found) == sorted(expected["ids"])
            for id, values in zip(expected["ids"], expected["values"], strict=True):
                assert found[id] == pytest.approx(values, abs=1e-6)
            assert index.get(["d5"])[0].metadata == {"n": 50}


def test_it_can_be_changed_and_is_brought_up_to_date_once(folder, caplog):
    with opened(folder) as index:
        index.add([Document("new", "grey owl"), Document("d0", "red kite")])
        index.delete(["d1"])
        assert index.search("owl", 1)[0].document.id == "new"
        assert {hit.document.id for hit in index.search("kite", 1)} == {"d0"}
        with index.store._payload.read() as snapshot:
            assert snapshot.format() == str(payload.FORMAT)
    caplog.clear()
    with opened(folder) as index:
        assert len(index) == 7
        assert index.search("owl", 1, mode="sparse")[0].document.id == "new"
    assert "bringing" not in caplog.text


def test_who_only_reads_does_not_change_its_format(folder):
    before = (folder / "m3/m3retriever/data.mdb").read_bytes()
    with pytest.raises(StoreError, match="open it once without read_only"):
        opened(folder, read_only=True)
    assert (folder / "m3/m3retriever/data.mdb").read_bytes() == before


def test_one_that_is_brought_up_to_date_and_killed_meanwhile_is_as_it_was(folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    monkeypatch.setattr(Writer, "_put_codes", killed)
    with pytest.raises(KeyboardInterrupt):
        ChromaStore(folder)
    monkeypatch.undo()
    with opened(folder) as index, opened(copy) as other:
        assert index.score(QUERY).values.tobytes() == other.score(QUERY).values.tobytes()


def test_it_is_not_brought_up_to_date_while_another_process_writes(folder):
    code = (
        "import sys, time\nfrom m3retriever.stores.lock import WriterLock\nfrom pathlib import Path\n"
        "lock = WriterLock(Path(sys.argv[1]))\nlock.acquire()\nprint('held', flush=True)\ntime.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder / "m3")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=f"process {other.pid}"):
            opened(folder)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with opened(folder) as index:
        assert len(index) == 7


def test_who_has_it_open_when_it_is_brought_to_a_newer_format_is_told(tmp_path):
    with M3Index(HashingEncoder(16), ChromaStore(tmp_path)) as index:
        index.add([Document("a", "red fox")])
        code = (
            "import lmdb, sys\nenvironment = lmdb.open(sys.argv[1], max_dbs=8)\nmeta = environment.open_db(b'meta')\n"
            "with environment.begin(write=True) as writing:\n    writing.put(b'format', b'99', db=meta)"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "m3" / "m3retriever")], check=True)
        for act in (lambda: index.search("fox"), lambda: index.add([Document("b", "owl")])):
            with pytest.raises(StoreError, match="brought to format 99 by another process"):
                act()
