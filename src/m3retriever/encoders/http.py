"""JSON from an encoding service over HTTP: few retries, an end to every wait, and no answer larger than it can be.

What is sent goes to the address given and nowhere else: no redirect is followed, no proxy and no .netrc of the
environment is used. Messages say which address and what happened; they hold neither texts nor keys nor what a
service wrote, for that may repeat both.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import random
import re
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

import httpx

from m3retriever.errors import InvalidArgumentError, ServiceError, shown

KEY_VARIABLE = "M3RETRIEVER_API_KEY"
CONNECT_SECONDS = 10.0  # a machine that is there answers sooner
FIRST_WAIT, LONGEST_WAIT = 0.25, 60.0  # seconds before the second attempt, doubled each time; and at most, asked for or not
STARTING, START_SECONDS = 503, 120.0  # what `m3retriever serve` says until its model is loaded; and for how long that may be
AGAIN = (429, 502, 503, 504)  # too busy, or a proxy whose service is starting
REFUSAL_BYTES = 1 << 16  # read of an error's body, for its type
WHY = {
    401: f"it wants a key, or another one: set {KEY_VARIABLE} or give api_key=",
    403: f"it does not take this key: set {KEY_VARIABLE} or give api_key=",
    404: "it has nothing at this address: is it an encoding service?",
    413: "the request is too large for it",
    501: "its model cannot do this",
}

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to ask again.

    Attributes
    ----------
    timeout : seconds that one attempt may take, from connecting to the last byte
    retries : further attempts after a lost connection, and where the service is busy or starting
    deadline : seconds that all attempts at one request may take together
    """

    timeout: float = 60.0
    retries: int = 4
    deadline: float = 300.0

    def __post_init__(self) -> None:
        seconds = (self.timeout, self.deadline)
        if not all(isinstance(one, int | float) and math.isfinite(one) and one > 0 for one in seconds):
            raise InvalidArgumentError(f"timeout and deadline are seconds > 0; got {shown(seconds)}")
        if not isinstance(self.retries, int) or isinstance(self.retries, bool) or self.retries < 0:
            raise InvalidArgumentError(f"retries must be an integer >= 0; got {shown(self.retries)}")


class HttpService:
    """One service, asked from any thread; a forked process opens connections of its own.

    Parameters
    ----------
    url
        http or https, without a user, a query or a fragment; a path is kept as a prefix.
    api_key
        Sent as `Authorization: Bearer`; None takes M3RETRIEVER_API_KEY.
    allow_insecure
        Send a key over http to another machine, where others on the way can read it.
    tls
        Which certificates are trusted; None trusts those of the package certifi.

    Raises
    ------
    InvalidArgumentError
        An address or a key that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        patience: Patience | None = None,
        allow_insecure: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = checked_url(url)
        self._key = _checked_key(os.environ.get(KEY_VARIABLE) if api_key is None else api_key)
        if self._key and not allow_insecure and not _protected(self.url):
            raise InvalidArgumentError(
                f"a key would travel in the clear to {self.url}: want https, or a service on this machine; "
                "allow_insecure=True sends it nevertheless"
            )
        self._patience, self._tls = patience or Patience(), tls
        self._closed = threading.Event()
        self._lock, self._process = threading.Lock(), os.getpid()
        self._opened: httpx.Client | None = None
        self._inherited: httpx.Client | None = None

    def get(self, path: str, *, at_most: int, starting: bool = False) -> Any:
        """The JSON at a path, of at most so many bytes; ServiceError where there is none.

        A service that may be `starting` is given two minutes to load its model, as long as it says 503.
        """
        return self._asked("GET", path, None, at_most, starting=starting)

    def post(self, path: str, content: Mapping[str, Any], *, at_most: int) -> Any:
        """The JSON that answers some; as `get`."""
        return self._asked("POST", path, json.dumps(content, ensure_ascii=False, allow_nan=False).encode(), at_most)

    def close(self) -> None:
        """End connections and waits; whoever asks later gets a ServiceError."""
        self._closed.set()
        if self._process == os.getpid() and self._opened is not None:
            self._opened.close()

    def failed(self, what: str, *, status: int | None = None) -> ServiceError:
        """The error that says what went wrong with this service."""
        return ServiceError(f"the service at {self.url} {what}", status=status)

    def _asked(self, method: str, path: str, body: bytes | None, at_most: int, *, starting: bool = False) -> Any:
        began, attempt = time.monotonic(), 0
        ends = began + self._patience.deadline
        while True:
            try:
                return self._attempt(method, path, body, at_most, ends)
            except _PassingError as passing:
                attempt += 1
                loading = starting and passing.status == STARTING and time.monotonic() < began + START_SECONDS
                wait = passing.wait(min(attempt, 3) if loading else attempt)
                if (attempt > self._patience.retries and not loading) or time.monotonic() + wait >= ends:
                    times = f"{attempt} times" if attempt > 1 else "once"
                    raise self.failed(f"{passing} (asked {times})", status=passing.status) from passing.__cause__
            if self._closed.wait(wait):
                raise self.failed("was closed here")

    def _attempt(self, method: str, path: str, body: bytes | None, at_most: int, ends: float) -> Any:
        ends = min(ends, time.monotonic() + self._patience.timeout)
        seconds = max(0.001, ends - time.monotonic())
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with self._client().stream(method, self.url + path, content=body, headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    self._refused(response, ends)
                return self._json(self._read(response, at_most, ends))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _PassingError("cannot be reached") from error
        except httpx.TimeoutException as error:
            raise self._late() from error
        except httpx.TransportError as error:
            raise _PassingError(f"broke the connection ({type(error).__name__})") from error

    def _client(self) -> httpx.Client:
        if self._process != os.getpid():  # forked: the connections are the parent's, and a thread of it may hold the lock
            self._inherited, self._opened = self._opened, None
            self._lock, self._process = threading.Lock(), os.getpid()
        with self._lock:
            if self._closed.is_set():
                raise self.failed("was closed here")
            if self._opened is None:
                self._opened = httpx.Client(trust_env=False, follow_redirects=False, verify=self._tls or True)
                weakref.finalize(self, self._opened.close)
            return self._opened

    def _read(self, response: httpx.Response, at_most: int, ends: float) -> bytes:
        """The body as it was sent: never unpacked, so that it cannot grow, and read no further than it may be long."""
        if (coding := response.headers.get("content-encoding", "identity").lower()) != "identity":
            raise self.failed(f"sends compressed answers ({shown(coding[:20])}), which it was asked not to")
        body = bytearray()
        for part in response.iter_raw():
            body += part
            if len(body) > at_most:
                raise self.failed(f"sends more than {at_most} bytes, which is more than an answer to this can have")
            if time.monotonic() > ends:
                raise self._late()
        return bytes(body)

    def _refused(self, response: httpx.Response, ends: float) -> NoReturn:
        status = response.status_code
        if status in AGAIN:
            raise _PassingError(f"is not ready for more (status {status})", status, response.headers.get("retry-after"))
        if 300 <= status < 400:
            raise self.failed(f"answers with a redirect (status {status}), which is not followed: give the address it leads to")
        kind = ""
        with suppress(ServiceError, LookupError, TypeError):  # a proxy's page: the status says enough
            kind = str(self._json(self._read(response, REFUSAL_BYTES, ends))["error"]["type"])
        named = f", {kind}" if re.fullmatch(r"[A-Za-z_]{1,60}", kind) else ""
        why = WHY.get(status, "its own log says more")
        raise self.failed(f"refuses the request (status {status}{named}): {why}", status=status)

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):  # not chained: it would hold the body
            raise self.failed("gave an answer that is not JSON: is it an encoding service?") from None

    def _late(self) -> ServiceError:
        return self.failed(
            f"took longer than {self._patience.timeout:g} s to answer: give a larger timeout=, or fewer texts at once"
        )


class _PassingError(Exception):
    """What may be over in a moment."""

    def __init__(self, what: str, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(what)
        self.status, self._retry_after = status, retry_after

    def wait(self, attempt: int) -> float:
        """Seconds after the attempt of this number, from 1: as asked for, else doubled each time, and different for each."""
        asked = _seconds(self._retry_after)
        backoff = math.ldexp(FIRST_WAIT, min(attempt, 20) - 1) * random.uniform(0.5, 1)
        return min(LONGEST_WAIT, max(backoff, 0.0 if asked is None else asked))


def in_order(work: Callable[[Piece], Result], pieces: Sequence[Piece], at_once: int) -> Iterator[Result]:
    """The results of some work on each piece, in order, a few under way at a time; after an error no more are begun."""
    if len(pieces) < 2:
        yield from map(work, pieces)
        return
    failed = threading.Event()

    def unless_failed(piece: Piece) -> Result:
        if failed.is_set():
            raise CancelledError
        try:
            return work(piece)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(min(at_once, len(pieces)), thread_name_prefix="m3retriever") as pool:
        yield from pool.map(unless_failed, pieces)


def checked_url(url: str) -> str:
    """An http or https address without a slash at its end; InvalidArgumentError, which does not repeat a password."""
    wanted = "a service's address is http://host:port or https://host"
    if not isinstance(url, str):
        raise InvalidArgumentError(f"{wanted}; got {type(url).__name__}")
    if "@" in url:
        raise InvalidArgumentError(f"{wanted}, without a user and a password; a key goes into {KEY_VARIABLE} or api_key=")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise InvalidArgumentError(f"{wanted}; got {shown(url)}") from None
    usable = parsed.scheme in ("http", "https") and parsed.host and 0 < (parsed.port or 1) < 65536 and not re.search(r"\s", url)
    if not usable or parsed.query or parsed.fragment:
        raise InvalidArgumentError(f"{wanted}; got {shown(url)}")
    return str(parsed).rstrip("/?#")


def _checked_key(key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not re.fullmatch(r"[!-~]*", key)):
        raise InvalidArgumentError("a key is ASCII without blanks; this one is not")
    return key or None


def _protected(url: str) -> bool:
    """Whether nobody on the way can read what is sent: over TLS, or on this machine."""
    parsed = httpx.URL(url)
    if parsed.scheme == "https" or parsed.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(parsed.host).is_loopback
    except ValueError:
        return False


def _seconds(retry_after: str | None) -> float | None:
    """The header's number of seconds, or the time until its date; None where it is neither."""
    if retry_after is None:
        return None
    try:
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", retry_after.strip()):
            return float(retry_after)
        date = parsedate_to_datetime(retry_after)
        return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # TypeError: a date without a zone
        return None


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's own, not JSON
