"""Indexes, a running inspector and a browser for the inspector's tests. Nothing here needs a model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from m3retriever import Document, M3Index
from m3retriever.inspector.launch import APP, command

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HELPDESK = Path(__file__).with_name("helpdesk.jsonl")
STARTS_IN = 60  # seconds; a loaded machine takes about 10
DRAWN_IN = 200  # milliseconds from a run to its table
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


@pytest.fixture
def project(index_path: Path, tmp_path: Path) -> Path:
    """A copy of the index for one test, with a golden set of a question for each document of the help desk."""
    return golden_copy(index_path, tmp_path / "index")


def golden_copy(index: Path, folder: Path) -> Path:
    """An index's copy, with questions made of the beginning of each document's text."""
    shutil.copytree(index, folder)
    lines = []
    for document in helpdesk():
        words = document.text.split()
        question = " ".join(words[2:9]) if len(words) > 9 else document.text[:12]
        lines.append(json.dumps({"id": document.id, "question": question, "relevant": [document.id]}, ensure_ascii=False))
    (folder / "golden.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_hard_set() -> Callable[[Path], Path]:
    """Writes golden-hard.jsonl into a folder: two words of each document as a question, which it answers with
    grade 2 and the next document with grade 1; the modes answer them differently well."""

    def write(folder: Path) -> Path:
        documents, lines = helpdesk(), []
        for document, other in zip(documents, [*documents[1:], documents[0]], strict=True):
            words = document.text.split()
            question = " ".join([words[1], words[-2]]) if len(words) > 9 else document.text[3:7]
            grades = {document.id: 2, other.id: 1}
            lines.append(json.dumps({"id": f"h-{document.id}", "question": question, "grades": grades}, ensure_ascii=False))
        path = folder / "golden-hard.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def hard(project: Path, write_hard_set: Callable[[Path], Path]) -> Path:
    """The project's file golden-hard.jsonl."""
    return write_hard_set(project)


# -- the app without a browser ---------------------------------------------------------------------


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """Runs the app on an index with URL parameters; `page` is a page's name, `context` what the browser says of itself."""

    def run(path: Path = project, *, page: str = "search", context: dict | None = None, arguments=(), **parameters) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["app.py", f"--path={path}", *arguments])
        app = AppTest.from_file(str(APP), default_timeout=30)
        app.context.update(context or {})
        for name, value in parameters.items():
            app.query_params[name] = value
        app.run()
        return app if page == "search" else app.switch_page(str(APP.parent / "views" / f"{page}.py")).run()

    yield run
    st.cache_data.clear()
    st.cache_resource.clear()


# -- servers ---------------------------------------------------------------------------------------


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


@pytest.fixture(scope="session")
def serve(free_port: Callable[[], int], start: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., str]:
    """Starts an inspector on an index, with `launch.command`'s options; gives its address."""

    def serve(path: Path, **options: object) -> str:
        port = free_port()
        start(command(path, port=port, **options), port)
        return f"http://127.0.0.1:{port}"

    return serve


@pytest.fixture(scope="session")
def server(index_path: Path, tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., str]) -> str:
    """An inspector on a copy of the index with a golden set; what one test writes the next one finds."""
    return serve(golden_copy(index_path, tmp_path_factory.mktemp("served") / "index"))


HEADER, ROW = 34, 34  # pixels of the table
READY = """([after, page]) => {
    const ready = document.querySelector('[data-testid=m3-ready]');
    const app = document.querySelector('[data-testid=stApp]');
    return ready && +ready.dataset.run > after && app.dataset.testScriptState === 'notRunning'
        && !document.querySelector('[data-stale=true]');
}"""


class Inspector:
    """The app in one browser tab."""

    def __init__(self, page, server):
        self.page, self.server = page, server
        self.failures, self.foreign = [], []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.failures.append(str(error)))
        page.on("dialog", lambda dialog: (self.failures.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self._note(request.url))
        page.on("websocket", lambda websocket: self._note(websocket.url))

    def _note(self, url):
        own = (f"{self.server}/", self.server.replace("http", "ws") + "/", "data:", "blob:")
        if not url.startswith(own):
            self.foreign.append(url)

    def open(self, path):
        self.page.goto(self.server + path)
        self.wait()
        return self

    def wait(self, after=0):
        self.page.wait_for_function(READY, arg=[after, None], timeout=300_000)

    def settle(self):
        """Wait until no work is under way."""
        self.wait()
        self.page.wait_for_function("!document.querySelector('[data-testid=m3-job]')", timeout=300_000)
        self.wait()

    def opened(self, path):
        """The app with a page on which no work is under way."""
        self.open(path)
        self.settle()
        return self

    @contextlib.contextmanager
    def rerun(self) -> Iterator[None]:
        run = int(self.page.get_by_test_id("m3-ready").get_attribute("data-run"))
        yield
        self.wait(run)

    def ask(self, query):
        with self.rerun():
            self.page.get_by_label("Query", exact=True).fill(query)
            self.page.keyboard.press("Enter")

    def cell(self, column, row):
        cell = self.page.get_by_test_id(f"glide-cell-{column}-{row}").first
        cell.wait_for(state="attached")
        return cell.inner_text()

    def shows(self, column, row, text):
        """Wait until a cell of the first table shows a text: its canvas is drawn a little after the run."""
        place = f"[data-testid=glide-cell-{column}-{row}]"
        self.page.wait_for_function("([place, text]) => document.querySelector(place)?.innerText === text", arg=[place, text])

    def number(self, column, row):
        """A score as the table shows it; the cell's text holds all its digits."""
        return f"{float(self.cell(column, row)):.3f}"

    def column(self, column, rows):
        """A column's first cells, read until they stay: the canvas is drawn a little after the run."""
        before, now = None, [self.cell(column, row) for row in range(rows)]
        while now != before:
            self.page.wait_for_timeout(DRAWN_IN)
            before, now = now, [self.cell(column, row) for row in range(rows)]
        return now

    def select(self, row):
        box = self.page.get_by_test_id("stDataFrame").first.locator("canvas").first.bounding_box()
        with self.rerun():
            self.page.mouse.click(box["x"] + 16, box["y"] + HEADER + ROW * row + ROW // 2)

    def slider(self, name):
        return float(self._slider(name).input_value())

    def _slider(self, name):
        return self.page.locator(f"input[type=range][aria-label={name}]")

    def move(self, name, key):
        self._slider(name).focus()
        with self.rerun():
            self.page.keyboard.press(key)

    def text(self, name):
        return self.page.get_by_test_id(f"m3-{name}").inner_text()

    def chart(self, words):
        """The chart whose alternative text begins with these words."""
        return self.page.locator(f"[data-testid=stVegaLiteChart][aria-label^='{words}']")

    def tab(self, name):
        self.page.get_by_role("tab", name=name).click()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[..., Inspector]]:
    """Opens fresh tabs on a server; they must have raised no error and asked nobody else for anything."""
    opened = []

    def tab(server: str, **options: object) -> Inspector:
        settings = {"locale": "en-US", "color_scheme": "light", "viewport": {"width": 1500, "height": 940}, **options}
        context = browser.new_context(**settings)
        opened.append((context, Inspector(context.new_page(), server)))
        return opened[-1][1]

    yield tab
    for context, inspector in opened:
        context.close()
        assert not inspector.failures
        assert not inspector.foreign


@pytest.fixture
def app(tab: Callable[..., Inspector], server: str, request: pytest.FixtureRequest) -> Inspector:
    """A fresh tab on `server`; parametrized indirectly with options of the browser."""
    return tab(server, **getattr(request, "param", {}))
