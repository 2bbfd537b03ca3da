"""RemoteEncoder: the vectors of a model that runs elsewhere, in `m3retriever serve`."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from m3retriever.encoders.answers import (
    MOST_DIMENSIONS,
    SMALL_BYTES,
    check_answered,
    is_count,
    is_name,
    listed_texts,
    most_tokens,
)
from m3retriever.encoders.elsewhere import EncoderElsewhere, Kind
from m3retriever.encoders.http import HttpService, Patience, in_order
from m3retriever.errors import (
    EncoderMismatchError,
    InvalidArgumentError,
    InvalidVectorsError,
    ModelLoadError,
    ServiceError,
    shown,
)
from m3retriever.types import Token
from m3retriever.vectors import M3Vectors
from m3retriever.wire import from_columns

TOKEN_BYTES = 80  # of a token in JSON: three numbers with their names


class RemoteEncoder(EncoderElsewhere):
    """The Encoder that an encoding service runs, such as `m3retriever serve --model BAAI/bge-m3`.

    It has the name of the service's model, and so opens the indexes of the same model on this machine, and the other way
    round. Texts that fit one request of the service (its limits are asked for) are encoded there in one call, and
    have the bits they would have here; more are sent in several requests, in order. The vectors of the last 256 queries
    that came alone are kept. Safe from any thread, after a fork, and in a pickle, which holds no key.

    Parameters
    ----------
    url
        Where the service listens: http://127.0.0.1:7860, or https://host/prefix. Redirects are not followed and the
        proxies of the environment are not used: texts go to this address only.
    api_key
        Default: the variable M3RETRIEVER_API_KEY. Sent over https, or to this machine; see `allow_insecure`.
    model
        The name the model must have; default: whichever the service has now. It may not change later.
    timeout, retries, deadline
        Seconds that one attempt at a request may take; further attempts when the connection is lost or the service is
        busy; seconds that all of them may take together. A service that loads its model, or that answered earlier and
        cannot be reached now, is waited for until the deadline, whatever `retries` is.
    concurrency
        Requests under way at a time, where one call needs several.
    allow_insecure
        Send the key over http to another machine.
    tls
        Which certificates are trusted; None trusts those of the package certifi.

    Attributes
    ----------
    name, dim, precision, max_length
        Of the service's model; the last two are None where it has none.
    truncated
        How many texts have been cut so far.
    source
        None: an index does not keep the address, so that whoever gets the folder sends no texts there unasked.

    Raises
    ------
    ModelLoadError
        The service cannot be reached (which is said after `retries`), or is no encoding service.
    EncoderMismatchError
        It has another model than `model`, or, in later calls, than it had.
    ServiceError
        It does not answer, or not with vectors; no part of such an answer is used.
    InvalidArgumentError
        An address or a setting without a meaning, or a text that is longer than the service takes.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        deadline: float = 300.0,
        concurrency: int = 2,
        allow_insecure: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(concurrency)
        patience = Patience(timeout, retries, deadline)
        self._service = HttpService(url, api_key=api_key, patience=patience, allow_insecure=allow_insecure, tls=tls)
        self._own_key, self._own_tls = api_key is not None, tls is not None
        self._settings: dict[str, Any] = {"timeout": timeout, "retries": retries, "deadline": deadline}
        self._settings |= {"concurrency": concurrency, "allow_insecure": allow_insecure}
        self._served = served = _Served.of(self._service, model)
        self.name, self.dim, self.precision, self.max_length = served.name, served.dim, served.precision, served.max_length

    @property
    def url(self) -> str:
        """Where the service listens."""
        return self._service.url

    def tokenize(self, text: str) -> list[Token]:
        """The tokens that have a ColBERT vector, in order, with the characters they cover; a request each."""
        [text] = listed_texts([text])
        at_most = SMALL_BYTES + TOKEN_BYTES * most_tokens(text, self.max_length)
        answer = self._service.post("/v1/tokenize", {"input": text}, at_most=at_most)
        self._served.check(self._service, answer, among=("model",))
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(_is_token(token, len(text)) for token in tokens):
            raise self._service.failed("gave tokens that are none")
        return [Token(token["id"], token["start"], token["end"]) for token in tokens]

    def close(self) -> None:
        """End the connections; later calls raise a ServiceError."""
        self._service.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model={self.name!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteEncoder:
        return self  # it may be shared, and a copy would ask the service again

    __copy__ = partial(__deepcopy__, memo={})

    def __reduce__(self) -> Any:
        if self._own_key or self._own_tls:
            raise InvalidArgumentError(
                "a RemoteEncoder that was given api_key= or tls= cannot be pickled: keys do not travel in pickles; "
                "set M3RETRIEVER_API_KEY in both processes instead"
            )
        return partial(type(self), self.url, model=self.name, **self._settings), ()

    def _parts(self, texts: list[str], kind: Kind) -> Iterator[tuple[M3Vectors, int]]:
        return in_order(partial(self._piece, kind), list(self._served.pieces(texts)), self._concurrency)

    def _piece(self, kind: Kind, texts: list[str]) -> tuple[M3Vectors, int]:
        """The answer to one request, checked."""
        asked = {"input": texts, "kind": kind, "encoding_format": "columns"}
        answer = self._service.post("/v1/encode", asked, at_most=self._served.bytes_of(texts))
        self._served.check(self._service, answer, among=("model", "dim", "precision"))
        try:
            vectors = from_columns(answer.get("vectors"))
        except InvalidVectorsError:  # not chained: it repeats what came, and that may be a text
            raise self._service.failed("gave an answer that is no vectors: is it an encoding service?") from None
        check_answered(self._service, vectors, len(texts), self.dim)
        cut = answer.get("truncated", 0)
        if not is_count(cut) or cut > len(texts):
            raise self._service.failed(f"says that it cut an impossible number of {len(texts)} texts")
        return vectors, cut


@dataclass(frozen=True)
class _Served:
    """What a service says of itself, and is held to: its model and how much it takes in one request."""

    name: str
    dim: int
    precision: str | None
    max_length: int | None
    texts: int
    characters: int

    @classmethod
    def of(cls, service: HttpService, wanted: str | None) -> _Served:
        """As the service says it now."""
        try:
            answer = service.get("/v1/models", at_most=SMALL_BYTES, starting=True)
            served = cls._read(answer)
        except ServiceError as error:
            start = "; start one with: m3retriever serve --model BAAI/bge-m3, and give the address that it prints"
            raise ModelLoadError(f"{error}{start if error.status is None else ''}") from error
        if served is None:
            raise ModelLoadError(f"the service at {service.url} does not say which model it has: want `m3retriever serve`")
        if wanted is not None and served.name != wanted:
            raise EncoderMismatchError(f"want the model {shown(wanted)}; the service at {service.url} has {served.name!r}")
        return served

    @classmethod
    def _read(cls, answer: Any) -> _Served | None:
        try:
            [model] = answer["data"]
            limits = model["limits"]
            served = cls(
                model["id"], model["dim"], model["precision"], model.get("max_length"), limits["texts"], limits["characters"]
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            return None
        counts = (served.dim, served.texts, served.characters, 1 if served.max_length is None else served.max_length)
        known = is_name(served.name) and (served.precision is None or is_name(served.precision))
        return served if known and all(map(is_count, counts)) and min(counts) > 0 and served.dim <= MOST_DIMENSIONS else None

    def check(self, service: HttpService, answer: Any, *, among: Sequence[str]) -> None:
        """Refuse an answer that is none, and one of another model: EncoderMismatchError."""
        if not isinstance(answer, Mapping) or not is_name(answer.get("model")):
            raise service.failed("does not say which model its answer is of: is it an encoding service?")
        was = {"model": self.name, "dim": self.dim, "precision": self.precision}
        if any(answer.get(key) != was[key] for key in among):
            want, got = (", ".join(_plain(said.get(key)) for key in among) for said in (was, answer))
            raise EncoderMismatchError(
                f"the service at {service.url} has another model now: want {want}; got {got}; nothing of its answer was "
                "used: open the index anew, or start the service with the first model"
            )

    def pieces(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """The texts, in order, in as few runs as the service's limits allow; InvalidArgumentError before the first."""
        for place, text in enumerate(texts):
            if len(text) > self.characters:
                raise InvalidArgumentError(
                    f"the service takes at most {self.characters} characters in a request; the text at place {place} has "
                    f"{len(text)}: split it into passages, or start the service with a larger --max-characters"
                )
        return self._runs(texts)

    def _runs(self, texts: Sequence[str]) -> Iterator[list[str]]:
        run: list[str] = []
        characters = 0
        for text in texts:
            if run and (len(run) == self.texts or characters + len(text) > self.characters):
                yield run
                run, characters = [], 0
            run.append(text)
            characters += len(text)
        if run:
            yield run

    def bytes_of(self, texts: Sequence[str]) -> int:
        """More than an answer to these texts can have: its arrays in base64, four bytes for three, and the rest."""
        tokens = sum(most_tokens(text, self.max_length) for text in texts)
        arrays = 4 * (self.dim * (len(texts) + tokens) + 2 * tokens) + 16 * (len(texts) + 1)
        return SMALL_BYTES + arrays * 4 // 3


def _is_token(token: Any, length: int) -> bool:
    if not isinstance(token, Mapping) or not all(is_count(token.get(part)) for part in ("id", "start", "end")):
        return False
    return bool(token["start"] <= token["end"] <= length)


def _plain(said: Any) -> str:
    """A value of a service as a message may hold it: it could be anything, a text that was sent among it."""
    return str(said) if said is None or is_count(said) or is_name(said) else "what is no name"
