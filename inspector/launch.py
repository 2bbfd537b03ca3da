"""Start the inspector as a child process. Does not import Streamlit."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from m3retriever.errors import InvalidArgumentError, MissingExtraError
from m3retriever.hosts import LOOPBACK, MAX_PORT, listening
from m3retriever.inspector.source import Source

APP = Path(__file__).with_name("app.py")
STREAMLIT = (  # as `-m streamlit`, but without the folder it is run in: a file of a module's name there would be run
    "import sys; sys.path[:] = filter(None, sys.path); from streamlit.web.cli import main; main(prog_name='streamlit')"
)
DEFAULT_PORT = 8501  # Streamlit's own
UPLOAD_MB = 10  # of golden sets, runs and profiles
SIGNALLED = 128  # a shell's exit code for a process that a signal ended, plus the signal's number

# Flags beat every configuration file and variable, so what keeps the app to this machine stands here;
# the looks are in .streamlit/config.toml, which Streamlit reads from the app's folder.
FLAGS = {
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "server.maxUploadSize": str(UPLOAD_MB),
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",
    "server.enableStaticServing": "false",
    "server.showEmailPrompt": "false",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.disableDataExport": "true",  # a spreadsheet would run a title that begins with "="
    "global.disableWidgetStateDuplicationWarning": "true",
}


def command(
    path: str | Path,
    *,
    collection: str | None = None,
    profile: str | Path | None = None,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    headless: bool = True,
    allow_remote: bool = False,
    read_only: bool = False,
) -> list[str]:
    """The command line that runs the inspector on an index.

    Parameters
    ----------
    path, collection, profile, model
        As `M3Index.open` takes them: a folder or a server's address, and for example a service's as the model.
    headless
        Do not open a browser.
    allow_remote
        Take a host that other machines can reach. The inspector has no login: whoever reaches it
        reads every document.
    read_only
        Write nothing: no judgement, no profile, no run, no history.

    Raises
    ------
    InvalidArgumentError
        The host is not this machine's own and `allow_remote` is not given, or there is no such port.
    """
    _check_address(host, port, allow_remote=allow_remote)
    flags = {"server.address": host, "server.port": str(port), "server.headless": str(headless).lower(), **FLAGS}
    options = [f"--{name}={value}" for name, value in flags.items()]
    if host in LOOPBACK:  # refuses a foreign name that was made to point to this machine (DNS rebinding)
        options += [f"--server.allowedHosts={name}" for name in LOOPBACK]
    source = Source.of(path, collection, profile, read_only=read_only, model=model)
    return [sys.executable, "-c", STREAMLIT, "run", str(APP), *options, "--", *source.arguments()]


def serve(
    path: str | Path,
    *,
    collection: str | None = None,
    profile: str | Path | None = None,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    headless: bool = True,
    allow_remote: bool = False,
    read_only: bool = False,
) -> int:
    """Run the inspector until it ends, and give its exit code. Takes what `command` takes.

    Ctrl-C and SIGTERM are passed on to it; a second one ends it at once. To be called from the main
    thread.

    Raises
    ------
    MissingExtraError
        Streamlit is not installed.
    InvalidArgumentError
        As `command`, or the port is taken.
    """
    arguments = command(
        path,
        collection=collection,
        profile=profile,
        model=model,
        host=host,
        port=port,
        headless=headless,
        allow_remote=allow_remote,
        read_only=read_only,
    )
    check(host, port, allow_remote=allow_remote)
    return _run(arguments)


def check(host: str, port: int, *, allow_remote: bool = False) -> None:
    """Raise, before any work is done, what would keep the inspector from starting; see `serve`."""
    if importlib.util.find_spec("streamlit") is None:
        raise MissingExtraError("streamlit", extra="inspector")
    _check_address(host, port, allow_remote=allow_remote)
    listening(host, port).close()


def _check_address(host: str, port: int, *, allow_remote: bool) -> None:
    if host not in LOOPBACK and not allow_remote:
        raise InvalidArgumentError(
            f"the inspector has no login, so host must be one of {', '.join(LOOPBACK)}; got {host!r}: "
            "forward the port (ssh -L), or allow remote hosts explicitly"
        )
    if not 1 <= port <= MAX_PORT:
        raise InvalidArgumentError(f"port must be from 1 to {MAX_PORT}; got {port}")


def _run(arguments: list[str]) -> int:
    """Run a child in a session of its own, so that the terminal's Ctrl-C reaches it once, through here."""
    asked = False
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if child is not None:
            child.kill() if asked else child.send_signal(number)
        asked = True

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(arguments, start_new_session=True)
        if asked:
            child.terminate()
        code = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return code if code >= 0 else SIGNALLED - code
