"""The images and compose files, as far as they can be checked without a container engine: none of them is built here."""

import fnmatch
import http.client
import http.server
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml

from m3retriever import Document, M3Index
from m3retriever.cli import COMMANDS, app
from m3retriever.stores.places import place_of

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
IMAGES = ("Dockerfile", "Dockerfile.cuda")
STACK, CLUSTER = "compose.yaml", "compose.qdrant-cluster.yaml"
PAGE = ROOT / "docs" / "docker.md"
PATIENCE = 60  # seconds


def instructions(name):
    """(keyword, the rest) of a Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in (DOCKER / name).read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def last_stage(name):
    """What the image itself is made of, by keyword."""
    given = instructions(name)
    start = max(place for place, (word, _) in enumerate(given) if word == "FROM")
    found = {}
    for word, rest in given[start:]:
        found.setdefault(word, []).append(rest)
    return found


@cache
def compose(name):
    return yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))


def services():
    return [pytest.param(file, name, id=name) for file in (STACK, CLUSTER) for name in compose(file)["services"]]


def ours():
    """Services of our own image, with what they run."""
    return {name: one["command"] for name, one in compose(STACK)["services"].items() if one["image"].startswith("m3retriever")}


def parse(arguments):
    """What the command line makes of arguments, without running anything; click's error for one that it does not take."""
    root = typer.main.get_command(app)
    name, *rest = arguments
    assert name in COMMANDS, name
    with root.make_context("m3retriever", [name, *rest]) as context:
        return root.get_command(context, name).make_context(name, rest, parent=context).params


# -- the images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_finds_nothing_and_no_rule_is_ignored(name):
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "--no-color", DOCKER / name], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "hadolint" not in (DOCKER / name).read_text(encoding="utf-8")
    assert not list(ROOT.glob(".hadolint.y*ml"))


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_a_fixed_user_that_is_not_root_and_writes_only_its_volumes(name):
    image = last_stage(name)
    assert image["USER"] == ["10001:10001"]
    assert image["STOPSIGNAL"] == ["SIGTERM"]
    assert json.loads(image["ENTRYPOINT"][0]) == ["m3retriever"]
    assert json.loads(image["VOLUME"][0]) == ["/data", "/models"]
    [made] = image["RUN"]
    assert "--uid 10001" in made
    assert "--owner m3" in made.split("install")[1]
    settings = dict(part.split("=", 1) for part in " ".join(image["ENV"]).split())
    volumes = {name: settings[name].split("/")[1] for name in ("HF_HOME", "XDG_CACHE_HOME", "M3RETRIEVER_HOME", "HOME")}
    assert volumes == {"HF_HOME": "models", "XDG_CACHE_HOME": "models", "M3RETRIEVER_HOME": "data", "HOME": "tmp"}
    assert {"org.opencontainers.image.licenses", "org.opencontainers.image.version"} <= set(
        re.findall(r"[\w.]+(?==)", image["LABEL"][0])
    )


@pytest.mark.parametrize("name", IMAGES)
def test_only_the_environment_of_python_reaches_the_last_stage(name):
    assert last_stage(name)["COPY"] == ["--from=builder /opt/venv /opt/venv"]
    assert [rest.split()[0] for word, rest in instructions(name) if word == "FROM"] == [
        "python:3.12-bookworm",
        "python:3.12-slim-bookworm",
    ]


@pytest.mark.parametrize("name", IMAGES)
def test_no_layer_holds_a_secret(name):
    said = " ".join(rest for word, rest in instructions(name) if word in ("ARG", "ENV"))
    assert not re.search(r"key|secret|password|token", said, re.I)


@pytest.mark.parametrize("name", IMAGES)
def test_every_package_is_pinned_and_every_extra_is_one_of_ours(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    arguments = dict(rest.split("=", 1) for word, rest in instructions(name) if word == "ARG" and "=" in rest)
    assert {"serve", "qdrant", "inspector"} <= set(arguments["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    installs = [rest for word, rest in instructions(name) if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)


def ignored(path):
    """Whether .dockerignore keeps a path of the repository out: the last line that fits it, or a folder above it, decides."""
    kept_out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        rule = pattern.removeprefix("!")
        above = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2)]
        if any(_fits(one, rule) for one in above):
            kept_out = not pattern.startswith("!")
    return kept_out


def _fits(path, rule):
    if rule.startswith("**/"):
        return fnmatch.fnmatchcase(path.split("/")[-1], rule[3:])
    return path.count("/") == rule.count("/") and fnmatch.fnmatchcase(path, rule)


def copied(name):
    """Files and folders of the repository that a build copies."""
    return [
        source for word, rest in instructions(name) if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]
    ]


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_copied_is_there_and_is_all_that_a_wheel_is_made_of(name):
    sources = copied(name)
    assert [one for one in sources if not (ROOT / one).exists() or ignored(one)] == []
    made = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [native] = made["tool"]["setuptools"]["ext-modules"]
    needed = [made["project"]["readme"], *made["project"]["license-files"], "pyproject.toml"]
    needed += [*native["sources"], *native["depends"], *made["tool"]["setuptools"]["package-dir"].values()]
    assert [one for one in needed if not any(one == source or one.startswith(f"{source}/") for source in sources)] == []
    assert [one for one in needed if ignored(one)] == []


def test_a_build_sees_no_tests_no_history_no_index_and_no_key():
    for path in (
        *("tests/test_docker.py", ".git/config", ".venv/bin/python", ".m3-demo/chroma.sqlite3", "index/m3/data.mdb"),
        *(".env", "docker/.env", "src/m3retriever/__pycache__/index.cpython-312.pyc", "documents/private.md"),
        *("src/m3retriever/kernels/_native.cpython-311-x86_64-linux-gnu.so", "docs/scale.md"),
    ):
        assert ignored(path), path
    assert not ignored("src/native/scan.c")
    assert not ignored("inspector/.streamlit/config.toml")


# -- the compose files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "name"), services())
def test_a_service_can_write_nothing_gain_nothing_and_take_no_more_than_its_share(file, name):
    service = compose(file)["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "privileged" not in service


@pytest.mark.parametrize(("file", "name"), services())
def test_a_service_is_reached_from_this_machine_alone_and_its_image_has_a_version(file, name):
    service = compose(file)["services"][name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["image"].startswith("m3retriever:") or re.search(r":v\d+\.\d+\.\d+", service["image"])


@pytest.mark.parametrize(("file", "name"), services())
def test_a_service_says_whether_it_is_healthy(file, name):
    service = compose(file)["services"][name]
    if service.get("profiles"):  # runs once, and ends
        assert service["healthcheck"] == {"disable": True}
    elif "build" in service and "healthcheck" not in service:
        assert service["command"][0] == "serve"  # the image's own
        assert "/readyz" in last_stage("Dockerfile")["HEALTHCHECK"][0]
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize(("file", "name"), services())
def test_what_a_service_needs_is_healthy_before_it_starts(file, name):
    service = compose(file)["services"][name]
    wanted = service.get("depends_on", {})
    assert all(needed["condition"] == "service_healthy" for needed in wanted.values())
    assert set(wanted) <= set(compose(file)["services"])
    assert bool(wanted) == (name not in ("qdrant", "node1"))


@pytest.mark.parametrize("file", [STACK, CLUSTER])
def test_keys_come_from_the_environment_and_nothing_starts_without_them(file):
    text = (DOCKER / file).read_text(encoding="utf-8")
    settings = [setting for one in compose(file)["services"].values() for setting in one.get("environment", {}).items()]
    keys = [value for name, value in settings if name.endswith("API_KEY")]
    assert len(keys) >= 3
    assert all(re.fullmatch(r"\$\{[A-Z0-9_]+:\?[^}]+\}", value) for value in keys)
    assert not re.search(r"\$\{[A-Z0-9_]*KEY(:-[^}]*)?\}", text)


def test_every_volume_is_named_once_and_used():
    for file in (STACK, CLUSTER):
        used = {
            volume.split(":")[0]
            for one in compose(file)["services"].values()
            for volume in one["volumes"]
            if not volume.startswith(("$", ".", "/"))
        }
        assert used == set(compose(file)["volumes"])


def test_qdrant_listens_where_only_those_beside_it_are():
    stack = compose(STACK)["services"]
    assert stack["qdrant"]["environment"]["QDRANT__SERVICE__HOST"] == "127.0.0.1"
    assert all(stack[name]["network_mode"] == "service:qdrant" for name in ours())
    published = {port.split(":")[-1] for port in stack["qdrant"]["ports"]}
    assert published == {
        parse(command)["port"] and str(parse(command)["port"]) for command in ours().values() if "--port" in command
    }


def test_nodes_of_the_cluster_know_their_names_and_the_first():
    nodes = compose(CLUSTER)["services"]
    assert len(nodes) == 3
    for name, node in nodes.items():
        given = dict(zip(node["command"][1::2], node["command"][2::2], strict=True))
        assert given.pop("--uri") == f"http://{name}:{node['environment']['QDRANT__CLUSTER__P2P__PORT']}"
        assert given == ({} if name == "node1" else {"--bootstrap": "http://node1:6335"})
        assert node["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
    assert len({port for node in nodes.values() for port in node["ports"]}) == 3


# -- what they run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_s_own_command_is_one(name):
    params = parse(json.loads(last_stage(name)["CMD"][0]))
    assert (params["host"], params["port"], params["allow_remote"]) == ("0.0.0.0", 7860, True)
    assert last_stage(name)["EXPOSE"] == [str(params["port"])]


@pytest.mark.parametrize("name", ours())
def test_a_service_s_command_is_one(name):
    params = parse(ours()[name])
    assert params["path"] == "qdrant://127.0.0.1:6333/documents"  # one collection for all


def test_an_option_that_is_none_would_be_seen():
    with pytest.raises(Exception, match="No such option: --prot"):
        parse(["serve", "--prot", "7860"])


def lines_of(language):
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_commands_of_the_page_are_commands_and_their_files_are_there():
    commands = [shlex.split(line) for line in lines_of("bash") if not line.startswith("export ")]
    ran = [command[1:] for command in commands if command[0] == "m3retriever"]
    for command in commands:
        images = [place for place, word in enumerate(command) if re.fullmatch(r"m3retriever(:cuda)?", word) and place]
        if command[:2] == ["docker", "run"] and command[images[-1] + 1 :]:
            ran.append(command[images[-1] + 1 :])
        if "-f" in command:
            assert (ROOT / command[command.index("-f") + 1]).is_file(), command
    assert sorted(command[0] for command in ran) == ["copy", "index", "index", "search", "serve"]
    for command in ran:
        parse(command)
    for name in set(re.findall(r"`([A-Z_0-9]+_KEY|DOCUMENTS)`", PAGE.read_text(encoding="utf-8"))):
        assert f"${{{name}:" in (DOCKER / STACK).read_text(encoding="utf-8")


def test_the_page_s_addresses_say_how_a_collection_is_made(monkeypatch):
    opened = []
    monkeypatch.setattr("m3retriever.stores.qdrant.QdrantStore", lambda **settings: opened.append(settings))
    addresses = [word for line in lines_of("bash") for word in shlex.split(line) if "?" in word]
    assert len(addresses) == 2
    for address in addresses:
        place_of(address).open()
    made = {"shards": 6, "replicas": 2, "write_consistency": 2}
    assert opened == [{"collection": "documents", "read_only": False, "url": "http://127.0.0.1:6333", **made}] * 2


# -- the health checks ---------------------------------------------------------------------------------


def health_command(name):
    """Python's part of an image's health check, with this Python in its place."""
    options, _, command = last_stage(name)["HEALTHCHECK"][0].partition(" CMD ")
    assert {"--interval", "--timeout", "--start-period", "--retries"} == set(re.findall(r"--[\w-]+", options))
    python, *rest = json.loads(command)
    assert python == "python"
    return [sys.executable, *rest]


def rc_at(command, ports):
    """The exit code of a health check, with other ports in the place of its own."""
    changed = [re.sub(r"\b(7860|8501|6333)\b", str(ports), part) for part in command]
    assert changed != command
    return subprocess.run(changed, capture_output=True, timeout=PATIENCE).returncode


@contextmanager
def answering(status):
    """A server that has one answer, and the paths that it was asked for."""
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"HTTP 200 would be something else")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def checks():
    given = [pytest.param(health_command(name), "/readyz", id=name) for name in IMAGES]
    for file in (STACK, CLUSTER):
        for name, service in compose(file)["services"].items():
            if test := service.get("healthcheck", {}).get("test"):
                command = [sys.executable, *test[2:]] if test[1] == "python" else test[1:]
                given.append(pytest.param(command, "/_stcore/health" if name == "inspector" else "/readyz", id=name))
    return given


@pytest.mark.parametrize(("command", "path"), checks())
def test_a_health_check_is_content_with_200_and_with_nothing_else(command, path):
    with answering(200) as (port, asked):
        assert rc_at(command, port) == 0
    assert asked == [path]
    with answering(503) as (unready, _):
        assert rc_at(command, unready) != 0
    assert rc_at(command, port) != 0  # nobody listens there any more


def test_the_health_check_finds_a_real_service_ready(tmp_path):
    log = tmp_path / "log"
    program = str(Path(sys.executable).with_name("m3retriever"))
    with log.open("wb") as out:
        process = subprocess.Popen([program, "serve", "--model", "hashing", "--port", "0"], stdout=out, stderr=out)
    try:
        found = None
        for _ in range(PATIENCE * 10):
            found = re.search(r"listening on http://\S+:(\d+)", log.read_text(encoding="utf-8"))
            if found and rc_at(health_command("Dockerfile"), found[1]) == 0:
                break
            assert process.poll() is None, log.read_text(encoding="utf-8")
            threading.Event().wait(0.1)
        assert found
        assert rc_at(health_command("Dockerfile"), found[1]) == 0
        process.terminate()
        assert process.wait(PATIENCE) == 0  # SIGTERM is the image's STOPSIGNAL
        assert rc_at(health_command("Dockerfile"), found[1]) != 0
    finally:
        process.kill()
        process.wait()


def test_the_inspector_s_setting_keeps_out_pages_of_other_names(tmp_path):
    setting = compose(STACK)["services"]["inspector"]["environment"]["STREAMLIT_SERVER_ALLOWED_HOSTS"]
    with M3Index.open(tmp_path / "index", model="hashing") as index:
        index.add([Document("fox", "the red fox")])
    port = free_port()
    arguments = ["inspect", "--path", str(tmp_path / "index"), "--host", "0.0.0.0", "--port", str(port), "--allow-remote"]
    environment = {**os.environ, "STREAMLIT_SERVER_ALLOWED_HOSTS": setting, "HOME": "/proc/nowhere"}  # as in the container
    program = str(Path(sys.executable).with_name("m3retriever"))
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        check = compose(STACK)["services"]["inspector"]["healthcheck"]["test"]
        command = [sys.executable, *check[2:]]
        assert any(rc_at(command, port) == 0 or threading.Event().wait(0.2) for _ in range(PATIENCE * 5))
        assert [websocket(port, name) for name in ("127.0.0.1", "localhost", "evil.example")] == [101, 101, 403]
    finally:
        process.terminate()
        process.wait(PATIENCE)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def websocket(port, name):
    """The status that the inspector's websocket answers with, asked for under this name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers |= {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    try:
        connection.request("GET", "/_stcore/stream", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
