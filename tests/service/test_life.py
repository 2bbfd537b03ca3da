"""From the command to the exit code: what is refused before anything is loaded, readiness, and an end that loses nothing."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from m3retriever.errors import InvalidArgumentError
from m3retriever.serving.launch import key_from
from m3retriever.serving.settings import Settings

from .conftest import COMMAND, SLOW, heavy


def run(*arguments, **variables):
    """`m3retriever serve`, which must end by itself."""
    environment = {**os.environ, **variables}
    return subprocess.run([COMMAND, "serve", *arguments], capture_output=True, text=True, timeout=120, env=environment)


def refused(done):
    """The one line of an error."""
    assert done.returncode == 1, done.stderr
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("listening")]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_without_the_extra_one_line_says_what_to_install(package):
    code = f"import sys\nsys.modules[{package!r}] = None\nsys.argv = ['m3retriever', 'serve', '--model', 'hashing']\n"
    code += "from m3retriever.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert refused(done) == f"error: {package} is not installed; run: pip install 'm3retriever[serve]'"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_an_address_that_others_reach_is_refused_unless_it_is_asked_for(host):
    assert "--allow-remote" in refused(run("--model", "hashing", "--host", host))


def test_a_service_for_others_without_a_key_is_warned_about(start):
    open_to_all = start("--model", "hashing", "--host", "0.0.0.0", "--allow-remote")
    assert "warning: other machines can reach this service, and no key is asked for: set M3RETRIEVER_API_KEY" in open_to_all.log
    port = open_to_all.url.rpartition(":")[2]
    answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers={"Host": "any.name"}, trust_env=False)
    assert answer.status_code == 200
    locked = start("--model", "hashing", "--host", "0.0.0.0", "--allow-remote", M3RETRIEVER_API_KEY="abc")
    assert "warning" not in locked.log


def test_a_taken_port_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in refused(run("--model", "hashing", "--port", str(port)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "65536"], "port must be from 0 to 65535"),
        (["--batching", "fast"], "batching must be one of exact, joined; got 'fast'"),
        (["--queue", "0"], "queue must be >= 1; got 0"),
        (["--timeout", "nan"], "timeout must be a number of seconds"),
        (["--path", "/no/such/folder"], "no index in /no/such/folder"),
        (["--profile", "no-such-profile"], "no-such-profile"),
        (["--model", "/no/such/model"], "/no/such/model"),
        (["--model-precision", "int8"], "the hashing encoder has no precision"),
    ],
)
def test_what_cannot_be_served_ends_in_one_line(arguments, words):
    model = [] if "--model" in arguments or "--path" in arguments else ["--model", "hashing"]
    port = [] if "--port" in arguments else ["--port", "0"]
    assert words in refused(run(*model, *port, *arguments))


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "a\n"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key):
    with pytest.raises(InvalidArgumentError, match="M3RETRIEVER_API_KEY must be printable ASCII without blanks, or not set"):
        key_from(key)
    assert "M3RETRIEVER_API_KEY" in refused(run("--model", "hashing", "--port", "0", M3RETRIEVER_API_KEY=key))


def test_a_key_is_taken_as_it_is_and_none_is_none():
    assert (key_from("s3cr:t"), key_from(None)) == ("s3cr:t", None)


def test_a_body_of_the_largest_texts_fits_its_bytes():
    assert Settings(max_characters=10).max_bytes > 10 * len(r"\ud83e\udd8a")


@pytest.mark.model
def test_until_the_model_is_there_the_service_is_alive_and_not_ready(start):
    running = start("--model", "mini", wait=False)  # torch alone takes longer to import than a service to answer
    waited, end = 0, time.monotonic() + 100
    while (ready := running.get("/readyz")).status_code != 200 and time.monotonic() < end:
        assert (ready.status_code, ready.json()["error"]["type"], int(ready.headers["retry-after"])) == (503, "not_ready", 2)
        assert running.get("/healthz").status_code == 200
        assert running.post("/v1/encode", {"input": "a"}).status_code in (503, 200)  # it may be there by now
        waited += 1
        time.sleep(0.05)
    assert waited > 0
    assert running.post("/v1/encode", {"input": "a"}).status_code == 200


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_head(start):
    running, seconds = start("--model", "hashing"), []
    with running.client() as client:
        for _ in range(30):
            began = time.perf_counter()
            client.get("/healthz")
            seconds.append(time.perf_counter() - began)
    assert min(seconds[10:]) < 0.03  # with Nagle's algorithm each takes 40 ms and more


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_code_0_and_frees_the_port(start, number):
    running = start("--model", "hashing")
    assert running.end(number) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(running.url.rpartition(":")[2]))) != 0
    assert "Traceback" not in running.log


async def test_while_it_ends_it_is_not_ready_and_what_was_asked_is_answered(start):
    running = start(*SLOW)
    async with running.async_client() as client:
        asked = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": heavy(120_000)}))
        await asyncio.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        assert ready.json()["error"]["message"] == "the service is ending"
        assert (await client.get("/healthz")).status_code == 200
        assert (await asked).status_code == 200
    assert running.process.wait(60) == 0


async def test_a_second_signal_ends_it_at_once(start):
    running = start(*SLOW)
    async with running.async_client() as client:
        asked = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": heavy(120_000)}))
        await asyncio.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            await asked
    assert running.process.wait(5) == 128 + signal.SIGTERM


async def test_an_end_under_load_loses_no_request_that_was_taken(start, index_path):
    running = start("--path", str(index_path))
    statuses, broken = [], []

    async def client_until_the_end(number):
        async with running.async_client() as client:
            for turn in range(10_000):
                try:
                    answer = await client.post("/v1/search", json={"query": f"red fox {number} {turn}"})
                except httpx.TransportError as error:  # nobody listens any more
                    broken.append(type(error).__name__)
                    return
                assert len(answer.json()["hits"]) == 10
                statuses.append(answer.status_code)

    clients = [asyncio.ensure_future(client_until_the_end(number)) for number in range(16)]
    await asyncio.sleep(1)
    running.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    assert running.process.wait(60) == 0
    assert len(broken) == 16
    assert set(statuses) == {200}
    assert running.log.count('"POST /v1/search HTTP/1.1" 200') == len(statuses)  # each that was answered has arrived
    assert running.log.count("POST /v1/search") == len(statuses)
    assert "Traceback" not in running.log
