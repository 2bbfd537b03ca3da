"""Real services: `m3retriever serve` in a process of its own, on a port that the system chooses."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from m3retriever import Document, M3Index

COMMAND = str(Path(sys.executable).with_name("m3retriever"))
SERVE = (COMMAND, "serve", "--port", "0")
PATIENCE = 60  # seconds for a process to start on a busy machine
TENANTS = ("a", "b", "c")
WORDS = ["rent", "lease", "cat", "roof", "june", "third", "month", "red", "fox", "whale", "garden", "key", "door"]


WITH_ENCODER = """
import sys
from dataclasses import replace
from m3retriever import HashingEncoder
from m3retriever.serving.launch import serve
from m3retriever.serving.opening import Served, Source
from m3retriever.serving.settings import Settings

class Ours(HashingEncoder):
{methods}

class Own(Source):
    def open(self):
        return Served(Ours(), None, None)

say = lambda url: print(f"listening on {{url}} ", file=sys.stderr, flush=True)
serve(Own(), Settings(), port=0, on_listening=say)
"""


@dataclass
class Running:
    """A service's process, its address and its log."""

    process: subprocess.Popen
    url: str
    log_file: Path

    def client(self, **settings) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **settings)

    def async_client(self, **settings) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False, **settings)

    def post(self, path, body, **settings) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body, **settings)

    def get(self, path, **settings) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **settings)

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def wait_until_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            if self.get("/readyz").status_code == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"the service did not become ready:\n{self.log}")

    def end(self, number=signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


Start = Callable[..., Running]


def start_service(
    folder: Path,
    *arguments: str,
    wait: bool = True,
    command: Sequence[str] = (COMMAND, "serve", "--port", "0"),
    **variables: str,
) -> Running:
    """A service with these arguments and variables; `wait` until it is ready, or only until it listens."""
    log_file = folder / f"service-{time.monotonic_ns()}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("M3RETRIEVER_")} | variables
    with log_file.open("wb") as log:
        process = subprocess.Popen([*command, *arguments], stderr=log, stdout=log, env=environment)
    end = time.monotonic() + PATIENCE
    while not (found := re.search(r"listening on (http://\S+)", log_file.read_text(encoding="utf-8"))):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            raise AssertionError(f"the service did not start:\n{log_file.read_text(encoding='utf-8')}")
        time.sleep(0.05)
    running = Running(process, found[1], log_file)
    if wait:
        running.wait_until_ready()
    return running


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start services that end with the module."""
    folder, running = tmp_path_factory.mktemp("services"), list[Running]()

    def start_one(*arguments: str, **settings) -> Running:
        running.append(start_service(folder, *arguments, **settings))
        return running[-1]

    yield start_one
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


def documents() -> list[Document]:
    """Texts of three tenants, whose words overlap."""
    texts = [" ".join(WORDS[(row + step * step) % len(WORDS)] for step in range(3 + row % 4)) for row in range(60)]
    return [Document(f"doc{row}", text, {"tenant": TENANTS[row % 3], "row": row}) for row, text in enumerate(texts)]


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the hashing encoder."""
    path = tmp_path_factory.mktemp("served") / "index"
    with M3Index.open(path, model="hashing") as index:
        index.add(documents())
    return path


@pytest.fixture(scope="module")
def service(start: Start, index_path: Path) -> Running:
    """A service with that index."""
    return start("--path", str(index_path))


SLOW = ("--model", "hashing", "--max-characters", "2000000")  # that takes heavy texts


def with_encoder(methods: str) -> tuple[str, ...]:
    """The command of a service whose encoder is a HashingEncoder with these methods in place of its own."""
    return sys.executable, "-c", WITH_ENCODER.format(methods=textwrap.indent(textwrap.dedent(methods).strip(), "    "))


def heavy(words: int = 60_000, name: str = "w") -> str:
    """A text that the hashing encoder needs a second or so for: every word's vector is drawn anew."""
    return " ".join(f"{name}{number}" for number in range(words))
