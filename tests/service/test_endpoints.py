"""Every endpoint, against the library in this process: the same bits, the same JSON as the command line's."""

import base64
import json
import struct
import time

import numpy as np
import pytest
from torture.server import Server

from m3retriever import Document, HashingEncoder, M3Index, Profile, Weights, rerank, save_profile
from m3retriever.calibration import Calibration
from m3retriever.report import explanation_json, search_json, used_weights
from m3retriever.types import MODES
from m3retriever.wire import COLUMNS, from_columns, to_rows

from .conftest import with_encoder

ENCODER = HashingEncoder()
TEXTS = ["the red fox", "", "狐 и лиса", "red red wine"]


@pytest.fixture(scope="module")
def index(index_path):
    with M3Index.open(index_path, read_only=True) as opened:
        yield opened


def same_bits(ours, theirs):
    return all(getattr(ours, name).tobytes() == getattr(theirs, name).tobytes() for name in COLUMNS)


def plain(content):
    """As it comes out of JSON."""
    return json.loads(json.dumps(content))


@pytest.mark.parametrize("kind", ["document", "query"])
def test_columns_hold_the_bits_of_the_librarys_encoder(service, kind):
    answer = service.post("/v1/encode", {"input": TEXTS, "kind": kind, "encoding_format": "columns"})
    assert answer.status_code == 200
    content = answer.json()
    assert {**content, "vectors": None} == {
        "model": ENCODER.name, "dim": 256, "precision": None, "n": 4, "encoding_format": "columns", "vectors": None,
        "truncated": 0,
    }  # fmt: skip
    assert same_bits(from_columns(content["vectors"]), ENCODER.encode_documents(TEXTS))


def test_rows_are_the_same_numbers_and_hold_the_views_asked_for(service):
    vectors = ENCODER.encode_documents(TEXTS)
    content = service.post("/v1/encode", {"input": TEXTS}).json()
    assert content["data"] == plain(to_rows(vectors))
    assert np.array_equal(np.array([row["dense"] for row in content["data"]], np.float32), vectors.dense)
    some = service.post("/v1/encode", {"input": "the red fox", "modes": ["colbert", "sparse"]}).json()
    assert [set(row) for row in some["data"]] == [{"sparse", "colbert"}]


def test_no_text_gives_no_rows(service):
    assert service.post("/v1/encode", {"input": []}).json()["data"] == []


def test_modes_with_columns_are_refused(service):
    answer = service.post("/v1/encode", {"input": "a", "modes": ["dense"], "encoding_format": "columns"})
    assert answer.status_code == 400
    assert "columns hold all views" in answer.json()["error"]["message"]


def test_tokens_are_the_encoders(service):
    content = service.post("/v1/tokenize", {"input": "red fox"}).json()
    assert content == {"model": ENCODER.name, "tokens": [token._asdict() for token in ENCODER.tokenize("red fox")]}
    assert [(token["start"], token["end"]) for token in content["tokens"]] == [(0, 3), (4, 7)]


def test_a_pair_scores_as_in_a_reranking_of_the_one_text(service):
    pairs = [["red fox", "a red fox"], ["whale", ""], ["red fox", "a red fox"]]
    results = service.post("/v1/similarity", {"pairs": pairs}).json()["results"]
    for (query, document), result in zip(pairs, results, strict=True):
        [alone] = rerank(ENCODER, query, [document])
        assert (result["score"], result["scores"]) == (alone.score, dict(alone.scores))
        assert (result["probability"], result["level"], result["relevant"]) == (None, None, None)
    assert results[0]["scores"]["colbert"] == 1.0  # both words of the query are there
    assert results[0] == results[2]


def test_a_profile_says_what_a_pair_s_score_means(start, tmp_path):
    curve = Calibration((0.0, 1.0), (0.0, 0.5), levels={"weak": 0.1, "related": 0.3, "nearly identical": 0.9})
    profile = Profile(Weights(1, 0, 0), thresholds={"hybrid": 0.5}, calibration={"hybrid": curve.content()})
    save_profile(profile, tmp_path / "profile.toml")
    service = start("--model", "hashing", "--profile", str(tmp_path / "profile.toml"))
    pairs = [["red fox", "fox red"], ["red fox", "blue whale"]]
    same, other = service.post("/v1/similarity", {"pairs": pairs}).json()["results"]
    assert same["score"] == pytest.approx(1, abs=1e-6)
    assert (same["level"], same["relevant"]) == ("nearly identical", True)
    assert same["probability"] == pytest.approx(0.5, abs=1e-6)
    assert (other["level"], other["relevant"]) == ("unrelated", False)
    assert other["probability"] == pytest.approx(max(0.0, other["score"]) / 2)


def test_texts_are_reranked_by_the_profile_of_the_service(start, tmp_path):
    curve = Calibration((0.0, 1.0), (0.0, 0.5), levels={"weak": 0.1, "related": 0.3, "nearly identical": 0.9})
    profile = Profile(Weights(0, 1, 0), calibration={"hybrid": curve.content()})
    save_profile(profile, tmp_path / "profile.toml")
    service = start("--model", "hashing", "--profile", str(tmp_path / "profile.toml"))
    texts = ["the cat", "a red fox", "red", "red fox"]
    content = service.post("/v1/rerank", {"query": "red fox", "documents": texts}).json()
    expected = [(one.place, one.score, one.probability) for one in rerank(ENCODER, "red fox", texts, profile=profile)]
    assert [(one["index"], one["relevance_score"], one["probability"]) for one in content["results"]] == expected
    assert None not in {probability for _, _, probability in expected}


QUERIES_OF_THEIR_OWN = """
def encode_queries(self, texts):
    vectors = self.encode_documents(texts)
    return replace(vectors, dense=-vectors.dense)
"""


def test_a_query_is_encoded_as_a_query_and_a_document_as_a_document(start):
    service = start(command=with_encoder(QUERIES_OF_THEIR_OWN))
    dense = ENCODER.encode_documents(["red fox"]).dense[0]
    for kind, sign in (("document", 1), ("query", -1)):
        [row] = service.post("/v1/encode", {"input": "red fox", "kind": kind}).json()["data"]
        assert row["dense"] == (sign * dense).tolist()
    [embedding] = service.post("/v1/embeddings", {"input": "red fox"}).json()["data"]
    assert embedding["embedding"] == dense.tolist()
    [reranked] = service.post("/v1/rerank", {"query": "red fox", "documents": ["red fox"]}).json()["results"]
    [pair] = service.post("/v1/similarity", {"pairs": [["red fox", "red fox"]]}).json()["results"]
    assert reranked["scores"]["dense"] == pair["scores"]["dense"] == pytest.approx(-1, abs=1e-6)


SEARCHES = [
    {},
    {"k": 3, "mode": "sparse"},
    {"k": 5, "weights": {"dense": 1.0, "colbert": 1}},
    {"k": 5, "weights": [1, 0, 2.5]},
    {"where": {"tenant": "b"}, "where_document": {"$contains": "fox"}, "threshold": 0.3},
    {"k": 1000, "mode": "colbert"},
]


@pytest.mark.parametrize("settings", SEARCHES)
def test_a_search_answers_as_the_command_line_does_with_json(service, index, settings):
    answer = service.post("/v1/search", {"query": "red fox in june", **settings})
    hits = index.search("red fox in june", **settings)
    weights = Weights.of(settings.get("weights", index.profile.weights))
    mode = settings.get("mode", "hybrid")
    assert answer.json() == plain(search_json("red fox in june", mode, used_weights(mode, weights), hits))
    assert len(hits) > 1
    assert {"text", "metadata"} <= set(answer.json()["hits"][0])


@pytest.mark.parametrize("settings", [{}, {"mode": "dense"}, {"where": {"tenant": "a"}}, {"where": {"tenant": "b"}}])
def test_an_explanation_is_the_command_lines(service, index, settings):
    answer = service.post("/v1/explain", {"query": "red fox", "id": "doc0", **settings})
    assert answer.json() == plain(explanation_json(index.explain("red fox", "doc0", **settings)))


def test_an_unknown_document_is_not_found(service):
    answer = service.post("/v1/explain", {"query": "red fox", "id": "none"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "unknown_document")


def test_texts_are_reranked_as_by_the_library(service):
    texts = ["the cat", "a red fox", "red", "red fox"]
    expected = rerank(ENCODER, "red fox", texts)
    content = service.post("/v1/rerank", {"query": "red fox", "documents": texts}).json()
    assert [(one["index"], one["relevance_score"], one["scores"]) for one in content["results"]] == [
        (one.place, one.score, dict(one.scores)) for one in expected
    ]
    assert content["results"][0]["index"] == 3
    two = service.post("/v1/rerank", {"query": "red fox", "documents": texts, "top_n": 2, "return_documents": True}).json()
    assert [one["document"] for one in two["results"]] == ["red fox", "a red fox"]


def test_embeddings_are_openais_in_both_forms(service):
    plain_form = service.post("/v1/embeddings", {"input": ["red fox", "whale"], "model": "hashing"}).json()
    dense = ENCODER.encode_documents(["red fox", "whale"]).dense
    assert [one["embedding"] for one in plain_form["data"]] == dense.tolist()
    assert plain_form["usage"] == {"prompt_tokens": 3, "total_tokens": 3}  # red, fox, whale
    coded = service.post("/v1/embeddings", {"input": "red fox", "encoding_format": "base64", "dimensions": 256}).json()
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert struct.unpack("<256f", raw) == tuple(dense[0].tolist())


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]]])
def test_token_ids_are_refused_in_words(service, ids):
    answer = service.post("/v1/embeddings", {"input": ids})
    assert answer.status_code == 400
    assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


def test_another_number_of_dimensions_is_refused(service):
    answer = service.post("/v1/embeddings", {"input": "a", "dimensions": 128})
    assert (answer.status_code, "256 dimensions" in answer.json()["error"]["message"]) == (400, True)


def test_the_model_is_listed_with_its_limits(service):
    assert service.get("/v1/models").json() == {
        "object": "list",
        "data": [{
            "id": "hashing-256", "object": "model", "created": 0, "owned_by": "m3retriever", "dim": 256, "precision": None,
            "max_length": None, "limits": {"texts": 256, "characters": 200_000},
        }],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["hashing-256", "hashing", None])
def test_a_request_may_name_the_model(service, name):
    assert service.post("/v1/encode", {"input": "a", "model": name}).status_code == 200


ASKED = {
    "encode": {"input": "a"},
    "tokenize": {"input": "a"},
    "similarity": {"pairs": [["a", "b"]]},
    "search": {"query": "a"},
    "explain": {"query": "a", "id": "doc0"},
    "rerank": {"query": "a", "documents": ["b"]},
    "embeddings": {"input": "a"},
}


@pytest.mark.parametrize("name", ASKED)
def test_another_model_is_refused_everywhere(service, name):
    answer = service.post(f"/v1/{name}", {**ASKED[name], "model": "BAAI/bge-m3"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "wrong_model")
    assert "hashing-256" in answer.json()["error"]["message"]


def test_without_an_index_there_is_nothing_to_search_and_all_else_works(start):
    service = start("--model", "hashing")
    for name, body in ASKED.items():
        answer = service.post(f"/v1/{name}", body)
        if name in ("search", "explain"):
            assert (answer.status_code, answer.json()["error"]["type"]) == (409, "no_index")
            assert "--path" in answer.json()["error"]["message"]
        else:
            assert answer.status_code == 200, name


def test_an_index_that_is_served_can_be_written_to_by_others_who_are_seen(start, tmp_path):
    from m3retriever import Document

    with M3Index.open(tmp_path / "index", model="hashing") as index:
        index.add([Document("one", "red fox")])
    service = start("--path", str(tmp_path / "index"))
    assert [hit["id"] for hit in service.post("/v1/search", {"query": "fox"}).json()["hits"]] == ["one"]
    with M3Index.open(tmp_path / "index") as index:
        index.add([Document("two", "fox fox")])
    assert {hit["id"] for hit in service.post("/v1/search", {"query": "fox"}).json()["hits"]} == {"one", "two"}


def test_an_index_of_a_chroma_server_is_served_without_a_cache_and_follows_its_other_clients(start, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "another machine"))
    with Server(tmp_path / "server") as server:
        where = f"chroma://127.0.0.1:{server.port}/notes"
        with M3Index.open(where, model="hashing") as index:
            index.add([Document("fox", "the red fox"), Document("whale", "a blue whale")])
            running = start("--path", where, "--refresh", "0.2", HOME=str(tmp_path / "this machine"))
            index.add([Document("owl", "a grey owl")])
            index.delete(["fox"])
            ends = time.monotonic() + 30
            found = {}
            while found.keys() != {"owl", "whale"} and time.monotonic() < ends:
                answer = running.post("/v1/search", {"query": "grey owl", "mode": "dense"}).json()
                found = {hit["id"]: hit["scores"] for hit in answer["hits"]}
            assert found == {hit.document.id: dict(hit.scores) for hit in index.search("grey owl", mode="dense")}
        assert running.end() == 0


def test_every_mode_of_the_library_is_served(service):
    content = service.post("/v1/encode", {"input": "a"}).json()
    assert tuple(content["data"][0]) == MODES
