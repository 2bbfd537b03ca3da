"""Indexes, a running inspector and a browser for the inspector's tests. Nothing here needs a model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from m3retriever import Document, M3Index

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HELPDESK = Path(__file__).with_name("helpdesk.jsonl")
STARTS_IN = 60  # seconds; a loaded machine takes about 10
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]

HOSTILE_TEXT = (
    "hostile <script>window.hacked = 1</script> <img src=http://example.invalid/a.png onerror='window.hacked = 2'> "
    "![image](http://example.invalid/b.png) [link](javascript:window.hacked=3) <style>* { display: none }</style> "
    "<form action=http://example.invalid><input name=password></form> **bold** :material/warning: $x^2$ &amp; &lt;b&gt;"
)
HOSTILE = [
    Document(
        "hostile-<img src=x onerror='window.hacked=4'>",
        HOSTILE_TEXT,
        {
            "title": "=HYPERLINK(1) <img src=http://example.invalid/c.png onerror='window.hacked=5'> ![t](http://example.invalid/d.png)",
            "note": "<script>window.hacked = 6</script>",
        },
    ),
    Document("hostile-title", "# hostile <b>first line</b> ![i](http://example.invalid/e.png)\nand a second one"),
]


def helpdesk() -> list[Document]:
    """Sixty documents in the manner of a help desk, some of them Chinese, one of them long."""
    return [Document(**json.loads(line)) for line in HELPDESK.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the help desk and of documents that attack whoever shows them."""
    path = tmp_path_factory.mktemp("inspector") / "index"
    with M3Index.open(path, model="hashing") as index:
        index.add([*helpdesk(), *HOSTILE])
    return path


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[list[str], int], subprocess.Popen[bytes]]]:
    """Starts a server in an empty folder and waits until it answers; all are ended with the session."""
    running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(arguments: list[str], port: int) -> subprocess.Popen[bytes]:
        folder = tmp_path_factory.mktemp("server")
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        running.append((server, folder / "log"))
        wait_until_healthy(server, port, folder / "log")
        return server

    yield start
    for server, _ in running:
        server.terminate()
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
    logs = [log.read_text(encoding="utf-8", errors="replace") for _, log in running]
    assert not [log for log in logs if "Traceback" in log or "Error" in log]


def wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Returns when the server answers; fails with its log where it ends or takes too long."""
    until = time.monotonic() + STARTS_IN
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the inspector did not start (exit code {server.poll()}):\n{log.read_text()}")


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives a port of this machine that nobody uses."""

    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return free_port


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, closed after each file: its event loop would else be found running by asynchronous tests.

    Without one the tests are skipped, but not in CI, where that would hide a broken page.
    """
    path = os.environ.get("M3_CHROMIUM", "/usr/bin/chromium")
    if not Path(path).is_file():
        if os.environ.get("CI"):
            pytest.fail(f"there is no Chromium at {path}; set M3_CHROMIUM")
        pytest.skip(f"there is no Chromium at {path}; set M3_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
