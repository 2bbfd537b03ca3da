"""RemoteEncoder over real HTTP: the service's own bits, patience with it, and no trust in what it answers."""

import base64
import gzip
import json
import logging
import os
import pickle
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import unicodedata
from collections import deque
from contextlib import contextmanager
from copy import deepcopy
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from m3retriever import (
    Document,
    EncoderMismatchError,
    HashingEncoder,
    InvalidArgumentError,
    M3Index,
    MiniEncoder,
    ModelLoadError,
    RemoteEncoder,
    ServiceError,
    Token,
    TruncationWarning,
    load_encoder,
)
from m3retriever.encoders.http import KEY_VARIABLE, LONGEST_WAIT, HttpService, Patience, _PassingError, checked_url
from m3retriever.encoders.remote import _Served
from m3retriever.testing import TEXTS, check_encoder
from m3retriever.wire import COLUMNS, to_columns

KEY = "k3y-that-nobody-may-see"
SECRET = "a text that no message may hold"
PAGE = Path(__file__).parents[1] / "docs" / "remote.md"


class Handler(BaseHTTPRequestHandler):
    """The contract of `m3retriever serve`, with an encoder of this process; `faults` are answered with first."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, asked):
        server = self.server
        server.seen.append((self.path, asked, dict(self.headers)))
        if server.faults and self.path != "/v1/models":
            server.faults.popleft()(self, asked)
        elif server.key and self.headers["Authorization"] != f"Bearer {server.key}":
            self.send(401, {"error": {"message": SECRET, "type": "Unauthorized"}})
        else:
            self.send(*server.reply(self.path, asked))

    def send(self, status, content, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Service(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, encoder, *, key=None, texts=64, characters=10_000, cut=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.encoder, self.key, self.cut = encoder, key, cut
        self.limits = {"texts": texts, "characters": characters}
        self.seen, self.faults = [], deque()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def encoded(self):
        """The texts of each request for vectors."""
        return [asked["input"] for path, asked, _ in self.seen if path == "/v1/encode"]

    def handle_error(self, *_):
        pass  # a client that went away

    def reply(self, path, asked):
        encoder = self.encoder
        said = {"precision": getattr(encoder, "precision", None), "dim": encoder.dim}
        if path == "/v1/models":
            model = {"id": encoder.name, "object": "model", "max_length": getattr(encoder, "max_length", None), **said}
            return 200, {"object": "list", "data": [{**model, "limits": self.limits}]}
        if path == "/v1/tokenize":
            tokens = [token._asdict() for token in encoder.tokenize(asked["input"])]
            return 200, {"model": encoder.name, "tokens": tokens}
        if path != "/v1/encode":
            return 404, {"error": {"message": "?", "type": "NotFound"}}
        encode = encoder.encode_queries if asked["kind"] == "query" else encoder.encode_documents
        vectors = to_columns(encode(asked["input"]))
        return 200, {"model": encoder.name, **said, "n": len(asked["input"]), "vectors": vectors, "truncated": self.cut}


@contextmanager
def served(encoder=None, **settings):
    service = Service(encoder or HashingEncoder(), **settings)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


@contextmanager
def remote(service, **settings):
    encoder = RemoteEncoder(service.url, **settings)
    try:
        yield encoder
    finally:
        encoder.close()


@pytest.fixture
def service():
    with served() as service:
        yield service


@pytest.fixture
def encoder(service):
    with remote(service) as encoder:
        yield encoder


@pytest.fixture
def quick(monkeypatch):
    """Waits between attempts that are too short to be felt."""
    monkeypatch.setattr("m3retriever.encoders.http.FIRST_WAIT", 0.001)


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def same(ours, theirs):
    return all(getattr(ours, name).tobytes() == getattr(theirs, name).tobytes() for name in COLUMNS)


# -- the same vectors ------------------------------------------------------------------------------


def test_the_encoder_of_a_service_fulfils_the_contract(encoder):
    check_encoder(encoder)
    assert (encoder.name, encoder.dim, encoder.precision, encoder.max_length) == ("hashing-256", 256, None, None)


def test_what_fits_one_request_has_the_service_s_own_bits(service, encoder):
    assert same(encoder.encode_documents(TEXTS), HashingEncoder().encode_documents(TEXTS))
    assert same(encoder.encode_queries(TEXTS), HashingEncoder().encode_queries(TEXTS))
    assert service.encoded == [TEXTS, TEXTS], "one request a call"
    assert [asked["kind"] for path, asked, _ in service.seen if path == "/v1/encode"] == ["document", "query"]


def test_a_query_that_comes_alone_is_asked_for_as_a_query(service, encoder):
    encoder.encode_queries(["red fox"])
    assert [asked["kind"] for path, asked, _ in service.seen if path == "/v1/encode"] == ["query"]


@pytest.mark.model
def test_a_real_model_gives_the_same_bits_here_and_there():
    texts = [f"the red fox {'jumps over the dog ' * (row % 7)}" for row in range(20)]
    local = MiniEncoder()
    with served(MiniEncoder()) as service, remote(service) as encoder:
        assert (encoder.name, encoder.precision, encoder.max_length) == (local.name, "fp32", 256)
        assert same(encoder.encode_documents(texts), local.encode_documents(texts))
        assert same(encoder.encode_queries(texts[:1]), local.encode_queries(texts[:1]))
        assert encoder.tokenize("the red fox") == local.tokenize("the red fox")


def test_a_long_list_is_sent_in_pieces_that_the_service_takes_and_comes_back_in_order():
    texts = [f"number {row} " * (1 + row % 5) for row in range(50)]
    with served(texts=7, characters=120) as service, remote(service, concurrency=3) as encoder:
        assert same(encoder.encode_documents(texts), HashingEncoder().encode_documents(texts))
        requests = service.encoded
    assert sorted(text for request in requests for text in request) == sorted(texts)
    assert len(requests) > 7
    assert all(len(request) <= 7 and sum(map(len, request)) <= 120 for request in requests)


@given(st.lists(st.text(max_size=12), max_size=20), st.integers(1, 5), st.integers(12, 30))
def test_pieces_hold_every_text_once_in_order_and_no_two_of_them_would_fit_together(texts, most, characters):
    pieces = list(_Served("m", 8, None, None, most, characters).pieces(texts))
    assert [text for piece in pieces for text in piece] == texts
    assert all(0 < len(piece) <= most and sum(map(len, piece)) <= characters for piece in pieces)
    for piece, following in pairwise(pieces):
        assert len(piece) == most or sum(map(len, [*piece, following[0]])) > characters


def test_a_character_that_stands_for_a_sentence_may_have_the_tokens_of_one():
    class Normalises(HashingEncoder):
        """Takes each character for a token, after the normalisation that BGE-M3's tokenizer makes."""

        def encode_documents(self, texts, *, progress=False):
            letters = [unicodedata.normalize("NFKC", text) for text in texts]
            return super().encode_documents([" ".join(f"{at}x{ord(one)}" for at, one in enumerate(text)) for text in letters])

    texts = ["\ufdfa" * 500]  # 18 characters each
    with served(Normalises()) as service, remote(service) as encoder:
        assert len(encoder.encode_documents(texts).colbert) == 9_000


def test_a_text_that_the_service_cannot_take_is_refused_before_anything_is_sent():
    with served(characters=10) as service, remote(service) as encoder:
        with pytest.raises(InvalidArgumentError, match="at most 10 characters in a request; the text at place 1 has 11"):
            encoder.encode_documents(["short", "12345678901"])
        assert service.encoded == []


def test_the_arrays_are_the_caller_s_own_and_a_query_is_sent_once(service, encoder):
    first = encoder.encode_queries(["red fox"])
    kept = first.copy()
    first.dense[:] = 7
    second = encoder.encode_queries(["red fox"])
    assert same(second, kept)
    second.colbert[:] = 7
    assert same(encoder.encode_queries(["red fox"]), kept)
    assert service.encoded == [["red fox"]]
    assert (encoder.cache_hits, encoder.cache_misses) == (2, 1)
    encoder.encode_documents(["red fox"]).dense[:] = 7


def test_cut_texts_are_counted_and_warn_each_time():
    with served(cut=1) as service, remote(service) as encoder:
        for _ in range(2):
            with pytest.warns(TruncationWarning, match="1 of 1 texts are longer than the model reads"):
                encoder.encode_queries(["long"])
        assert encoder.truncated == 2
        assert len(service.encoded) == 2


def test_threads_get_what_one_thread_gets(encoder):
    texts = [f"word{row} and {row % 7}" for row in range(120)]
    want, wrong = HashingEncoder().encode_documents(texts), []

    def work(start):
        wrong.extend(row for row in range(start, 120, 8) if not same(encoder.encode_queries([texts[row]]), want[row]))

    threads = [threading.Thread(target=work, args=[start]) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_no_list_of_texts_is_refused(encoder):
    with pytest.raises(InvalidArgumentError, match="write \\[text\\]"):
        encoder.encode_documents("a text")
    with pytest.raises(InvalidArgumentError, match="got int at place 1"):
        encoder.encode_queries(["a", 1])
    assert len(encoder.encode_documents(["lone \ud800 surrogate"])) == 1


def test_tokens_are_the_service_s(service, encoder):
    assert encoder.tokenize("red fox") == HashingEncoder().tokenize("red fox")
    assert isinstance(encoder.tokenize("red")[0], Token)
    service.faults.append(lambda handler, _: handler.send(501, {"error": {"message": SECRET, "type": "NotImplemented"}}))
    with pytest.raises(ServiceError, match=r"status 501, NotImplemented\): its model cannot do this"):
        encoder.tokenize("red fox")


# -- patience --------------------------------------------------------------------------------------


def status(code, **headers):
    return lambda handler, _: handler.send(code, {"error": {"message": SECRET, "type": "Busy"}}, **headers)


def half_a_body(handler, asked):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"model": ')
    handler.wfile.flush()
    handler.connection.close()
    handler.close_connection = True


def nothing(handler, asked):
    handler.connection.close()
    handler.close_connection = True


@pytest.mark.parametrize("fault", [status(429), status(502), status(503), status(504), half_a_body, nothing])
def test_what_passes_is_waited_out(service, encoder, quick, fault):
    service.faults.extend([fault] * 3)
    assert same(encoder.encode_documents(TEXTS), HashingEncoder().encode_documents(TEXTS))
    assert len(service.encoded) == 4


def test_patience_has_an_end(service, quick):
    with remote(service, retries=2) as encoder:
        service.faults.extend([status(503)] * 3)
        with pytest.raises(ServiceError, match=r"is not ready for more \(status 503\) \(asked 3 times\)") as raised:
            encoder.encode_documents([SECRET])
    assert raised.value.status == 503
    assert len(service.encoded) == 3
    assert SECRET not in str(raised.value)


def loading(handler, asked):
    handler.send(503, {"error": {"message": SECRET, "type": "not_ready"}})


def refused_in_half_a_sentence(handler, asked):
    handler.send_response(503)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"error": ')
    handler.wfile.flush()
    nothing(handler, asked)


def test_a_service_that_loads_its_model_again_is_waited_for_and_no_retries_are_used_up(service, quick):
    with remote(service, retries=1) as encoder:
        service.faults.extend([loading, status(429), *[loading] * 8])
        assert same(encoder.encode_documents(TEXTS), HashingEncoder().encode_documents(TEXTS))
        assert len(service.encoded) == 11
        service.faults.extend([loading, status(503), loading, status(503)])
        with pytest.raises(ServiceError, match=r"is not ready for more \(status 503\) \(asked 4 times\)$"):
            encoder.encode_documents(TEXTS)


def test_a_model_that_is_never_loaded_is_waited_for_until_the_deadline(service):
    with remote(service, retries=0, deadline=1) as encoder:
        service.faults.extend([loading] * 99)
        began = time.monotonic()
        words = r"is loading its model \(status 503\) \(asked \d+ times until the deadline of 1 s: give a larger deadline="
        with pytest.raises(ServiceError, match=words) as raised:
            encoder.encode_documents([SECRET])
        assert 0.7 <= time.monotonic() - began < 1.5
    assert SECRET not in str(raised.value)
    assert len(service.encoded) < 12, "it is asked seldom"


def test_a_busy_service_that_ends_before_it_has_said_why_is_asked_again(service, encoder, quick):
    service.faults.append(refused_in_half_a_sentence)
    assert same(encoder.encode_documents(TEXTS), HashingEncoder().encode_documents(TEXTS))


def test_a_certificate_that_is_not_trusted_is_nothing_that_passes(service):
    asked = HttpService(service.url.replace("http", "https"))
    with pytest.raises(_PassingError, match="cannot be reached") as raised:
        asked._attempt("GET", "/v1/models", None, 1000, time.monotonic() + 9)
    assert not raised.value.away
    with served() as gone:
        asked = HttpService(gone.url)
    with pytest.raises(_PassingError, match="cannot be reached") as raised:
        asked._attempt("GET", "/v1/models", None, 1000, time.monotonic() + 9)
    assert raised.value.away


@pytest.mark.parametrize("after", ["0.3", lambda: formatdate(time.time() + 2, usegmt=True)])
def test_retry_after_is_waited_for(service, encoder, quick, after):
    service.faults.append(status(429, Retry_After=after if isinstance(after, str) else after()))
    began = time.monotonic()
    encoder.encode_documents(["a"])
    assert time.monotonic() - began >= (0.3 if isinstance(after, str) else 0.9)


@pytest.mark.parametrize(
    "after", ["1e9", "-5", "soon", "9" * 400, "nan", "Fri, 32 Foo 2026", "Mon, 01 Jan 2024 00:00:00 -0000"]
)
def test_a_retry_after_that_is_no_time_is_passed_over(after):
    assert 0.125 <= _PassingError("busy", 429, after).wait(1) <= 0.25


def test_waits_double_and_are_never_longer_than_a_minute():
    waits = [_PassingError("busy", 429).wait(attempt) for attempt in (1, 4, 10_000)]
    assert 0.125 <= waits[0] <= 0.25
    assert 1 <= waits[1] <= 2
    assert waits[2] == LONGEST_WAIT == _PassingError("busy", 429, "999999").wait(1)


def test_a_wait_beyond_the_deadline_is_not_begun(service):
    with remote(service, deadline=2) as encoder:
        service.faults.append(status(429, Retry_After=30))
        began = time.monotonic()
        with pytest.raises(ServiceError, match="status 429"):
            encoder.encode_documents(["a"])
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("code", "says"), [(400, "own log"), (401, KEY_VARIABLE), (404, "is it an"), (413, "too large"), (500, "")]
)
def test_a_refusal_is_not_asked_again(service, encoder, code, says):
    service.faults.extend([status(code)] * 2)
    with pytest.raises(ServiceError, match=f"status {code}, Busy.*{says}") as raised:
        encoder.encode_documents([SECRET])
    assert len(service.encoded) == 1
    assert SECRET not in str(raised.value)
    assert raised.value.status == code


def silent(handler, asked):
    time.sleep(1)


def dripping(handler, asked):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("fault", [silent, dripping])
def test_an_answer_that_takes_too_long_is_one_error(service, fault):
    with remote(service, timeout=0.2) as encoder:
        service.faults.append(fault)
        began = time.monotonic()
        with pytest.raises(ServiceError, match="took longer than 0.2 s to answer: give a larger timeout="):
            encoder.encode_documents(["a"])
        assert time.monotonic() - began < 0.9
    assert len(service.encoded) == 1, "asked again, it would only have more to do"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue of connections is refused")
def test_a_machine_that_does_not_answer_at_all_is_not_waited_for_as_long_as_for_an_answer(monkeypatch):
    monkeypatch.setattr("m3retriever.encoders.http.CONNECT_SECONDS", 0.3)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        began = time.monotonic()
        with pytest.raises(ModelLoadError, match="cannot be reached"):
            RemoteEncoder(f"http://127.0.0.1:{full.getsockname()[1]}", retries=0, timeout=6)
        assert time.monotonic() - began < 3


def test_an_answer_that_the_deadline_cuts_off_says_so(service):
    with remote(service, deadline=0.3) as encoder:
        service.faults.append(dripping)
        with pytest.raises(ServiceError, match="did not answer within the deadline of 0.3 s: give a larger deadline="):
            encoder.encode_documents(["a"])


def test_closing_ends_a_wait_and_later_calls(service):
    with remote(service) as encoder:
        service.faults.append(status(429, Retry_After=50))
        threading.Timer(0.2, encoder.close).start()
        for _ in range(2):
            with pytest.raises(ServiceError, match="was closed here"):
                encoder.encode_documents(["a"])


def test_a_service_that_is_loading_its_model_is_waited_for_at_the_start(service, quick, monkeypatch):
    answers, real = deque([503] * 9), service.reply
    monkeypatch.setattr(service, "reply", lambda *asked: (answers.popleft(), {}) if answers else real(*asked))
    with remote(service, retries=1) as encoder:
        assert encoder.name == "hashing-256"
    answers.extend([502] * 9)
    with pytest.raises(ModelLoadError, match=r"status 502\) \(asked 2 times\)$"):
        RemoteEncoder(service.url, retries=1)
    answers.clear()
    answers.extend([503] * 999)
    with pytest.raises(ModelLoadError, match=r"status 503"):
        RemoteEncoder(service.url, retries=1, deadline=0.2)


def test_a_service_that_is_not_there_says_how_to_start_one(quick):
    with served() as gone:
        url = gone.url
    with pytest.raises(ModelLoadError, match=rf"{url} cannot be reached \(asked 5 times\); start one with: m3retriever serve"):
        RemoteEncoder(url)


# -- another model ---------------------------------------------------------------------------------


def test_a_service_that_was_restarted_with_another_model_gives_no_vectors():
    with served(texts=2) as service, remote(service, concurrency=1) as encoder:

        def restart(handler, asked):
            handler.send(*service.reply(handler.path, asked))
            service.encoder = HashingEncoder(dim=128)

        service.faults.append(restart)
        with pytest.raises(
            EncoderMismatchError, match="another model now: want hashing-256, 256, None; got hashing-128, 128, None"
        ):
            encoder.encode_documents(list("abcdef"))
        assert len(service.encoded) == 2, "the third is not sent any more"
        with pytest.raises(EncoderMismatchError, match="another model now"):
            encoder.encode_queries(["a"])
        with pytest.raises(EncoderMismatchError, match="another model now"):
            encoder.tokenize("a")


def test_the_model_that_is_wanted_is_checked_at_the_start(service):
    with pytest.raises(EncoderMismatchError, match=r"want the model 'bge-m3-1234'; the service at .* has 'hashing-256'"):
        RemoteEncoder(service.url, model="bge-m3-1234")
    with remote(service, model="hashing-256") as encoder:
        assert encoder.name == "hashing-256"


# -- hostile answers -------------------------------------------------------------------------------


def instead(**changes):
    """The right answer, but for some of it: a value, or a function of the texts."""

    def fault(handler, asked):
        code, answer = handler.server.reply(handler.path, asked)
        handler.send(code, {**answer, **{key: of(asked["input"]) for key, of in changes.items()}})

    return fault


def raw(body, **headers):
    return lambda handler, _: handler.send(200, body, **headers)


def with_array(name, change):
    def vectors(texts):
        columns = to_columns(HashingEncoder().encode_documents(texts))
        array = np.frombuffer(base64.b64decode(columns[name]["data"]), COLUMNS[name]).reshape(columns[name]["shape"])
        array = np.ascontiguousarray(change(array.copy()), COLUMNS[name])
        data = base64.b64encode(array.tobytes()).decode()
        return {**columns, name: {"dtype": COLUMNS[name], "shape": list(array.shape), "data": data}}

    return vectors


def alike(dtype, shape):
    return {name: {"dtype": dtype, "shape": shape, "data": ""} for name in COLUMNS}


def with_nan(array):
    array[-1] = np.nan
    return array


HOSTILE = {
    "not JSON": (raw(SECRET.encode()), "not JSON"),
    "deep JSON": (raw(b"[" * 100_000), "not JSON"),
    "NaN in JSON": (raw(b'{"model": NaN}'), "not JSON"),
    "a list": (raw(b"[]"), "does not say which model"),
    "no model": (instead(model=lambda texts: None), "does not say which model"),
    "a model that is a text": (instead(model=lambda texts: texts[0]), "does not say which model"),
    "no vectors": (instead(vectors=lambda texts: None), "no vectors"),
    "texts as vectors": (instead(vectors=lambda texts: texts), "no vectors"),
    "wrong columns": (instead(vectors=lambda texts: alike(texts[0], [1])), "no vectors"),
    "a shape beyond memory": (instead(vectors=lambda texts: alike("<f4", [10**9, 10**9])), "no vectors"),
    "too few": (instead(vectors=lambda texts: to_columns(HashingEncoder().encode_documents(texts[1:]))), "of 1 texts"),
    "too many": (instead(vectors=lambda texts: to_columns(HashingEncoder().encode_documents(texts * 2))), "of 4 texts"),
    "another dimension": (instead(vectors=lambda texts: to_columns(HashingEncoder(8).encode_documents(texts))), "8 dimensions"),
    "NaN": (instead(vectors=with_array("dense", with_nan)), "text 1.*dense must be finite"),
    "infinite tokens": (instead(vectors=with_array("colbert", lambda a: a * np.float32(np.inf))), "must be finite"),
    "falling ids": (instead(vectors=with_array("sparse_ids", lambda ids: ids[::-1])), "must ascend"),
    "negative weights": (instead(vectors=with_array("sparse_weights", lambda weights: -weights)), ">= 0"),
    "an impossible cut": (instead(truncated=lambda texts: 10**6), "impossible number"),
    "a cut that is a text": (instead(truncated=lambda texts: texts[0]), "impossible number"),
    "compressed": (raw(gzip.compress(b" " * 10**7), Content_Encoding="gzip"), "compressed"),
    "too much": (raw(b" " * 4_000_000), "sends more than"),
    "a redirect": (lambda handler, _: handler.send(307, b"", Location="http://127.0.0.1/"), "redirect"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_answer_is_one_clear_error_and_no_message_repeats_a_text(service, encoder, caplog, kind):
    fault, says = HOSTILE[kind]
    service.faults.append(fault)
    with caplog.at_level(logging.DEBUG), pytest.raises(ServiceError, match=says) as raised:
        encoder.encode_documents([SECRET, "another text"])
    error, messages = raised.value, [caplog.text]
    while error is not None:
        messages.append(f"{error} {error!r}")
        error = error.__cause__
    assert not any(SECRET in message for message in messages)
    assert same(encoder.encode_documents(TEXTS), HashingEncoder().encode_documents(TEXTS)), "the next call works"


def test_a_body_without_end_is_read_no_further_than_it_may_be_long(service, encoder):
    sent = []

    def endless(handler, _):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            while len(sent) < 2000:
                handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent.append(0x10000)
        except OSError:
            pass
        handler.close_connection = True

    service.faults.append(endless)
    with pytest.raises(ServiceError, match="more than an answer to this can have"):
        encoder.encode_documents(["a"])
    time.sleep(0.2)
    assert sum(sent) < 30_000_000, "what the system buffers, and not what was on offer"


@pytest.mark.parametrize(
    "change",
    [
        {"data": []},
        {"data": None},
        {"id": SECRET},
        {"id": ""},
        {"dim": 0},
        {"dim": 10**9},
        {"dim": True},
        {"precision": 7},
        {"max_length": -1},
        {"limits": {}},
        {"limits": {"texts": 0, "characters": 5}},
        {"limits": {"texts": "many", "characters": 5}},
    ],
)
def test_a_service_that_says_no_model_is_not_loaded(service, monkeypatch, change):
    code, answer = service.reply("/v1/models", {})
    wrong = change if "data" in change else {"data": [{**answer["data"][0], **change}]}
    monkeypatch.setattr(service, "reply", lambda path, asked: (code, wrong))
    with pytest.raises(ModelLoadError, match="does not say which model it has: want `m3retriever serve`") as raised:
        RemoteEncoder(service.url)
    assert SECRET not in str(raised.value)


# -- addresses and keys ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:7860",
        "ftp://host",
        "http://",
        "http://host?key=1",
        "http://host#x",
        "http://ho st",
        "",
        7,
        "file:///etc",
        "http://h:99999",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidArgumentError, match="a service's address is"):
        RemoteEncoder(url)


def test_an_address_with_a_password_is_refused_unsent_and_unrepeated(service):
    with pytest.raises(InvalidArgumentError, match="without a user and a password") as raised:
        RemoteEncoder(service.url.replace("//", f"//user:{KEY}@"))
    assert KEY not in str(raised.value)
    assert service.seen == []


def test_an_address_keeps_its_prefix_and_loses_its_last_slash():
    assert checked_url("https://Host:8443/m3/") == "https://host:8443/m3"
    assert checked_url("http://[::1]:7860") == "http://[::1]:7860"


@pytest.mark.parametrize("url", ["http://10.0.0.7:7860", "http://encoder:7860", "http://0.0.0.0:7860"])
def test_a_key_does_not_travel_in_the_clear(url):
    with pytest.raises(InvalidArgumentError, match="in the clear to .*: want https") as raised:
        RemoteEncoder(url, api_key=KEY)
    assert KEY not in str(raised.value)
    HttpService(url, api_key=KEY, allow_insecure=True)
    HttpService(url)
    for protected in (
        "https://encoder",
        "http://localhost:1",
        "http://localhost.localdomain:1",
        "http://127.8.8.8:1",
        "http://[::1]:1",
    ):
        HttpService(protected, api_key=KEY)


def test_a_key_is_sent_and_is_nowhere_to_be_read(service, monkeypatch, caplog):
    service.key = KEY
    with pytest.raises(ModelLoadError, match=rf"status 401, Unauthorized\): it wants a key.*: set {KEY_VARIABLE}"):
        RemoteEncoder(service.url)
    with caplog.at_level(logging.DEBUG), remote(service, api_key=KEY) as encoder:
        encoder.encode_documents(["a"])
        service.key = "changed"
        with pytest.raises(ServiceError, match="it wants a key, or another one") as raised:
            encoder.encode_documents(["b"])
        with pytest.raises(InvalidArgumentError, match="keys do not travel in pickles"):
            pickle.dumps(encoder)
        assert KEY not in repr(encoder) + str(raised.value) + caplog.text
    service.key = KEY
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with remote(service) as encoder:
        assert KEY.encode() not in pickle.dumps(encoder)
        again = pickle.loads(pickle.dumps(encoder))
        assert same(again.encode_documents(["a"]), encoder.encode_documents(["a"]))
        again.close()


def test_a_certificate_that_nobody_vouches_for_gets_no_key_and_one_that_is_trusted_does():
    authority, presented, trusting = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(presented)
    authority.configure_trust(trusting)
    with served(key=KEY) as service:
        service.socket = presented.wrap_socket(service.socket, server_side=True)
        url = service.url.replace("http", "https")
        with pytest.raises(ModelLoadError, match="cannot be reached"):
            RemoteEncoder(url, api_key=KEY, retries=0)
        assert service.seen == []
        encoder = RemoteEncoder(url, api_key=KEY, tls=trusting)
        assert same(encoder.encode_documents(TEXTS), HashingEncoder().encode_documents(TEXTS))
        with pytest.raises(InvalidArgumentError, match="keys do not travel in pickles"):
            pickle.dumps(encoder)
        encoder.close()


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", 7])
def test_a_key_that_no_header_can_hold_is_refused_unrepeated(key):
    with pytest.raises(InvalidArgumentError, match="a key is ASCII without blanks; this one is not$"):
        RemoteEncoder("https://host", api_key=key)


def test_proxies_of_the_environment_are_not_used(service, monkeypatch):
    with served() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with remote(service) as encoder:
            encoder.encode_documents(["a"])
        assert proxy.seen == []


def test_a_redirect_leads_nowhere(service, encoder):
    with served() as elsewhere:
        service.faults.append(lambda handler, _: handler.send(308, b"", Location=elsewhere.url + "/v1/encode"))
        with pytest.raises(ServiceError, match="a redirect .status 308., which is not followed"):
            encoder.encode_documents(["a"])
        assert elsewhere.seen == []


@pytest.mark.parametrize(
    "settings",
    [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}, {"retries": True}, {"deadline": "1"}, {"concurrency": 0}],
)
def test_settings_without_a_meaning_are_refused(service, settings):
    with pytest.raises(InvalidArgumentError, match=next(iter(settings))):
        RemoteEncoder(service.url, **settings)
    assert Patience() == Patience(60.0, 4, 300.0)


# -- processes -------------------------------------------------------------------------------------


def test_a_copy_is_the_encoder_itself_and_a_pickle_asks_for_the_same_model(service, encoder):
    assert deepcopy(encoder) is encoder
    stored = pickle.dumps(encoder)
    service.encoder = HashingEncoder(dim=8)
    with pytest.raises(EncoderMismatchError, match="want the model 'hashing-256'"):
        pickle.loads(stored)


FORK = """
import os, sys
from m3retriever import HashingEncoder, RemoteEncoder
encoder = RemoteEncoder(sys.argv[1])
encoder.encode_documents(["before"])
child = os.fork()
want = HashingEncoder().encode_documents(["after"]).dense.tobytes()
right = all(encoder.encode_documents(["after"]).dense.tobytes() == want for _ in range(20))
if child == 0:
    os._exit(0 if right else 1)
sys.exit(0 if right and os.waitpid(child, 0)[1] == 0 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_asks_over_connections_of_its_own(service):
    done = subprocess.run([sys.executable, "-W", "error", "-c", FORK, service.url], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


LIGHT = """
import sys
from m3retriever import RemoteEncoder
RemoteEncoder(sys.argv[1]).encode_documents(["a"])
sys.exit(", ".join({"torch", "transformers", "FlagEmbedding", "chromadb"} & set(sys.modules)))
"""


def test_no_torch_is_loaded_for_a_model_that_runs_elsewhere(service):
    done = subprocess.run([sys.executable, "-W", "error", "-c", LIGHT, service.url], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""


# -- as a model ------------------------------------------------------------------------------------


def test_an_address_is_a_model_s_name(service):
    encoder = load_encoder(service.url)
    assert isinstance(encoder, RemoteEncoder)
    encoder.close()
    with pytest.raises(InvalidArgumentError, match="a service has chosen how its model computes; got 'int8', None"):
        load_encoder(service.url, "int8")


def test_an_index_made_through_a_service_opens_with_the_same_model_here_and_keeps_no_address(service, tmp_path):
    with M3Index.open(tmp_path / "index", model=service.url) as index:
        index.add([Document("fox", "the red fox"), Document("whale", "a blue whale")])
        there = index.search("red fox")
        index.encoder.close()
    with pytest.raises(InvalidArgumentError, match="address, as model="):
        M3Index.open(tmp_path / "index")
    with M3Index.open(tmp_path / "index", model="hashing") as index:
        assert index.search("red fox") == there
        index.add([Document("owl", "a grey owl")])
    asked = len(service.seen)
    with M3Index.open(tmp_path / "index") as index:  # a local model was there last, and its name is kept
        assert isinstance(index.encoder, HashingEncoder)
    assert len(service.seen) == asked
    with M3Index.open(tmp_path / "index", model=service.url) as index:
        index.add([Document("cat", "a black cat")])
        index.encoder.close()
    with M3Index.open(tmp_path / "index") as index:
        assert isinstance(index.encoder, HashingEncoder), "writing through a service does not change it"
    content = b"".join(path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file())
    assert service.url.encode() not in content


# -- `m3retriever serve` itself --------------------------------------------------------------------


@contextmanager
def serving(folder, *arguments, port=0, **variables):
    """(process, address) of a service."""
    command = [str(Path(sys.executable).with_name("m3retriever")), "serve", "--port", str(port), *arguments]
    log = folder / f"serve-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **variables})
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"listening on (http://\S+)", log.read_text(encoding="utf-8"))):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.model
def test_the_real_service_gives_the_bits_of_its_model(tmp_path):
    texts, local = [f"the red fox {'jumps over the dog ' * (row % 7)}" for row in range(40)], MiniEncoder()
    with serving(tmp_path, "--model", "mini", **{KEY_VARIABLE: KEY}) as (_, url):
        with pytest.raises(ModelLoadError, match="status 401"):
            RemoteEncoder(url)
        encoder = RemoteEncoder(url, api_key=KEY, retries=0)  # while it loads its model
        assert (encoder.name, encoder.dim, encoder.precision, encoder.max_length) == (local.name, 384, "fp32", 256)
        assert same(encoder.encode_documents(texts), local.encode_documents(texts))
        for text in texts[:7]:
            assert same(encoder.encode_queries([text]), local.encode_queries([text]))
        assert encoder.tokenize("the red fox") == local.tokenize("the red fox")
        with pytest.warns(TruncationWarning, match="1 of 2 texts are longer than 256 tokens"):
            encoder.encode_documents(["word " * 400, "short"])
        encoder.close()


def test_the_real_service_is_held_to_the_contract_and_shares_an_index(tmp_path):
    with serving(tmp_path, "--model", "hashing", "--max-texts", "4", "--max-characters", "60") as (_, url):
        encoder = RemoteEncoder(url)
        check_encoder(encoder)
        texts = [f"number {row}" for row in range(30)]
        assert same(encoder.encode_documents(texts), HashingEncoder().encode_documents(texts))
        with M3Index.open(tmp_path / "index", model=encoder) as index:
            index.add([Document(str(row), text) for row, text in enumerate(texts)])
            there = index.search("number 7", k=5)
        with M3Index.open(tmp_path / "index", model="hashing") as index:
            assert index.search("number 7", k=5) == there
        encoder.close()


def test_a_real_service_whose_queue_is_full_is_waited_for(tmp_path):
    texts, wrong = [f"word{row} " * 50 for row in range(24)], []
    with serving(tmp_path, "--model", "hashing", "--queue", "1") as (_, url):
        encoder = RemoteEncoder(url, retries=50)

        def work(text):
            if not same(encoder.encode_documents([text]), HashingEncoder().encode_documents([text])):
                wrong.append(text)

        threads = [threading.Thread(target=work, args=[text]) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        encoder.close()
    assert wrong == []


def test_a_real_service_that_is_killed_in_the_middle_and_started_again_later_is_found_again(tmp_path):
    texts, answer = [f"number {row}" for row in range(2000)], []
    with serving(tmp_path, "--model", "hashing", "--max-texts", "1") as (process, url):
        encoder = RemoteEncoder(url)
        thread = threading.Thread(target=lambda: answer.append(encoder.encode_documents(texts)))
        thread.start()
        time.sleep(0.5)
        process.kill()
        process.wait()
        assert thread.is_alive(), "else nothing was under way"
        time.sleep(8)  # twice what four retries take
        port = url.rsplit(":", 1)[1]
        with serving(tmp_path, "--model", "hashing", "--max-texts", "1", port=int(port)):
            thread.join()
        encoder.close()
    assert same(answer[0], HashingEncoder().encode_documents(texts))


def test_a_real_service_that_stays_away_is_given_up_at_the_deadline(tmp_path):
    with serving(tmp_path, "--model", "hashing") as (process, url):
        encoder = RemoteEncoder(url, deadline=3)
        process.kill()
        process.wait()
        began = time.monotonic()
        with pytest.raises(ServiceError, match=r"cannot be reached \(asked \d+ times until the deadline of 3 s: give a larger"):
            encoder.encode_documents(["after"])
        assert 2.4 < time.monotonic() - began < 4
        encoder.close()


def test_the_page_s_code_runs(service, tmp_path):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert "http://127.0.0.1:7860" in code
    code = code.replace("http://127.0.0.1:7860", service.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.split() == ["hashing-256", "fox"], done.stderr
