"""JSON from an encoding service over HTTP: few retries, an end to every wait, and no answer larger than it can be.

What is sent goes to the address given and nowhere else: no redirect is followed, no proxy and no .netrc of the
environment is used. Messages say which address and what happened; they hold neither texts nor keys nor what a
service wrote, for that may repeat both.
"""

from __future__ import annotations

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
from m3retriever.hosts import is_this_machine

KEY_VARIABLE = "M3RETRIEVER_API_KEY"
CONNECT_SECONDS = 10.0  # a machine that is there answers sooner
FIRST_WAIT, LONGEST_WAIT = 0.25, 60.0  # seconds before the second attempt, doubled each time; and at most, asked for or not
STEADY = 5  # the attempt after which waits for a service that is coming back grow no more: 4 s at most
STARTING, START_SECONDS = 503, 120.0  # what a proxy says whose service is starting; and for how long that may be at the start
LOADING = "not_ready"  # the type of that error where `m3retriever serve` is loading its model
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
    retries : further attempts after a lost connection, and where the service is busy
    deadline : seconds that all attempts at one request may take together; as long, and without counting them as retries,
        a service is asked again that is loading its model, or that answered earlier and cannot be reached now
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
        self._known = False  # until it has answered once: an address where nothing ever was is not waited for
        self._lock, self._process = threading.Lock(), os.getpid()
        self._opened: httpx.Client | None = None
        self._inherited: httpx.Client | None = None

    def get(self, path: str, *, at_most: int, starting: bool = False) -> Any:
        """The JSON at a path, of at most so many bytes; ServiceError where there is none.

        A service that may be `starting` is given two minutes in which a proxy before it says 503.
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
        began, asked, counted = time.monotonic(), 0, 0
        ends = began + self._patience.deadline
        while True:
            try:
                return self._attempt(method, path, body, at_most, ends)
            except _PassingError as passing:
                asked, now = asked + 1, time.monotonic()
                proxied = starting and passing.status == STARTING and now < began + START_SECONDS
                if coming := proxied or passing.loading or (passing.away and self._known):
                    wait = passing.wait(min(asked, STEADY), at_most=max(FIRST_WAIT, (ends - now) / 2))
                else:
                    counted += 1
                    wait = passing.wait(counted)
                if counted > self._patience.retries or now + wait >= ends:
                    raise self._gave_up(passing, asked, waited=coming) from passing.__cause__
            if self._closed.wait(wait):
                raise self.failed("was closed here")

    def _gave_up(self, passing: _PassingError, asked: int, *, waited: bool) -> ServiceError:
        times = f"{asked} times" if asked > 1 else "once"
        until = f" until the deadline of {self._patience.deadline:g} s: give a larger deadline=" if waited else ""
        return self.failed(f"{passing} (asked {times}{until})", status=passing.status)

    def _attempt(self, method: str, path: str, body: bytes | None, at_most: int, ends: float) -> Any:
        client = self._client()  # before the clock starts: the first one reads certificates
        now = time.monotonic()
        seconds = max(0.001, min(self._patience.timeout, ends - now))
        ends = now + seconds
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with client.stream(method, self.url + path, content=body, headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    self._refused(response, ends)
                answer = self._json(self._read(response, at_most, ends))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _PassingError("cannot be reached", away=not _distrusted(error)) from error
        except httpx.TimeoutException as error:
            raise self._late(seconds) from error
        except httpx.TransportError as error:
            raise _PassingError(f"broke the connection ({type(error).__name__})") from error
        self._known = True
        return answer

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
                raise httpx.ReadTimeout("the answer comes too slowly")
        return bytes(body)

    def _refused(self, response: httpx.Response, ends: float) -> NoReturn:
        status = response.status_code
        if 300 <= status < 400:
            raise self.failed(f"answers with a redirect (status {status}), which is not followed: give the address it leads to")
        kind = ""
        with suppress(ServiceError, LookupError, TypeError, httpx.TransportError):  # a proxy's page: the status says enough
            kind = str(self._json(self._read(response, REFUSAL_BYTES, ends))["error"]["type"])
        if status in AGAIN:
            loading = status == STARTING and kind == LOADING
            what = "is loading its model" if loading else "is not ready for more"
            after = response.headers.get("retry-after")
            raise _PassingError(f"{what} (status {status})", status, after, loading=loading)
        named = f", {kind}" if re.fullmatch(r"[A-Za-z_]{1,60}", kind) else ""
        why = WHY.get(status, "its own log says more")
        raise self.failed(f"refuses the request (status {status}{named}): {why}", status=status)

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):  # not chained: it would hold the body
            raise self.failed("gave an answer that is not JSON: is it an encoding service?") from None

    def _late(self, seconds: float) -> ServiceError:
        if seconds < self._patience.timeout:  # what the attempts before it had left of the deadline
            return self.failed(f"did not answer within the deadline of {self._patience.deadline:g} s: give a larger deadline=")
        return self.failed(f"took longer than {seconds:g} s to answer: give a larger timeout=, or fewer texts at once")


class _PassingError(Exception):
    """What may be over in a moment; `loading` and `away` (nobody listens) are over when a service has started."""

    def __init__(
        self,
        what: str,
        status: int | None = None,
        retry_after: str | None = None,
        *,
        loading: bool = False,
        away: bool = False,
    ) -> None:
        super().__init__(what)
        self.status, self._retry_after = status, retry_after
        self.loading, self.away = loading, away

    def wait(self, attempt: int, *, at_most: float = LONGEST_WAIT) -> float:
        """Seconds after the attempt of this number, from 1: doubled each time up to `at_most`, and different for each; or
        as long as asked for, up to a minute, where that is longer."""
        asked = _seconds(self._retry_after)
        backoff = min(at_most, math.ldexp(FIRST_WAIT, min(attempt, 20) - 1) * random.uniform(0.5, 1))
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
        raise InvalidArgumentError(f"{wanted}; got {shown(re.split('[?#]', url)[0])}{' and more' * ('?' in url or '#' in url)}")
    return str(parsed).rstrip("/?#")


def _checked_key(key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not re.fullmatch(r"[!-~]*", key)):
        raise InvalidArgumentError("a key is ASCII without blanks; this one is not")
    return key or None


def _protected(url: str) -> bool:
    """Whether nobody on the way can read what is sent: over TLS, or on this machine."""
    parsed = httpx.URL(url)
    return parsed.scheme == "https" or is_this_machine(parsed.host)


def _distrusted(error: BaseException | None) -> bool:
    """Whether a connection failed because of TLS, such as a certificate: time does not change that."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


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
