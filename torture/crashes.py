"""A process that changes an index without end, and is killed: what it acknowledged must be there, and nothing else.

The process writes down every change before it begins and after it is done, on disk. Whoever reopens the index
compares it with that log and with an index that nobody disturbed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m3retriever import ChromaStore, Document, HashingEncoder, M3Index, StoreError, ingest
from m3retriever.scoring import colbert_score
from torture.server import PATIENCE, Server

ENCODER = HashingEncoder(64)
COLLECTION = "torture"
IDS = 120  # documents at most: few, so that most changes replace or remove what is there
LARGEST = 40  # documents of one change
TOGETHER = 16  # documents that `add` encodes and stores at a time: a large change becomes several writes
SYNC = 20  # changes after which Chroma writes its vector index and cuts its log: 1000 by default
LOOKED_AT = 25  # documents searched for after each kill, beside those that the killed change named
ROUNDING = 4e-3  # of a ColBERT score whose token vectors are kept in int8, at 64 dimensions
ROUNDS = round(200 * float(os.environ.get("M3_TORTURE_ROUNDS", "1")))  # kills of each kind in the long form
ENDING = 5.0  # seconds that a process which has answered may take to end
LONGEST_DELAY = 0.12  # seconds between a change's beginning and the kill: most changes take less

fresh_processes = multiprocessing.get_context("forkserver")
fresh_processes.set_forkserver_preload(["torture.crashes", "chromadb"])


@dataclass(frozen=True)
class Place:
    """Where an index lies: a folder, or with a port a payload beside a Chroma server on this machine."""

    folder: Path
    log: Path
    port: int = 0

    def open(self) -> M3Index:
        """The index, brought in step with Chroma as any opening does."""
        if not self.port:
            return M3Index(ENCODER, ChromaStore(self.folder, collection=COLLECTION))
        served = ChromaStore(host="127.0.0.1", port=self.port, collection=COLLECTION, payload=self.folder)
        return M3Index(ENCODER, served)


@dataclass
class Truth:
    """What a log says: documents by id, and for ids whose change was not acknowledged all that they may be."""

    held: dict[str, Document] = field(default_factory=dict)
    unsure: dict[str, list[Document | None]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)  # of all documents that ever were
    changes: int = 0

    def begin(self, change: dict[str, Any]) -> None:
        """A change that may have happened in part, document by document."""
        for id, after in _outcome(change).items():
            self.unsure.setdefault(id, [self.held.get(id)]).append(after)
            self.words += [after.text.split()[1]] if after else []

    def done(self, change: dict[str, Any]) -> None:
        """A change that was acknowledged."""
        self.changes += 1
        for id, after in _outcome(change).items():
            self.unsure.pop(id, None)
            if after is None:
                self.held.pop(id, None)
            else:
                self.held[id] = after


def _outcome(change: dict[str, Any]) -> dict[str, Document | None]:
    return dict.fromkeys(change["gone"]) | {id: Document(id, text, data) for id, text, data in change["documents"]}


def replay(log: Path) -> Truth:
    """What the log of a killed process acknowledges."""
    truth, last = Truth(), {}
    for line in log.read_text().splitlines() if log.exists() else []:
        state, change = json.loads(line)
        if state == "begin":
            truth.begin(last := change)
        else:
            truth.done(change or last)
    return truth


# -- the process that is killed ------------------------------------------------------------------------


def next_change(chosen: random.Random, truth: Truth, serial: int) -> dict[str, Any]:
    """Documents to put or to remove: new texts, new metadata under old texts, or ids to delete."""
    held, count = sorted(truth.held), chosen.randint(1, LARGEST)
    kind = chosen.choice(["texts", "texts", "metadata", "delete"]) if held else "texts"
    if kind == "delete":
        return {"documents": [], "gone": chosen.sample(held, min(count, len(held) // 2 + 1))}
    if kind == "metadata":
        ids = chosen.sample(held, min(count, len(held)))
        texts = [truth.held[id].text for id in ids]
    else:
        ids = [f"d{number}" for number in chosen.sample(range(IDS), count)]
        texts = [f"{id} u{serial}x{row} w{serial % 7} w{row % 5}" for row, id in enumerate(ids)]
    data = [{"serial": serial, "row": row, **({"extra": serial} if chosen.random() < 0.5 else {})} for row in range(len(ids))]
    return {"documents": list(zip(ids, texts, data, strict=True)), "gone": []}


def apply(index: M3Index, change: dict[str, Any]) -> None:
    """Make a change through the index, as a user would."""
    if change["gone"]:
        index.delete(change["gone"], skip_unknown=True)
    else:
        index.add([Document(*columns) for columns in change["documents"]])


def churn(place: Place, seed: int) -> None:
    """Change the index until the end. A server that goes is waited for, and the change made again."""
    ingest.BATCH = TOGETHER
    chosen, truth, index = random.Random(seed), replay(place.log), place.open()
    serial = truth.changes * 1000
    with place.log.open("a") as file:

        def note(state: str, change: dict[str, Any] | None = None) -> None:
            file.write(json.dumps([state, change]) + "\n")
            file.flush()
            os.fsync(file.fileno())

        while True:
            serial += 1
            change = next_change(chosen, truth, serial)
            note("begin", change)
            _persist(lambda change=change: apply(index, change), patient=bool(place.port))
            note("done")
            truth.done(change)


def _persist(call: Callable[[], object], *, patient: bool) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            call()
            return
        except StoreError:
            if not patient or time.monotonic() > end:
                raise
            time.sleep(0.05)


def prepare(place: Place) -> None:
    """Make a collection whose vector index Chroma writes often."""
    settings: Any = {"hnsw": {"space": "cosine", "ef_search": 800, "sync_threshold": SYNC, "batch_size": SYNC // 2}}
    with chroma(place) as client:
        client.create_collection(COLLECTION, embedding_function=None, configuration=settings)


@contextmanager
def chroma(place: Place) -> Iterator[Any]:
    """Chroma without m3retriever, at the same place."""
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    if place.port:
        yield chromadb.HttpClient(host="127.0.0.1", port=place.port, settings=settings)
        return
    client = chromadb.PersistentClient(str(place.folder), settings=settings)
    yield client
    client.close()


# -- the process that looks ----------------------------------------------------------------------------


def check(place: Place, beside: Path, seed: int) -> list[str]:
    """Reopen the index and say everything that is wrong with it; write down how unacknowledged changes ended."""
    truth, chosen = replay(place.log), random.Random(seed)
    index = place.open()
    try:
        problems = [*_wrong_documents(index, truth), *_wrong_in_chroma(place, index)]
        held = {document.id: document for document in index.find()}
        names = sorted({*truth.unsure, *chosen.sample(sorted(held), min(LOOKED_AT, len(held)))})
        gone = [word for word in truth.words if word not in {document.text.split()[1] for document in held.values()}]
        problems += _wrong_searches(index, held, names, chosen.sample(gone, min(10, len(gone))))
        problems += _unlike_undisturbed(index, held, names, beside)
    finally:
        index.close()
    settled = {"documents": [[one.id, one.text, dict(one.metadata)] for one in held.values() if one.id in truth.unsure]}
    with place.log.open("a") as file:
        file.write(json.dumps(["settled", {**settled, "gone": [id for id in truth.unsure if id not in held]}]) + "\n")
    return problems


def _wrong_documents(index: M3Index, truth: Truth) -> Iterator[str]:
    """Acknowledged documents that are not as they were acknowledged, and others that are neither old nor new."""
    found = {document.id: document for document in index.find()}
    for id in sorted({*truth.held, *truth.unsure, *found}):
        allowed = truth.unsure.get(id, [truth.held.get(id)])
        if found.get(id) not in allowed:
            yield f"{id} is {found.get(id)}, and may be {' or '.join(map(str, allowed))}"
    if len(index) != len(found):
        yield f"the index counts {len(index)} documents and lists {len(found)}"


def _wrong_in_chroma(place: Place, index: M3Index) -> Iterator[str]:
    """What an ordinary Chroma client sees: the same ids, and a vector for each of them."""
    with chroma(place) as client:
        collection = client.get_collection(COLLECTION, embedding_function=None)
        got = collection.get(include=["embeddings"])
        if sorted(got["ids"]) != index.ids():
            yield f"Chroma holds {sorted(got['ids'])}, the index {index.ids()}"
        elif got["ids"]:
            ours = index.vectors(got["ids"]).dense
            wrong = [
                id
                for id, left, right in zip(got["ids"], ours, got["embeddings"], strict=True)
                if abs(left - right).max() > 1e-6
            ]
            yield from [f"Chroma's vectors of {wrong} are not the index's"] if wrong else []
            near = collection.query(query_embeddings=[ours[0]], n_results=len(got["ids"]), include=[])["ids"][0]
            yield from (
                [f"Chroma's vector index shows the ghosts {ghosts}"] if (ghosts := sorted({*near} - {*got["ids"]})) else []
            )


def _wrong_searches(index: M3Index, held: dict[str, Document], names: Sequence[str], gone: Sequence[str]) -> Iterator[str]:
    """Each document by its own words in every mode and by its metadata, with the scores that its text gives."""
    for document in [held[id] for id in names if id in held]:
        word = document.text.split()[1]
        hits = {mode: index.search(document.text, 1, mode=mode) for mode in ("dense", "colbert", "hybrid")}
        hits["sparse"] = index.search(word, 5, mode="sparse")
        for mode, found in hits.items():
            if [hit.document for hit in found] != [document]:
                yield f"{mode} does not find {document}, but {[hit.document for hit in found]}"
        text = ENCODER.encode_documents([document.text])
        query = ENCODER.encode_queries([word])
        score = index.score(word, ids=[document.id]).of(0)["colbert"]
        if abs(score - colbert_score(query.colbert, text.colbert)) > ROUNDING:
            yield f"the ColBERT score of {document} is {score}"
        if document.id not in index.ids({"serial": document.metadata["serial"]}):
            yield f"a filter on its metadata does not find {document}"
    for word in gone:
        if ghosts := index.search(word, 5, mode="sparse"):
            yield f"{word!r} has gone with its text, and finds {ghosts}"


def _unlike_undisturbed(index: M3Index, held: dict[str, Document], names: Sequence[str], beside: Path) -> Iterator[str]:
    """Scores that are not, to the last bit, those of an index in a fresh folder that holds the same documents."""
    with M3Index(ENCODER, ChromaStore(beside, collection=COLLECTION)) as undisturbed:
        undisturbed.add([held[id] for id in sorted(held)])
        for text in ["w1 w2 w3", *(held[id].text for id in names if id in held)]:
            ours, theirs = (each.score_many([text], depth=2 * IDS)[0] for each in (index, undisturbed))
            order = np.argsort(ours.ids), np.argsort(theirs.ids)
            left, right = (each.values[rows].tobytes() for each, rows in zip((ours, theirs), order, strict=True))
            if sorted(ours.ids) != sorted(theirs.ids) or left != right:
                yield f"the scores for {text!r} are not those of an undisturbed index"


# -- the one that kills --------------------------------------------------------------------------------


def answer(call: Callable[..., Any], *given: Any) -> Any:
    """What a call returns in a process of its own; RuntimeError where that process ends without an answer."""
    here, there = fresh_processes.Pipe(duplex=False)
    process = fresh_processes.Process(target=_send, args=(there, call, given))
    process.start()
    there.close()
    try:
        kind, value = here.recv() if here.poll(PATIENCE) else ("raised", "no answer came in time")
    except EOFError:
        process.join(PATIENCE)
        raise RuntimeError(f"{call.__name__} ended with {process.exitcode} and no answer") from None
    finally:
        process.join(ENDING)
        process.kill()
        process.join()
        here.close()
    if kind == "raised":
        raise RuntimeError(value)
    return value


def _send(pipe: Any, call: Callable[..., Any], given: Sequence[Any]) -> None:
    import traceback

    try:
        pipe.send(("returned", call(*given)))
    except Exception:  # whatever it was, the other side is to see it
        pipe.send(("raised", traceback.format_exc()))


def kill_a_writer(place: Place, seed: int, *, meanwhile: Callable[[], bool] | None = None) -> None:
    """Start a process that changes the index, let it acknowledge some changes, and kill it within one.

    Where `meanwhile` says False, it is killed without having changed any more.
    """
    chosen = random.Random(seed)
    writer = fresh_processes.Process(target=churn, args=(place, seed))
    writer.start()
    try:
        _wait_for_changes(place, writer, chosen.randint(1, 6))
        if meanwhile is not None:
            time.sleep(chosen.random() * LONGEST_DELAY)
            if meanwhile():
                _wait_for_changes(place, writer, chosen.randint(1, 3))
        time.sleep(chosen.random() * LONGEST_DELAY)
    finally:
        writer.kill()
        writer.join(PATIENCE)
    if writer.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the writer ended by itself with {writer.exitcode}")


def _wait_for_changes(place: Place, writer: Any, count: int) -> None:
    end, size = time.monotonic() + PATIENCE, place.log.stat().st_size if place.log.exists() else 0
    with place.log.open("ab+") as log:
        log.seek(size)
        while count > 0:
            count -= log.read().count(b'["done"')
            if writer.exitcode is not None or time.monotonic() > end:
                raise RuntimeError(f"the writer acknowledged nothing more; it ended with {writer.exitcode}")
            time.sleep(0.002)


@dataclass
class Survived:
    """What many kills came to."""

    kills: int = 0
    changes: int = 0
    cut_short: int = 0
    servers_mended: int = 0  # whose vector index Chroma had left in pieces
    problems: list[str] = field(default_factory=list)

    def add(self, place: Place, beside: Path, seed: int) -> None:
        """Count one kill, and look at what it left."""
        self.kills += 1
        self.cut_short += bool(replay(place.log).unsure)
        self.problems += [f"kill {self.kills}: {problem}" for problem in answer(check, place, beside, seed)]
        self.changes = replay(place.log).changes
        shutil.rmtree(beside)


def kill_embedded(folder: Path, kills: int, seed: int = 0) -> Survived:
    """Kill a process that changes an index in a folder, again and again."""
    place, survived = Place(folder / "index", folder / "log"), Survived()
    answer(prepare, place)
    for number in range(seed, seed + kills):
        kill_a_writer(place, number)
        survived.add(place, folder / "undisturbed", number)
    return survived


def kill_served(folder: Path, kills: int, seed: int = 0) -> Survived:
    """Kill a client of a server again and again, and every other time the server too, in the middle of the client's work."""
    survived = Survived()
    with Server(folder / "server") as server:
        place = Place(folder / "payload", folder / "log", server.port)
        answer(prepare, place)

        def restart() -> bool:
            server.restart()
            return bool(answer(_answers, place))

        for number in range(seed, seed + kills):
            kill_a_writer(place, number, meanwhile=restart if number % 2 else None)
            if not answer(_answers, place):
                server.kill()
                answer(_open_its_folder, server.folder, place)
                server.start()
                survived.servers_mended += 1
            survived.add(place, folder / "undisturbed", number)
    return survived


def _answers(place: Place) -> bool:
    """Whether the server answers for the collection: one killed while it wrote its vector index in place never does."""
    from chromadb.errors import InternalError

    with chroma(place) as client:
        try:
            client.get_collection(COLLECTION).get(limit=1, include=["embeddings"])
        except InternalError:
            return False
    return True


def _open_its_folder(folder: Path, place: Place) -> None:
    """What docs/reliability.md says to do about such a server: while it is stopped, open its folder once."""
    ChromaStore(folder, collection=COLLECTION, payload=place.folder).close()
