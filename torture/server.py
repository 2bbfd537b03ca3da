"""Servers that are killed and started again: Chroma's, and Qdrant's engine as a server."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 60.0  # seconds to wait for a process or a server


class Server:
    """`chroma run` on a folder, at a port that stays the same when it is started again."""

    heartbeat = "/api/v2/heartbeat"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port: int = one.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self._command()} does not answer; it ended with {self._process.poll()}")
            time.sleep(0.02)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        program = str(Path(sys.executable).with_name("chroma"))
        return [program, "run", "--path", str(self.folder), "--host", "127.0.0.1", "--port", str(self.port)]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.heartbeat}", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def restart(self) -> None:
        """Kill it and start it on the same folder."""
        self.kill()
        self.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class QdrantServer(Server):
    """Qdrant's engine behind a part of its REST interface (`qdrant_engine.py`)."""

    heartbeat = "/"

    def _command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("qdrant_engine.py")), str(self.port), str(self.folder)]
