"""Hosts and ports: which host is this machine, where a key may go in the clear, and listening so that only we are heard."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from m3retriever.errors import InvalidArgumentError

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # what our own servers listen on unless told otherwise
LOCAL_NAMES = ("localhost", "localhost.localdomain")
MAX_PORT = 65535


def is_this_machine(host: str) -> bool:
    """Whether what is sent to a host stays here, so that nobody on the way can read it: a loopback address, or its name."""
    host = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOCAL_NAMES


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens here; port 0 takes a free one. InvalidArgumentError for no host, or a port that is taken."""
    if not 0 <= port <= MAX_PORT:
        raise InvalidArgumentError(f"port must be from 0 to {MAX_PORT}; got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # only where TCP is named asyncio sends at once
    try:
        if os.name == "posix":  # or a server that has just ended would seem to hold the port still
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        one.listen()
    except OSError as error:
        one.close()
        raise InvalidArgumentError(_why(error, host, port)) from error
    return one


def _why(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"there is no host {host!r}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken; choose another with --port"
    return f"cannot listen on {host}:{port}: {error.strerror}"
