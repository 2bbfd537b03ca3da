"""The page Search beyond its table: filters, judgements, what is missing, what can be taken away."""

import json
import shutil

import chromadb
import pytest

from m3retriever import HashingEncoder, M3Index, Profile, save_profile
from m3retriever.io import read_golden

QUERY = "how do I reset my password"


def page(app):
    assert not app.exception
    return "\n".join(element.value for element in app.html)


def table(app):
    return app.dataframe[0].value


def ids_of(project, **settings):
    with M3Index.open(project, read_only=True) as index:
        return [hit.document.id for hit in index.search(QUERY, 20, **settings)]


# -- judgements ------------------------------------------------------------------------------------


def test_a_judgement_is_written_shown_and_taken_back(run, project):
    app = run(q=QUERY)
    app.button(key="judge_relevant").click().run()
    best = ids_of(project)[0]
    assert {one.question: one.judged for one in read_golden(project / "golden.jsonl")}[QUERY] == {best: 2}
    assert table(app)["grade"][0] == "★★"
    app.button(key="judge_partly").click().run()
    assert table(app)["grade"][0] == "★"
    app.button(key="judge_partly").click().run()
    assert table(app)["grade"][0] == ""
    assert QUERY not in {one.question for one in read_golden(project / "golden.jsonl")}


def test_a_judgement_survives_a_restart(run, project):
    run(q=QUERY).button(key="judge_no").click().run()
    assert table(run(q=QUERY))["grade"][0] == "✕"


def test_next_and_previous_walk_through_the_hits_and_judge_the_one_shown(run, project):
    app = run(q=QUERY)
    assert app.button(key="go_before").disabled
    app.button(key="go_after").click().run()
    app.button(key="go_after").click().run()
    app.button(key="judge_partly").click().run()
    third = ids_of(project)[2]
    assert {one.question: one.judged for one in read_golden(project / "golden.jsonl")}[QUERY] == {third: 1}
    assert app.query_params["doc"] == third
    assert "#3</b>" in page(app)


def test_a_link_names_the_document_that_is_shown(run, project):
    wanted = ids_of(project)[4]
    assert "#5</b>" in page(run(q=QUERY, doc=wanted))
    assert "#1</b>" in page(run(q=QUERY, doc="no such id"))


def test_a_broken_golden_file_is_said_when_one_judges_and_is_left_alone(run, project):
    (project / "golden.jsonl").write_text("nonsense")
    app = run(q=QUERY)
    assert "The golden set cannot be read." in page(app)
    assert "That was not done." not in page(app)
    app.button(key="judge_relevant").click().run()
    assert "That was not done." in page(app)
    assert "line 1 is not JSON" in page(app)
    assert (project / "golden.jsonl").read_text() == "nonsense"
    assert "That was not done." not in page(app.run())


def test_a_plain_golden_answer_is_relevant_and_stays_so_when_another_document_is_judged(run, project):
    first, second = ids_of(project)[:2]
    line = {"question": QUERY, "relevant": [first], "note": "mine"}
    (project / "golden.jsonl").write_text(json.dumps(line) + "\n")
    app = run(q=QUERY)
    assert list(table(app)["grade"])[:2] == ["★★", ""]
    app.button(key="go_after").click().run()
    app.button(key="judge_relevant").click().run()
    assert read_golden(project / "golden.jsonl")[0].judged == {first: 2, second: 2}
    assert json.loads((project / "golden.jsonl").read_text())["note"] == "mine"


def test_a_document_that_another_client_deleted_is_left_out(run, project):
    first = ids_of(project)[0]
    app = run(q=QUERY)
    client = chromadb.PersistentClient(str(project))
    client.get_collection("m3retriever").delete(ids=[first])
    client.close()
    app.slider(key="k").set_value(25).run()
    assert not app.exception
    assert f">{first}</code>" not in page(app)
    assert len(table(app)) == 25


def test_a_profile_that_breaks_while_the_page_is_open_is_said(run, project):
    app = run(q=QUERY)
    (project / "profile.toml").write_text("depth = ")
    assert "The profile cannot be used as it is now" in page(app.run())
    (project / "profile.toml").write_text("depth = 7")
    assert "The profile cannot be used as it is now" not in page(app.run())


def test_an_index_that_is_gone_is_said_and_not_made_again(run, project):
    app = run(q=QUERY)
    shutil.rmtree(project)
    app.text_input(key="q").set_value("another").run()
    assert "The index cannot be opened." in page(app)
    assert not project.exists()


def test_the_preset_of_a_link_is_the_one_that_is_marked(run):
    app = run(q=QUERY, dense="0.3", sparse="0.6", colbert="0.1")
    assert QUERY not in [option for box in app.selectbox if box.key == "picked" for option in box.options]
    assert "Dense 0.30, Sparse 0.60, ColBERT 0.10" in page(app)


# -- read-only -------------------------------------------------------------------------------------


def test_read_only_disables_what_writes_and_leaves_every_file_alone(run, project):
    def state():
        return {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and "chroma" not in path.name}

    (project / "m3" / "m3retriever" / "lock.mdb").unlink(missing_ok=True)
    run(q="warm up", arguments=["--read-only"])
    before = {path: content for path, content in state().items() if path.name != "lock.mdb"}
    app = run(q=QUERY, arguments=["--read-only"])
    assert all(app.button(key=f"judge_{name}").disabled for name in ("relevant", "partly", "no"))
    app.text_input(key="q").set_value("parcel").run()
    assert app.selectbox(key="picked").options == [QUERY]
    assert app.button(key="forget").disabled
    assert not app.exception
    assert {path: content for path, content in state().items() if path.name != "lock.mdb"} == before


# -- history ---------------------------------------------------------------------------------------


def test_the_history_survives_a_restart_and_can_be_cleared(run, project):
    run(q="invoice")
    app = run(q="parcel")
    assert app.selectbox(key="picked").options == ["invoice"]
    app.button(key="forget").click().run()
    assert "picked" not in [box.key for box in app.selectbox]
    assert not (project / "history.jsonl").exists() or "invoice" not in (project / "history.jsonl").read_text()


# -- filters ---------------------------------------------------------------------------------------


def test_a_filter_narrows_the_results_as_search_does(run, project):
    where = {"#document": {"$contains": "password"}}
    expected = ids_of(project, where=where)
    app = run(q=QUERY, where=json.dumps(where))
    assert len(table(app)) == len(expected) < 20
    assert "Filtered by" in page(app)


@pytest.mark.parametrize("where", ["{", "[]", "3", '{"a": {"$no": 1}}', '{"$and": 1}', "<img src=x>", "[" * 5000])
def test_a_filter_that_is_none_is_said_in_words(run, where):
    html = page(run(q=QUERY, where=where))
    assert "This filter cannot be used." in html
    assert "<img" not in html


def test_where_nothing_passes_the_filter_the_page_says_so(run):
    assert "No document passes the filter." in page(run(q=QUERY, where='{"kind": "nothing"}'))


# -- what is missing -------------------------------------------------------------------------------


def test_each_stage_is_said_with_what_would_help(run, project):
    ids = ids_of(project)
    assert "It is hit number 3." in page(run(q=QUERY, missing=ids[2]))
    below = page(run(q=QUERY, missing=ids[11], k="5"))
    assert "It has place 12, and 5 results are shown." in below
    assert "<li>15 results</li>" in below
    assert "below the threshold 0.99" in page(run(q=QUERY, missing=ids[0], threshold="0.99"))
    filtered = page(run(q=QUERY, missing=ids[0], where='{"kind": "nothing"}'))
    assert "No document passes" in filtered
    assert "It does not pass the filter." in filtered
    assert "It does not pass the filter." in page(
        run(q=QUERY, missing=ids[0], where=f'{{"#id": {{"$ne": {json.dumps(ids[0])}}}}}')
    )
    assert "No document has this id." in page(run(q=QUERY, missing="<b>none</b>"))


def test_a_document_that_no_search_brings_in_gets_the_depth_that_would(run, project):
    save_profile(Profile(depth=3), project / "profile.toml")
    with M3Index.open(project, read_only=True) as index:
        lost = next(id for id in index.ids() if index.explain(QUERY, id, k=5).stage == "not a candidate")
        depth = index.explain(QUERY, lost, k=5).deeper.depth
    html = page(run(q=QUERY, missing=lost, k="5"))
    assert "It is not a candidate" in html
    assert f"<li>a depth of {depth} in the profile" in html


def test_the_numbers_are_explain_s(run, project):
    with M3Index.open(project, read_only=True) as index:
        hits = index.search(QUERY, 30)
        found = index.explain(QUERY, hits[25].document.id, k=20)
    shown = run(q=QUERY, missing=hits[25].document.id).dataframe[1].value
    assert list(shown["score"]) == [f"{found.score:.3f}", *(f"{score:.3f}" for score in found.scores.values())]
    assert list(shown["rank"]) == ["#26", *(f"#{rank}" for rank in found.ranks.values())]


class CountingEncoder(HashingEncoder):
    """Counts how often it is asked for queries."""

    calls = 0

    def encode_queries(self, texts):
        type(self).calls += 1
        return super().encode_queries(texts)


def test_asking_what_is_missing_never_calls_the_model_again(run, project, monkeypatch):
    save_profile(Profile(depth=2), project / "profile.toml")
    monkeypatch.setattr("m3retriever.encoders.hashing.HashingEncoder", CountingEncoder)
    CountingEncoder.calls = 0
    app = run(q=QUERY, k="5")
    for id in ("account-01", "security-02", "none"):
        app.text_input(key="missing").set_value(id).run()
        app.slider(key="sparse").set_value(0.5).run()
    assert not app.exception
    assert CountingEncoder.calls == 1
