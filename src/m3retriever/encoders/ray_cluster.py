"""The connection of this process to Ray: made quietly, without statistics or a dashboard, and ended as it was made."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import worker as internals

from m3retriever.errors import InvalidArgumentError, ServiceError

logger = logging.getLogger(__name__)

ADDRESS = "RAY_ADDRESS"  # in the environment: which cluster, as for Ray's own programs
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # in the environment of what `ray job submit` runs, which says where workers run
REACHED_WITHIN = 10.0  # seconds
NO_STATISTICS = {"RAY_USAGE_STATS_ENABLED": "0"}
BACKEND_LEVEL = "RAY_BACKEND_LOG_LEVEL"  # in the environment: from which level on Ray's core writes to stderr, past Python
LOGGERS = ("ray", "ray.data", "ray.tune", "ray.serve")


def connect(address: str | None, *, cpus: float, gpus: float) -> Callable[[], None]:
    """Connect this process to a cluster, unless it is connected to one; gives what ends the connection.

    Without an address, nor one in RAY_ADDRESS, a cluster of this machine is started, with so many CPUs.
    InvalidArgumentError where this machine has too few GPUs, ServiceError where there is no such cluster.
    """
    if ray.is_initialized():
        return _nothing
    address = address or os.environ.get(ADDRESS)
    _check_reachable(address)
    os.environ.update(NO_STATISTICS)
    settings: dict[str, Any] = {"address": address} if address else {"address": "local", "num_cpus": max(1, round(cpus))}
    if not address:
        settings["include_dashboard"] = False
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with tempfile.TemporaryDirectory() as folder, _as_it_was():
        if JOB not in os.environ:
            settings["runtime_env"] = {"working_dir": _empty(folder)}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    print_again = _log_instead_of_print()

    def disconnect() -> None:
        ray.shutdown()
        print_again()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)

    try:
        _check_resources(here=not address, cpus=cpus, gpus=gpus)
    except BaseException:
        disconnect()
        raise
    return disconnect


def _check_reachable(address: str | None) -> None:
    """Say at once that nobody is there, for which Ray itself takes minutes.

    InvalidArgumentError for a Ray client's address, through which Ray Data's streams do not go; ServiceError where nobody
    listens.
    """
    if address is None or ":" not in address:
        return
    if "://" in address:
        raise InvalidArgumentError(f"address must be host:port or auto, of a cluster this machine belongs to; got {address!r}")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN).close()
    except (OSError, ValueError) as error:
        raise ServiceError(f"no Ray cluster at {address!r}: {error}") from error


def _log_instead_of_print() -> Callable[[], None]:
    """Have what Ray tells of workers that died logged: it prints that to stdout, and no setting of its own keeps it from
    there; gives what undoes that."""
    printed = getattr(internals, "print_to_stdstream", None)
    if printed is None:
        return _nothing

    def log(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
        logger.info("Ray: %s", " ".join(data.get("lines", ())))

    internals.print_to_stdstream = log
    return partial(setattr, internals, "print_to_stdstream", printed)


def _nothing() -> None:
    """Who was connected before stays so."""


def _empty(folder: str) -> str:
    """A folder with nothing that could be imported: without one, Ray's workers import from where this process was started."""
    Path(folder, "README").write_text("Workers of m3retriever begin here: nothing of the folder it was started in is run.\n")
    return folder


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Without Ray's remarks about its own future, and with the handler of SIGTERM that was there before."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings(), _quiet_core():
            warnings.simplefilter("ignore")
            yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Ray's core warns of what Ray Data does with it, on stderr. Told to be quiet it says so, there too: for the moment
    in which it starts, that leads nowhere. Who has set the level hears everything."""
    if BACKEND_LEVEL in os.environ:
        yield
        return
    os.environ[BACKEND_LEVEL] = "fatal"
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        del os.environ[BACKEND_LEVEL]


def _check_resources(*, here: bool, cpus: float, gpus: float) -> None:
    """Say where workers would wait for what is not there: an error on this machine, a warning where a cluster may grow."""
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it so
    if gpus <= there.get("GPU", 0) and cpus <= there.get("CPU", 0):
        return
    told = f"the workers want {cpus:g} CPUs and {gpus:g} GPUs; there are {there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
    if here:
        raise InvalidArgumentError(f"{told}: take fewer workers, or a part of a GPU for each")
    logger.warning("%s: workers wait until the cluster has them", told)
