"""Every error the library raises on purpose.

M3RetrieverError
├── MissingExtraError (ImportError)        an optional package is not installed
├── UnknownDocumentError (KeyError)        an id is not in the store
├── EncoderMismatchError (ValueError)      an index was built with another encoder
├── ModelLoadError (OSError)               a model cannot be loaded: no such folder, no heads, no network
├── DeviceMemoryError (MemoryError)        one text is too long for the device's memory
├── ServiceError (OSError)                 an encoding service does not answer, or not with what was asked for
├── StoreLockedError (OSError)             another process is writing to the same index
├── StoreError (OSError)                   an index on disk cannot be opened or written
│   └── DamagedIndexError                  what it holds is not what was written: `verify` and `repair` it
└── InvalidArgumentError (ValueError)      a number, a name or a combination that has no meaning
    ├── InvalidDocumentError               an id, text or metadata that cannot be stored
    ├── InvalidVectorsError                vectors of a wrong shape, or not finite
    ├── InvalidFilterError                 a `where` that is not Chroma's filter language
    └── ProfileError                       a profile file that cannot be read

Messages say what was wanted, what came and what to do. Beside the errors there are two warnings:
TruncationWarning (a text was longer than the model reads) and UnknownTextWarning (the model's
tokenizer knows too little of a text to judge it).
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_SHOWN = 200  # characters of a value in a message: enough to know it by, however long it is


def shown(value: object) -> str:
    """A value as a message shows it: its `repr` on one line, cut where it is long. Never fails."""
    long = isinstance(value, str | bytes) and len(value) > MOST_SHOWN
    short = value[:MOST_SHOWN] if long else value  # type: ignore[index]  # a str or bytes
    try:
        text = " ".join(repr(short).splitlines())
    except Exception:  # noqa: BLE001  # an int of 5,000 digits raises, and an object of the caller's may raise anything
        return f"{type(value).__name__} that cannot be shown"
    return text if short is value and len(text) <= 2 * MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


class M3RetrieverError(Exception):
    """Base of all errors below: catch this one to catch them all."""


class MissingExtraError(M3RetrieverError, ImportError):
    """A package that only one extra needs is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'm3retriever[{extra}]'")


class UnknownDocumentError(M3RetrieverError, KeyError):
    """Ids that are not in the store; `ids` lists them."""

    def __init__(self, ids: Sequence[str], asked: int) -> None:
        self.ids = list(ids)
        named = ", ".join(shown(id) for id in self.ids[:3]) + (", ..." if len(self.ids) > 3 else "")
        super().__init__(f"not in the store: {named} ({len(self.ids)} of {asked} asked for)")

    def __str__(self) -> str:  # KeyError would show the message's repr
        return str(self.args[0])


class EncoderMismatchError(M3RetrieverError, ValueError):
    """The index holds vectors of another model: scores between the two would mean nothing."""


class ModelLoadError(M3RetrieverError, OSError):
    """A model cannot be loaded."""


class DeviceMemoryError(M3RetrieverError, MemoryError):
    """One text is too long for the memory there is."""


class ServiceError(M3RetrieverError, OSError):
    """What encodes elsewhere, a service over HTTP or Ray's workers, cannot be reached, refuses, or gives no vectors.

    `status` is the HTTP status of its last answer, where there was one that said no.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class StoreLockedError(M3RetrieverError, OSError):
    """Another process has the index open for writing."""


class StoreError(M3RetrieverError, OSError):
    """An index on disk cannot be opened, read or written."""


class DamagedIndexError(StoreError):
    """What an index holds is not what was written: a file was changed, or its disk fails.

    `problem` says of what kind it is, in the words of `stores.verify`, and `ids` which documents have it.
    """

    def __init__(self, message: str, *, problem: str = "unreadable", ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problem, self.ids = problem, tuple(ids)


class InvalidArgumentError(M3RetrieverError, ValueError):
    """A number, a name or a combination of arguments that has no meaning."""


class InvalidDocumentError(InvalidArgumentError):
    """An id, a text or metadata that cannot be stored."""


class InvalidVectorsError(InvalidArgumentError):
    """Vectors of a wrong shape or type, or with values that are not finite."""


class InvalidFilterError(InvalidArgumentError):
    """A `where` that is not in Chroma's filter language."""


class ProfileError(InvalidArgumentError):
    """A profile that cannot be read or does not fit."""


class TruncationWarning(UserWarning):
    """Texts were longer than the model reads; what came after was not encoded."""


class UnknownTextWarning(UserWarning):
    """Most of a text is unknown to the model's tokenizer, so its scores mean little."""
