"""A server in front of `chroma run` that holds clients to what Chroma Cloud allows, and may ask for a header."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

WRITES = ("add", "upsert", "update", "delete")
RECORDS, RESULTS, PREDICATES, SEARCHED = 300, 300, 8, 256
SIZES = {"documents": 16_384, "ids": 128}
VALUE, KEY, KEYS = 4096, 36, 32


class QuotaProxy(ThreadingHTTPServer):
    """Passes requests on to a server on this machine; refuses what goes beyond a quota, and notes it in `refused`."""

    daemon_threads = True

    def __init__(self, port: int, *, cloud: bool = True, header: tuple[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cloud, self.behind, self.header = cloud, f"http://127.0.0.1:{port}", header
        self.client, self.refused = httpx.Client(trust_env=False), []
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.client.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = self.server.header
        if wanted is not None and self.headers.get(wanted[0]) != wanted[1]:
            return self._answer(401, b'{"error":"AuthError","message":"no"}')
        body, problem = self._within(body) if self.server.cloud else (body, None)
        if problem is not None:
            self.server.refused.append(problem)
            return self._answer(422, json.dumps({"error": "QuotaError", "message": problem}).encode())
        headers = {"content-type": self.headers.get("Content-Type") or "application/json"}
        got = self.server.client.request(self.command, self.server.behind + self.path, content=body, headers=headers)
        return self._answer(got.status_code, got.content)

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815  # http.server's names

    def _within(self, body: bytes) -> tuple[bytes, str | None]:
        """The body to pass on, and which quota it goes beyond."""
        what = self.path.split("?")[0].rsplit("/", 1)[-1]
        try:
            asked = json.loads(body)
        except ValueError:
            return body, None
        if what == "collections":
            wanted = asked.get("configuration") or {}
            asked["configuration"] = {"hnsw": {"space": "cosine"}}  # a server on one machine has no SPANN
            asked.pop("schema", None)
            return json.dumps(asked).encode(), None if wanted.get("spann") else f"the cloud has SPANN; got {wanted}"
        return body, next(_beyond(what, asked), None)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _beyond(what, asked):
    if what in WRITES and len(asked.get("ids") or ()) > RECORDS:
        yield f"{len(asked['ids'])} records a write"
    if what == "get" and (asked.get("limit") or len(asked.get("ids") or [None] * 10**6)) > RESULTS:
        yield f"{asked.get('limit')} results of a get"
    if what == "query" and asked["n_results"] > RESULTS:
        yield f"{asked['n_results']} results of a query"
    if _predicates(asked.get("where")) + _predicates(asked.get("where_document")) > PREDICATES:
        yield "too many predicates"
    for name, most in SIZES.items():
        if what in WRITES and any(one is not None and len(one.encode()) > most for one in asked.get(name) or ()):
            yield f"{name} beyond {most} bytes"
    if what in WRITES:
        for metadata in asked.get("metadatas") or ():
            held = {key: value for key, value in (metadata or {}).items() if value is not None}
            if len(held) > KEYS or any(len(key.encode()) > KEY or len(str(value)) > VALUE for key, value in held.items()):
                yield "metadata"


def _predicates(where):
    if not where:
        return 0
    [(key, condition)] = where.items()
    return sum(map(_predicates, condition)) if key in ("$and", "$or") else 1
