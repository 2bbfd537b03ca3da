"""The page Index: what an index holds, without a browser."""

import json
import re
import subprocess
import sys

import chromadb
import numpy as np
import pytest

from m3retriever import Document, M3Index, Profile, save_profile
from m3retriever.inspector.analysis import index as analysis
from m3retriever.inspector.analysis.index import Bin, Listed


def html(app):
    assert not app.exception
    return "\n".join(element.value for element in app.html)


def tile(app, name):
    return re.search(rf"data-testid='m3-tile-{name}'.*?<b class='m3-value'>(.*?)</b>", html(app))[1]


def fact(app, name):
    return re.search(rf"<td class='m3-muted'>{name}</td><td>(.*?)</td>", html(app))[1]


def info(path):
    """What the command line prints, in a process of its own."""
    command = [sys.executable, "-c", "from m3retriever.cli import main; main()", "info", "--path", str(path), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# -- what is shown ---------------------------------------------------------------------------------


def test_sizes_are_counted_by_mode():
    sizes = analysis.sizes_of(np.array([[2, 4], [0, 2], [3, 9]]), 9)
    assert (sizes.n, sizes.sparse, sizes.colbert, sizes.longest, sizes.full) == (3, 2, 3, 9, 1)
    assert (sizes.sparse_mean, sizes.colbert_mean) == (pytest.approx(5 / 3), 5)
    assert sizes.bins == tuple(Bin(number, number, int(number in (2, 4, 9))) for number in range(2, 10))
    assert analysis.sizes_of(np.array([[2, 4]]), None).full is None
    assert analysis.sizes_of(np.empty((0, 2), int), 9) is None


@pytest.mark.parametrize("values", [[5], [0, 0], [1, 8_000], list(range(1_000)), [3, 33], [3, 34]])
def test_the_bins_hold_every_document_once_and_are_not_too_many(values):
    values = np.array(values)
    bins = analysis.sizes_of(np.stack([values, values], axis=1), None).bins
    assert sum(one.count for one in bins) == len(values)
    assert all(one.count == ((one.low <= values) & (values <= one.high)).sum() for one in bins)
    assert len(bins) <= analysis.BINS


def test_a_sample_is_the_same_every_time_and_in_order():
    ids = [f"{number:05d}" for number in range(2_000)]
    sample = analysis.sample_of(ids)
    assert sample == analysis.sample_of(ids) == sorted(set(sample))
    assert len(sample) == analysis.SAMPLE
    assert analysis.sample_of(ids[:3]) == ids[:3]


def test_bytes_have_a_unit():
    sizes = (0, 999, 1_000, 8_949_760, 10**12, 10**20)
    assert [analysis.size_in_words(size) for size in sizes] == [
        *("0 bytes", "999 bytes", "1.0 kB", "8.9 MB", "1.0 TB", "100000000.0 TB")
    ]


def test_what_a_profile_was_fitted_on_becomes_numbers_and_a_table():
    tuning, calibration = analysis.fits_of(
        {
            "tuning": {"measure": "nDCG@10", "held_out": 0.81249, "against": {"default": {"mean": 0.5, "p": 0.04}}},
            "calibration": {"questions": 60, "hybrid": {"method": "isotonic", "brier": 0.1}, "dense": {"brier": 0.25}},
        }
    )
    assert tuning.numbers == [("measure", "nDCG@10"), ("held_out", "0.812")]
    assert tuning.table == [{"": "default", "mean": "0.500", "p": "0.040"}]
    assert calibration.numbers == [("questions", "60")]
    assert calibration.table == [
        {"": "hybrid", "method": "isotonic", "brier": "0.100"},
        {"": "dense", "method": "", "brier": "0.250"},
    ]


def test_a_profile_written_by_hand_may_say_anything():
    fits = analysis.fits_of({"note": "by hand", "tuning": {"weights": [1, 2], "long": "x" * 500, "empty": {}}, "n": 3})
    assert [fit.name for fit in fits] == ["note", "tuning", "n"]
    assert fits[0].numbers == [("", "by hand")]
    assert len(fits[1].numbers[1][1]) == analysis.VALUE_CHARACTERS
    assert fits[1].table == [{"": "empty"}]


def test_a_revision_is_a_count_or_a_short_mark_that_changes_with_it():
    assert [analysis.revision_in_words(count) for count in (0, 12_345)] == ["0", "12,345"]
    marks = [analysis.revision_in_words((1795346463089434635 << 40) + documents) for documents in (162, 162, 163)]
    assert marks[0] == marks[1] != marks[2]
    assert re.fullmatch("#[0-9a-f]{8}", marks[0])


def test_ids_are_found_by_a_part_the_whole_one_first():
    assert analysis.ids_like(["xab", "AB", "ab", "c"], "ab") == ["ab", "xab", "AB"]


def test_a_document_is_listed_in_one_line():
    assert analysis.listed(Document("1", "first\nsecond", {"lang": "zh", "名": "值"})) == Listed(
        "1", "first", '{"lang": "zh", "名": "值"}', 12
    )
    assert analysis.listed(Document("1", "a")).metadata == ""


# -- the page --------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_command_line(run, project):
    app, expected = run(page="index"), info(project)
    assert tile(app, "documents") == f"{expected['documents']:,}" == "62"
    assert tile(app, "without_vectors") == str(expected["without_vectors"]) == "0"
    assert tile(app, "revision") == str(expected["revision"])
    assert fact(app, "Bytes on disk") == f"{expected['bytes_on_disk']:,}"
    assert fact(app, "Model") == expected["model"]
    assert fact(app, "Fingerprint") == expected["model_name"]
    assert fact(app, "Dimension") == str(expected["dimension"])
    assert fact(app, "Collection") == expected["collection"]
    assert fact(app, "Folder") == expected["path"]
    assert "62 · 256 numbers" in html(app)


def test_token_counts_are_those_of_the_stored_vectors(run, project):
    app = run(page="index")
    with M3Index.open(project) as index:
        vectors = index.vectors(index.ids())
    lengths = np.diff(vectors.colbert_offsets)
    assert f"Tokens of 62 documents: {lengths.mean():.0f} on average, {lengths.max()} at most." in html(app)
    assert f"62 · ≈ {np.diff(vectors.sparse_offsets).mean():.0f} tokens" in html(app)


def test_documents_are_found_by_id_and_by_filter(run):
    app = run(page="index", find="account-0")
    assert "9 documents, 9 of them listed" in html(app)
    assert list(app.dataframe[0].value["id"])[:2] == ["account-01", "account-02"]
    assert "If you forgot your password" in app.text[0].value
    app.text_input(key="find").set_value('{"lang": "zh"}').run()
    found = app.dataframe[0].value
    assert found["metadata"].str.contains('"lang": "zh"').all()
    assert 0 < len(found) < 62
    app.text_input(key="find").set_value("no such id").run()
    assert "0 documents" in html(app)
    assert not app.dataframe


@pytest.mark.parametrize("text", ["{", '{"a": {"$no": 1}}', '{"a": 1, "b": 2}', "{}", '{"a":' * 5_000])
def test_a_broken_filter_is_an_error_in_words(run, text):
    app = run(page="index")
    app.text_input(key="find").set_value(text).run()
    assert "The documents cannot be looked up." in html(app)
    assert "62" in tile(app, "documents")


def test_a_table_has_200_rows_at_most(run, tmp_path):
    with M3Index.open(tmp_path / "own", model="hashing") as index:
        index.add([Document(f"{number:03d}", f"text {number}") for number in range(300)])
    app = run(tmp_path / "own", page="index")
    assert len(app.dataframe[0].value) == 200
    assert "300 documents, 200 of them listed" in html(app)


def test_an_index_without_documents_says_what_to_do(run, tmp_path):
    with M3Index.open(tmp_path / "own", model="hashing") as index:
        index.add([Document("1", "apple")])
        index.delete(["1"])
    text = html(run(tmp_path / "own", page="index"))
    assert "This index has no documents yet." in text
    assert "m3retriever index FILES" in text
    assert "0 documents, 0 of them listed" in text


def test_what_the_profile_was_fitted_on_is_shown(run, project):
    assert "Fitted on nothing yet" in html(run(page="index"))
    profile = Profile(
        thresholds={"hybrid": 0.4567},
        fitted={"tuning": {"measure": "nDCG@10", "held_out": 0.8, "against": {"<b>": {"mean": 0.7}}}, "<i>mine": {"x": 1}},
    )
    save_profile(profile, project / "profile.toml")
    app = run(page="index")
    assert "Tuned <span class='m3-muted'>measure nDCG@10 · held out 0.800" in html(app)
    assert "Hybrid 0.457" in fact(app, "Thresholds")
    assert list(app.dataframe[0].value.iloc[0]) == ["<b>", "0.700"]
    assert "&lt;i&gt;mine" in html(app)
    assert str(project / "profile.toml") in html(app)


def foreign(path):
    collection = chromadb.PersistentClient(str(path)).get_collection("m3retriever")
    collection.upsert(ids=["theirs"], documents=["pear"], embeddings=[[1.0] + [0.0] * 255])


def test_documents_of_another_client_are_counted_and_explained(run, project):
    foreign(project)
    app = run(page="index", arguments=["--read-only"])
    assert tile(app, "without_vectors") == "1" == str(info(project)["without_vectors"])
    assert "1 documents came from another Chroma client" in html(app)
    assert "without --read-only" in html(app)
    assert fact(app, "Opened") == "read only: nothing is written"
    app = run(page="index")
    assert tile(app, "without_vectors") == "0", "opening it for writing has encoded them"


def test_another_process_that_writes_is_named(run, project):
    foreign(project)
    code = (
        "import time; from pathlib import Path; from m3retriever.stores.lock import WriterLock\n"
        f"WriterLock(Path({str(project)!r}) / 'm3').acquire(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "held\n"
        app = run(page="index")
        writer.kill()
    assert f"Another process is writing to this index: process {writer.pid} since" in html(app)
    assert "when the other process has ended" in html(app)


def test_a_hostile_document_is_only_text(run):
    app = run(page="index", find="hostile")
    assert "&lt;img src=x" in html(app)
    assert "<img" not in html(app)
    assert "<script>window.hacked = 1</script>" in app.text[0].value
    assert not any("invalid" in element.value for element in app.markdown)


def test_the_page_speaks_chinese(run):
    app = run(page="index", lang="zh")
    assert fact(app, "模型") == "hashing"
    assert "共 62 篇文档，列出 62 篇" in html(app)
