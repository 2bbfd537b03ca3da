"""What all tests share: offline, and helpers that make small collections."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest
from torture.server import QdrantServer

from m3retriever.demo.run import demo_folder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' processes share the cores; torch's threads would wait for each other

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with & by a script: whatever a test starts would ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """Streamlit's AppTest puts the page that it runs in the place of `__main__`: processes spawned later would run it again."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, str]:
    """What `m3retriever demo --no-inspector` made, (the index's folder, what it printed); made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    printed = shared / "demo.txt"
    with filelock.FileLock(shared / "demo.lock"):
        if not printed.exists():
            done = run_demo(shared / "demo")
            printed.write_text(done.stdout, encoding="utf-8")
    return demo_folder(shared / "demo"), printed.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def qdrant_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Qdrant server's address: the one that QDRANT_URL names, or its engine as a server."""
    if url := os.environ.get("QDRANT_URL"):
        yield url
        return
    pytest.importorskip("qdrant_edge")
    with QdrantServer(tmp_path_factory.mktemp("qdrant")) as server:
        yield server.url


def run_demo(path: Path) -> subprocess.CompletedProcess[str]:
    """`m3retriever demo --no-inspector`, which must succeed."""
    command = [str(Path(sys.executable).with_name("m3retriever")), "demo", "--no-inspector", "--path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done
