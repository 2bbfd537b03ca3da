import signal
import socket
import subprocess
import sys

import pytest

from m3retriever import InvalidArgumentError, MissingExtraError
from m3retriever.inspector import launch
from m3retriever.inspector.launch import STREAMLIT
from m3retriever.inspector.source import Source


def source_of(arguments):
    return Source.from_arguments(arguments[arguments.index("--") + 1 :])


def test_the_command_runs_streamlit_for_this_machine_alone():
    arguments = launch.command("/index", port=8600)
    assert arguments[:4] == [sys.executable, "-c", STREAMLIT, "run"]
    assert {"--server.address=127.0.0.1", "--server.port=8600", "--server.headless=true"} <= set(arguments)
    assert {"--browser.gatherUsageStats=false", "--client.showErrorDetails=none"} <= set(arguments)
    assert "--server.enableXsrfProtection=true" in arguments


def test_paths_hold_in_any_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = source_of(launch.command("my index", collection="notes", profile="profile.toml"))
    assert given == Source(tmp_path / "my index", "notes", tmp_path / "profile.toml")


@pytest.mark.parametrize("path", ["-index", "--path", "a b", "ü/索引"])
def test_any_path_reaches_the_app_unchanged(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source_of(launch.command(path)).path == tmp_path / path


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])
def test_a_host_that_others_can_reach_is_refused(host):
    with pytest.raises(InvalidArgumentError, match="has no login"):
        launch.command("/index", host=host)
    with pytest.raises(InvalidArgumentError, match="has no login"):
        launch.serve("/index", host=host)


def test_a_host_that_others_can_reach_is_taken_where_it_is_asked_for():
    arguments = launch.command("/index", host="0.0.0.0", allow_remote=True)
    assert "--server.address=0.0.0.0" in arguments
    assert not [argument for argument in arguments if "allowedHosts" in argument]


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(InvalidArgumentError, match="port must be from 1 to 65535"):
        launch.command("/index", port=port)


def test_a_taken_port_is_reported_before_anything_starts():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidArgumentError, match=f"port {port} is taken; choose another with --port"):
            launch.serve("/index", port=port)


def test_nothing_of_the_folder_it_is_run_in_is_run(tmp_path):
    (tmp_path / "streamlit.py").write_text("raise SystemExit(3)")
    command = [sys.executable, "-c", STREAMLIT, "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "Streamlit")


def test_missing_streamlit_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'm3retriever\[inspector\]'"):
        launch.serve("/index")


def test_the_launcher_does_not_import_streamlit():
    code = "import sys, m3retriever.inspector.launch; raise SystemExit('streamlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_frees_its_port(number, index_path, free_port, start):
    port = free_port()
    code = f"from m3retriever.inspector.launch import serve; raise SystemExit(serve({str(index_path)!r}, port={port}))"
    server = start([sys.executable, "-c", code], port)
    server.send_signal(number)
    assert server.wait(timeout=15) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
