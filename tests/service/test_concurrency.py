"""Many clients at once: everyone gets the library's own bits, nobody gets another's document, and too many are told so."""

import asyncio
import json
import random
import time

import httpx
import pytest

from m3retriever import HashingEncoder, M3Index, rerank
from m3retriever.types import Document
from m3retriever.wire import COLUMNS, from_columns

from .conftest import SLOW, TENANTS, WORDS, heavy

CLIENTS = 32
ROUNDS = 6


def same_bits(ours, theirs):
    return all(getattr(ours, name).tobytes() == getattr(theirs, name).tobytes() for name in COLUMNS)


def some_text(chance):
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))


def hits_of(content):
    return [(hit["id"], hit["score"], hit["scores"]) for hit in content["hits"]]


def hits_of_library(index, query, **settings):
    return [(hit.document.id, hit.score, dict(hit.scores)) for hit in index.search(query, **settings)]


async def ask(client, path, body):
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def one_client(running, number, check):
    """Requests of all kinds in an order of its own, each followed by the check of its answer."""
    chance = random.Random(number)
    async with running.async_client() as client:
        for _ in range(ROUNDS):
            query, texts = some_text(chance), [some_text(chance) for _ in range(chance.randint(1, 5))]
            kind = chance.choice(["search", "encode", "rerank", "similarity"])
            tenant = chance.choice(TENANTS)
            body = {
                "search": {"query": query, "k": 5, "where": {"tenant": tenant}},
                "encode": {"input": texts, "encoding_format": "columns"},
                "rerank": {"query": query, "documents": texts},
                "similarity": {"pairs": [[query, text] for text in texts]},
            }[kind]
            check.append((kind, body, await ask(client, f"/v1/{kind}", body)))


def check_answer(index, encoder, kind, body, content):
    """An answer against the library in this process, to the last bit."""
    if kind == "search":
        assert hits_of(content) == hits_of_library(index, body["query"], k=5, where=body["where"])
        assert {hit["metadata"]["tenant"] for hit in content["hits"]} <= {body["where"]["tenant"]}
    elif kind == "encode":
        assert same_bits(from_columns(content["vectors"]), encoder.encode_documents(body["input"]))
    elif kind == "rerank":
        expected = rerank(encoder, body["query"], body["documents"])
        assert [(one["index"], one["relevance_score"]) for one in content["results"]] == [
            (one.place, one.score) for one in expected
        ]
    else:
        for (query, document), result in zip(body["pairs"], content["results"], strict=True):
            [alone] = rerank(encoder, query, [document])
            assert (result["score"], result["scores"]) == (alone.score, dict(alone.scores))


async def check_clients(running, index, encoder, clients=CLIENTS):
    answers = []
    await asyncio.gather(*(one_client(running, number, answers) for number in range(clients)))
    assert len(answers) == clients * ROUNDS
    assert {kind for kind, _, _ in answers} == {"search", "encode", "rerank", "similarity"}
    for kind, body, content in answers:
        check_answer(index, encoder, kind, body, content)


async def test_thirty_two_clients_get_the_librarys_bits_and_their_own_tenants_documents(service, index_path):
    with M3Index.open(index_path, read_only=True) as index:
        await check_clients(service, index, HashingEncoder())


async def test_joined_passes_of_an_encoder_without_batch_effects_have_the_same_bits(start, index_path):
    running = start("--path", str(index_path), "--batching", "joined", "--batch-wait-ms", "5")
    with M3Index.open(index_path, read_only=True) as index:
        await check_clients(running, index, HashingEncoder())
    turns = float(running.get("/metrics").text.split("m3retriever_encoder_turn_requests_count ")[1].split()[0])
    assert turns < CLIENTS * ROUNDS  # some were taken together


@pytest.mark.model
@pytest.mark.filterwarnings("ignore::m3retriever.UnknownTextWarning")
@pytest.mark.parametrize(("precision", "shared"), [("fp32", False), ("int8", True)])
async def test_a_real_model_s_scores_are_the_librarys_to_the_last_bit(start, tmp_path, precision, shared):
    with M3Index.open(tmp_path / "index", model="mini", precision=precision) as index:
        index.add([Document(f"doc{row}", some_text(random.Random(row)), {"tenant": TENANTS[row % 3]}) for row in range(60)])
        running = start("--path", str(tmp_path / "index"), "--model-precision", precision, M3RETRIEVER_LOG="info")
        await check_clients(running, index, index.encoder, clients=12)
    assert ("requests share passes" in running.log) == shared


async def test_the_same_question_of_many_is_encoded_once_a_turn(start):
    running = start(*SLOW)
    async with running.async_client() as client:
        busy = asyncio.ensure_future(ask(client, "/v1/tokenize", {"input": "a"}))
        first = asyncio.ensure_future(ask(client, "/v1/embeddings", {"input": heavy()}))
        await busy
        await asyncio.sleep(0.2)  # so that the others wait together
        answers = await asyncio.gather(*(ask(client, "/v1/embeddings", {"input": "red fox"}) for _ in range(20)))
        await first
    assert all(answer == answers[0] for answer in answers)
    assert "m3retriever_encoder_call_texts_count 2\n" in running.get("/metrics").text


async def test_more_requests_than_may_wait_are_told_to_come_again(start):
    running = start(*SLOW, "--queue", "3")
    async with running.async_client() as client:
        asked = [client.post("/v1/embeddings", json={"input": heavy(name=f"n{number}w")}) for number in range(8)]
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
        for answer in answers:
            if answer.status_code == 429:
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert answer.json()["error"]["type"] == "queue_full"
        assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 200  # there is room again


async def test_a_request_that_waits_too_long_is_told_so_and_its_work_is_not_done(start):
    running = start(*SLOW, "--timeout", "0.5")
    async with running.async_client() as client:
        first = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": heavy(120_000)}))
        await asyncio.sleep(0.3)
        late = await client.post("/v1/embeddings", json={"input": "late"})
        assert (late.status_code, late.json()["error"]["type"]) == (503, "waited_too_long")
        assert "nothing was done" in late.json()["error"]["message"]
        assert (await first).status_code == 200  # what has begun is answered, however long it takes
        assert (await client.post("/v1/embeddings", json={"input": "soon"})).status_code == 200
    assert "m3retriever_encoder_call_texts_count 2\n" in running.get("/metrics").text


async def test_what_a_client_asked_that_went_away_is_not_done(start):
    running = start(*SLOW)
    async with running.async_client() as client:
        first = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": heavy(120_000)}))
        await asyncio.sleep(0.3)
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/embeddings", json={"input": "gone"}, timeout=0.3)
        assert (await first).status_code == 200
        numbers = (await client.get("/metrics")).text
    assert "m3retriever_encoder_call_texts_count 1\n" in numbers
    assert 'm3retriever_http_requests_total{route="/v1/embeddings",status="499"} 1\n' in numbers
    assert "m3retriever_encoder_waiting 0\n" in numbers


async def test_health_is_told_while_the_encoder_works(start):
    running = start(*SLOW)
    async with running.async_client() as client:
        first = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": heavy(120_000)}))
        await asyncio.sleep(0.2)
        for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
            assert (await client.get(path)).status_code == 200
            assert not first.done()
        await first


async def test_an_answer_that_nobody_reads_keeps_its_place_for_a_while_and_no_longer(start):
    running = start(*SLOW, "--timeout", "3")
    body = json.dumps({"input": heavy(20_000), "encoding_format": "columns"}).encode()
    head = "POST /v1/encode HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"
    _, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=1)
    writer.write("\r\n".join([*head, "\r\n"]).encode() + body)
    encoded_at, under_way = 0.0, -1
    async with running.async_client() as client:
        while not (encoded_at and under_way == 0):
            await asyncio.sleep(0.05)
            numbers = (await client.get("/metrics")).text
            under_way = int(numbers.split("\nm3retriever_http_under_way ")[1].split()[0])
            if not encoded_at and "m3retriever_encoder_call_texts_count 1\n" in numbers:
                encoded_at = time.monotonic()
    assert 2.5 < time.monotonic() - encoded_at < 30  # writing it takes a moment; the rest was waiting for the client
    writer.close()
    assert "warning: a client did not take its answer and was left" in running.log
    assert "Traceback" not in running.log
    assert "unexpected" not in running.log
