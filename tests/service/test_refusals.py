"""What is refused, with which status, always as the same JSON and never with a traceback."""

import json
import socket
import time

import pytest

from m3retriever.serving.bodies import DEPTH, parsed
from m3retriever.serving.refusals import Refused

JSON = {"Content-Type": "application/json"}
KEY = "a-secret-of-the-tests"


def error_of(answer):
    content = answer.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"message", "type"}
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    return content["error"]


def post_raw(service, path, raw, **headers):
    with service.client() as client:
        return client.post(path, content=raw, headers={**JSON, **headers})


NO_JSON = {
    "nothing": b"",
    "half": b'{"input": "a"',
    "no UTF-8": b'{"input": "\xff"}',
    "NaN": b'{"query": "a", "threshold": NaN}',
    "Infinity": b'{"query": "a", "threshold": -Infinity}',
    "a name twice": b'{"input": "a", "input": "b"}',
    "a lone surrogate": b'{"input": "a\\ud800"}',
    "a lone surrogate as a name": b'{"where": {"\\udfff": 1}, "query": "a"}',
    "a number of 5,000 digits": b'{"query": "a", "k": ' + b"9" * 5_000 + b"}",
    "depth of 100,000": b'{"query": "a", "where": ' + b'{"$and": [' * 100_000,
    "depth beyond the limit": b'{"query": "a", "where": {"a": ' + b"[" * DEPTH + b"1" + b"]" * DEPTH + b"}}",
    "a list": b"[1]",
    "a text": b'"a"',
    "null": b"null",
}


@pytest.mark.parametrize("name", NO_JSON)
@pytest.mark.parametrize("path", ["encode", "search"])
def test_what_is_no_strict_json_is_refused(service, path, name):
    answer = post_raw(service, f"/v1/{path}", NO_JSON[name])
    assert (answer.status_code, error_of(answer)["type"]) == (400, "invalid_request")


def test_lists_may_be_as_deep_as_is_said_and_no_deeper():
    parsed(b"[" * DEPTH + b"]" * DEPTH)
    with pytest.raises(Refused, match=f"at most {DEPTH} deep"):
        parsed(b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1))


def test_many_names_of_which_one_comes_twice_are_refused_at_once(service):
    names = ", ".join(f'"n{number}": 1' for number in range(200_000))
    began = time.monotonic()
    answer = post_raw(service, "/v1/search", f'{{"query": "a", "where": {{{names}, "n0": 1}}}}'.encode())
    assert "twice" in error_of(answer)["message"]
    assert time.monotonic() - began < 10  # looking for the name among all others would take minutes


WRONG = {
    "/v1/encode": [{}, {"input": 1}, {"input": [1]}, {"input": "a", "kind": "x"}, {"input": "a", "more": 1}, {"input": None}],
    "/v1/tokenize": [{"input": ["a"]}, {"input": "a", "kind": "query"}],
    "/v1/similarity": [{"pairs": []}, {"pairs": [["a"]]}, {"pairs": [["a", "b", "c"]]}, {"pairs": "ab"}, {"pairs": [["a", 1]]}],
    "/v1/search": [
        {"query": "a", "k": 0}, {"query": "a", "k": 1001}, {"query": "a", "k": True}, {"query": "a", "k": "3"},
        {"query": "a", "mode": "lexical"}, {"query": "a", "weights": [1, 2]}, {"query": "a", "weights": [0, 0, 0]},
        {"query": "a", "weights": {"dense": -1}}, {"query": "a", "threshold": "often"}, {"query": "a", "threshold": "p>=0.5"},
        {"query": "a", "where": {"$like": 1}}, {"query": "a", "where_document": {"$regex": "("}}, {"query": "a", "where": []},
        {"query": "a", "mode": "dense", "weights": [1, 1, 1]}, {"query": ["a"]}, {"query": "a", "profile": "/etc/passwd"},
    ],
    "/v1/explain": [{"query": "a"}, {"query": "a", "id": 3}],
    "/v1/rerank": [{"query": "a", "documents": []}, {"query": "a", "documents": ["b"], "top_n": 0}, {"documents": ["b"]}],
    "/v1/embeddings": [{"input": []}, {"input": "a", "encoding_format": "int8"}, {"input": "a", "dimensions": "256"}],
}  # fmt: skip


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in WRONG.items() for body in bodies])
def test_a_body_that_means_nothing_is_refused_with_a_reason(service, path, body):
    answer = service.post(path, body)
    assert answer.status_code == 400, answer.text
    assert len(error_of(answer)["message"]) > 10


def test_a_refusal_names_what_is_wrong_and_does_not_repeat_a_long_value(service):
    answer = service.post("/v1/encode", {"input": "a", "kind": "x" * 100_000, "other": "y" * 100_000})
    message = error_of(answer)["message"]
    assert "kind" in message
    assert "other" in message
    assert len(message) < 1_000


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data; boundary=x"])
def test_a_body_that_is_not_said_to_be_json_is_refused(service, kind):
    answer = post_raw(service, "/v1/encode", b'{"input": "a"}', **{"Content-Type": kind})
    assert (answer.status_code, error_of(answer)["type"]) == (415, "unsupported_media_type")


def test_json_with_a_charset_is_taken(service):
    answer = post_raw(service, "/v1/encode", b'{"input": "a"}', **{"Content-Type": "application/json; charset=utf-8"})
    assert answer.status_code == 200


def test_paths_and_methods_that_are_none_are_said_in_json(service):
    assert error_of(service.get("/v1/nothing"))["type"] == "not_found"
    answer = service.get("/v1/encode")
    assert (answer.status_code, answer.headers["allow"], error_of(answer)["type"]) == (405, "POST", "method_not_allowed")
    assert service.get("/docs").status_code == 404  # it would fetch code from elsewhere


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_may_be_asked_for_without_its_body(service, path):
    with service.client() as client:
        head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(whole.content)))


# -- sizes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(start, index_path):
    return start("--path", str(index_path), "--max-texts", "3", "--max-characters", "50", "--timeout", "2")


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        ("encode", {"input": ["a"] * 4}, "3 texts"),
        ("encode", {"input": "a" * 51}, "50 characters"),
        ("embeddings", {"input": ["a"] * 4}, "3 texts"),
        ("tokenize", {"input": "a" * 51}, "50 characters"),
        ("similarity", {"pairs": [["a", "b"], ["c", "d"]]}, "3 texts"),
        ("rerank", {"query": "a", "documents": ["b", "c", "d"]}, "3 texts"),
        ("search", {"query": "a" * 51}, "50 characters"),
        ("explain", {"query": "a", "id": "a" * 51}, "50 characters"),
    ],
)
def test_more_than_a_request_may_have_is_refused(small, path, body, what):
    answer = small.post(f"/v1/{path}", body)
    assert (answer.status_code, error_of(answer)["type"]) == (413, "too_large")
    assert f"at most {what}" in error_of(answer)["message"]


def test_token_vectors_of_long_texts_are_not_sent_as_numbers(service):
    texts = ["red fox " * 1_250] * 2
    assert service.post("/v1/encode", {"input": texts}).status_code == 200
    answer = service.post("/v1/encode", {"input": [*texts, "a"]})
    assert (answer.status_code, error_of(answer)["type"]) == (413, "too_large")
    assert "20,000 characters are sent as rows; got 20,001: ask for columns, or fewer texts" in error_of(answer)["message"]
    for way in ({"encoding_format": "columns"}, {"modes": ["dense", "sparse"]}):
        assert service.post("/v1/encode", {"input": [*texts, "a"], **way}).status_code == 200


def test_texts_at_the_limit_fit_however_they_are_escaped(small):
    raw = json.dumps({"input": ["🦊" * 25, "é" * 25]}).encode()
    assert len(raw) > 300 + 150  # \ud83e\udd8a: twelve bytes a character
    assert post_raw(small, "/v1/encode", raw).status_code == 200


def test_a_body_that_is_too_long_is_refused_before_it_is_read(small):
    with socket.create_connection(("127.0.0.1", int(small.url.rpartition(":")[2])), timeout=30) as client:
        client.sendall(b"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 99999999999\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_refused_when_it_is_too_long(small):
    with small.client() as client:
        answer = client.post("/v1/encode", content=(b" " * 65_536 for _ in range(100)), headers=JSON)
    assert (answer.status_code, error_of(answer)["type"]) == (413, "too_large")


def test_a_body_that_does_not_come_is_not_waited_for(small):
    with socket.create_connection(("127.0.0.1", int(small.url.rpartition(":")[2])), timeout=30) as client:
        client.sendall(b"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(b'Content-Length: 100\r\n\r\n{"in')
        assert client.recv(4096).startswith(b"HTTP/1.1 408 ")


# -- who gets in -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(start, index_path):
    return start("--path", str(index_path), M3RETRIEVER_API_KEY=KEY)


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer", "Bearer \u00e9"])
@pytest.mark.parametrize("path", ["/v1/models", "/openapi.json", "/v1/nothing"])
def test_without_the_key_nobody_gets_in(locked, path, given):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    answer = locked.get(path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"], error_of(answer)["type"]) == (401, "Bearer", "unauthorized")


def test_the_key_opens_and_is_not_logged(locked):
    headers = {"Authorization": f"Bearer {KEY}"}
    assert locked.get("/v1/models", headers=headers).status_code == 200
    assert locked.post("/v1/search", {"query": "fox"}, headers=headers).json()["hits"]
    assert locked.get("/v1/models", headers={"Authorization": f"bearer  {KEY}"}).status_code == 200
    assert KEY not in locked.log


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_and_metrics_need_no_key(locked, path):
    assert locked.get(path).status_code == 200


def test_openapi_says_that_a_key_is_wanted_where_one_is(locked, service):
    headers = {"Authorization": f"Bearer {KEY}"}
    assert locked.get("/openapi.json", headers=headers).json()["paths"]["/v1/search"]["post"]["security"] == [{"key": []}]
    assert "security" not in service.get("/openapi.json").json()["paths"]["/v1/search"]["post"]


@pytest.mark.parametrize("host", ["example.org", "example.org:80", "127.0.0.1.example.org", "", "[::1].example.org"])
def test_a_service_of_this_machine_answers_to_no_foreign_name(service, host):
    answer = service.get("/v1/models", headers={"Host": host})
    assert (answer.status_code, error_of(answer)["type"]) == (421, "wrong_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:7860"])
def test_it_answers_to_its_own(service, host):
    assert service.get("/v1/models", headers={"Host": host}).status_code == 200


def test_no_page_of_another_site_may_read_answers(service):
    with service.client() as client:
        asked = client.options("/v1/search", headers={"Origin": "https://example.org", "Access-Control-Request-Method": "POST"})
        answer = client.post("/v1/search", json={"query": "a"}, headers={"Origin": "https://example.org"})
    assert asked.status_code == 405
    assert not [name for name in (*asked.headers, *answer.headers) if name.startswith("access-control")]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_log_says_who_asked_and_not_who_they_say_they_are(service):
    told = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-IP": "203.0.113.9"}
    assert service.get("/v1/models?who", headers=told).status_code == 200
    assert "203.0.113.9" not in service.log
    assert "127.0.0.1" in next(line for line in service.log.splitlines() if "GET /v1/models" in line)


def test_the_log_has_paths_and_statuses_and_no_query_string_or_text(service):
    service.get("/v1/models?note=nobody-should-see-this")
    service.post("/v1/search", {"query": "unmistakable words", "where": {"tenant": "unmistakable tenant"}})
    service.post("/v1/search", {"query": "unmistakable words", "where": {"$unmistakable": 1}})
    lines = service.log
    assert "GET /v1/models HTTP/1.1" in lines
    assert '"POST /v1/search HTTP/1.1" 200' in lines
    assert "nobody-should-see-this" not in lines
    assert "unmistakable" not in lines
