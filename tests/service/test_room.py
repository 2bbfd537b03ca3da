"""Large answers: how many bytes of them there are at a time, and how slowly a client may take one."""

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from fastapi import Request

from m3retriever import HashingEncoder
from m3retriever.serving import answers
from m3retriever.serving.batching import Encoded
from m3retriever.serving.opening import Served
from m3retriever.serving.pieces import PIECE, SMALL, Pieces, Room
from m3retriever.serving.refusals import Refused
from m3retriever.serving.schemas import EncodeRequest
from m3retriever.serving.service import Service
from m3retriever.serving.settings import Settings
from m3retriever.types import MODES, M3Vectors

from .conftest import heavy

WITH_LITTLE_ROOM = """
import sys
from m3retriever.serving.launch import serve
from m3retriever.serving.opening import Source
from m3retriever.serving.settings import Settings
settings = Settings(timeout=3, max_characters=2_000_000, max_answer_bytes=8 << 20)
say = lambda url: print(f"listening on {url} ", file=sys.stderr, flush=True)
serve(Source(model="hashing"), settings, port=0, on_listening=say)
"""


# -- the budget ------------------------------------------------------------------------------------


def test_what_one_answer_takes_another_cannot_have_until_it_is_given_back():
    room, one, other = Room(10 * SMALL), {}, {}
    assert room.take(one, 6 * SMALL)
    assert not room.take(other, 6 * SMALL)
    assert room.take(other, 4 * SMALL)
    assert room.taken == 10 * SMALL
    room.leave(one)
    room.leave(one)  # twice is once
    assert room.taken == 4 * SMALL
    assert room.take(one, 6 * SMALL)


def test_an_answer_larger_than_the_budget_is_made_alone_and_small_ones_beside_it():
    room, one, small, other = Room(10 * SMALL), {}, {}, {}
    assert room.take(small, SMALL)
    assert room.take(one, 50 * SMALL)
    assert room.take(small, SMALL)
    assert not room.take(other, SMALL + 1)
    assert room.take(one, 49 * SMALL), "what it turned out to need is less than it was let take"
    room.leave(one)
    assert (room.taken, one, small) == (0, {}, {})


def test_an_answer_that_turns_out_larger_than_there_is_room_for_takes_nothing():
    room, one, other = Room(10 * SMALL), {}, {}
    assert room.take(other, 6 * SMALL)
    assert room.take(one, 2 * SMALL)
    assert not room.take(one, 5 * SMALL)
    assert room.taken == 6 * SMALL


@pytest.mark.parametrize("way", [{"encoding_format": "columns"}, {}, *({"modes": [mode]} for mode in MODES)], ids=str)
@pytest.mark.parametrize("texts", [[""], [heavy(3_000)], [heavy(5, name=f"n{number}w") for number in range(200)]], ids=len)
def test_an_answer_is_no_longer_than_is_counted_on_and_not_much_shorter(texts, way):
    encoder, body = HashingEncoder(), EncodeRequest(input=texts, **way)
    vectors = encoder.encode_documents(texts)
    counted = answers.bytes_of(body, vectors)
    content = answers.encoded(Served(encoder, None, None), body, Encoded(vectors, 0))
    written = len(json.dumps(content, separators=(",", ":")))
    assert written <= counted
    assert counted < 2.5 * written or counted < SMALL


def test_the_longest_numbers_are_counted_on():
    row = np.array([[-1.1754943508222875e-38, -0.00010000000474974513]], np.float32)
    vectors = M3Vectors.from_rows(row, [{250_001: 1.1754943508222875e-38}], [np.repeat(row, 1_000, axis=0)])
    body = EncodeRequest(input="a")
    content = answers.encoded(Served(HashingEncoder(), None, None), body, Encoded(vectors, 0))
    assert len(json.dumps(content, separators=(",", ":"))) <= answers.bytes_of(body, vectors)


# -- the pace --------------------------------------------------------------------------------------


async def send_to(client_takes, pieces=20):
    """Send an answer to a client that needs so many seconds for each piece; how many it got before it was left."""
    taken = []

    async def send(message):
        await asyncio.sleep(client_takes(len(taken)))
        taken.extend([message["body"]] if message["type"] == "http.response.body" else [])

    body = b"x" * (pieces * PIECE)
    try:
        await Pieces(body, patience=0.4, slowest=PIECE / 0.05)({"type": "http"}, None, send)
    except asyncio.TimeoutError:
        return len(taken)
    assert b"".join(taken) == body
    return pieces


async def test_a_client_that_is_quick_enough_gets_everything():
    assert await send_to(lambda piece: 0.0) == 20


async def test_one_piece_may_take_as_long_as_the_patience():
    assert await send_to(lambda piece: 0.2 if piece == 5 else 0.0) == 20


async def test_a_client_that_takes_every_piece_in_time_and_is_too_slow_on_average_is_left():
    assert 1 < await send_to(lambda piece: 0.15) < 10  # 0.1 s late with each, 0.4 s in all


async def test_what_was_taken_quickly_buys_no_time_for_later():
    began = time.monotonic()
    assert await send_to(lambda piece: 0.0 if piece < 18 else 60.0) == 18
    assert time.monotonic() - began < 5


async def test_an_empty_answer_is_sent():
    assert await send_to(lambda piece: 0.0, pieces=0) == 0


# -- the service -----------------------------------------------------------------------------------


def gauge(numbers, name):
    return int(numbers.split(f"\nm3retriever_{name} ")[1].split()[0])


@asynccontextmanager
async def slow_client(running, words):
    """A client that asks for a large answer; what it reads is left to the caller."""
    body = json.dumps({"input": heavy(words), "encoding_format": "columns"}).encode()
    head = "POST /v1/encode HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=1)
    writer.write("\r\n".join([*head, "\r\n"]).encode() + body)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_while_a_large_answer_is_taken_slowly_other_large_ones_are_refused_until_the_client_is_left(start):
    running = start(command=(sys.executable, "-c", WITH_LITTLE_ROOM))
    large = {"input": heavy(4_000), "encoding_format": "columns"}
    async with running.async_client() as client, slow_client(running, 20_000) as (reader, _):  # an answer of 27 MB
        while not gauge((await client.get("/metrics")).text, "http_answer_bytes"):
            await asyncio.sleep(0.05)
        began = time.monotonic()
        refused = await client.post("/v1/encode", json=large)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "answers_under_way")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.post("/v1/encode", json={"input": "a"})).status_code == 200
        while gauge((await client.get("/metrics")).text, "http_answer_bytes") and time.monotonic() - began < 60:
            await asyncio.wait_for(reader.read(1024), 5)  # a kilobyte from time to time
            await asyncio.sleep(0.1)
        assert time.monotonic() - began < 30
        assert "a client did not take its answer and was left" in running.log
        assert (await client.post("/v1/encode", json=large)).status_code == 200


async def test_a_large_answer_takes_room_whatever_was_asked(start):
    code = WITH_LITTLE_ROOM.replace("Settings(timeout=3", "Settings(max_texts=5_000, timeout=10")
    running = start(command=(sys.executable, "-c", code))
    body = json.dumps({"input": [f"w{number}" for number in range(5_000)]}).encode()  # an answer of 6 MB and more
    head = "POST /v1/embeddings HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"
    _, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=1)
    writer.write("\r\n".join([*head, "\r\n"]).encode() + body)  # and nothing of the answer is read
    taken, ends = 0, time.monotonic() + 10
    async with running.async_client() as client:
        while not taken and time.monotonic() < ends:
            taken = gauge((await client.get("/metrics")).text, "http_answer_bytes")
            await asyncio.sleep(0.02)
    writer.transport.abort()
    assert taken > 4 * SMALL


def test_nobody_is_told_to_come_again_in_more_than_a_minute():
    service = Service(Settings(max_answer_bytes=SMALL), load=lambda: None)
    service._seconds = 3_600.0  # as if that were what requests have waited lately
    service.make_room(Request({"type": "http"}), 2 * SMALL)
    with pytest.raises(Refused) as refused:
        service.make_room(Request({"type": "http"}), 2 * SMALL)
    assert refused.value.headers["Retry-After"] == "60"
    service.close()


async def test_the_room_of_a_client_that_went_away_is_free_at_once(start):
    running = start(command=(sys.executable, "-c", WITH_LITTLE_ROOM))
    async with running.async_client() as client, slow_client(running, 20_000) as (_, writer):
        while not gauge((await client.get("/metrics")).text, "http_answer_bytes"):
            await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.5)
        ends = time.monotonic() + 2.5
        while (taken := gauge((await client.get("/metrics")).text, "http_answer_bytes")) and time.monotonic() < ends:
            await asyncio.sleep(0.05)
    assert taken == 0
