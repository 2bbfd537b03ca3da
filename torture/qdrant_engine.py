"""A Qdrant server for tests where none is at hand: Qdrant's own engine behind the part of its REST interface that we speak.

    python torture/qdrant_engine.py PORT FOLDER

The engine is qdrant-edge: the storage and search of Qdrant's server, in Rust. So vectors, payload, indexes, filters, codes,
scores and files are Qdrant's, and the way there is HTTP; a collection is one shard. The rest, such as shards and
replicas, is kept and given back as it was said. `POST /optimize` builds HNSW graphs and codes at once, which a server
does when it has time.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge

VERSION = "1.19.0"
CONFIG, SHARD = "config.json", "shard"
Json = dict[str, Any]


class RefusedError(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Collection:
    """A shard in a folder, and what its server would keep about it."""

    def __init__(self, folder: Path, config: Json | None = None) -> None:
        self.folder = folder
        if config is None:
            self.config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            self.shard = edge.EdgeShard.load(str(folder / SHARD))
        else:
            self.config = config
            self.keep()
            self.shard = edge.EdgeShard.create(str(folder / SHARD), _layout(config))

    def keep(self) -> None:
        """Write what is known of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CONFIG).write_text(json.dumps(self.config), encoding="utf-8")

    def optimized(self) -> bool:
        """Build what waits to be built; whether there was anything."""
        done = self.shard.optimize()
        self.shard.flush()
        return bool(done)

    def described(self) -> Json:
        """As GET /collections/{name} gives it."""
        info, config = self.shard.info(), self.config
        names = ("shard_number", "replication_factor", "write_consistency_factor")
        params = {name: config.get(name) or 1 for name in names}
        params |= {"vectors": config["vectors"], "sparse_vectors": config["sparse_vectors"]}
        params["on_disk_payload"] = config.get("on_disk_payload", True)
        schema = {key: {"data_type": kind, "points": info.points_count} for key, kind in config.get("indexes", {}).items()}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "payload_schema": schema,
            "config": {"params": params, "metadata": config.get("metadata"), **DEFAULTS},
        }


DEFAULTS: Json = {
    "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
    "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
                         "flush_interval_sec": 5},
}  # fmt: skip


class Engine:
    """The collections of a folder, and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._held = {path.parent.name: Collection(path.parent) for path in folder.glob(f"*/{CONFIG}")}

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The result of a request; RefusedError as Qdrant refuses."""
        if (method, path) == ("POST", "/optimize"):
            return [collection.optimized() for collection in self._held.values()]
        matched = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if matched is None:
            raise RefusedError(404, f"no such path: {path}")
        name, rest = unquote(matched[1]), matched[2] or ""
        if rest == "/exists":
            return {"exists": name in self._held}
        if (method, rest) == ("PUT", ""):
            return self._create(name, body)
        if (method, rest) == ("DELETE", ""):
            return self._drop(name)
        collection = self._held.get(name)
        if collection is None:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        what = WHAT.get((method, rest))
        if what is None:
            raise RefusedError(404, f"not made here: {method} {rest}")
        return what(collection, body)

    def close(self) -> None:
        """Write everything."""
        for collection in self._held.values():
            collection.shard.close()

    def _create(self, name: str, body: Json) -> bool:
        with self._lock:
            if name in self._held:
                raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
            self._held[name] = Collection(self._folder / name, body)
        return True

    def _drop(self, name: str) -> bool:
        with self._lock:
            if name not in self._held:
                return False
            self._held.pop(name).shard.close()
            (self._folder / name / CONFIG).unlink()
            (self._folder / name).rename(self._folder / f".{name}-{len(list(self._folder.iterdir()))}")
        return True


# -- what is asked of a collection -----------------------------------------------------------------


def _index(collection: Collection, body: Json) -> Json:
    name, kind = body["field_name"], body["field_schema"]
    collection.shard.update(edge.UpdateOperation.create_field_index(name, getattr(edge.PayloadSchemaType, kind.capitalize())))
    collection.config.setdefault("indexes", {})[name] = kind
    collection.keep()
    return {"operation_id": 0, "status": "completed"}


def _change(collection: Collection, body: Json) -> bool:
    collection.config["metadata"] = {**(collection.config.get("metadata") or {}), **body["metadata"]}
    collection.keep()
    return True


def _upsert(collection: Collection, body: Json) -> Json:
    points = [
        edge.Point(point["id"], {name: _vector(one) for name, one in point["vector"].items()}, point.get("payload") or {})
        for point in body["points"]
    ]
    collection.shard.update(edge.UpdateOperation.upsert_points(points))
    collection.shard.flush()
    return {"operation_id": 0, "status": "completed"}


def _delete(collection: Collection, body: Json) -> Json:
    collection.shard.update(edge.UpdateOperation.delete_points(body["points"]))
    collection.shard.flush()
    return {"operation_id": 0, "status": "completed"}


def _retrieve(collection: Collection, body: Json) -> list[Json]:
    shown = body.get("with_payload", True), body.get("with_vector", False)
    return [_record(one, *shown) for one in collection.shard.retrieve(body["ids"], shown[0], shown[1])]


def _count(collection: Collection, body: Json) -> Json:
    return {
        "count": collection.shard.count(edge.CountRequest(exact=body.get("exact", True), filter=_filter(body.get("filter"))))
    }


def _scroll(collection: Collection, body: Json) -> Json:
    order, shown = body.get("order_by"), (body.get("with_payload", True), body.get("with_vector", False))
    by = order and edge.OrderBy(order["key"], getattr(edge.Direction, order.get("direction", "asc").capitalize()))
    asked = edge.ScrollRequest(
        offset=body.get("offset"), limit=body.get("limit"), filter=_filter(body.get("filter")), with_payload=shown[0],
        with_vector=shown[1], order_by=by,
    )  # fmt: skip
    records, following = collection.shard.scroll(asked)
    following = None if following is None else str(following)
    return {"points": [_record(one, *shown) for one in records], "next_page_offset": following}


def _query_batch(collection: Collection, body: Json) -> list[Json]:
    found = []
    for one in body["searches"]:
        shown = one.get("with_payload", False), one.get("with_vector", False)
        asked = edge.QueryRequest(
            limit=one["limit"],
            query=edge.Query.Nearest(_vector(one["query"]["nearest"]), one["using"]),
            with_payload=shown[0], with_vector=shown[1], filter=_filter(one.get("filter")), params=_params(one.get("params")),
        )  # fmt: skip
        hits = collection.shard.query(asked)
        found.append({"points": [{**_record(hit, *shown), "version": hit.version, "score": hit.score} for hit in hits]})
    return found


WHAT: dict[tuple[str, str], Callable[[Collection, Any], Any]] = {
    ("GET", ""): lambda collection, body: collection.described(),
    ("PATCH", ""): _change,
    ("PUT", "/index"): _index,
    ("PUT", "/points"): _upsert,
    ("POST", "/points"): _retrieve,
    ("POST", "/points/delete"): _delete,
    ("POST", "/points/count"): _count,
    ("POST", "/points/scroll"): _scroll,
    ("POST", "/points/query/batch"): _query_batch,
}


# -- JSON and the engine's own types -----------------------------------------------------------------


def _layout(config: Json) -> edge.EdgeConfig:
    vectors = {name: _vector_params(params) for name, params in config["vectors"].items()}
    sparse = {name: edge.EdgeSparseVectorParams() for name in config["sparse_vectors"]}
    return edge.EdgeConfig(vectors, sparse, optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1))


def _vector_params(params: Json) -> edge.EdgeVectorParams:
    codes, hnsw = (params.get("quantization_config") or {}).get("scalar"), params.get("hnsw_config")
    return edge.EdgeVectorParams(
        params["size"],
        getattr(edge.Distance, params["distance"]),
        on_disk=params.get("on_disk"),
        multivector_config=params.get("multivector_config") and edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        quantization_config=codes
        and edge.ScalarQuantizationConfig(edge.ScalarType.Int8, codes.get("quantile"), codes.get("always_ram")),
        hnsw_config=hnsw and edge.HnswIndexConfig(hnsw["m"], 100, 10_000),
    )


def _vector(given: Any) -> Any:
    return edge.SparseVector(given["indices"], given["values"]) if isinstance(given, Mapping) else given


def _params(given: Json | None) -> edge.SearchParams | None:
    if given is None:
        return None
    codes = given.get("quantization") or {}
    how = edge.QuantizationSearchParams(codes.get("ignore", False), codes.get("rescore"), codes.get("oversampling"))
    return edge.SearchParams(hnsw_ef=given.get("hnsw_ef"), exact=given.get("exact", False), quantization=how)


def _filter(given: Json | None) -> edge.Filter | None:
    if given is None:
        return None
    parts = {name: given.get(name) for name in ("must", "should", "must_not")}
    listed = {
        name: None if part is None else [_condition(one) for one in (part if isinstance(part, list) else [part])]
        for name, part in parts.items()
    }
    return edge.Filter(**listed)


def _condition(given: Json) -> Any:
    if "has_id" in given:
        return edge.HasIdCondition(set(given["has_id"]))
    if "nested" in given:
        return edge.NestedCondition(given["nested"]["key"], _filter(given["nested"]["filter"]))
    if given.keys() & {"must", "should", "must_not"}:
        return _filter(given)
    if given.get("match") is not None:
        match = given["match"]
        return edge.FieldCondition(
            given["key"], match=edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
        )
    if given.get("range") is not None:
        return edge.FieldCondition(given["key"], range=edge.RangeFloat(**given["range"]))
    raise RefusedError(400, f"not made here: {given}")


def _record(record: Any, with_payload: Any, with_vector: Any) -> Json:
    shown: Json = {"id": str(record.id), "payload": record.payload if with_payload else None}
    if with_vector:
        shown["vector"] = {name: _plain(vector) for name, vector in (record.vector or {}).items()}
    return shown


def _plain(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return vector


# -- HTTP --------------------------------------------------------------------------------------------


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    """What answers the requests of a connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet, not two

        def answer(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body, path = self.rfile.read(size), urlsplit(self.path).path
            try:
                if path == "/":
                    self.send(200, {"title": "qdrant - vector search engine", "version": VERSION, "commit": None})
                    return
                result = engine.answer(self.command, path, json.loads(body) if body else None)
                self.send(200, {"result": result, "status": "ok", "time": 0.0})
            except RefusedError as refused:
                self.send(refused.status, {"status": {"error": str(refused)}, "time": 0.0})
            except Exception as error:  # the engine's own
                self.send(400, {"status": {"error": f"{type(error).__name__}: {error}"}, "time": 0.0})

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815  # as the standard library calls them

        def send(self, status: int, content: Json) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    return Handler


def main() -> None:
    """Serve until a signal."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine(folder)
    with ThreadingHTTPServer(("127.0.0.1", port), handler(engine)) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
