"""What is kept beside the index: whole or not at all, for every session, and never when read-only."""

import json
import multiprocessing
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3retriever import InvalidArgumentError, InvalidDocumentError, Profile, StoreError, load_profile
from m3retriever.inspector.project import Project, ReadOnlyError, asks
from m3retriever.inspector.source import Source
from m3retriever.io import GoldenQuestion, read_golden, write_golden

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@pytest.fixture
def kept(tmp_path):
    return Project(tmp_path)


def grade_of(kept, question, id):
    return next((one.judged.get(id) for one in kept.golden() if asks(one, question)), None)


def test_a_judgement_is_kept_changed_and_taken_back(kept):
    kept.judge("who sings?", "whale", 2)
    kept.judge("who sings?", "crow", 0)
    assert kept.golden()[0].judged == {"whale": 2, "crow": 0}
    assert kept.golden()[0].relevant == ("whale",)
    kept.judge("who sings?", "whale", 1)
    assert [grade_of(kept, "who sings?", id) for id in ("whale", "crow")] == [1, 0]
    assert grade_of(kept, "other", "crow") is None
    kept.judge("who sings?", "whale", None)
    assert kept.golden()[0].judged == {"crow": 0}
    kept.judge("who sings?", "crow", None)
    assert kept.golden() == []


def test_other_judgements_stay_as_they_were(kept):
    given = [GoldenQuestion("7", "who sings?", ("a text it holds",)), GoldenQuestion("x", "red?", ("fox",), {"fox": 3})]
    write_golden(given, kept.golden_path)
    kept.judge("who sings?", "whale", 2)
    kept.judge("who is new?", "crow", 1)
    first, second, third = kept.golden()
    assert first == GoldenQuestion("7", "who sings?", ("a text it holds", "whale"), {"whale": 2})
    assert second == given[1]
    assert (third.question, third.judged) == ("who is new?", {"crow": 1})
    assert third.id.startswith("q-")


def test_what_else_a_line_holds_stays_and_other_lines_stay_to_the_byte(kept):
    first = '{"question": " red? ", "relevant": ["fox"], "note": "\\u00e9", "type": 3}'
    second = '{"relevant":["whale"],   "question":"who sings?", "more": {"a": 1}}'
    kept.golden_path.write_text(f"{first}\n\n{second}\n")
    kept.judge("who sings?", "crow", 0)
    lines = kept.golden_path.read_text().splitlines()
    assert lines[0] == first
    row = json.loads(lines[1])
    assert row == {"relevant": ["whale"], "question": "who sings?", "more": {"a": 1}, "grades": {"crow": 0}}
    assert kept.golden()[1].judged == {"whale": 2, "crow": 0}, "what was relevant is not partly relevant now"
    kept.judge("red?", "wine", 2)
    assert len(kept.golden()) == 2, "blanks around a question do not make another one"
    assert json.loads(kept.golden_path.read_text().splitlines()[0])["note"] == "é"


def test_a_broken_file_of_judgements_is_not_overwritten(kept):
    kept.golden_path.write_text("not JSON\n")
    with pytest.raises(InvalidDocumentError, match="line 1 is not JSON"):
        kept.judge("q", "a", 1)
    assert kept.golden_path.read_text() == "not JSON\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from([None, 0, 1, 2])), max_size=12))
def test_what_was_judged_last_holds_for_any_texts(tmp_path_factory, judgements):
    kept = Project(tmp_path_factory.mktemp("project"))
    expected = {}
    for question, id, grade in judgements:
        kept.judge(question, id, grade)
        expected[question.strip(), id] = grade
    for (question, id), grade in expected.items():
        assert grade_of(kept, question, id) == grade
    ids = [one.id for one in kept.golden()]
    assert len(set(ids)) == len(ids)


def _judge_many(folder, writer):
    for number in range(15):
        Project(folder).judge(f"question {number}", f"by {writer}", 1)


def test_two_processes_that_judge_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_judge_many, args=(tmp_path, writer)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    judged = {one.question: set(one.judged) for one in Project(tmp_path).golden()}
    assert judged == {f"question {number}": {"by 0", "by 1"} for number in range(15)}


def test_the_history_is_newest_first_without_repetition_and_can_be_cleared(kept):
    for query in ("a", "b\nc", "a", "中文"):
        kept.remember(query)
    assert Project(kept.folder).history() == ["中文", "a", "b\nc"]
    kept.forget()
    assert kept.history() == []
    kept.forget()


def test_broken_lines_of_the_history_are_passed_over(kept):
    (kept.folder / "history.jsonl").write_bytes(b'{"query": "a"}\n\xff\n[]\n{"query": 3}\nnull\n{"query": "b"}\n')
    assert kept.history() == ["b", "a"]


def test_a_saved_run_comes_back_and_can_be_compared_by_the_command_line(kept):
    run = {"q 1": {"a": 0.5, "b c": 0.25}, "q2": {}}
    path = kept.save_run("first try", run)
    assert path == kept.folder / "runs" / "first try.run"
    assert kept.run("first try") == {"q 1": {"a": 0.5, "b c": 0.25}}
    assert kept.runs() == ["first try"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\\b", ".hidden", "x\ny", "x" * 81, "nul\0", "end.", "end "])
def test_a_run_s_name_is_no_path(kept, name):
    with pytest.raises(InvalidArgumentError, match="a run's name is"):
        kept.save_run(name, {})
    assert not list(kept.folder.rglob("*.run"))


def test_a_profile_goes_to_the_file_that_was_given_else_to_the_folder_s_own(tmp_path):
    assert Project(tmp_path).save_profile(Profile(depth=7)) == tmp_path / "profile.toml"
    assert load_profile(tmp_path / "profile.toml").depth == 7
    assert Project(tmp_path, profile=tmp_path / "mine.toml").profile_path == tmp_path / "mine.toml"
    assert Project(tmp_path, profile="semantic").on_preset


def test_each_collection_has_files_of_its_own(tmp_path):
    own, other = Project(tmp_path), Project(tmp_path, "notes")
    own.judge("q", "a", 1)
    other.judge("q", "b", 1)
    other.remember("q")
    other.save_run("r", {"q": {"b": 1.0}})
    assert (own.golden()[0].judged, other.golden()[0].judged) == ({"a": 1}, {"b": 1})
    assert (own.history(), own.runs()) == ([], [])
    assert read_golden(tmp_path / "golden-notes.jsonl")


def test_read_only_writes_nothing_and_says_so(tmp_path):
    frozen = Project.of(Source(tmp_path, read_only=True))
    for write in (
        lambda: frozen.judge("q", "a", 1),
        lambda: frozen.remember("q"),
        frozen.forget,
        lambda: frozen.save_run("r", {}),
        lambda: frozen.save_profile(Profile()),
    ):
        with pytest.raises(ReadOnlyError, match="--read-only"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_file_that_another_process_holds_is_waited_for_then_refused(kept, monkeypatch):
    import filelock

    monkeypatch.setattr("m3retriever.inspector.project.WAIT", 0.1)
    with filelock.FileLock(kept.folder / ".inspector.lock"), pytest.raises(StoreError, match="by another process; try again"):
        kept.judge("q", "a", 1)


def test_the_disk_s_refusal_is_an_error_of_ours(kept):
    (kept.folder / "runs").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot write"):
        kept.save_run("r", {"q": {"a": 1.0}})


def test_golden_lines_are_plain_json_for_any_reader(kept):
    kept.judge("谁唱歌？", "鲸", 2)
    [line] = kept.golden_path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"id": line[8:18], "question": "谁唱歌？", "relevant": ["鲸"], "grades": {"鲸": 2}}
    assert not stat.S_IMODE(kept.golden_path.stat().st_mode) & 0o111
